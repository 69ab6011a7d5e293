"""The one training loop: every defense by training is a `Method` that this loop runs."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..bench.errors import CellError
from ..bench.protocols import Trained, Training
from .adversary import as_used
from .augmentation import Augmentation
from .examples import split
from .method import Batch, Method, classification, hard
from .recipe import Recipe
from .schedules import make_schedule

_NEAR_CHANCE = 1.5  # times the accuracy of guessing: a network that has learnt nothing


def train(model: nn.Module, training: Training, recipe: Recipe, method: Method) -> Trained:
    """Train by stochastic gradient descent; keep the weights that validate best.

    The model is trained in place and comes back on the device and in evaluation mode. The held-out
    part, the order, the augmentation, dropout and the adversary's random starts follow from the
    seed; torch's global random numbers are left as they were.

    history, for each epoch: `epoch` from 1, `learning_rate` at its start, `loss` and
    `train_accuracy` on the batches that the method trained on, `validation_accuracy`,
    `validation_loss`, and for each attack that the method validates with `..._validation_accuracy`
    and `..._validation_loss` after its name, such as `robust`, where validated.

    Raises: CellError when the loss is no longer finite; BadData when there are too few examples.
    """
    model.to(training.device)
    with _own_randomness(training.seed, training.device):
        run = _Run(model, training, recipe, method)
        for epoch in range(recipe.epochs):
            record = run.epoch(epoch)
            training.progress.update(epoch + 1, recipe.epochs, _note(record))
            if run.finished():
                break
        return run.result()


@dataclass
class _Best:
    """The best weights so far. Equal accuracies, common on small validation parts, go by loss."""

    score: tuple[float, float] = (-math.inf, -math.inf)
    epoch: int = 0
    waited: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, model: nn.Module, record: Mapping[str, float]) -> None:
        """Keep the weights when they validate better, under the adversary if there is one."""
        kind = "robust_validation" if "robust_validation_loss" in record else "validation"
        score = (record[f"{kind}_accuracy"], -record[f"{kind}_loss"])
        self.waited += 1
        if score > self.score:
            self.score, self.epoch, self.waited = score, int(record["epoch"]), 0
            self.weights = {name: one.clone() for name, one in model.state_dict().items()}


class _Run:
    """One training run: what is fixed in it, and how far it is."""

    def __init__(
        self, model: nn.Module, training: Training, recipe: Recipe, method: Method
    ) -> None:
        self.model, self.training, self.recipe, self.method = model, training, recipe, method
        self.random = torch.Generator().manual_seed(training.seed)
        self.noise, self.validation_seed = self._generator(_seed(self.random)), _seed(self.random)
        self.examples, self.held_out = split(
            training.data, recipe.validation_share, self.random, training.device
        )
        self.batches = math.ceil(len(self.examples) / recipe.batch_size)
        self.augmentation = Augmentation.named(
            recipe.augmentation, recipe.shift, training.data.shape
        )
        self.schedule = make_schedule(recipe.schedule, recipe.patience)
        self.learning = [one for one in model.parameters() if one.requires_grad]
        self.optimizer = torch.optim.SGD(
            self.learning,
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )
        self.best = _Best()
        self.history: list[dict[str, float]] = []
        self.alarm: str | None = None

    def epoch(self, epoch: int) -> dict[str, float]:
        """Train on every example once and validate."""
        record = {"epoch": epoch + 1, "learning_rate": self._rate(epoch * self.batches)}
        record |= self._train(epoch)
        if self._validates(epoch):
            record |= self._validate(epoch)
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
            self.best.offer(self.model, record)
        return record

    def finished(self) -> bool:
        """Whether to end before the last epoch."""
        limit = self.recipe.early_stop
        return self.alarm is not None or (limit is not None and self.best.waited >= limit)

    def result(self) -> Trained:
        """The model with its best weights, or its last where none were validated."""
        kept = self.best.epoch or len(self.history)
        if self.best.weights:
            self.model.load_state_dict(self.best.weights)
        self.model.eval()
        self.optimizer.zero_grad(set_to_none=True)
        if not all(bool(one.isfinite().all()) for one in self.learning):
            raise CellError(f"training diverged: the weights are not finite after epoch {kept}")
        flags = [f"{self.alarm}; weights of epoch {kept} kept"] if self.alarm else []
        accuracy = self.history[kept - 1].get("validation_accuracy", 1.0)
        if accuracy * self.training.data.n_classes <= _NEAR_CHANCE:
            flags.append(f"did not learn: validation accuracy {accuracy:.3f}")
        return Trained(self.model, tuple(self.history), tuple(flags))

    def _train(self, epoch: int) -> dict[str, float]:
        """One pass over the training part. Nothing here waits for the device until its end."""
        device, home = self.training.device, self.examples.home
        replays = getattr(self.method, "replays", 1)
        order = torch.randperm(len(self.examples), generator=self.random)
        drawn = self.augmentation.draw(len(order), self.random).to(device)
        totals = torch.zeros(2, dtype=torch.float64, device=device)
        self.model.train()
        parts = zip(
            order.to(home).tensor_split(self.batches), drawn.tensor_split(self.batches), strict=True
        )
        for step, (rows, moves) in enumerate(parts, start=epoch * self.batches):
            x, y = self.examples.read(rows)
            batch = Batch(self.augmentation(x, moves), y, rows, step / self.batches, self.noise)
            for _ in range(replays):
                totals += self._step(batch, step)
        loss, correct = (totals / (replays * len(order))).tolist()
        return {"loss": loss, "train_accuracy": correct}

    def _step(self, batch: Batch, step: int) -> Tensor:
        """Descend once: (2,), the loss summed over the batch and the number classified right."""
        for group in self.optimizer.param_groups:
            group["lr"] = self._rate(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss, logits = self.method.objective(self.model, batch)
        torch.autograd.backward(loss)
        if self.recipe.gradient_clip is not None:
            nn.utils.clip_grad_norm_(self.learning, self.recipe.gradient_clip)
        self.optimizer.step()
        correct = (logits.detach().argmax(dim=1) == hard(batch.y)).sum()
        return torch.stack([loss.detach() * len(batch.y), correct])

    def _validates(self, epoch: int) -> bool:
        due = (epoch + 1) % self.recipe.validate_every == 0 or epoch + 1 == self.recipe.epochs
        return self.held_out is not None and due and epoch >= self.method.warmup_epochs

    def _validate(self, epoch: int) -> dict[str, float]:
        """Accuracy and loss on the part held out, clean and under the method's adversary."""
        assert self.held_out is not None
        noise = self._generator(self.validation_seed)  # the same starts each time, to compare
        totals: dict[str, Tensor] = {}
        with as_used(self.model), torch.no_grad():
            rows = torch.arange(len(self.held_out), device=self.held_out.home)
            for part in rows.tensor_split(math.ceil(len(rows) / self.recipe.batch_size)):
                x, y = self.held_out.read(part)
                batch = Batch(x, y, part, epoch + 1.0, noise)
                for name, value in self._judge(batch).items():
                    totals[name] = totals.get(name, torch.zeros_like(value)) + value
        means = (torch.stack(list(totals.values())) / len(self.held_out)).tolist()
        return dict(zip(totals, means, strict=True))

    def _judge(self, batch: Batch) -> dict[str, Tensor]:
        """Sums over a validation batch. To withstand an attack is to be right before and after."""
        loss, logits = classification(self.model, batch.x, batch.y)
        right = logits.argmax(dim=1) == hard(batch.y)
        sums = {"validation_accuracy": right.sum(), "validation_loss": loss * len(batch.y)}
        for name, x_adv in self.method.adversarial(self.model, batch).items():
            loss, logits = classification(self.model, x_adv, batch.y)
            still = right & (logits.argmax(dim=1) == hard(batch.y))
            sums[f"{name}_validation_accuracy"] = still.sum()
            sums[f"{name}_validation_loss"] = loss * len(batch.y)
        return {name: value.double() for name, value in sums.items()}

    def _rate(self, step: int) -> float:
        """Learning rate of a step, taken at its middle, so that no step of a cycle is idle."""
        progress = (step + 0.5) / (self.recipe.epochs * self.batches)
        return self.recipe.learning_rate * self.schedule.factor(progress)

    def _generator(self, seed: int) -> torch.Generator:
        return torch.Generator(self.training.device).manual_seed(seed)


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (1,), generator=generator))


@contextmanager
def _own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Global random numbers (dropout's) from the seed for the while; repeatable convolutions."""
    cuda = device.type == "cuda"
    index = torch.cuda.current_device() if cuda and device.index is None else device.index
    with (
        torch.random.fork_rng(devices=[index] if cuda else []),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.default_generator.manual_seed(seed)
        if cuda:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def _note(record: Mapping[str, float]) -> str:
    """What the progress bar says: the loss and the accuracies so far."""
    shown = {"loss": "loss", "validation_accuracy": "clean", "robust_validation_accuracy": "robust"}
    return ", ".join(
        f"{short} {record[name]:.3f}" for name, short in shown.items() if name in record
    )
