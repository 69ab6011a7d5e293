"""What plugins of the last release say in its words: it works, and warns."""

import importlib

import pytest

from quintain.bench.api import attack


class Old:
    tries = 9


class New(Old):
    attempts_per_restart = 3


class Below(New):
    tries = 5


@pytest.mark.parametrize(("kind", "wanted"), [(Old, 9), (Below, 5)])
def test_an_old_class_attribute_is_read_and_warned_of(kind, wanted):
    with pytest.warns(DeprecationWarning, match="tries is now attempts_per_restart"):
        assert attack.declared(kind(), "attempts_per_restart", 1) == wanted


def test_a_new_one_is_read_before_what_it_inherits():
    assert attack.declared(New(), "attempts_per_restart", 1) == 3
    assert attack.declared(object(), "attempts_per_restart", 1) == 1


@pytest.mark.filterwarnings("ignore:quintain.bench.protocols has moved")
@pytest.mark.parametrize("path", ["api.attack", "protocols"])
def test_the_old_name_of_a_protocol_works_and_warns(path):
    module = importlib.import_module(f"quintain.bench.{path}")
    with pytest.warns(DeprecationWarning, match="Lens is now SurrogateGradient"):
        assert module.Lens is attack.SurrogateGradient
