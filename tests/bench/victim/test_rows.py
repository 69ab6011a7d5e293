from dataclasses import dataclass
from typing import Any

import pytest
import torch

from quintain.bench.api.threat import LinfBall, make_ball
from quintain.bench.victim import rows


@dataclass
class Inner:
    flag: torch.Tensor


@dataclass
class State:
    x_adv: torch.Tensor
    inner: Any


def state(count):
    x = torch.arange(float(count))[:, None].repeat(1, 2)
    return State(x, Inner(x[:, 0] > 1))


def test_take_chooses_rows_of_every_tensor():
    some = rows.take(state(4), torch.tensor([3, 0]))
    assert some.x_adv.tolist() == [[3.0, 3.0], [0.0, 0.0]]
    assert some.inner.flag.tolist() == [True, False]


def test_put_replaces_rows_and_leaves_the_table_as_it_was():
    table = state(4)
    new = rows.put(table, torch.tensor([2]), rows.take(table, torch.tensor([0])))
    assert new.x_adv[:, 0].tolist() == [0.0, 1.0, 0.0, 3.0]
    assert new.inner.flag.tolist() == [False, False, False, True]
    assert table.x_adv[:, 0].tolist() == [0.0, 1.0, 2.0, 3.0]


def test_a_ball_is_a_table_with_its_bounds():
    ball = make_ball("Linf", torch.full((3, 1, 1, 1), 0.5), torch.tensor([0.1, 0.2, 0.3]).double())
    some = rows.take(ball, torch.tensor([2]))
    assert isinstance(some, LinfBall)
    assert some.upper.item() == pytest.approx(0.8)


def test_where_lists_what_holds():
    assert rows.where(torch.tensor([True, False, True])).tolist() == [0, 2]


@pytest.mark.parametrize("content", [3, None, "text", [torch.zeros(2)]])
def test_a_state_of_something_else_is_refused_by_name(content):
    with pytest.raises(TypeError, match="tensors"):
        rows.take(State(torch.zeros(2, 1), content), torch.tensor([0]))
