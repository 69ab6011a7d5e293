"""Other libraries' models: in [0, 1], with the normalisation that their weights need."""

import enum
import sys
import types

import pytest
import torch
from builders import random_images
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadParameter, UnknownPlugin
from quintain.bench.training.load import open_ready
from quintain.bench.training.networks import build_network

COLOUR = InputSpec((3, 32, 32), 7, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
GREY = InputSpec((1, 32, 32), 7, (0.4,), (0.2,))


def x_of(inputs, count=2):
    return random_images(count, *inputs.shape)


@pytest.mark.parametrize("inputs", [COLOUR, GREY])
def test_fresh_torchvision_weights_normalise_by_the_data(inputs):
    from torchvision.models import resnet18

    made = build_network({"name": "torchvision:resnet18"}, inputs, seed=3).eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        plain = resnet18(num_classes=7).eval()
    x = x_of(inputs)
    mean, std = (torch.tensor(one).reshape(1, -1, 1, 1) for one in (inputs.mean, inputs.std))
    scaled = (x - mean) / std
    with torch.no_grad():
        assert torch.allclose(made(x), plain(scaled.expand(-1, 3, -1, -1)), atol=1e-5)
    assert not registry.brings_weights({"name": "torchvision:resnet18"})


@pytest.fixture
def downloads(monkeypatch):
    """Stand in for torchvision's server: the weights of a network with another seed."""
    from torchvision.models import WeightsEnum, squeezenet1_1

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        state = squeezenet1_1().state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda self, *_, **__: state)
    return state


def test_torchvision_weights_come_with_their_own_normalisation(downloads):
    spec = {"name": "torchvision:squeezenet1_1", "weights": "DEFAULT"}
    assert registry.brings_weights(spec)
    made = build_network(spec, COLOUR, seed=0)
    assert made.normalise.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert made.normalise.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, downloads[name])
    assert made.eval()(x_of(COLOUR)).shape == (2, 1000)


def test_what_torchvision_cannot_make_is_said_in_a_line():
    with pytest.raises(BadParameter, match="no weights 'DEFALT'; did you mean 'DEFAULT'"):
        build_network({"name": "torchvision:resnet18", "weights": "DEFALT"}, COLOUR, seed=0)
    with pytest.raises(UnknownPlugin, match="'torchvision:resnet19'; did you mean 'resnet1"):
        registry.bind("models", "torchvision:resnet19")
    spec = {"name": "torchvision:resnet18", "options": {"widht": 3}}
    with pytest.raises(
        BadParameter, match=r"torchvision:resnet18 cannot be made: TypeError: .*widht"
    ):
        build_network(spec, COLOUR, seed=0)


def test_weights_that_cannot_be_fetched_are_a_bad_parameter(monkeypatch):
    from torchvision.models import WeightsEnum

    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(WeightsEnum, "get_state_dict", offline)
    spec = {"name": "torchvision:resnet18", "weights": "DEFAULT"}
    with pytest.raises(
        BadParameter, match="with weights DEFAULT cannot be made: OSError: no route"
    ):
        build_network(spec, COLOUR, seed=0)


def test_auxiliary_logits_are_dropped():
    made = build_network({"name": "torchvision:googlenet", "options": {"init_weights": False}},
                         InputSpec((3, 64, 64), 4, (0.5,) * 3, (1.0,) * 3), seed=0)  # fmt: skip
    assert made.train()(torch.rand(2, 3, 64, 64)).shape == (2, 4)


def plain(n_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, n_classes))


@pytest.fixture
def package(monkeypatch):
    """Put a made-up package of a name where it is imported from."""

    def put(name, **content):
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace(name=name)
        for key, value in content.items():
            setattr(module, key, value)
        monkeypatch.setitem(sys.modules, name, module)

    real = registry.third_party.metadata.version
    monkeypatch.setattr(
        registry.third_party.metadata,
        "version",
        lambda name: "9.9" if name in ("timm", "robustbench") else real(name),
    )
    with registry.temporary():
        yield put


def test_timm(package):
    orders = []

    def create_model(name, *, pretrained, **options):
        orders.append((name, pretrained, options))
        network = plain(options.get("num_classes", 1000))
        network.pretrained_cfg = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.5, 0.5)}
        return network

    package("timm", create_model=create_model, list_models=lambda pretrained=False: ["vit_tiny"])
    fresh = {"name": "timm:vit_tiny", "options": {"drop_rate": 0.1}}
    assert build_network(fresh, COLOUR, seed=0)(x_of(COLOUR)).shape == (2, 7)
    ready = {"name": "timm:vit_tiny", "pretrained": True}
    made = build_network(ready, COLOUR, seed=0)
    assert made.normalise.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert orders == [
        ("vit_tiny", False, {"num_classes": 7, "drop_rate": 0.1}),
        ("vit_tiny", True, {}),
    ]
    assert [registry.brings_weights(one) for one in (fresh, ready)] == [False, True]
    assert registry.find("models", "timm:vit_tiny").code == "9.9"
    with pytest.raises(UnknownPlugin, match="did you mean 'vit_tiny'"):
        registry.find("models", "timm:vit_tini")


def test_robustbench(package, tmp_path):
    class Data(enum.Enum):
        cifar_10 = "cifar10"

    class Threat(enum.Enum):
        Linf = "Linf"
        L2 = "L2"

    orders = []

    def load_model(name, *, model_dir, dataset, threat_model):
        orders.append((name, model_dir, dataset, threat_model))
        return plain(10)

    zoo = {Data.cifar_10: {Threat.Linf: {"Good2020": {}}, Threat.L2: {"Better2021": {}}}}
    package("robustbench")
    package("robustbench.model_zoo", model_dicts=zoo)
    package("robustbench.utils", load_model=load_model)
    spec = {"name": "robustbench:Better2021", "threat_model": "L2", "folder": str(tmp_path)}
    made = build_network(spec, COLOUR, seed=0)
    x = x_of(COLOUR)
    assert torch.equal(made(x), made(x))
    assert orders == [("Better2021", str(tmp_path), "cifar10", "L2")]
    assert registry.brings_weights(spec)
    with pytest.raises(BadParameter, match=r"Better2021 is not for cifar10 Linf; did .*cifar10 L2"):
        build_network({"name": "robustbench:Better2021"}, COLOUR, seed=0)


def test_a_plain_torchvision_checkpoint_fits_into_the_wrapped_network(tmp_path):
    from torchvision.models import squeezenet1_1

    from quintain.bench.datasets.in_memory import in_memory

    theirs = squeezenet1_1(num_classes=7)
    state = {f"module.{name}": value for name, value in theirs.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "theirs.pth")
    data = in_memory(torch.rand(20, 3, 32, 32), torch.arange(20) % 7, tuple("abcdefg"))
    made = open_ready(tmp_path / "theirs.pth", {"name": "torchvision:squeezenet1_1"}, data)
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name])
