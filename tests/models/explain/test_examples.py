"""The examples in the docstrings run, and give what they say."""

import doctest
import importlib
import pkgutil

import pytest

from quintain.models import explain

MODULES = sorted(one.name for one in pkgutil.iter_modules(explain.__path__))


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name):
    module = importlib.import_module(f"quintain.models.explain.{name}")
    found = doctest.testmod(module)
    assert found.failed == 0
    assert found.attempted > 0
