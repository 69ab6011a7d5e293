"""`quintain info`: what a plugin is and takes."""

import inspect
import re
import subprocess
import sys
from importlib import metadata

import pytest

import quintain
from quintain.bench.api import registry
from quintain.bench.api.plugins.plugin import KINDS
from quintain.bench.tools.information import describe

PLUGINS = [(kind, one.name) for kind in KINDS for one in registry.plugins(kind)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_every_plugin_is_there(kind):
    for one in registry.plugins(kind):
        text = describe(one.name, kind)
        assert text.startswith(f"{one.name} ({kind})\n\n  {one.summary()[:40]}")
        shown = re.findall(r"^  (\w+): .* = ", text, re.M)
        assert shown == list(registry.parameters(kind, one.name))
        assert f"from: quintain ({one.target})" in text


def test_what_it_says_of_pgd(quintain):
    answer = quintain("info", "pgd")
    assert answer.code == 0
    for line in (
        "source: Madry et al. 2018 (arXiv:1706.06083)",
        "from: quintain (quintain.attacks.white_box.pgd:PGD)",
        "access: white-box",
        "norms: Linf, L2, L1",
        "targeted: yes",
        "  steps: int = 40\n      gradient steps.",
        "  schedule: 'constant' | 'linear' = 'constant'",
        "  loss: Loss = CrossEntropy()",
    ):
        assert line in answer.out


def test_meanings_come_from_base_classes_and_from_what_a_preset_makes():
    assert "the probability mass spread over all classes" in describe("trades")
    assert "length of a step as a fraction of epsilon" in describe("transfer")
    assert "root: str = needed" in describe("imagefolder")


def test_a_suite(quintain):
    answer = quintain("info", "quickstart")
    assert answer.code == 0
    assert 'dataset = "digits"' in answer.out


def test_names_of_several_kinds_are_listed(quintain):
    @registry.loss("pgd")
    def other():
        """Nothing."""

    answer = quintain("info", "pgd")
    assert answer.code == 2
    assert "'pgd' is one of attacks and of losses: say which, with --kind attacks" in answer.error
    assert "Nothing." in quintain("info", "pgd", "--kind", "losses").out
    assert "gradient steps" in quintain("info", "pgd", "--kind", "attacks").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pdg"], "nothing is called 'pdg'; did you mean 'pgd'?"),
        (["quikstart"], "did you mean 'quickstart'?"),
        (["pgd", "--kind", "attack"], "no kind 'attack'; did you mean 'attacks'?"),
        (["pgd", "--kind", "models"], "nothing is called 'pgd'"),
        (["zzzz"], "quintain list shows what there is"),
        (["nowhere.py:make"], "nowhere.py does not exist"),
        (["nowhere:make"], "nothing is called 'nowhere:make'"),
    ],
)
def test_names_that_there_are_not(quintain, arguments, message):
    answer = quintain("info", *arguments)
    assert answer.code == 2
    assert message in answer.error


def test_a_factory_in_a_file(quintain, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        'def make(inputs, *, depth: int = 3):\n    """A net of mine.\n\n    depth: layers."""\n'
    )
    monkeypatch.chdir(tmp_path)
    answer = quintain("info", "mine.py:make", "--kind", "models")
    assert "  depth: int = 3\n      layers." in answer.out


def test_the_version():
    version = metadata.version("quintain")
    assert quintain.__version__ == quintain.bench.__version__ == version
    assert inspect.ismodule(quintain.bench)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        quintain.nothing  # noqa: B018


def test_the_version_costs_no_import_of_torch():
    code = "import quintain, sys; print(quintain.__version__, 'torch' in sys.modules)"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == [metadata.version("quintain"), "False"]


def test_unknown_names_and_suites_cost_no_import_of_torch():
    code = (
        "import sys; from quintain.bench.tools.information import describe\n"
        "describe('quickstart')\n"
        "try: describe('pdg')\n"
        "except LookupError: pass\n"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
