"""Free adversarial training: the backward pass that moves the weights moves the adversary too."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...bench.api.defense import Trained, Training
from ...bench.api.threat import Ball, Norm
from .loop.adversarial_config import Threatened
from .loop.inner_attack import ball_around
from .loop.objective import Batch, Forward, Objective, classified
from .loop.training_config import at_least, positive

_DELTA = "delta"


@dataclass(frozen=True, kw_only=True)
class Free(Threatened):
    """Free adversarial training (Shafahi et al. 2019, arXiv:1904.12843, algorithm 1).

    Each batch is given `replays` times in a row. Every pass moves the weights, and by the gradient
    at the input that the same backward pass brings, the perturbation: it is carried on to the next
    replay and the next batch. So an epoch costs as much as `replays` of ordinary training, whatever
    the strength; the paper divides the epochs by it.

    replays: m in the paper. step_size: as a part of epsilon; the paper has 1.

    The perturbation is that of the network in training mode: the passes are shared. What the box
    [0, 1] or the ball cuts off is not carried on; the authors' code carries on what the box cuts
    off. The learning rate is the same for all replays of a batch.

    Raises: BadParameter for a value that cannot be used.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example, training_example
    >>> from quintain.defenses.training.free import Free
    >>> _, images, labels = linear_example()
    >>> model, training = training_example(epsilon=0.03)
    >>> defense = Free(epochs=20, replays=4, augmentation="none")
    >>> trained = defense.fit(model, training)
    >>> evaluate(trained.model, images, labels, epsilons=[0.025]).curve["robust_accuracy"].tolist()
    [0.8]
    """

    replays: int = 8
    step_size: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least("replays", self.replays, 1)
        positive("step_size", self.step_size)

    def fit(self, model: nn.Module, training: Training) -> Trained:
        """Train the model in place.

        Raises: BadParameter without an epsilon; CellError when training diverges.
        """
        attack = Carried(*self.threat(training), self.step_size)
        return self.harden(model, training, attack, self.loss, self.replays)

    def loss(self, forward: Forward, batch: Batch, x_adv: Tensor) -> Objective:
        """Cross-entropy on the perturbed images."""
        return classified(forward(x_adv), batch.y, label_smoothing=self.label_smoothing)


@dataclass
class Carried:
    """A perturbation that every backward pass through it moves, carried from batch to batch.

    delta: (N, C, H, W), of the largest batch so far; a smaller one uses and moves the first rows.
    """

    norm: Norm
    epsilon: float
    step_size: float
    delta: Tensor | None = None

    def perturb(self, model: nn.Module, batch: Batch, *, scale: float = 1.0) -> Tensor:
        """(B, C, H, W): the perturbed images, a leaf whose gradient moves the perturbation."""
        delta = self._rows(batch.x)
        ball = ball_around(batch.x, self.norm, scale * self.epsilon)
        reached = ball.project(batch.x + delta)
        x_adv = reached.detach().requires_grad_()
        x_adv.register_hook(lambda gradient: self._ascend(delta, ball, reached, gradient))
        return x_adv

    def state_dict(self) -> Mapping[str, Tensor]:
        """The perturbation, where there is one yet."""
        return {} if self.delta is None else {_DELTA: self.delta}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a perturbation."""
        self.delta = state[_DELTA].clone() if _DELTA in state else None

    def _rows(self, x: Tensor) -> Tensor:
        """(B, C, H, W): the part of the perturbation that a batch uses; zero at first."""
        if self.delta is not None:
            self.delta = self.delta.to(x.device)  # a resumed run's comes from the CPU
        if self.delta is None:
            self.delta = torch.zeros_like(x)
        elif len(self.delta) < len(x):
            self.delta = torch.cat([self.delta, torch.zeros_like(x[len(self.delta) :])])
        return self.delta[: len(x)]

    def _ascend(self, delta: Tensor, ball: Ball, reached: Tensor, gradient: Tensor) -> None:
        gradient = gradient.nan_to_num(0.0, 0.0, 0.0)  # a scaled loss may have overflowed
        further = self.step_size * ball.radius * ball.steepest(gradient, reached)
        delta.copy_(ball.project(reached + further) - ball.x)
