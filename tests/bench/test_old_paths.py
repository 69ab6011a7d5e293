"""Import paths that plugins were once told to use: they work, and say where to go."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("path", "name", "new"),
    [
        ("protocols", "Problem", "attack"),
        ("protocols", "ImageData", "data"),
        ("protocols", "Trained", "defense"),
        ("protocols", "Provider", "plugins.third_party"),
        ("protocols", "Silent", "progress"),
        ("threat", "make_ball", "threat"),
        ("threat", "Epsilon", "epsilon"),
        ("random", "Draws", "rng"),
        ("registry", "attack", "registry"),
        ("registry", "Plugin", "plugins.plugin"),
        ("errors", "BadParameter", "errors"),
    ],
)
def test_an_old_path_works_and_warns(path, name, new):
    sys.modules.pop(f"quintain.bench.{path}", None)
    with pytest.warns(DeprecationWarning, match=rf"quintain\.bench\.{path} has moved") as seen:
        old = importlib.import_module(f"quintain.bench.{path}")
    assert len(seen) == 1
    assert new in str(seen[0].message).partition("api ")[2]
    module = importlib.import_module(f"quintain.bench.api.{new}")
    assert getattr(old, name) is getattr(module, name)


def test_the_warning_names_the_line_that_imports(tmp_path, monkeypatch):
    (tmp_path / "a_plugin.py").write_text("from quintain.bench import errors\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("errors", "a_plugin"):
        sys.modules.pop(f"quintain.bench.{name}", None)
        sys.modules.pop(name, None)
    vars(importlib.import_module("quintain.bench")).pop("errors", None)
    with pytest.warns(DeprecationWarning, match="has moved") as seen:
        importlib.import_module("a_plugin")
    assert seen[0].filename == str(tmp_path / "a_plugin.py")
