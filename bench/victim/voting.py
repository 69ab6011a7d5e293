"""What a model says of an image: its logits, or of a stochastic one what most of its draws say.

An attack asks about many points, and one of them may win a vote by luck. So two juries, whose draws
no attack has seen, judge a find: the attack must win clearly before the first and win before the
second, or the search goes on. The second is asked again when finds are verified.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..api.rng import Draws
from .model import Network
from .rejection import bare

VOTES = 20  # as many as the randomised form of AutoAttack averages over, and no fewer than
FIRST, SECOND = 0, 1  # juries: of clean images and of finds; of finds again, and of verification
_SEED, _JURIES = 0xC0DE, 1 << 31  # restarts of attacks never reach that
_CLEAR = 3.0  # standard deviations of a fair coin by which the first must lead over the second


class Verdict(NamedTuple):
    """(N, K), or (N, K + 1) of a whole that may reject: the largest entry is the answer.

    Logits, shares of votes, or votes. classifier: what it says without its rejection.
    """

    whole: Tensor
    classifier: Tensor


Lost = Callable[[Verdict, Tensor], Tensor]  # votes, their rows (n,) -> (n,) bool


def verdict(network: Network, x: Tensor, examples: Tensor, jury: int = FIRST) -> Verdict:
    """Logits of (N, C, H, W), or of a stochastic module the shares of its votes.

    examples: (N,) int64, what the votes' random numbers hang on.
    """
    if network.stochastic:
        votes = vote(network, x, examples, jury)
        return Verdict(*(one / one.sum(dim=1, keepdim=True) for one in votes))
    logits = network.logits(x)
    return Verdict(logits, bare(logits) if network.rejects else logits)


def vote(
    network: Network, x: Tensor, examples: Tensor, jury: int, lost: Lost | None = None
) -> Verdict:
    """How many draws give each class: of VOTES, or of up to `network.votes` where it is open.

    lost: where more votes could not matter to who asks.
    """
    x, examples = x.to(network.device), examples.to(network.device)
    votes = _count(network, x, examples, jury, range(VOTES))
    rows = torch.arange(len(x), device=network.device)
    for begin in range(VOTES, network.votes, VOTES):
        some = Verdict(*(one[rows] for one in votes))
        undecided = _lead(some.whole) < _CLEAR * begin**0.5
        if network.rejects:
            undecided |= _lead(some.classifier) < _CLEAR * begin**0.5
        if lost is not None:
            undecided &= ~lost(some, rows)
        rows = rows[undecided]
        if not len(rows):
            break
        numbers = range(begin, min(begin + VOTES, network.votes))
        more = _count(network, x[rows], examples[rows], jury, numbers)
        votes.whole.index_add_(0, rows, more.whole)
        if network.rejects:
            votes.classifier.index_add_(0, rows, more.classifier)
    return votes


def _count(network: Network, x: Tensor, examples: Tensor, jury: int, numbers: range) -> Verdict:
    """Votes of these draws. Of few inputs several draws a pass."""
    tallies: list[Tensor] = []
    at_once = max(1, network.batch_size // max(1, len(x)))
    for begin in range(numbers.start, numbers.stop, at_once):
        steps = torch.arange(begin, min(begin + at_once, numbers.stop), device=network.device)
        rows = torch.arange(len(x), device=network.device).repeat(len(steps))
        draws = Draws(
            _SEED,
            examples[rows],
            torch.full_like(rows, _JURIES + jury),
            steps.repeat_interleave(len(x)),
        )
        logits = network.logits(x[rows], draws)
        answers = [logits, bare(logits)] if network.rejects else [logits]
        tallies = tallies or [torch.zeros_like(one[: len(x)]) for one in answers]
        for tally, answer in zip(tallies, answers, strict=True):
            tally.index_put_((rows, answer.argmax(1)), torch.ones_like(answer[:, 0]), True)
    return Verdict(tallies[0], tallies[-1])


def _lead(votes: Tensor) -> Tensor:
    """(N,): of the first over the second."""
    first, second = votes.topk(2, dim=1).values.unbind(1)
    return first - second
