"""The audit: what attacks find inside certified radii is put to the certifier again.

A certificate and an adversarial example inside its radius cannot both be right, unless the find
was luck: the verdict on a stochastic module is a vote of few draws, its certificates speak of
infinitely many. So the module's own `predict` is asked, with random numbers new to the attack.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .network import in_memory
from .protocols import ABSTAIN, Certificates, Certifier, Images
from .random import Draws
from .threat import measure

_FRESH = 0xAD17  # the restart of the audit's random numbers


@dataclass
class Audit:
    """Counts the certificates that the finds of an attack contradict.

    certificates: of the N images, whose labels (N,) and numbers, indices (N,), are given. A find
    counts when it is strictly nearer to its image than the radius of a certificate of the right
    class, and `predict` gives another class there; to abstain is no contradiction.
    """

    certifier: Certifier
    certificates: Certificates
    images: Images
    labels: Tensor
    indices: Tensor
    seed: int
    device: torch.device
    batch_size: int
    contradicts: NDArray[np.bool_] = field(init=False)
    _waiting: list[tuple[int, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.contradicts = np.zeros(len(self.labels), dtype=bool)
        right = self.certificates.prediction == self.labels
        self._radius = torch.where(right, self.certificates.radius, 0.0)

    def hear(self, row: int, x_adv: Tensor) -> None:
        """Take a find, (C, H, W) on the CPU, that has held when the model was asked again."""
        if self._radius[row] > 0:
            self._waiting.append((row, x_adv))
        if len(self._waiting) >= self.batch_size:
            self.settle()

    def settle(self) -> None:
        """Ask about all finds that wait and lie within their radius."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        rows = torch.tensor([row for row, _ in waiting])
        x_adv = torch.stack([one for _, one in waiting])
        delta = x_adv.double() - self.images.read(rows).cpu().double()
        inside = measure(delta, self.certifier.certifies) < self._radius[rows]
        rows, x_adv = rows[inside], x_adv[inside]
        if not len(rows):
            return
        examples = self.indices[rows].to(self.device)
        none = torch.zeros_like(examples)
        draws = Draws(self.seed, examples, none + _FRESH, none)
        x_adv = x_adv.to(self.device)
        answer, self.batch_size = in_memory(
            lambda size: self.certifier.predict(x_adv, draws, size).cpu(), self.batch_size
        )
        other = (answer != ABSTAIN) & (answer != self.certificates.prediction[rows])
        self.contradicts[rows[other].numpy()] = True
