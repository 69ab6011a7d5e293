import inspect
from typing import Any, Literal

import pytest

from quintain.attacks.third_party.signatures import factory, parameters_of


def theirs(
    self,
    model,
    eps: float = 0.3,
    steps: int = 10,
    alpha=0.1,
    kind: Literal["a", "b"] = "a",
    most: int | None = None,
    thing: object = None,
    flag=True,
    *rest,
    **more,
):
    """Somebody's constructor."""


def test_only_what_a_user_may_set_is_taken_with_types_that_can_be_checked():
    found = parameters_of(theirs, without={"model", "eps"})
    assert found == {
        "steps": (int, 10),
        "alpha": (float | int, 0.1),
        "kind": (Literal["a", "b"], "a"),
        "most": (int | None, None),
        "thing": (Any, None),
        "flag": (bool, True),
    }


def test_annotations_that_cannot_be_resolved_give_way_to_the_defaults_type():
    def typed(self, x: "Missing" = 3, name: "Missing" = "n"):  # noqa: F821
        """Somebody's, with names that only a type checker knows."""

    assert parameters_of(typed, without=()) == {"x": (float | int, 3), "name": (str, "n")}


def test_a_factory_passes_on_what_is_given_and_no_default():
    made = factory(dict, {"steps": (int, 10), "flag": (bool, True)}, "What it does.")
    assert made(flag=False) == {"flag": False}
    assert str(inspect.signature(made)) == "(*, steps: int = 10, flag: bool = True)"
    assert made.__doc__ == "What it does."
    with pytest.raises(TypeError):
        made(1)
