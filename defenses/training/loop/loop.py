"""The one training loop: every defense by training is a `Method` that this loop runs."""

import math
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ....bench.api.defense import Trained, Training
from ....bench.api.errors import CellError
from ....bench.api.flags import Flag
from ...transformations.randomness import global_state, own_randomness, restore_global, seed_from
from .amp import Arithmetic, compiled
from .augmentation import Augmentation, Transform
from .ema import Average
from .objective import Batch, Method, hard
from .pca_color import PrincipalColours
from .schedules import make_schedule
from .train_data import Examples, split
from .training_config import Recipe
from .validation import Best, Validation

_NEAR_CHANCE = 1.5  # times the accuracy of guessing: a network that has learnt nothing


def train(model: nn.Module, training: Training, recipe: Recipe, method: Method) -> Trained:
    """Train by stochastic gradient descent; keep the weights that validate best.

    The model is trained in place and comes back on the device and in evaluation mode. The held-out
    part, the order, the augmentation, dropout and the adversary's random starts follow from the
    seed; torch's global random numbers are left as they were. With a moving average (`ema`) it is
    the averaged weights that are validated and kept.

    Where `training.keeper` has the state of a run like this one that was interrupted, the run goes
    on from it and ends with the very same weights.

    history, for each epoch: `epoch` from 1, `learning_rate` at its start, `loss` and
    `train_accuracy` on the batches that the method trained on, `validation_accuracy`,
    `validation_loss`, and for each attack that the method validates with `..._validation_accuracy`
    and `..._validation_loss` after its name, such as `robust`, where validated. `training.recorder`
    is told each row.

    Raises: CellError when the loss is no longer finite; BadData when there are too few examples;
    BadParameter for what the device or the images do not allow.
    """
    model.to(training.device)
    with own_randomness(training.seed, training.device):
        run = _Run(model, training, recipe, method)
        run.recall()
        with compiled(model, recipe.compile):
            while not run.finished():
                run.epoch(len(run.history))
        return run.result()


class Parts(NamedTuple):
    """What follows from a seed before the first step.

    examples: to train on. held_out: to validate on, if any. random: the generator that goes on.
    noise, validation: seeds, of the adversary's random numbers in training and in validation.
    """

    examples: Examples
    held_out: Examples | None
    random: torch.Generator
    noise: int
    validation: int


def parts(training: Training, validation_share: float) -> Parts:
    """Split the data as `train` does: others then know what a network was not trained on.

    Raises: BadData when there are too few examples.
    """
    random = torch.Generator().manual_seed(training.seed)
    noise, validation = seed_from(random), seed_from(random)
    both = split(training.data, validation_share, random, training.device)
    return Parts(*both, random, noise, validation)


class _Run:
    """One training run: what is fixed in it, and how far it is."""

    def __init__(
        self, model: nn.Module, training: Training, recipe: Recipe, method: Method
    ) -> None:
        self.model, self.training, self.recipe, self.method = model, training, recipe, method
        device = training.device
        self.arithmetic = Arithmetic(recipe.precision, device)
        self.examples, held_out, self.random, noise_seed, validation_seed = parts(
            training, recipe.validation_share
        )
        self.noise = torch.Generator(device).manual_seed(noise_seed)
        self.validation = None if held_out is None else Validation(
            held_out, recipe.batch_size, validation_seed, device, self.arithmetic
        )  # fmt: skip
        self.batches = math.ceil(len(self.examples) / recipe.batch_size)
        self.transforms: list[Transform] = [
            Augmentation.named(recipe.augmentation, recipe.shift, training.data.shape)
        ]
        if recipe.colour:
            self.transforms.append(PrincipalColours.of(self.examples, recipe.colour))
        self.schedule = make_schedule(
            recipe.schedule,
            patience=recipe.patience,
            rate_warmup=recipe.rate_warmup,
            milestones=recipe.milestones,
            divisor=recipe.divisor,
        )
        self.learning = [one for one in model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.learning,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=device.type == "cuda" or None,  # which lets float16 go without a look at the host
        )
        self.average = None if recipe.ema is None else Average(model, recipe.ema)
        self.best = Best()
        self.history: list[dict[str, float]] = []
        self.alarm: str | None = None
        self.note = ""
        self.steps = 0  # done, in all epochs
        self.totals = torch.zeros(2, dtype=torch.float64, device=device)
        self.epoch_start = self.random.get_state()

    @property
    def kept(self) -> nn.Module:
        """The network that is validated and whose weights are kept."""
        return self.model if self.average is None else self.average.model

    def epoch(self, epoch: int) -> None:
        """Train on every example once and validate."""
        record = {"epoch": epoch + 1, "learning_rate": self._rate(epoch * self.batches)}
        record |= self._train(epoch)
        if self.validation is not None and self._validates(epoch):
            record |= self.validation.of(self.kept, self.method, epoch + 1.0)
        for name, value in record.items():
            if not math.isfinite(value):
                raise CellError(
                    f"training diverged: {name.replace('_', ' ')} is {value} in epoch {epoch + 1}; "
                    f"try a learning_rate below {self.recipe.learning_rate:g} or a gradient_clip"
                )
        self.history.append(record)
        self.alarm = self.method.alarm(self.history)
        if self.alarm is None and "validation_loss" in record:
            self.schedule.validated(record.get("robust_validation_loss", record["validation_loss"]))
            self.best.offer(self.kept, record)
        if self.training.recorder is not None:
            self.training.recorder.record(record)
        self.note = _note(self.history, self.recipe.epochs)
        self._report()

    def finished(self) -> bool:
        """Whether all epochs are done, or it is time to end before."""
        limit = self.recipe.early_stop
        stopped = limit is not None and self.best.waited >= limit
        return self.alarm is not None or stopped or len(self.history) == self.recipe.epochs

    def result(self) -> Trained:
        """The model with its best weights, or its last where none were validated."""
        kept = self.best.epoch or len(self.history)
        self.model.load_state_dict(self.best.weights or self.kept.state_dict())
        self.model.eval()
        self.optimizer.zero_grad(set_to_none=True)
        if not all(bool(one.isfinite().all()) for one in self.learning):
            raise CellError(f"training diverged: the weights are not finite after epoch {kept}")
        flags = [_ended(self.alarm, kept)] if self.alarm else []
        accuracy = self.history[kept - 1].get("validation_accuracy", 1.0)
        if accuracy * self.training.data.n_classes <= _NEAR_CHANCE:
            said = f"did not learn: validation accuracy {accuracy:.3f}"
            flags.append(Flag("did-not-learn", about=said))
        return Trained(self.model, tuple(self.history), tuple(flags), kept)

    def _train(self, epoch: int) -> dict[str, float]:
        """One pass over the training part. Nothing here waits for the device until its end."""
        device, home = self.training.device, self.examples.home
        replays = getattr(self.method, "replays", 1)
        self.epoch_start = self.random.get_state()
        order = torch.randperm(len(self.examples), generator=self.random)
        drawn = [one.draw(len(order), self.random).to(device) for one in self.transforms]
        done = self.steps - epoch * self.batches  # more than none where a run goes on
        if not done:
            self.totals.zero_()
        self.model.train()
        self.note = _note(self.history, self.recipe.epochs)
        self._report()
        parts = (one.tensor_split(self.batches) for one in (order.to(home), *drawn))
        for rows, *moves in islice(zip(*parts, strict=True), done, None):
            x, y = self.examples.read(rows)
            for transform, numbers in zip(self.transforms, moves, strict=True):
                x = transform(x, numbers)
            batch = Batch(x, y, rows, self.steps / self.batches, self.noise)
            for _ in range(replays):
                self.totals += self._step(batch, self.steps)
            self.steps += 1
            self._report()
            self._keep_now_and_then()
        loss, correct = (self.totals / (replays * len(order))).tolist()
        return {"loss": loss, "train_accuracy": correct}

    def _step(self, batch: Batch, step: int) -> Tensor:
        """Descend once: (2,), the loss summed over the batch and the number classified right."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        with self.arithmetic.cast():
            loss, logits = self.method.objective(self.model, batch)
        self.arithmetic.descend(loss, self.optimizer, self.learning, self.recipe.gradient_clip)
        if self.average is not None:
            self.average.update()
        correct = (logits.detach().argmax(dim=1) == hard(batch.y)).sum()
        return torch.stack([loss.detach() * len(batch.y), correct])

    def _validates(self, epoch: int) -> bool:
        due = (epoch + 1) % self.recipe.validate_every == 0 or epoch + 1 == self.recipe.epochs
        return due and epoch >= self.method.warmup_epochs

    def _rate(self, step: int) -> float:
        """Learning rate of a step, taken at its middle, so that no step of a cycle is idle."""
        progress = (step + 0.5) / (self.recipe.epochs * self.batches)
        return self.recipe.learning_rate * self.schedule.factor(progress)

    def _report(self) -> None:
        """Move the progress bar, to its end when all is done, the last validation included."""
        total = self.recipe.epochs * self.batches
        done = total if self.finished() else min(self.steps, total - 1)
        self.training.progress.update(done, total, self.note)

    # ------------------------------------------------------------------- a run that goes on

    def recall(self) -> None:
        """Go on where a run that was interrupted was, if its state was kept."""
        keeper = self.training.keeper
        state = None if keeper is None else keeper.recall()
        if state is None:
            return
        self.model.load_state_dict(state["model"])
        for name, part in self._parts().items():
            part.load_state_dict(state["parts"][name])
        vars(self.schedule).update(state["schedule"])
        self.history[:] = state["history"]
        self.steps = state["steps"]
        self.totals.copy_(state["totals"])
        self.random.set_state(state["random"])
        self.noise.set_state(state["noise"])
        restore_global(state["global"], self.training.device)

    def _keep_now_and_then(self) -> None:
        """Keep the state when the keeper wants it. One that has diverged is not worth keeping."""
        keeper = self.training.keeper
        if keeper is None or not keeper.due():
            return
        if not all(bool(one.isfinite().all()) for one in (self.totals, *self.learning)):
            return
        keeper.keep(self._state(), f"epoch {len(self.history) + 1} of {self.recipe.epochs}")

    def _state(self) -> dict[str, Any]:
        """All that the rest of the run depends on."""
        return {
            "model": self.model.state_dict(),
            "parts": {name: part.state_dict() for name, part in self._parts().items()},
            "schedule": dict(vars(self.schedule)),
            "history": self.history,
            "steps": self.steps,
            "totals": self.totals,
            "random": self.epoch_start,  # the epoch's order is drawn again
            "noise": self.noise.get_state(),
            "global": global_state(self.training.device),
        }

    def _parts(self) -> dict[str, Any]:
        """What has a `state_dict` of its own; a method may."""
        parts = {
            "optimizer": self.optimizer,
            "scaler": self.arithmetic.scaler,
            "average": self.average,
            "best": self.best,
            "method": self.method if hasattr(self.method, "state_dict") else None,
        }
        return {name: part for name, part in parts.items() if part is not None}


def _ended(alarm: str, kept: int) -> Flag:
    """The flag of a training that ended early, by an alarm which may be a flag itself."""
    name = alarm.name if isinstance(alarm, Flag) else "training"
    return Flag(name, about=f"{alarm}; weights of epoch {kept} kept")


def _note(history: list[dict[str, float]], epochs: int) -> str:
    """What the progress bar says: the epoch, and the last known loss and accuracies."""
    shown = {"loss": "loss", "validation_accuracy": "clean", "robust_validation_accuracy": "robust"}
    known: dict[str, float] = {}
    for record in history:
        known |= record
    figures = [f"{short} {known[name]:.3f}" for name, short in shown.items() if name in known]
    return ", ".join([f"epoch {min(len(history) + 1, epochs)}/{epochs}", *figures])
