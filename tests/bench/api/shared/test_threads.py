"""A small network gets one thread, whatever the machine has; what was set before is put back."""

import json

import pytest
import torch
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec, Training
from quintain.bench.api.progress import Silent
from quintain.bench.api.shared.threads import ONE_THREAD_BELOW, suited_threads, threads_for
from quintain.bench.suite.config import read_suite
from quintain.bench.training.networks import TrainingRequest, train_or_load

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def three_threads():
    """More than one, and a number that nothing of ours would set."""
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


class Watched(nn.Module):
    """A convolution that notes with how many threads it was run. channels: of 16x16 outputs."""

    def __init__(self, channels=4):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(1, channels, 3, padding=1), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
            nn.Linear(4 * channels, 10),
        )  # fmt: skip
        self.seen = []

    def forward(self, x):
        self.seen.append((torch.get_num_threads(), self.training))
        return self.inner(x)


def test_the_number_follows_from_the_work_of_the_network():
    image = torch.rand(1, 1, 16, 16)
    border = round(ONE_THREAD_BELOW / (16 * 16 * 9 + 4 * 10))  # channels that make so much work
    assert threads_for(Watched(border - 1), image, CPU) == 1
    assert threads_for(Watched(border + 1), image, CPU) == 3
    assert threads_for(Watched(), image, torch.device("meta")) == 3


@pytest.mark.parametrize("mode", [True, False])
def test_the_network_is_left_as_it_was(mode):
    module, image = Watched().train(mode), torch.rand(1, 1, 16, 16)
    random = torch.get_rng_state()
    threads_for(module, image, CPU)
    assert [training for _, training in module.seen] == [False]
    assert all(one.training == mode for one in module.modules())
    assert random.equal(torch.get_rng_state())


def test_one_whose_work_cannot_be_counted_is_left_alone():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("not this shape")

    module = Broken()
    assert threads_for(module, torch.rand(1, 1, 16, 16), CPU) == 3
    assert module.training


def test_what_was_set_before_is_put_back_after_an_error_too():
    def fail():
        with suited_threads(Watched(), torch.rand(1, 1, 16, 16), CPU):
            assert torch.get_num_threads() == 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize(("channels", "threads"), [(4, 1), (5000, 3)])
def test_an_evaluation_runs_with_them_and_puts_them_back(channels, threads):
    module = Watched(channels).eval()
    images = torch.rand(3, 1, 16, 16)
    labels = module(images).argmax(dim=1)
    module.seen.clear()
    evaluate(module, images, labels, attack={"name": "pgd", "steps": 2}, precision="float32")
    assert {one for one, _ in module.seen[1:]} == {threads}
    assert torch.get_num_threads() == 3


def test_a_training_runs_with_them_and_puts_them_back():
    seen = []

    class Noting:
        def fit(self, model, training: Training):
            seen.append(torch.get_num_threads())
            return registry.build("defenses", {"name": "none", "epochs": 1}).fit(model, training)

    data = registry.build("datasets", "digits").load("train")
    model = {"name": "resnet", "depth": 8, "width": 0.25}
    train_or_load(TrainingRequest(model, Noting(), data, 0, CPU, "Linf", None), None, Silent())
    assert seen == [1]
    assert torch.get_num_threads() == 3


def test_they_change_no_number(quintain, write_suite, tables, tmp_path):
    made = []
    for threads in (1, 3):
        torch.set_num_threads(threads)
        out = tmp_path / str(threads)
        assert quintain("run", write_suite(), "--out", out, "--device", "cpu").code == 0
        (network,) = json.loads((out / "manifest.json").read_text())["networks"]
        assert network["threads"] == 1
        made.append(tables(out))
    assert made[0] == made[1]


def test_the_quickstart_is_run_with_one():
    suite = read_suite("quickstart")[0]
    inputs = InputSpec((1, 16, 16), 10, (0.5,), (0.25,))
    for one in suite.models:
        module = registry.bind("models", one.spec)(inputs)
        assert threads_for(module, torch.rand(1, 1, 16, 16), CPU) == 1
