"""What a model says of an image: its logits, or of a stochastic one what most of its draws say.

An attack asks about many points, and one of them may win a vote by luck. So two independent votes,
whose draws no attack has seen, judge an adversarial example: the attack must win clearly before the
first and win before the second, or the search goes on. The second is asked again when adversarial
examples are verified.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ..api.rng import Draws
from .model import Network

VOTES = 20  # as many as the randomised form of AutoAttack averages over, and no fewer than
FIRST, SECOND = 0, 1  # of the search and clean images; of adversarial examples again
_SEED, _VOTE_SETS = 0xC0DE, 1 << 31  # restarts of attacks never reach that
_CLEAR = 3.0  # standard deviations of a fair coin by which the first must lead over the second


class Votes(NamedTuple):
    """(N, K), or (N, K + 1) of a whole that has a reject option: the largest entry is the answer.

    Logits, shares of votes, or votes. classifier: what it says without its rejection.
    """

    whole: Tensor
    classifier: Tensor


Lost = Callable[[Votes, Tensor], Tensor]  # votes, their rows (n,) -> (n,) bool


def prediction(network: Network, x: Tensor, examples: Tensor, vote_set: int = FIRST) -> Votes:
    """Logits of (N, C, H, W), or of a stochastic module the shares of its votes.

    examples: (N,) int64, what the votes' random numbers depend on.
    """
    if network.stochastic:
        votes = vote(network, x, examples, vote_set)
        return Votes(*(one / one.sum(dim=1, keepdim=True) for one in votes))
    logits = network.logits(x)
    return Votes(logits, logits[:, : network.n_classes])


def vote(
    network: Network, x: Tensor, examples: Tensor, vote_set: int, lost: Lost | None = None
) -> Votes:
    """How many draws give each class: of VOTES, or of up to `network.votes` where it is open.

    lost: where more votes could not matter to who asks.
    """
    x, examples = x.to(network.device), examples.to(network.device)
    votes = _count(network, x, examples, vote_set, range(VOTES))
    rows = torch.arange(len(x), device=network.device)
    for begin in range(VOTES, network.votes, VOTES):
        some = Votes(*(one[rows] for one in votes))
        undecided = torch.minimum(*map(_margin, some)) < _CLEAR * begin**0.5
        if lost is not None:
            undecided &= ~lost(some, rows)
        rows = rows[undecided]
        if not len(rows):
            break
        numbers = range(begin, min(begin + VOTES, network.votes))
        more = _count(network, x[rows], examples[rows], vote_set, numbers)
        for tally, counted in zip(votes, more, strict=True):
            tally.index_add_(0, rows, counted)
    return votes


def _count(network: Network, x: Tensor, examples: Tensor, vote_set: int, numbers: range) -> Votes:
    """Votes of these draws. Of few inputs several draws a pass."""
    tallies: list[Tensor] = []
    at_once = max(1, network.batch_size // max(1, len(x)))
    for begin in range(numbers.start, numbers.stop, at_once):
        steps = torch.arange(begin, min(begin + at_once, numbers.stop), device=network.device)
        rows = torch.arange(len(x), device=network.device).repeat(len(steps))
        draws = Draws(
            _SEED,
            examples[rows],
            torch.full_like(rows, _VOTE_SETS + vote_set),
            steps.repeat_interleave(len(x)),
        )
        logits = network.logits(x[rows], draws)
        answers = logits, logits[:, : network.n_classes]
        tallies = tallies or [torch.zeros_like(one[: len(x)]) for one in answers]
        for tally, answer in zip(tallies, answers, strict=True):
            tally.index_put_((rows, answer.argmax(1)), torch.ones_like(answer[:, 0]), True)
    return Votes(*tallies)


def _margin(votes: Tensor) -> Tensor:
    """(N,): of the first over the second."""
    first, second = votes.topk(2, dim=1).values.unbind(1)
    return first - second
