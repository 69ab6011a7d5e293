"""Names with a colon: other libraries' plugins, and factories in files of the user's own."""

import sys
import types
from importlib import metadata

import pytest
import torch
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter, BadPlugin, DuplicatePlugin, UnknownPlugin
from quintain.bench.api.plugins import third_party

MINE = """
from dataclasses import dataclass
from torch import nn
from quintain.attacks.white_box.pgd import PGD

def plain(width: int = 3):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(width), nn.ReLU(), nn.LazyLinear(10))

def fitted(inputs, *, scale: float = 1.0):
    channels, height, width = inputs.shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, inputs.n_classes))

@dataclass(frozen=True)
class Slow(PGD):
    '''A slow attack.'''
    steps: int = 99

nothing = 3
"""


class Toys:
    """Toys, for a test."""

    package = "toy_library"
    install = "pip install toys"
    release = "1.5"

    def names(self):
        return ["LinfToy", "L2Toy"]

    def factory(self, name):
        def build(*, wheels: int = 4):
            from quintain.attacks.white_box.pgd import PGD

            return PGD(steps=wheels)

        return build


@pytest.fixture
def toys(monkeypatch):
    """A provider `toy:`, whose library can be there or not."""
    point = metadata.EntryPoint("toy", f"{__name__}:Toys", "quintain.providers.attacks")
    module = types.ModuleType(__name__)
    module.Toys = Toys
    monkeypatch.setitem(sys.modules, __name__, module)
    real = metadata.entry_points
    monkeypatch.setattr(
        metadata,
        "entry_points",
        lambda group: [point] if group == "quintain.providers.attacks" else real(group=group),
    )

    def there(*, installed):
        real_find = third_party.importlib.util.find_spec
        monkeypatch.setattr(
            third_party.importlib.util,
            "find_spec",
            lambda name, *rest: (
                (object() if installed else None)
                if name == "toy_library"
                else real_find(name, *rest)
            ),
        )

    with registry.temporary():
        yield there


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("foolbox:LinfPGD", "pip install foolbox"),
        ("torchattacks:PGD", "pip install --no-deps torchattacks"),
        ("art:DeepFool", "pip install adversarial-robustness-toolbox"),
        ("autoattack:standard", "pip install pyautoattack"),
    ],
)
def test_a_library_that_is_not_installed_is_answered_with_how_to_get_it(
    name, command, monkeypatch, quintain
):
    monkeypatch.setattr(third_party.importlib.util, "find_spec", lambda *_: None)
    prefix = name.partition(":")[0]
    package = {"autoattack": "pyautoattack"}.get(prefix, prefix)
    with pytest.raises(BadPlugin) as caught:
        registry.build("attacks", name)
    assert str(caught.value) == (
        f"attack '{name}' needs the package {package}, not installed: {command}"
    )
    answer = quintain("check", name)
    assert (answer.code, answer.error) == (2, str(caught.value))


@pytest.mark.parametrize("name", ["timm:resnet50", "robustbench:Carmon2019Unlabeled"])
def test_so_is_a_library_of_models(name, monkeypatch):
    monkeypatch.setattr(third_party.importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(BadPlugin, match=rf"model '{name}' needs the package .*: pip install"):
        registry.bind("models", name)


def test_a_provider_of_anybodys_is_found_and_its_parameters_are_checked(toys):
    toys(installed=True)
    assert registry.build("attacks", {"name": "toy:LinfToy", "wheels": 6}).steps == 6
    found = registry.find("attacks", "toy:L2Toy")
    assert (found.source, found.release) == ("toy_library 1.5", "1.5")
    with pytest.raises(BadParameter, match="'toy:LinfToy' has no parameter 'weels'; did you mean"):
        registry.build("attacks", {"name": "toy:LinfToy", "weels": 6})
    with pytest.raises(BadParameter, match="wheels = 'six' is not"):
        registry.build("attacks", {"name": "toy:LinfToy", "wheels": "six"})


def test_names_that_there_are_not_are_answered_with_the_closest(toys):
    toys(installed=True)
    with pytest.raises(UnknownPlugin) as caught:
        registry.find("attacks", "toy:linftoi")
    assert str(caught.value) == (
        "unknown attack 'toy:linftoi'; did you mean 'LinfToy'? toy_library has: L2Toy, LinfToy"
    )
    with pytest.raises(UnknownPlugin, match=r"'tay:x'; did you mean 'toy'\?.*prefixes: toy:, FILE"):
        registry.find("attacks", "tay:x")
    with pytest.raises(UnknownPlugin, match=r"There are: .*toy:NAME"):
        registry.find("attacks", "tay")


def test_a_missing_library_of_a_provider_of_anybodys(toys):
    toys(installed=False)
    with pytest.raises(BadPlugin, match=r"needs the package toy_library.*: pip install toys"):
        registry.find("attacks", "toy:LinfToy")


def test_two_providers_of_one_prefix_are_an_error(monkeypatch):
    group = "quintain.providers.attacks"
    points = [metadata.EntryPoint("x", f"{one}:X", group) for one in ("one", "two")]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    with pytest.raises(DuplicatePlugin, match="prefix 'x:' of attacks is defined twice: by one:X"):
        third_party.prefixes("attacks")


def test_a_provider_that_cannot_be_loaded_is_a_bad_plugin(monkeypatch):
    point = metadata.EntryPoint("x", "no.such.module:X", "quintain.providers.attacks")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point])
    with registry.temporary(), pytest.raises(BadPlugin, match="'x:y': its provider fails: Module"):
        registry.find("attacks", "x:y")


def test_prefixes_are_listed_without_an_import(quintain):
    listed = quintain("list", "attacks").out
    for prefix in ("foolbox", "torchattacks", "art", "autoattack"):
        assert f"{prefix}:NAME" in listed
    assert "Attacks of Foolbox" in listed
    assert "FILE.py:FACTORY" in listed
    models = quintain("list", "models").out
    assert "torchvision:NAME" in models
    assert "FILE" not in quintain("list", "losses").out


@pytest.fixture
def mine(tmp_path, monkeypatch):
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "mine.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "nets" / "mine.py"


def test_an_attack_from_a_file_by_name(mine, linear):
    attack = registry.build("attacks", {"name": "nets/mine.py:Slow", "step_size": 0.1})
    assert (attack.steps, attack.step_size) == (99, 0.1)
    spec = {"name": f"{mine}:Slow", "steps": 2}
    result = evaluate(linear.module, linear.images, linear.labels, spec, epsilons=[0.5])
    assert result.curve["robust_accuracy"].item() == 0.0


def test_a_model_from_a_file_is_told_its_input_or_not(mine):
    from quintain.bench.api.defense import InputSpec

    inputs = InputSpec((1, 4, 4), 7, (0.5,), (1.0,))
    fitted = registry.bind("models", {"name": "nets/mine.py:fitted", "scale": 2.0})(inputs)
    assert fitted(torch.rand(2, 1, 4, 4)).shape == (2, 7)
    plain = registry.bind("models", {"name": "nets/mine.py:plain", "width": 5})(inputs)
    assert isinstance(plain, nn.Module)
    assert plain(torch.rand(2, 1, 4, 4)).shape == (2, 10)
    assert plain[1].out_features == 5
    with pytest.raises(BadParameter, match="has no parameter 'widht'; did you mean 'width'"):
        registry.bind("models", {"name": "nets/mine.py:plain", "widht": 5})


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nets/gone.py:x", "gone.py does not exist"),
        ("nets/mine.py:absent", "mine.py has no factory 'absent'"),
        ("nets/mine.py:nothing", "mine.py has no factory 'nothing'"),
    ],
)
def test_what_is_not_in_a_file_is_said(mine, name, says):
    with pytest.raises(BadPlugin, match=says):
        registry.find("models", name)


def test_what_is_in_the_file_tells_versions_apart(mine):
    before = registry.find("attacks", "nets/mine.py:Slow").code
    assert registry.code_of({"a": ["nets/mine.py:Slow"]}) == [before]
    mine.write_text(MINE.replace("99", "98"))
    assert registry.find("attacks", "nets/mine.py:Slow").code != before
    assert registry.build("attacks", "nets/mine.py:Slow").steps == 98
