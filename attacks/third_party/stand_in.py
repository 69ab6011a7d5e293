"""The victim in the shape that other libraries expect: a module that returns logits."""

import torch
from torch import Tensor, nn

from ...bench.api.attack import Access, Problem

_PATIENCE = 200  # questions in a row that nobody has the budget for, before the attack is stopped


class Spent(Exception):
    """The query budget is spent: the library's attack is to stop where it is."""


class NotFinite(Exception):
    """The library's attack went wrong: it asked about an image with NaN or infinite pixels."""


class StandIn(nn.Module):
    """A module whose forward pass asks the victim, at the attack's access level.

    White-box: logits that can be differentiated. Score: logits without gradient. Decision: the
    predicted class as a one-hot row.

    An attack may hand in more or fewer images than it was given, such as the survivors, or many
    probes. As many as there are examples are taken to be theirs in order; of any other number each
    belongs to the example whose clean image is nearest (in L2). Where that could fail, because an
    attack works on one image after another, it is given one example at a time.

    An example without queries left gets zeros, so that other examples may go on. When none has any,
    or after many questions without an answer, `Spent` is raised.

    rows: (b,) int64, which examples of the problem the attack is given.
    """

    def __init__(self, problem: Problem, rows: Tensor, access: Access) -> None:
        super().__init__()
        # Libraries ask the first parameter where the model is.
        self.place = nn.Parameter(problem.x.new_zeros(0), requires_grad=False)
        self._victim = problem.victim
        self._rows = rows
        self._clean = problem.x[rows]
        self._access = access
        self._in_vain = 0
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, K). Raises: Spent; NotFinite."""
        x = x.to(self._clean)
        if not x.isfinite().all():
            raise NotFinite
        rows = self._rows[self.owners(x.detach())]
        self._stop_when_spent(rows)
        if self._access == "white-box":
            asked = x if torch.is_grad_enabled() else x.detach()
            logits = self._victim.differentiable(asked, rows)
        elif self._access == "score":
            logits = self._victim.scores(x, rows)
        else:
            labels = self._victim.labels(x, rows)
            classes = torch.arange(self._victim.n_classes, device=x.device)
            logits = (labels[:, None] == classes).to(x.dtype)
        return logits.masked_fill(logits.isnan(), 0.0)

    def owners(self, x: Tensor) -> Tensor:
        """(N,) int64: which of the b examples each image belongs to."""
        count = len(self._clean)
        if len(x) == count or count == 1:
            return torch.arange(len(x), device=x.device) % count
        return torch.cdist(x.flatten(1), self._clean.flatten(1)).argmin(dim=1)

    def _stop_when_spent(self, rows: Tensor) -> None:
        able = self._victim.remaining > 0
        self._in_vain = 0 if bool(able[rows].any()) else self._in_vain + 1
        if self._in_vain > _PATIENCE or not bool(able[self._rows].any()):
            raise Spent
