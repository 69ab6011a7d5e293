from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api import registry
from quintain.bench.api.errors import BadCheckpoint, BadSuite
from quintain.bench.datasets.validation import load_split
from quintain.bench.store.checkpoints import save_checkpoint, weights_hash
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.plan import check_models, make_plan
from quintain.bench.training.load import open_ready


@pytest.fixture
def plan(write_suite):
    def make(**changes):
        path = write_suite(**changes)
        suite, _, folder = read_suite(str(path))
        return make_plan(suite, path.name, folder)

    return make


def test_every_model_meets_every_defense_in_order(plan):
    defenses = '[[defenses]]\nname = "none"\n[[defenses]]\nname = "none"\nlabel = "long"\n'
    models = '[[models]]\nname = "resnet"\ndepth = 8\n[[models]]\nname = "alexnet"\nwidth = 0.125\n'
    made = plan(models=models, defenses=defenses)
    assert [one.title for one in made.defended_models] == [
        "resnet x none",
        "resnet x long",
        "alexnet x none",
        "alexnet x long",
    ]
    assert [one.title for one in made.tasks] == ["fgsm", "pgd"]
    assert made.tasks[1].stage.attack == PGD(steps=3)


def test_the_examples_are_drawn_by_the_seed(plan):
    made = plan()
    assert len(made.indices) == 24
    assert made.indices.tolist() == sorted(set(made.indices.tolist()))
    assert torch.equal(plan().indices, made.indices)
    assert not torch.equal(plan(seed="1").indices, made.indices)
    whole = registry.build("datasets", "digits").load("test")
    images = made.test.images.read(torch.arange(len(made.test)))
    assert torch.equal(images, whole.images.read(made.indices))
    assert torch.equal(made.test.labels, whole.labels[made.indices])
    everything = plan(n_examples=None)
    assert everything.indices.tolist() == list(range(len(whole)))


def test_a_checkpoint_stands_for_model_and_defense(plan, tmp_path):
    spec = {"name": "resnet", "depth": 8, "width": 0.25}
    data = registry.build("datasets", "digits").load("train")
    network = plan().defended_models[0]
    assert network.defense is not None
    from quintain.bench.api.defense import InputSpec
    from quintain.bench.training.networks import build_network

    made = build_network(spec, InputSpec(data.shape, 10, (0.5,), (1.0,)), seed=3)
    (tmp_path / "weights").mkdir()
    path = tmp_path / "weights" / "net.safetensors"
    save_checkpoint(path, made, {"model": spec})
    lines = 'depth = 8\nwidth = 0.25\ncheckpoint = "weights/net.safetensors"\n'
    two = '[[models]]\nname = "resnet"\nlabel = "fresh"\ndepth = 8\n'
    ready = plan(models=f'[[models]]\nname = "resnet"\n{lines}{two}')
    assert [one.title for one in ready.defended_models] == ["resnet x pretrained", "fresh x none"]
    assert ready.defended_models[0].defense is None
    assert ready.checkpoint(ready.defended_models[0].model) == path
    assert ready.checkpoint(ready.defended_models[1].model) is None
    assert weights_hash(open_ready(path, spec, data)) == weights_hash(made)
    with pytest.raises(BadCheckpoint, match=r"is of the model .*'depth': 8.* not .*'depth': 14"):
        open_ready(path, spec | {"depth": 14}, data)


def test_weights_of_unknown_making_must_fit_the_network(plan, tmp_path):
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(2)}, str(tmp_path / "theirs.safetensors"))
    models = '[[models]]\nname = "resnet"\ndepth = 8\ncheckpoint = "theirs.safetensors"\n'
    made = plan(models=models)
    check_models(made, "tiny.toml", {"another"})
    with pytest.raises(
        BadSuite, match=r"tiny.toml: models\[1\]: checkpoint .*theirs\.safetensors (lacks|is f)"
    ):
        check_models(made, "tiny.toml", {"resnet"})


def test_an_attack_that_does_not_know_the_norm_is_refused(plan):
    @registry.attack("picky")
    @dataclass(frozen=True)
    class Picky(PGD):
        norms: ClassVar[tuple[str, ...]] = ("L2",)

    picky = '[[attacks]]\nname = "picky"\n'
    with pytest.raises(BadSuite, match=r"attacks\[1\]: Picky works in L2, not in Linf"):
        plan(attacks=picky)
    assert plan(attacks=picky, norm='"L2"').tasks[0].stage.attack.access == "white-box"


def test_what_a_dataset_plugin_runs_into_is_said_in_our_words():
    class Broken:
        def load(self, split):
            raise PermissionError(13, "Permission denied", "/data/x")

    with pytest.raises(
        Exception, match=r"dataset 'mine', test split: PermissionError: .*Permission denied: '/data"
    ) as caught:
        load_split(Broken(), "mine", "test")
    assert type(caught.value).__name__ == "BadData"
