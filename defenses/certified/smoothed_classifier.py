"""The smoothed classifier: the class that a network gives most often under Gaussian noise."""

import math
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta, binom, norm
from torch import Tensor, nn

from ...bench.api.defense import ABSTAIN, Certificates
from ...bench.api.rng import Draws, ambient, noise
from ...bench.api.threat import Norm

_STREAMS = "select", "estimate", "predict"


class Smoothed(nn.Module):
    """A network behind Gaussian noise, and Certify and Predict of Cohen et al. 2019
    (arXiv:1902.02918, section 3.2).

    network: takes (B, C, H, W), noise and all. sigma: the noise's spread. n0: draws that guess the
    class. n: draws that then bound its probability, and draws of a prediction. alpha: the chance
    that an answer is wrong.

    A forward pass is one draw; the harness's prediction is a vote of them.

    Deviations from the paper: none in the procedures. The noise comes from 32-bit words by Box and
    Muller's transform, so that it never exceeds 6.7 sigma and is rounded to float32, as the sum
    with the image is; the proof speaks of real numbers.
    """

    stochastic: ClassVar[bool] = True
    certifies: Norm = "L2"

    def __init__(self, network: nn.Module, sigma: float, n0: int, n: int, alpha: float) -> None:
        super().__init__()
        self.network = network
        self.sigma, self.n0, self.n, self.alpha = sigma, n0, n, alpha

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] -> logits (B, K), under one draw of the noise each."""
        logits: Tensor = self.network(self._noisy(x, noise(x), "smoothing"))
        return logits

    def certify(self, x: Tensor, draws: Draws, batch_size: int) -> Certificates:
        """Certify: n0 draws choose a class, n more bound its probability pA from below.

        The radius is sigma Phi^-1(pA), in L2; below one half it abstains. For each example, with
        probability 1 - alpha, the smoothed classifier gives that class all over the ball.
        """
        chosen = self._counts(x, draws, self.n0, "select", batch_size).argmax(1)
        counts = self._counts(x, draws, self.n, "estimate", batch_size)
        hits = counts[np.arange(len(x)), chosen]
        bound = lower_bound(hits, self.n, self.alpha)
        sure = bound > 0.5
        radius = np.where(sure, self.sigma * norm.ppf(np.where(sure, bound, 0.5)), 0.0)
        prediction = np.where(sure, chosen, ABSTAIN)
        return Certificates(torch.from_numpy(prediction), torch.from_numpy(radius))

    def predict(self, x: Tensor, draws: Draws, batch_size: int) -> Tensor:
        """Predict: the most frequent class of n draws, unless the second could be as probable.

        (N,) int64. Wrong with probability alpha at most; it abstains where a two-sided binomial
        test of the two counts leaves it open.
        """
        counts = self._counts(x, draws, self.n, "predict", batch_size)
        return torch.from_numpy(surely_first(counts, self.alpha))

    def _noisy(self, x: Tensor, draws: Draws, stream: str) -> Tensor:
        return x + self.sigma * draws.normal(x.shape[1:], stream)

    @torch.no_grad()
    def _counts(
        self, x: Tensor, draws: Draws, number: int, stream: str, batch_size: int
    ) -> NDArray[np.int64]:
        """(N, K): how often each class comes out of `number` draws of each example.

        Batches take draws of several examples, so that they are full, and differ by one row at
        most, so that none is small. The device is waited for once, at the end. Layers within that
        are random themselves have other random numbers for each stream, as the noise has.
        """
        pairs = torch.arange(len(x) * number, device=x.device)
        counts = torch.zeros(0, dtype=torch.int64, device=x.device)
        width = 0
        for part in pairs.tensor_split(max(1, math.ceil(len(pairs) / batch_size))):
            example, step = part // number, part % number
            taken = draws.take(example)
            taken = Draws(taken.seed, taken.example, taken.restart, step)
            with ambient(replace(taken, restart=taken.restart + 1 + _STREAMS.index(stream))):
                logits = self.network(self._noisy(x[example], taken, stream))
            if not width:
                width = logits.shape[1]
                counts = counts.new_zeros(len(x) * width)
            seen = example * width + logits.argmax(dim=1)
            counts.index_add_(0, seen, torch.ones_like(seen))
        return counts.reshape(len(x), width).cpu().numpy()


def surely_first(counts: NDArray[np.int64], alpha: float) -> NDArray[np.int64]:
    """(N,): the most frequent class of (N, K), or ABSTAIN where it may not be the most probable.

    By a two-sided binomial test of the two most frequent ones against a fair coin.
    """
    ordered = np.sort(counts, axis=1)[:, ::-1]
    first, both = ordered[:, 0], ordered[:, :2].sum(axis=1)
    chance = np.minimum(1.0, 2.0 * binom.sf(first - 1, both, 0.5))  # symmetric: twice the tail
    return np.where(chance <= alpha, counts.argmax(1), ABSTAIN)


def lower_bound(hits: NDArray[np.int64], n: int, alpha: float) -> NDArray[np.float64]:
    """(N,): one-sided Clopper-Pearson bounds (1934) of probabilities.

    hits: (N,), successes of n trials each. alpha: the chance that a probability is below its bound.
    """
    tried: NDArray[np.float64] = beta.ppf(alpha, np.maximum(hits, 1), n - hits + 1)
    return np.where(hits > 0, tried, 0.0)
