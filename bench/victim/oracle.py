"""The victim: the model as an attack sees it, its access level, counts and budgets enforced."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..api.attack import Access, Answer, SurrogateGradient
from ..api.errors import AccessDenied
from ..api.rng import Draws
from ..api.threat import per_example
from . import rows as table
from .counters import AttackCounters, per_owner, ranks_of
from .decision import Decision
from .model import Network

_BEHIND = 0.25  # of a fast copy's tolerance: most errors are smaller than that


@dataclass(frozen=True)
class AttackedModel:
    """A model as one attack meets it, throughout that attack.

    rule: how the model decides. access: the level that is enforced. fast: a copy of the network
    that gradients come from. Where its logits are within its tolerance of a tie the true network is
    asked as well, on a GPU they are not believed; what it finds is to be verified. samples: draws
    that each gradient of a stochastic model is the mean over, each one a question; what counts is
    then the mean of the logits. limited: whether there are budgets to keep.
    """

    rule: Decision
    access: Access
    fast: Network | None = None
    samples: int = 1
    limited: bool = True


class Oracle:
    """Answers for a batch of examples, as bench.api.attack.Victim describes.

    draws: for a model that uses random numbers; others ignore them. going: (B,) bool, the examples
    that may still ask; None for all. track_margin: whether to note the margin. A gradient that is
    not finite is noted in the counters, and zero.
    """

    def __init__(
        self,
        model: AttackedModel,
        counters: AttackCounters,
        draws: Draws | None = None,
        going: Tensor | None = None,
        *,
        track_margin: bool = False,
    ) -> None:
        self._model = model
        self._rule = model.rule
        self._network = model.rule.network
        self._fast = model.fast or self._network
        self._counters = counters
        self._draws = draws if model.rule.votes else None
        self._going = going
        self._track_margin = track_margin
        self._confirmation = model.rule.confirmation(counters.y, self._draws)

    @property
    def access(self) -> Access:
        """The access level that is enforced."""
        return self._model.access

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
        for _ in range(self._model.samples):
            noise = self._noise()
            asked, admitted = self._admit(x, None)
            one = network.gradient(
                asked,
                lambda logits: objective(self._read(logits).float()),
                surrogate,
                setting,
                noise,
            )
            gradient = self._counters.usable(one.gradient, one.slope, admitted)
            answers.append(Answer(gradient, one.loss, self._read(one.logits)))
            self._counters.counts["backward"] += 1 if admitted is None else admitted
        answer = answers[0] if len(answers) == 1 else _mean(answers)
        logits, tolerance = answer.logits, self._fast.tolerance if surrogate is None else 0.0
        if tolerance and not x.is_cuda:  # there it would be waited for
            logits, tolerance = self._settled(asked, logits, admitted, tolerance), 0.0
        if surrogate is None or getattr(surrogate, "faithful", False):
            self._observe(asked, logits, admitted, tolerance=tolerance)
        answer = replace(answer, logits=answer.logits.float())
        if admitted is None or not self._model.limited:
            return answer
        nan = torch.where(admitted, 0.0, torch.nan)
        return Answer(
            answer.gradient + per_example(nan, x),
            answer.loss + nan,
            answer.logits + nan[:, None],
        )

    def differentiable(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits with their graph. White-box only."""
        self._require("gradients", "white-box")
        draws = []
        for _ in range(self._model.samples):
            noise = self._noise(rows)
            asked, admitted = self._admit(x, rows)
            draws.append(self._attached(asked, noise, rows, admitted))
        logits = draws[0] if len(draws) == 1 else torch.stack(draws).mean(dim=0)
        self._observe(asked, logits.detach(), admitted, rows)
        return _hidden(logits, admitted)

    def _attached(
        self, x: Tensor, noise: Draws | None, rows: Tensor | None, admitted: Tensor | None
    ) -> Tensor:
        """(N, K) logits with their graph; to pull them back is counted, as one backward pass."""
        counters = self._counters
        slopes: list[Tensor] = []

        def count(slope: Tensor) -> None:
            slopes.append(slope)
            counters.counts["backward"] += per_owner(rows, admitted, len(counters.y))

        if x.requires_grad and torch.is_grad_enabled():
            x = x.view_as(x)  # the attack's own tensor gets no hooks
            x.register_hook(lambda gradient: counters.usable(gradient, slopes[-1], admitted, rows))
        logits = self._read(self._network.attached(x, noise), rows)
        if logits.requires_grad:
            logits.register_hook(count)
        return logits

    def scores(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N, K) logits. White-box or score access."""
        self._require("scores", "white-box", "score")
        return _hidden(*self._ask(x, rows))

    def labels(self, x: Tensor, rows: Tensor | None = None) -> Tensor:
        """(N,) predicted classes. Any access."""
        logits, admitted = self._ask(x, rows)
        labels = logits.argmax(dim=1)
        return labels if admitted is None else labels.masked_fill(~admitted, -1)

    def check_points(self, x: Tensor) -> None:
        """Look whether the points (B, C, H, W) are adversarial. One query for each.

        Of a stochastic model by its votes: a single draw may miss what most draws say.
        """
        x, admitted = self._admit(x.detach(), None)
        logits, confirmed = self._rule.judged(x, self._counters.y, self._draws)
        self._confirmation = lambda _, rows: confirmed[rows]
        self._observe(x, logits, admitted)

    def _ask(self, x: Tensor, rows: Tensor | None) -> tuple[Tensor, Tensor | None]:
        noise = self._noise(rows)
        x, admitted = self._admit(x.detach(), rows)
        logits = self._read(self._logits(x, admitted, noise), rows)
        self._observe(x, logits, admitted, rows)
        return logits, admitted

    def _read(self, logits: Tensor, owners: Tensor | None = None) -> Tensor:
        """(N, K): what the attack takes the network's logits for."""
        return self._rule.read(logits, self._goals(owners))

    def _goals(self, owners: Tensor | None) -> Tensor:
        """(N,): what y is of the owners of some inputs; None: one for each example."""
        return self._counters.y if owners is None else self._counters.y[owners]

    def _logits(self, x: Tensor, admitted: Tensor | None, noise: Draws | None) -> Tensor:
        """(N, K) logits; where nothing was admitted they are not computed but zero."""
        if admitted is None or admitted.all():
            return self._network.logits(x, noise)
        chosen = table.where(admitted)
        some = self._network.logits(x[chosen], noise and noise.take(chosen))
        return some.new_zeros(len(x), some.shape[1]).index_copy(0, chosen, some)

    def _noise(self, owners: Tensor | None = None) -> Draws | None:
        """The random numbers of a model that uses some, new ones for each input; else None.

        They depend on the example, the restart, and how many inputs were asked about before.
        """
        if self._draws is None:
            return None
        asked = self._counters.counts["forward"]
        if owners is None:
            return replace(self._draws, step=asked.clone())  # it goes on counting
        order = ranks_of(owners, len(asked))
        return replace(self._draws.take(owners), step=asked[owners] + order)

    def _require(self, what: str, *levels: Access) -> None:
        if self.access not in levels:
            raise AccessDenied(f"the attack asked a victim with {self.access} access for {what}")

    def _admit(self, x: Tensor, owners: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Count the inputs; what is asked for them, and which of them are admitted."""
        return self._counters.admit(x, owners, self._going, limited=self._model.limited)

    def _settled(
        self, x: Tensor, logits: Tensor, admitted: Tensor | None, tolerance: float
    ) -> Tensor:
        """The logits, the true network's where the fast one's are too close to tell."""
        counters = self._counters
        ahead = -self._rule.margin(logits, counters.y)
        doubtful = (ahead > -_BEHIND * tolerance) & (ahead <= tolerance) & ~counters.broken
        rows = table.where(doubtful if admitted is None else doubtful & admitted)
        if not len(rows):
            return logits
        for name in ("forward", "queries"):
            counters.counts[name].index_add_(0, rows, torch.ones_like(rows))
        asked = self._read(self._network.logits(x.detach()[rows]), rows)
        return logits.index_copy(0, rows, asked)

    def _observe(
        self,
        x: Tensor,
        logits: Tensor,
        admitted: Tensor | None,
        owners: Tensor | None = None,
        tolerance: float = 0.0,
    ) -> None:
        """Remember the adversarial point nearest to each clean image.

        owners: (N,), whose the inputs are, any number for each; None when one for each.
        """
        x, y = x.detach(), self._goals(owners)
        if self._track_margin:
            margins = self._rule.margin(logits, y).double()
            self._counters.note_margin(margins, admitted, owners)
        hit = self._rule.adversarial(logits, y, tolerance)
        hit = hit if admitted is None else hit & admitted
        if owners is None:
            self._observe_each(x, hit)
        else:
            self._observe_probes(x, hit, owners, admitted)

    def _observe_each(self, x: Tensor, hit: Tensor) -> None:
        counters = self._counters
        if x.is_cuda and not self._rule.votes:
            # Which rows were hit is not asked: the answer would be waited for, as votes are anyway.
            rows = torch.arange(len(x), device=x.device)
        else:
            rows = table.where(hit)
            rows = rows[counters.may_be_nearer(x, rows)] if len(rows) else rows
            if not len(rows):
                return
        points = x[rows]
        hit = hit[rows] & self._confirmation(x, rows)
        distance = torch.where(hit, counters.distance_of(points, rows), torch.inf)
        if self.access != "white-box":
            counters.note_solved(rows, distance, counters.counts["queries"][rows])
        counters.remember(points, rows, distance)

    def _observe_probes(
        self, x: Tensor, hit: Tensor, owners: Tensor, admitted: Tensor | None
    ) -> None:
        counters = self._counters
        chosen = table.where(hit)
        if not len(chosen):
            return
        count = len(counters.y)
        asked = counters.counts["queries"] - per_owner(owners, admitted, count)
        asked = (asked[owners] + ranks_of(owners, count) + 1)[chosen]
        points, owners = x[chosen], owners[chosen]
        draws = self._draws and self._draws.take(owners)
        confirmed = self._rule.confirmed(points, counters.y[owners], draws)
        distance = torch.where(confirmed, counters.distance_of(points, owners), torch.inf)
        if self.access != "white-box":
            counters.note_solved(owners, distance, asked)
        counters.remember_probes(points, owners, distance)


def _hidden(logits: Tensor, admitted: Tensor | None) -> Tensor:
    """(N, K) float32 logits as an attack gets them: NaN where the question was not admitted."""
    logits = logits.float()
    return logits if admitted is None else logits.masked_fill(~admitted[:, None], torch.nan)


def _mean(answers: Sequence[Answer]) -> Answer:
    gradients, losses, logits = zip(
        *((one.gradient, one.loss, one.logits) for one in answers), strict=True
    )
    count = len(answers)
    return Answer(sum(gradients) / count, sum(losses) / count, sum(logits) / count)
