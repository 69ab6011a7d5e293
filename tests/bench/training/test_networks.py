from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.defense import Defense, InputSpec, Trained
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.progress import Silent
from quintain.bench.datasets.in_memory import in_memory
from quintain.bench.store.checkpoints import weights_hash
from quintain.bench.store.hashing import hash_json
from quintain.bench.training import networks as training
from quintain.bench.training.networks import TrainingRequest, build_network, train_or_load


@dataclass(frozen=True)
class Nudge:
    """A defense that adds a number to every weight, and counts how often it is asked."""

    by: float = 0.5
    asked = 0

    def fit(self, model, training):
        Nudge.asked += 1
        with torch.no_grad():
            for one in model.parameters():
                one.add_(self.by)
        return Trained(model.train(), ({"epoch": 1, "loss": 0.25},), ("odd",))


@dataclass(frozen=True)
class Wrapped(Nudge):
    """One that puts a layer in front."""

    def wrap(self, model):
        return nn.Sequential(nn.BatchNorm2d(1), model)

    def fit(self, model, training):
        return super().fit(self.wrap(model), training)


@dataclass(frozen=True)
class Around:
    """A defense that wraps what another makes, and asks for it by the way a defense is given."""

    base: Defense = Nudge()
    seed: int | None = None
    scale: float | None = None

    def wrap(self, model):
        return nn.Sequential(nn.Identity(), model)

    def fit(self, model, training):
        other = None if self.scale is None else {"name": "flat", "scale": self.scale}
        made = training.obtain(self.base, seed=self.seed, model=other)
        return Trained(self.wrap(made.model), made.history, made.flags)


@pytest.fixture(autouse=True)
def small_model():
    Nudge.asked = 0

    @registry.model("flat")
    def flat(inputs: InputSpec, *, scale: float = 1.0) -> nn.Module:
        layer = nn.Linear(inputs.shape[1] * inputs.shape[2], inputs.n_classes)
        layer.weight.data.mul_(scale)
        return nn.Sequential(nn.Flatten(), layer)


@pytest.fixture
def wanted():
    images = torch.arange(48, dtype=torch.float32).reshape(12, 1, 2, 2) / 48
    data = in_memory(images, torch.arange(12) % 3, ("a", "b", "c"))
    return TrainingRequest({"name": "flat"}, Nudge(), data, 0, torch.device("cpu"), "Linf", 0.1)


def test_the_second_time_nothing_is_trained(wanted, tmp_path):
    first = train_or_load(wanted, tmp_path, Silent())
    second = train_or_load(wanted, tmp_path, Silent())
    assert Nudge.asked == 1
    assert weights_hash(second.model) == weights_hash(first.model)
    assert second.history == ({"epoch": 1, "loss": 0.25},)
    assert second.flags == ("odd",)
    assert not first.model.training
    assert not second.model.training


def test_without_a_cache_nothing_is_kept(wanted, tmp_path):
    train_or_load(wanted, None, Silent())
    train_or_load(wanted, None, Silent())
    assert Nudge.asked == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [b"", b"rubbish", None])
def test_a_damaged_cache_file_is_trained_again(wanted, tmp_path, damage):
    first = train_or_load(wanted, tmp_path, Silent())
    (path,) = (tmp_path / "networks").glob("*.safetensors")
    sound = path.read_bytes()
    path.write_bytes(sound[: len(sound) // 2] if damage is None else damage)
    again = train_or_load(wanted, tmp_path, Silent())
    assert Nudge.asked == 2
    assert weights_hash(again.model) == weights_hash(first.model)
    assert path.read_bytes() == sound


def test_a_cache_file_that_says_nothing_of_its_training_is_trained_again(wanted, tmp_path):
    train_or_load(wanted, tmp_path, Silent())
    (path,) = (tmp_path / "networks").glob("*.safetensors")
    training.save_checkpoint(path, wanted.build(), {})
    assert train_or_load(wanted, tmp_path, Silent()).flags == ("odd",)
    assert Nudge.asked == 2


def test_weights_that_are_not_those_that_were_kept_are_trained_again(wanted, tmp_path):
    first = train_or_load(wanted, tmp_path, Silent())
    (path,) = (tmp_path / "networks").glob("*.safetensors")
    content = bytearray(path.read_bytes())
    content[-3] ^= 4  # within the tensors, which the format has no checksum for
    path.write_bytes(content)
    again = train_or_load(wanted, tmp_path, Silent())
    assert Nudge.asked == 2
    assert weights_hash(again.model) == weights_hash(first.model)


def test_a_network_that_a_defense_wraps_comes_back_wrapped(wanted, tmp_path):
    wrapped = replace(wanted, defense=Wrapped())
    first = train_or_load(wrapped, tmp_path, Silent())
    second = train_or_load(wrapped, tmp_path, Silent())
    assert Nudge.asked == 1
    assert [type(one) for one in second.model] == [nn.BatchNorm2d, nn.Sequential]
    assert weights_hash(second.model) == weights_hash(first.model)


def other_data(wanted, *, images=None, labels=None, names=("a", "b", "c")):
    everything = torch.arange(12)
    x = wanted.data.images.read(everything) if images is None else images
    return in_memory(x, wanted.data.labels if labels is None else labels, names)


CHANGES = {
    "model": lambda wanted: {"model": {"name": "flat", "scale": 2.0}},
    "defense": lambda wanted: {"defense": Nudge(0.25)},
    "defense class": lambda wanted: {"defense": Wrapped()},
    "seed": lambda wanted: {"seed": 1},
    "norm": lambda wanted: {"norm": "L2"},
    "epsilon": lambda wanted: {"epsilon": None},
    "device": lambda wanted: {"device": torch.device("meta")},
    "pixels": lambda wanted: {"data": other_data(wanted, images=torch.zeros(12, 1, 2, 2))},
    "labels": lambda wanted: {"data": other_data(wanted, labels=(torch.arange(12) + 1) % 3)},
    "classes": lambda wanted: {"data": other_data(wanted, names=("a", "b", "d"))},
}


def test_defenses_that_wrap_the_same_network_train_it_once(wanted, tmp_path):
    alone = train_or_load(wanted, tmp_path, Silent())
    around = train_or_load(replace(wanted, defense=Around()), tmp_path, Silent())
    assert Nudge.asked == 1
    assert weights_hash(around.model[1]) == weights_hash(alone.model)
    assert (around.history, around.flags) == (alone.history, alone.flags)


@pytest.mark.parametrize("given", [{"seed": 1}, {"scale": 2.0}])
def test_a_defense_can_ask_for_networks_of_other_seeds_and_architectures(wanted, tmp_path, given):
    alone = train_or_load(wanted, tmp_path, Silent())
    around = train_or_load(replace(wanted, defense=Around(**given)), tmp_path, Silent())
    assert Nudge.asked == 2
    assert weights_hash(around.model[1]) != weights_hash(alone.model)


def test_a_hyperparameter_that_is_a_defense_is_built_from_its_spec():
    registry.defense("nudge")(Nudge)
    registry.defense("around")(Around)
    assert registry.build("defenses", {"name": "around", "base": "nudge"}) == Around()
    spec = {"name": "around", "base": {"name": "nudge", "by": 0.25}}
    assert registry.build("defenses", spec) == Around(Nudge(0.25))


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_can_change_the_weights_changes_the_key(wanted, what):
    changed = replace(wanted, **CHANGES[what](wanted))
    assert changed.key() != wanted.key()
    assert replace(wanted).key() == wanted.key()


def test_the_version_of_a_model_a_defense_and_torch_change_the_key(wanted, monkeypatch):
    keys = {wanted.key()}
    with monkeypatch.context() as patch:
        patch.setattr(registry.find("models", "flat").load(), "version", "2", raising=False)
        keys.add(wanted.key())
    with monkeypatch.context() as patch:
        patch.setattr(Nudge, "version", "2", raising=False)
        keys.add(wanted.key())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "__version__", "9.9")
        keys.add(wanted.key())
    assert len(keys) == 4


@pytest.mark.parametrize("kind", ["model", "defense", "member"])
def test_an_edited_plugin_file_changes_the_key(wanted, tmp_path, kind):
    sources = {
        "model": (
            "from torch import nn\nfrom quintain.bench.api import registry\n"
            "@registry.model('mine')\n"
            "def mine(inputs):\n    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))\n"
        ),
        "defense": (
            "from dataclasses import dataclass\n"
            "from quintain.bench.api import registry\n"
            "from quintain.bench.api.defense import Trained\n"
            "@registry.defense('mine')\n@dataclass(frozen=True)\nclass Mine:\n"
            "    def fit(self, model, training):\n        return Trained(model)\n"
        ),
    }
    sources["member"] = sources["model"]
    keys = set()
    for edit in ("", "# edited\n"):
        with registry.temporary():
            (tmp_path / "mine.py").write_text(sources[kind] + edit)
            registry.load_file(tmp_path / "mine.py")
            plugin = {"name": "mine"}
            spec = {"name": "ensemble", "members": [plugin]} if kind == "member" else plugin
            change = plugin if kind == "model" else registry.build("defenses", spec)
            part = "model" if kind == "model" else "defense"
            keys.add(replace(wanted, **{part: change}).key())
    assert len(keys) == 2


def test_building_depends_on_the_seed_and_leaves_torchs_own_numbers_alone(wanted):
    inputs = InputSpec((1, 2, 2), 3, (0.5,), (1.0,))
    before = torch.random.get_rng_state()
    one = build_network({"name": "flat"}, inputs, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert weights_hash(build_network({"name": "flat"}, inputs, seed=5)) == weights_hash(one)
    assert weights_hash(build_network({"name": "flat"}, inputs, seed=6)) != weights_hash(one)


def test_a_model_that_refuses_its_arguments_is_the_users_mistake(wanted):
    with pytest.raises(BadParameter, match="'flat' has no parameter 'scal'; did you mean 'scale'"):
        build_network({"name": "flat", "scal": 1}, InputSpec((1, 2, 2), 3, (0.5,), (1.0,)), 0)


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert hash_json({"a": 1, "b": [0.1]}) == hash_json({"b": [0.1], "a": 1})
    assert hash_json({"a": 1}) != hash_json({"a": 2})
    assert hash_json([1, 2]) != hash_json([2, 1])


def test_what_killed_processes_were_writing_into_the_cache_is_taken_away(tmp_path):
    from filelock import FileLock

    folder = tmp_path / "networks"
    folder.mkdir()
    names = [".a.safetensors.12.tmp", ".a.partial-2.7.tmp", ".b.safetensors.3.tmp", "c.safetensors"]
    for name in (*names, ".of-somebody-else"):
        (folder / name).write_text("")
    with FileLock(folder / "b.lock"):  # somebody is at work on it
        training.sweep(tmp_path)
    left = {one.name for one in folder.iterdir() if not one.name.endswith(".lock")}
    assert left == {".b.safetensors.3.tmp", "c.safetensors", ".of-somebody-else"}
    training.sweep(tmp_path)
    assert not (folder / ".b.safetensors.3.tmp").exists()
    training.sweep(tmp_path / "nowhere")
