"""What is seen of an attack at work: its iterates, its questions, and what it leaves changed."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from ...api.attack import Problem
from ...api.threat import measure
from .states import described, model_state, place, raw, same, state_tensors, torch_switches


class Stop(Exception):
    """The attack did what a run cannot go on from."""


class CallRecorder:
    """What was seen in one run.

    faults: check -> the first thing that was wrong. last: (example, restart, epsilon) -> the last
    iterate (C, H, W). reached: (example, epsilon) -> how far from x its steps came, in epsilons.
    queries, backward, attempts_per_restart: counted here for each example. batch: how many examples
    the attack was shown last.
    """

    def __init__(self, module: nn.Module, attack: Any) -> None:
        self.faults: dict[str, str] = {}
        self.last: dict[tuple[int, int, float], Tensor] = {}
        self.reached: dict[tuple[int, float], float] = {}
        self.queries: Counter[int] = Counter()
        self.backward: Counter[int] = Counter()
        self.tries: Counter[int] = Counter()
        self.batch = 0
        self._stays = bool(getattr(attack, "stays_in_ball", True))
        self._asks = bool(getattr(attack, "asks_iterates", False))
        self._asked: set[tuple[int, bytes]] = set()
        self._module = module
        self._before: list[tuple[str, Any]] | None = None
        self._in_attack = self._in_victim = False
        module.register_forward_pre_hook(self._ran)

    def fault(self, check: str, seen: str) -> None:
        """Note what was wrong, unless that check has a note already."""
        self.faults.setdefault(check, seen)

    @contextmanager
    def working(self, problem: Problem, state: Any) -> Iterator[None]:
        """Let the attack act on a problem within, and look for what it changed in place."""
        if self._before is None:
            self._before = model_state(self._module)
        self.batch = len(problem.x)
        parts = {
            "problem.x": problem.x,
            "problem.y": problem.y,
            "problem.epsilon": problem.epsilon,
            "problem.start_points": problem.start_points,
            "problem.step": problem.step,
            "problem.warm": problem.warm,
            **state_tensors(state),
        }
        before = {name: value.clone() for name, value in parts.items()}
        switches = torch_switches()
        self._in_attack = True
        try:
            yield
        finally:
            self._in_attack = False
            for name, now in torch_switches().items():
                if now != switches[name]:
                    self.fault("switches", f"{name} was {switches[name]}, and is {now} after it")
            for name, value in parts.items():
                if not same(value, before[name]):
                    self.fault("inputs", f"{name} was changed in place")
            self._check_model()

    def check_point(self, problem: Problem, x_adv: Any, done: int, *, begins: bool = False) -> None:
        """Look at the iterates (B, C, H, W) after a step, or at the start when `done` is 0.

        Rows without any queries left are not looked at: they got no answers to work with.
        """
        x = problem.x
        if not isinstance(x_adv, Tensor) or (x_adv.shape, x_adv.dtype) != (x.shape, x.dtype):
            self.stop("shape", f"x_adv is {described(x_adv)}, expected {described(x)}")
        live = problem.victim.remaining > 0
        x_adv = x_adv.detach()
        flat = x_adv.flatten(1)
        self._rows(problem, done, "finite", live & ~flat.isfinite().all(1), "x_adv is not finite")
        if "finite" in self.faults:
            raise Stop(self.faults["finite"])
        outside = ((flat < 0) | (flat > 1)).any(1)
        seen = f"x_adv spans {flat.min():.6g} to {flat.max():.6g}, expected 0 to 1"
        self._rows(problem, done, "box", live & outside, seen)
        if self._stays:
            self._check_ball(problem, x_adv, done, live)
        owners = zip(
            problem.draws.example.tolist(),
            problem.draws.restart.tolist(),
            problem.epsilon.tolist(),
            strict=True,
        )
        distance = measure(x_adv.double() - x.double(), problem.ball.norm) / problem.epsilon
        for row, owner in enumerate(owners):
            if done:
                at = owner[0], owner[2]
                self.reached[at] = max(float(distance[row]), self.reached.get(at, 0.0))
            self.tries[owner[0]] += begins
            self.last[owner] = x_adv[row].clone()
            if done and self._asks and live[row]:
                self._check_candidate(owner[0], x_adv[row], x[row])

    def stop(self, check: str, seen: str) -> NoReturn:
        """Note a fault that the engine cannot go on from. Raises: Stop."""
        self.fault(check, seen)
        raise Stop(seen)

    def _rows(self, problem: Problem, done: int, check: str, wrong: Tensor, seen: str) -> None:
        if wrong.any():
            row = int(wrong.nonzero()[0])
            self.fault(check, f"{place(problem, row, done)}: {seen}")

    def _check_ball(self, problem: Problem, x_adv: Tensor, done: int, live: Tensor) -> None:
        distance = measure(x_adv.double() - problem.x.double(), problem.ball.norm)
        excess = torch.where(live, distance - problem.epsilon, -1.0)
        worst = int(excess.argmax())
        if excess[worst] > 0:
            self.fault(
                "ball",
                f"{place(problem, worst, done)}: x_adv lies {float(distance[worst]):.9g} from x "
                f"in {problem.ball.norm}",
            )

    def _check_candidate(self, example: int, x_adv: Tensor, x: Tensor) -> None:
        if (example, raw(x_adv)) not in self._asked and not torch.equal(x_adv, x):
            self.fault("counts", "asks_iterates is True, but x_adv is a point not asked about")

    def _check_model(self) -> None:
        assert self._before is not None
        for (name, before), (_, now) in zip(self._before, model_state(self._module), strict=True):
            same = torch.equal(before, now) if isinstance(before, Tensor) else before == now
            if not same:
                self.fault("model", f"{name} was changed")

    def _ran(self, module: nn.Module, inputs: object) -> None:
        if self._in_attack and not self._in_victim:
            self.fault("counts", "the model was run without asking the victim")

    @contextmanager
    def asking(
        self, examples: Tensor, remaining: Tensor, x: Tensor, rows: Tensor | None
    ) -> Iterator[None]:
        """Let the victim be asked within; count for each example as far as its budget goes.

        examples, remaining: (B,). x: (N, C, H, W). rows: (N,), or None when N is B.
        """
        owners = torch.arange(len(examples)) if rows is None else rows
        counted = torch.bincount(owners, minlength=len(examples)).minimum(remaining)
        for example, many in zip(examples.tolist(), counted.tolist(), strict=True):
            self.queries[example] += many
        if self._asks:
            for example, point in zip(examples[owners].tolist(), x.detach(), strict=True):
                self._asked.add((example, raw(point)))
        self._in_victim = True
        try:
            yield
        finally:
            self._in_victim = False
