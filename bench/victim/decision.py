"""The decision rule: what a network's answers say of an input, and when that is adversarial.

A rule is composed of how logits are read (`Decision.read`: as they are, with the rejection merged
in, or those of the classifier alone) and of who decides: the logits (`Decision`), or of a
stochastic network the votes of many draws (`Voting`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..api.rng import Draws
from .model import Network
from .rejection import bare, merged, rejection_margin
from .voting import FIRST, SECOND, Votes, vote

_SURE = 1.0  # standard deviations of a fair coin by which the first vote must be for the attack
_LOST = 1.0  # and by which it may be against before no more votes are counted

Confirm = Callable[[Tensor, Tensor], Tensor]  # x (B, C, H, W), rows (n,) of it -> (n,) bool


@dataclass(frozen=True)
class Decision:
    """The largest of a network's logits decides, as they are read.

    targeted: whether attacks are to reach the class y, or to leave it. detector_unaware: whether
    they see the classifier alone of a network with a reject option. Otherwise what they see, and
    what counts as adversarial, has the rejection merged in.
    """

    network: Network
    targeted: bool
    detector_unaware: bool = False

    votes = False  # whether it asks the network for more before it believes in a success

    @property
    def overlooks_rejection(self) -> bool:
        """Whether the attack does not know of the reject option that the network has."""
        return self.detector_unaware and self.network.rejects

    def read(self, logits: Tensor, y: Tensor) -> Tensor:
        """(N, K): what attacks take the network's logits, or votes, for."""
        if not self.network.rejects:
            return logits
        return bare(logits) if self.detector_unaware else merged(logits, y, targeted=self.targeted)

    def margin(self, logits: Tensor, y: Tensor) -> Tensor:
        """(N,): how far logits, as read, are from the goal; negative where it is reached."""
        return margin(logits, y, targeted=self.targeted)

    def adversarial(self, logits: Tensor, y: Tensor, tolerance: float = 0.0) -> Tensor:
        """(N,) bool: whether logits, as read, are what the attack wants, by more than tolerance."""
        return fooled(logits, y, targeted=self.targeted, tolerance=tolerance)

    def confirmed(self, points: Tensor, y: Tensor, draws: Draws | None) -> Tensor:
        """(n,) bool: whether points that the logits call adversarial are."""
        return torch.ones_like(y, dtype=torch.bool)

    def confirmation(self, y: Tensor, draws: Draws | None) -> Confirm:
        """The same of rows of inputs, one for each example, asked once where they repeat."""
        return lambda _, rows: torch.ones_like(rows, dtype=torch.bool)

    def judged(self, x: Tensor, y: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """(N, K), what attacks take the answer for, and (N,) bool, whether it is `confirmed`."""
        return self.read(self.network.logits(x), y), self.confirmed(x, y, draws)

    def candidate_margin(self, answer: Votes, y: Tensor) -> Tensor:
        """(N,) float64: how far what fools the classifier is from being rejected, else NaN.

        Positive where it is. NaN throughout for a network without a reject option.
        """
        if not self.network.rejects:
            return torch.full(y.shape, torch.nan, dtype=torch.float64)
        missed = ~self.adversarial(answer.classifier, y)
        return rejection_margin(answer.whole).double().masked_fill(missed, torch.nan)


class Voting(Decision):
    """The class that most draws of a stochastic network give decides.

    An adversarial input must win by a standard deviation before the first vote, and win before the
    second; points that are clearly behind before the first cost no more votes.
    """

    votes = True

    def confirmed(self, points: Tensor, y: Tensor, draws: Draws | None) -> Tensor:
        """(n,) bool: what both votes say, not only a lucky draw."""
        assert draws is not None

        def lost(votes: Votes, rows: Tensor) -> Tensor:
            return self._ahead(votes, y[rows]) <= -_LOST

        votes = vote(self.network, points, draws.example, FIRST, lost)
        return self._won(votes, points, y, draws)

    def confirmation(self, y: Tensor, draws: Draws | None) -> Confirm:
        """The same of rows of inputs, one for each example, asked once where they repeat."""
        assert draws is not None
        return _Once(lambda x, rows: self.confirmed(x[rows], y[rows], draws.take(rows)))

    def judged(self, x: Tensor, y: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """(N, K), what attacks take the votes for, and (N,) bool, whether it is `confirmed`."""
        assert draws is not None
        votes = vote(self.network, x, draws.example, FIRST)
        return self._read_votes(votes, y), self._won(votes, x, y, draws)

    def _won(self, votes: Votes, points: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """(n,) bool: won clearly by the first vote, and before the second."""
        won = self._ahead(votes, y) >= _SURE
        rows = torch.nonzero(won).flatten()
        if len(rows):
            second = vote(self.network, points[rows], draws.example[rows], SECOND)
            won[rows] = self._ahead(second, y[rows]) > 0
        return won

    def _ahead(self, votes: Votes, y: Tensor) -> Tensor:
        """(n,): how clearly the attack's goal leads, in standard deviations of a fair coin."""
        return -self.margin(self._read_votes(votes, y), y) / votes.classifier.sum(dim=1).sqrt()

    def _read_votes(self, votes: Votes, y: Tensor) -> Tensor:
        """(n, K): what the attack takes votes for; detector-unaware, those on the classifier."""
        return votes.classifier if self.detector_unaware else self.read(votes.whole, y)


class _Once:
    """Asks about each row of the same inputs once."""

    def __init__(self, ask: Confirm) -> None:
        self._ask = ask
        self._x: Tensor | None = None

    def __call__(self, x: Tensor, rows: Tensor) -> Tensor:
        if self._x is None or not torch.equal(self._x, x):
            self._x = x.clone()
            self._known = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            self._confirmed = self._known.clone()
        new = rows[~self._known[rows]]
        if len(new):
            self._known[new] = True
            self._confirmed[new] = self._ask(x, new)
        return self._confirmed[rows]


def decision_of(network: Network, *, targeted: bool, detector_unaware: bool = False) -> Decision:
    """The rule by which a network decides."""
    kind = Voting if network.stochastic else Decision
    return kind(network, targeted, detector_unaware)


def fooled(logits: Tensor, y: Tensor, *, targeted: bool, tolerance: float = 0.0) -> Tensor:
    """(N,) bool: whether the prediction is what the attack wants: not y, or y when targeted.

    tolerance: how far ahead the logit must be that makes it so.
    """
    if tolerance:
        return margin(logits, y, targeted=targeted) < -tolerance
    predicted = logits.argmax(dim=1)
    return predicted == y if targeted else predicted != y


def margin(logits: Tensor, y: Tensor, *, targeted: bool) -> Tensor:
    """(N,): how far the logit of y is above the best other, or below it when targeted."""
    own = logits.gather(1, y[:, None])[:, 0]
    other = logits.scatter(1, y[:, None], -torch.inf).amax(dim=1)
    return other - own if targeted else own - other
