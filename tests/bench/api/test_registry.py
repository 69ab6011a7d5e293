import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Literal

import pytest

from quintain.attacks.gradients.finite_differences import FiniteDifferences
from quintain.attacks.parts.losses import Margin
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api import registry
from quintain.bench.api.attack import Loss
from quintain.bench.api.errors import BadParameter, BadPlugin, DuplicatePlugin, UnknownPlugin
from quintain.bench.api.plugins.plugin import KINDS

PLUGIN = """
from dataclasses import dataclass
from quintain.bench.api import registry

@registry.loss({name!r})
@dataclass(frozen=True)
class Mine:
    '''A loss of my own.'''

    scale: float = 1.0

    def __call__(self, logits, y, *, targeted):
        return logits.sum(1) * self.scale
"""


@pytest.fixture
def plugin_file(tmp_path):
    """Write a plugin file."""

    def write(text=PLUGIN.format(name="mine"), file="my_loss.py"):
        path = tmp_path / file
        path.write_text(text)
        return path

    return write


def test_what_is_installed_is_found():
    names = {kind: [one.name for one in registry.plugins(kind)] for kind in KINDS}
    assert {"alexnet", "googlenet", "resnet"} <= set(names["models"])
    assert {"fgsm", "pgd", "pgd-finite-differences", "transfer"} <= set(names["attacks"])
    assert {"none", "adversarial-training"} <= set(names["defenses"])
    assert {"digits", "imagefolder"} <= set(names["datasets"])
    for kind, found in names.items():
        assert found == sorted(found)
        for name in found:
            assert callable(registry.find(kind, name).load())
            assert registry.find(kind, name).summary().strip()
            assert registry.parameters(kind, name) is not None


def test_listing_imports_neither_torch_nor_numpy():
    script = (
        "import sys\nfrom quintain.bench import cli\n"
        "try:\n    cli.main(['list'])\n"
        "finally:\n"
        "    heavy = {'torch', 'numpy', 'torchvision', 'scipy'} & set(sys.modules)\n"
        "    print('HEAVY', sorted(heavy))\n"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Projected gradient descent" in ran.stdout
    assert "HEAVY []" in ran.stdout


def test_an_unknown_name_is_answered_with_the_closest_and_all_that_there_are():
    with pytest.raises(UnknownPlugin) as caught:
        registry.find("attacks", "pdg")
    text = str(caught.value)
    assert text.startswith("unknown attack 'pdg'; did you mean 'pgd'?")
    assert ", ".join(one.name for one in registry.plugins("attacks")) in text
    assert isinstance(caught.value, LookupError)
    with pytest.raises(UnknownPlugin, match=r"unknown model 'zzzzzz'\. There are: alexnet"):
        registry.find("models", "zzzzzz")
    with pytest.raises(UnknownPlugin, match="kind of plugin 'attack'; did you mean 'attacks'"):
        registry.plugins("attack")


def test_a_decorator_registers_and_temporary_forgets():
    with registry.temporary():

        @registry.attack("mine")
        @dataclass(frozen=True)
        class Mine(PGD):
            """Mine."""

            steps: int = 7

        assert registry.build("attacks", "mine").steps == 7
        assert registry.find("attacks", "mine").source == __file__
    with pytest.raises(UnknownPlugin):
        registry.find("attacks", "mine")
    assert __name__ in sys.modules  # only what load_file made is unloaded


def test_a_name_cannot_be_taken_twice(plugin_file):
    with pytest.raises(DuplicatePlugin, match=r"attack 'pgd' is defined twice: in quintain and in"):
        registry.attack("pgd")(PGD)
    registry.load_file(plugin_file())
    with pytest.raises(DuplicatePlugin, match=r"loss 'mine' is .*my_loss\.py and in .*other\.py"):
        registry.load_file(plugin_file(file="other.py"))
    assert registry.find("losses", "mine").source.endswith("my_loss.py")
    registry.attack("mine")(PGD)  # another kind, another name


def test_a_file_that_fails_half_way_leaves_nothing(plugin_file):
    text = PLUGIN.format(name="first") + PLUGIN.format(name="margin").replace("Mine", "Other")
    with pytest.raises(DuplicatePlugin, match="'margin'"):
        registry.load_file(plugin_file(text))
    with pytest.raises(UnknownPlugin):
        registry.find("losses", "first")


@dataclass
class Distribution:
    name: str
    version: str = "1.0"


def entry(name, value, distribution):
    return metadata.EntryPoint(name, value, "quintain.attacks")._for(Distribution(distribution))


def test_two_distributions_with_one_name_are_an_error(monkeypatch):
    points = [entry("x", "one.module:X", "one"), entry("x", "two.module:X", "two")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    with pytest.raises(DuplicatePlugin) as caught:
        registry.plugins("attacks")
    assert "attack 'x' is defined twice: by one (one.module:X) and by two (two.module:X)" in str(
        caught.value
    )


def test_one_distribution_seen_twice_is_no_error(monkeypatch):
    points = [entry("x", "one.module:X", "one"), entry("x", "one.module:X", "one")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    assert [one.name for one in registry.plugins("attacks")] == ["x"]


@pytest.mark.parametrize("target", ["no.such.module:X", "quintain.attacks.white_box.pgd:Missing"])
def test_an_entry_point_that_leads_nowhere_is_a_bad_plugin(monkeypatch, target):
    monkeypatch.setattr(metadata, "entry_points", lambda group: [entry("x", target, "broken")])
    said = registry.find("attacks", "x").summary()
    assert said.startswith("cannot be loaded from no.such.module:X") == ("no.such" in target)
    with pytest.raises(BadPlugin, match=r"attack 'x' \(broken\) cannot be loaded from"):
        registry.build("attacks", "x")


def test_a_file_is_run_once(plugin_file):
    path = plugin_file("from pathlib import Path\nimport sys\n" + PLUGIN.format(name="mine"))
    (first,) = registry.load_file(path)
    (second,) = registry.load_file(path)
    assert first == second
    assert (first.kind, first.name) == ("losses", "mine")
    assert len(first.code) == 64
    assert registry.build("losses", {"name": "mine", "scale": 2.0}).scale == 2.0


def test_a_file_is_found_from_the_home_folder(plugin_file, monkeypatch, tmp_path):
    plugin_file()
    monkeypatch.setenv("HOME", str(tmp_path))
    from pathlib import Path

    assert registry.load_file(Path("~/my_loss.py"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        ("x = 1\n", "registers nothing; decorate with"),
        ("def f(:\n", "SyntaxError"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit(0)\n", "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path, text, says):
    path = tmp_path / "broken.py"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadPlugin) as caught:
        registry.load_file(path)
    assert str(path) in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_is_not_python_is_named(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadPlugin, match=r"notes\.txt is not a Python file"):
        registry.load_file(tmp_path / "notes.txt")


def test_parameters_are_bound_by_name():
    attack = registry.build("attacks", {"name": "pgd", "steps": 3, "step_size": 0.5})
    assert attack == PGD(steps=3, step_size=0.5)
    assert registry.build("attacks", "pgd") == PGD()


def test_nested_plugins_are_built_from_their_specs():
    attack = registry.build(
        "attacks",
        {
            "name": "pgd",
            "loss": "margin",
            "gradient": {"name": "finite-differences", "coordinates": 4},
        },
    )
    assert attack.loss == Margin()
    assert attack.gradient == FiniteDifferences(coordinates=4)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (
            {"name": "pgd", "stepz": 3},
            "attack 'pgd' has no parameter 'stepz'; did you mean 'steps'",
        ),
        ({"name": "pgd", "zzz": 3}, "has no parameter 'zzz'; it takes steps, step_size, "),
        ({"name": "pgd", "steps": "3"}, "attack 'pgd': steps = '3' is not int"),
        ({"name": "pgd", "steps": 3.5}, "steps = 3.5 is not int"),
        ({"name": "pgd", "steps": True}, "steps = True is not int"),
        ({"name": "pgd", "steps": 0}, "steps must be at least 1, not 0"),
        ({"name": "pgd", "step_size": -1.0}, "step_size must be positive, not -1.0"),
        ({"name": "pgd", "random_start": 1}, "random_start = 1 is not bool"),
        (
            {"name": "pgd", "loss": {"nam": "margin"}},
            "loss must be a name or a table with a 'name'",
        ),
        ({"name": "pgd", "loss": {"name": "margin", "x": 1}}, "loss 'margin' has no parameter 'x'"),
        ({"steps": 3}, "attack must be a name or a table with a 'name', not {'steps': 3}"),
        ({"name": 3}, "attack must be a name or a table"),
        (3, "attack must be a name or a table with a 'name', not 3"),
    ],
)
def test_a_bad_parameter_is_named(spec, says):
    with pytest.raises(BadParameter) as caught:
        registry.build("attacks", spec)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_nested_plugin_is_answered_with_the_closest():
    with pytest.raises(UnknownPlugin, match="unknown loss 'margn'; did you mean 'margin'"):
        registry.build("attacks", {"name": "pgd", "loss": "margn"})
    with pytest.raises(UnknownPlugin, match="unknown gradient source 'autograde'; did you mean"):
        registry.build("attacks", {"name": "pgd", "gradient": "autograde"})


def test_a_parameter_that_is_needed_is_asked_for():
    with pytest.raises(BadParameter, match="dataset 'imagefolder' needs the parameter 'root'"):
        registry.build("datasets", "imagefolder")


def test_annotations_of_every_common_kind_are_checked():
    with registry.temporary():

        @registry.attack("typed")
        def typed(
            *,
            mode: Literal["a", "b"] = "a",
            sizes: tuple[int, ...] = (),
            share: float | None = None,
            loss: Loss = Margin(),
            anything=None,
        ):
            return mode, sizes, share, anything

        build = registry.build
        assert build("attacks", {"name": "typed", "sizes": [1, 2]}) == ("a", (1, 2), None, None)
        assert build("attacks", {"name": "typed", "share": 1})[2] == 1.0
        assert build("attacks", {"name": "typed", "anything": {"x": [1]}})[3] == {"x": [1]}
        for wrong in ({"mode": "c"}, {"sizes": 3}, {"sizes": ["x"]}, {"share": "0.1"}):
            with pytest.raises(BadParameter, match="attack 'typed': "):
                build("attacks", {"name": "typed", **wrong})


def test_a_plugin_that_refuses_a_value_in_its_own_way_is_the_users_mistake():
    with registry.temporary():

        @registry.attack("picky")
        def picky(*, size: int = 3):
            if size > 3:
                raise ValueError("too\nlarge")

        with pytest.raises(BadParameter, match="attack 'picky': ValueError: too large"):
            registry.build("attacks", {"name": "picky", "size": 4})


def test_a_model_is_bound_without_its_first_argument():
    assert "inputs" not in registry.parameters("models", "resnet")
    assert "depth" in registry.parameters("models", "resnet")
    with pytest.raises(BadParameter, match="model 'resnet' has no parameter 'inputs'"):
        registry.bind("models", {"name": "resnet", "inputs": 3})
    with pytest.raises(BadParameter, match="model 'resnet' has no parameter 'dept'; did you mean"):
        registry.bind("models", {"name": "resnet", "dept": 8})


@pytest.mark.parametrize(
    "code", ["raise RuntimeError('no\\nGPU')", "{}['x']", "raise SystemExit(3)", "import nothing_x"]
)
@pytest.mark.parametrize("group", ["quintain.losses", "quintain.providers.attacks"])
def test_a_broken_installed_package_is_listed_as_broken(
    code, group, tmp_path, monkeypatch, quintain
):
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text(code)
    (tmp_path / "broken_package" / "part.py").write_text("class X:\n    'A part.'\n")
    monkeypatch.syspath_prepend(tmp_path)
    real = metadata.entry_points
    point = metadata.EntryPoint("broken", "broken_package.part:X", group)

    def points(group):
        return [*real(group=group), *([point] if group == point.group else [])]

    monkeypatch.setattr(metadata, "entry_points", points)
    with registry.temporary():
        answer = quintain("list")
        assert answer.code == 0
        (line,) = [one for one in answer.out.splitlines() if "cannot be loaded" in one]
        assert line.split()[0].startswith("broken")
        assert "broken_package.part:X" in line
        assert "cross-entropy" in answer.out
        kind, name = ("losses", "broken") if "losses" in group else ("attacks", "broken:x")
        with pytest.raises(BadPlugin):
            registry.build(kind, name)
