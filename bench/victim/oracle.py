"""The victim: the model as an attack sees it, its access level, counts and budgets enforced."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ..api.attack import Access, Answer, SurrogateGradient
from ..api.errors import AccessDenied
from ..api.rng import Draws
from ..api.threat import per_example
from . import rows as table
from .counters import AttackCounters
from .model import Network, Pulled
from .rejection import reading
from .voting import FIRST, SECOND, Votes, vote

_BEHIND = 0.25  # of a fast copy's tolerance: most errors are smaller than that
_SURE = 1.0  # standard deviations of a fair coin by which the first vote must be for the attack
_LOST = 1.0  # and by which it may be against before no more votes are counted


class Oracle:
    """Answers for a batch of examples, as bench.api.attack.Victim describes.

    fast: a copy of the network that gradients come from. Where its logits are within its tolerance
    of a tie the true network is asked as well, on a GPU they are not believed; what it finds is to
    be verified. limited: whether there are budgets to keep. track_margin: whether to note the
    margin.
    going: (B,) bool, the examples that may still ask; None for all. draws: for a model that uses
    random numbers. samples: of which each gradient is the mean over so many, each one a question;
    what counts is then the mean of the logits. detector_unaware: whether the attack sees the
    classifier alone of a network with a reject option. Otherwise what it sees, and what counts as
    adversarial, has the rejection merged in. A gradient that is not finite is noted in the
    counters, and zero.
    """

    def __init__(
        self,
        network: Network,
        counters: AttackCounters,
        access: Access,
        *,
        targeted: bool,
        fast: Network | None = None,
        limited: bool = True,
        track_margin: bool = False,
        going: Tensor | None = None,
        draws: Draws | None = None,
        samples: int = 1,
        detector_unaware: bool = False,
    ) -> None:
        self._draws = draws
        self._samples = samples
        self._detector_unaware = detector_unaware
        self._reading = reading(
            rejecting=network.rejects, detector_unaware=detector_unaware, targeted=targeted
        )
        self._checked: tuple[Tensor, Tensor, Tensor] | None = None  # points, whether, and with what
        self._network = network
        self._fast = fast or network
        self._counters = counters
        self._access: Access = access
        self._targeted = targeted
        self._limited = limited
        self._track_margin = track_margin
        self._going = going

    @property
    def access(self) -> Access:
        """The access level that is enforced."""
        return self._access

    @property
    def n_classes(self) -> int:
        """How many classes the victim tells apart."""
        return self._network.n_classes

    @property
    def remaining(self) -> Tensor:
        """(B,) int64: queries that each example may still ask."""
        return self._counters.allowance.clone()

    def gradient(
        self,
        x: Tensor,
        objective: Callable[[Tensor], Tensor],
        surrogate: SurrogateGradient | None = None,
        setting: Tensor | None = None,
    ) -> Answer:
        """One forward and one backward pass for each example and draw. White-box only."""
        self._require("gradients", "white-box")
        network = self._fast if surrogate is None else self._network
        answers = []
        for _ in range(self._samples):
            noise = self._noise()
            asked, admitted = self._admit(x, None)
            one = network.gradient(
                asked,
                lambda logits: objective(self._read(logits).float()),
                surrogate,
                setting,
                noise,
            )
            gradient = self._usable(one, admitted)
            answers.append(Answer(gradient, one.loss, self._read(one.logits)))
            self._counters.counts["backward"] += 1 if admitted is None else admitted
        answer = answers[0] if self._samples == 1 else _mean(answers)
        logits, tolerance = answer.logits, self._fast.tolerance if surrogate is None else 0.0
        if tolerance and not x.is_cuda:  # there it would be waited for
            logits, tolerance = self._settled(asked, logits, admitted, tolerance), 0.0
        if surrogate is None or getattr(surrogate, "faithful", False):
            self._observe(asked, logits, admitted, tolerance)
        answer = replace(answer, logits=answer.logits.float())
        if admitted is None or not self._limited:
            return answer
        nan = torch.where(admitted, 0.0, torch.nan)
        return Answer(
            answer.gradient + per_example(nan, x),
            answer.loss + nan,
            answer.logits + nan[:, None],
        )

    def _usable(self, answer: Pulled, admitted: Tensor | None) -> Tensor:
        """The gradient, zero where it is not finite, which is noted of the example.

        So an attack goes on along the pixels that have one, and its other examples as ever.
        """
        gradient = answer.gradient
        if (
            not gradient.is_cuda and gradient.sum().isfinite()
        ):  # one pass; a GPU would be waited for
            return gradient
        self._counters.note_fault(gradient, answer.slope, admitted)
        return gradient.nan_to_num(0.0, 0.0, 0.0)

    def differentiable(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits with their graph. White-box only."""
        self._require("gradients", "white-box")
        draws = []
        for _ in range(self._samples):
            noise = self._noise(rows)
            asked, admitted = self._admit(x, rows)
            pulled = _PulledBack(self._counters, rows, admitted)
            drawn = self._network.attached(pulled.watched(asked), noise)
            draws.append(pulled.counted(self._read(drawn, rows)))
        logits = draws[0] if self._samples == 1 else torch.stack(draws).mean(dim=0)
        self._observe_any(asked.detach(), logits.detach(), rows, admitted)
        logits = logits.float()
        return logits if admitted is None else logits.masked_fill(~admitted[:, None], torch.nan)

    def scores(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits. White-box or score access."""
        self._require("scores", "white-box", "score")
        logits, admitted = self._ask(x, rows)
        logits = logits.float()
        return logits if admitted is None else logits.masked_fill(~admitted[:, None], torch.nan)

    def labels(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N,) predicted classes. Any access."""
        logits, admitted = self._ask(x, rows)
        labels = logits.argmax(dim=1)
        return labels if admitted is None else labels.masked_fill(~admitted, -1)

    def check_points(self, x: Tensor) -> None:
        """Look whether the points (B, C, H, W) are adversarial. One query for each.

        Of a stochastic model by its votes: a single draw may miss what most draws say.
        """
        if not self._network.stochastic or self._draws is None:
            self.labels(x)
            return
        x, admitted = self._admit(x.detach(), None)
        rows = torch.arange(len(x), device=x.device)
        votes = vote(self._network, x, self._draws.example, FIRST)
        self._checked = (
            x.clone(),
            torch.ones_like(rows, dtype=torch.bool),
            self._won(votes, x, rows),
        )
        self._observe(x, self._read_votes(votes, rows), admitted, 0.0)

    def _ask(self, x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
        noise = self._noise(rows)
        x, admitted = self._admit(x.detach(), rows)
        logits = self._read(self._logits(x, admitted, noise), rows)
        self._observe_any(x, logits, rows, admitted)
        return logits, admitted

    def _read(self, logits: Tensor, owners: Tensor | None = None) -> Tensor:
        """(N, K): what the attack takes the network's logits, or votes, for."""
        return self._reading(
            logits, self._counters.y if owners is None else self._counters.y[owners]
        )

    def _logits(self, x: Tensor, admitted: Tensor | None, noise: Draws | None) -> Tensor:
        """(N, K) logits; where nothing was admitted they are not computed but zero."""
        if admitted is None or admitted.all():
            return self._network.logits(x, noise)
        chosen = table.where(admitted)
        some = self._network.logits(x[chosen], None if noise is None else noise.take(chosen))
        return some.new_zeros(len(x), some.shape[1]).index_copy(0, chosen, some)

    def _observe_any(
        self, x: Tensor, logits: Tensor, rows: Tensor | None, admitted: Tensor | None
    ) -> None:
        if rows is None:
            self._observe(x, logits, admitted, 0.0)
        else:
            self._observe_probes(x, logits, rows, admitted)

    def _noise(self, owners: Tensor | None = None) -> Draws | None:
        """The random numbers of a model that uses some, new ones for each input; else None.

        They depend on the example, the restart, and how many inputs were asked about before.
        """
        if not self._network.stochastic or self._draws is None:
            return None
        asked = self._counters.counts["forward"]
        if owners is None:
            return replace(self._draws, step=asked.clone())  # it goes on counting
        order = _ranks(owners, len(asked))
        return replace(self._draws.take(owners), step=asked[owners] + order)

    def _require(self, what: str, *levels: Access) -> None:
        if self._access not in levels:
            raise AccessDenied(f"the attack asked a victim with {self._access} access for {what}")

    def _admit(self, x: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Count the inputs against their owners' budgets; put the clean image in the others'.

        Returns (N,) bool beside the inputs, which of them are admitted; None for all.
        """
        counters = self._counters
        count = len(counters.y if owners is None else owners)
        if len(x) != count:
            raise ValueError(f"{len(x)} inputs for {count} examples: pass rows")
        admitted = self._going if owners is None or self._going is None else self._going[owners]
        if self._limited:
            ranks = 0 if owners is None else _ranks(owners, len(counters.y))
            allowed = (counters.allowance if owners is None else counters.allowance[owners]) > ranks
            admitted = allowed if admitted is None else admitted & allowed
        asked = _per_owner(owners, admitted, len(counters.y))
        counters.counts["forward"] += asked
        counters.counts["queries"] += asked
        if self._limited:
            assert admitted is not None
            counters.allowance -= asked
            clean = counters.ball.x if owners is None else counters.ball.x[owners]
            x = torch.where(per_example(admitted, x), x, clean)
        return x, admitted

    def _settled(
        self, x: Tensor, logits: Tensor, admitted: Tensor | None, tolerance: float
    ) -> Tensor:
        """The logits, the true network's where the fast one's are too close to tell."""
        counters = self._counters
        ahead = -margin(logits, counters.y, targeted=self._targeted)
        doubtful = (ahead > -_BEHIND * tolerance) & (ahead <= tolerance) & ~counters.broken
        rows = table.where(doubtful if admitted is None else doubtful & admitted)
        if not len(rows):
            return logits
        for name in ("forward", "queries"):
            counters.counts[name].index_add_(0, rows, torch.ones_like(rows))
        asked = self._read(self._network.logits(x.detach()[rows]), rows)
        return logits.index_copy(0, rows, asked)

    def _observe(
        self, x: Tensor, logits: Tensor, admitted: Tensor | None, tolerance: float
    ) -> None:
        """Remember the adversarial point nearest to each clean image, one input for each."""
        counters = self._counters
        if self._track_margin:
            margins = margin(logits, counters.y, targeted=self._targeted).double()
            counters.margin.copy_(
                margins if admitted is None else torch.where(admitted, margins, counters.margin)
            )
        hit = fooled(logits, counters.y, targeted=self._targeted, tolerance=tolerance)
        hit = hit if admitted is None else hit & admitted
        x = x.detach()
        if x.is_cuda and not self._network.stochastic:
            # Which rows were hit is not asked: the answer would be waited for, as votes are anyway.
            rows = torch.arange(len(x), device=x.device)
        else:
            rows = table.where(hit)
            rows = rows[counters.may_be_nearer(x, rows)] if len(rows) else rows
            if not len(rows):
                return
        points, before = x[rows], counters.distance[rows]
        hit = hit[rows] & self._confirmed_once(x, rows)
        distance = torch.where(hit, counters.distance_of(points, rows), torch.inf)
        if self._access != "white-box":
            counters.note_solved(rows, distance, counters.counts["queries"][rows])
        nearer = distance < before
        kept = torch.where(per_example(nearer, points), points, counters.nearest[rows])
        counters.nearest.index_copy_(0, rows, kept)
        counters.distance.index_copy_(0, rows, torch.where(nearer, distance, before))

    def _confirmed(self, points: Tensor, rows: Tensor) -> Tensor:
        """(n,) bool: what both votes say of a stochastic model too, not only a lucky draw.

        Points that are clearly behind before the first cost no more votes.
        """
        if not self._network.stochastic or self._draws is None:
            return torch.ones_like(rows, dtype=torch.bool)

        def lost(votes: Votes, at: Tensor) -> Tensor:
            return self._ahead(votes, rows[at]) <= -_LOST

        votes = vote(self._network, points, self._draws.example[rows], FIRST, lost)
        return self._won(votes, points, rows)

    def _won(self, votes: Votes, points: Tensor, rows: Tensor) -> Tensor:
        """(n,) bool: won clearly by the first vote, and before the second."""
        assert self._draws is not None
        found = self._ahead(votes, rows) >= _SURE
        asked = table.where(found)
        if len(asked):
            who = rows[asked]
            second = vote(self._network, points[asked], self._draws.example[who], SECOND)
            found[asked] = self._ahead(second, who) > 0
        return found

    def _ahead(self, votes: Votes, rows: Tensor) -> Tensor:
        """(n,): how clearly the attack's goal leads, in standard deviations of a fair coin."""
        read = self._read_votes(votes, rows)
        behind = margin(read, self._counters.y[rows], targeted=self._targeted)
        return -behind / votes.classifier.sum(dim=1).sqrt()

    def _read_votes(self, votes: Votes, rows: Tensor) -> Tensor:
        """(n, K): what the attack takes votes for; detector-unaware, those on the classifier."""
        return votes.classifier if self._detector_unaware else self._read(votes.whole, rows)

    def _confirmed_once(self, x: Tensor, rows: Tensor) -> Tensor:
        """The same of rows of x, (B, C, H, W), without a second vote on the same points."""
        if not self._network.stochastic or self._draws is None:
            return torch.ones_like(rows, dtype=torch.bool)
        if self._checked is None or not torch.equal(self._checked[0], x):
            none = torch.zeros(len(x), dtype=torch.bool, device=x.device)
            self._checked = x.clone(), none, none.clone()
        _, checked, confirmed = self._checked
        new = rows[~checked[rows]]
        if len(new):
            checked[new] = True
            confirmed[new] = self._confirmed(x[new], new)
        return confirmed[rows]

    def _observe_probes(
        self, x: Tensor, logits: Tensor, owners: Tensor, admitted: Tensor | None
    ) -> None:
        """Remember the adversarial point nearest to each clean image, any number for each."""
        counters = self._counters
        if self._track_margin:
            margins = margin(logits, counters.y[owners], targeted=self._targeted).double()
            if admitted is not None:
                margins = margins.masked_fill(~admitted, torch.inf)
            counters.margin.scatter_reduce_(0, owners, margins, "amin", include_self=False)
        hit = fooled(logits, counters.y[owners], targeted=self._targeted)
        hit = table.where(hit if admitted is None else hit & admitted)
        if not len(hit):
            return
        ranks = _ranks(owners, len(counters.y))[hit] + 1
        before = counters.counts["queries"] - _per_owner(owners, admitted, len(counters.y))
        points, owners = x[hit], owners[hit]
        distance = counters.distance_of(points, owners)
        distance = torch.where(self._confirmed(points, owners), distance, torch.inf)
        if self._access != "white-box":
            counters.note_solved(owners, distance, before[owners] + ranks)
        nearest = counters.distance.scatter_reduce(0, owners, distance, "amin")
        better = (distance == nearest[owners]) & (distance < counters.distance[owners])
        better = table.where(better)
        first = torch.full_like(counters.y, len(points))  # of equals, the one asked first
        first = first.scatter_reduce(0, owners[better], better, "amin")
        improved = table.where(first < len(points))
        counters.nearest[improved] = points[first[improved]]
        counters.distance.copy_(nearest)


class _PulledBack:
    """What is noted when logits that an attack was given are pulled back to its inputs.

    rows: (N,), whose the inputs are; None when one for each. admitted: (N,) bool, None for all.
    """

    def __init__(
        self, counters: AttackCounters, rows: Tensor | None, admitted: Tensor | None
    ) -> None:
        self._counters = counters
        self._rows = rows
        self._admitted = admitted
        self._slope: Tensor | None = None

    def watched(self, x: Tensor) -> Tensor:
        """The inputs, with a look at their gradient, which is zero where it is not finite."""
        if not (x.requires_grad and torch.is_grad_enabled()):
            return x
        x = x.view_as(x)  # the attack's own tensor gets no hooks
        x.register_hook(self._usable)
        return x

    def counted(self, logits: Tensor) -> Tensor:
        """The logits; a backward pass is counted when they are pulled back."""
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, slope: Tensor) -> None:
        self._slope = slope
        self._counters.counts["backward"] += _per_owner(
            self._rows, self._admitted, len(self._counters.y)
        )

    def _usable(self, gradient: Tensor) -> Tensor:
        if not gradient.is_cuda and gradient.detach().sum().isfinite():
            return gradient
        assert self._slope is not None
        if self._rows is None:
            self._counters.note_fault(gradient, self._slope, self._admitted)
        else:
            asked = torch.ones_like(self._rows) if self._admitted is None else self._admitted
            self._counters.note_faults(gradient, self._slope, asked, self._rows)
        return gradient.nan_to_num(0.0, 0.0, 0.0)


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


def _mean(answers: Sequence[Answer]) -> Answer:
    gradients, losses, logits = zip(
        *((one.gradient, one.loss, one.logits) for one in answers), strict=True
    )
    count = len(answers)
    return Answer(sum(gradients) / count, sum(losses) / count, sum(logits) / count)


def _per_owner(owners: Tensor | None, admitted: Tensor | None, examples: int) -> Tensor | int:
    """(B,) int64: how many inputs each example asks about; 1 when one for each."""
    if owners is None:
        return 1 if admitted is None else admitted.long()
    return torch.bincount(owners if admitted is None else owners[admitted], minlength=examples)


def _ranks(owners: Tensor, examples: int) -> Tensor:
    """(N,) int64: how many inputs before this one have the same owner."""
    order = owners.argsort(stable=True)
    counts = torch.bincount(owners, minlength=examples)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(owners)
    ranks[order] = torch.arange(len(owners), device=owners.device) - starts[owners[order]]
    return ranks
