"""What an attack is given to read: whether it has written into it."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ...api.attack import Problem
from ...api.errors import CellError


def watched(act: Callable[..., Any], problem: Problem, *state: Any) -> Any:
    """Let an attack act on a problem, and look whether it wrote into it on its way.

    Costs next to nothing: torch counts how often a tensor was written into.

    Raises: CellError.
    """
    before = _parts(problem)
    counts = [one._version for one in before.values()]
    result = act(problem, *state)
    for (name, one), now, count in zip(
        before.items(), _parts(problem).values(), counts, strict=True
    ):
        if now is not one or one._version != count:
            raise _written(name)
    return result


def refuse_change(pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Compare tensors with what they should be: a write through `.data` is not counted.

    pairs: name -> (as it is, as it was given).

    Raises: CellError.
    """
    for name, (now, given) in pairs.items():
        if not bool((now == given.to(now.device)).all()):
            raise _written(name)


def _parts(problem: Problem) -> dict[str, Tensor]:
    """What an attack may read, by name."""
    ball = {f"problem.ball.{name}": one for name, one in vars(problem.ball).items()}
    return {
        "problem.x": problem.x,
        "problem.y": problem.y,
        **{name: one for name, one in ball.items() if isinstance(one, Tensor)},
        "problem.start_points": problem.start_points,
        "problem.step": problem.step,
        "problem.warm": problem.warm,
    }


def _written(name: str) -> CellError:
    return CellError(
        f"the attack changed {name} in place, which it may only read: "
        "what it shows would be of other images"
    )
