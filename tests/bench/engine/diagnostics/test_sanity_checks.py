import pandas as pd
import pytest
import torch
from torch import nn

from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.engine.diagnostics.sanity_checks import predictions, sanity_flags
from quintain.bench.victim.model import Network

CPU = torch.device("cpu")


class Linear(nn.Module):
    """Two classes by the mean of the image. deaf: which images get no gradient."""

    def __init__(self, deaf=lambda x: torch.zeros(len(x), dtype=torch.bool)):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))
        self.deaf = deaf

    def forward(self, x):
        seen = torch.where(self.deaf(x)[:, None, None, None], x.detach(), x)
        score = self.scale * (seen.mean((1, 2, 3)) - 0.5)
        return torch.stack([-score, score], 1)


class Restless(Linear):
    """One that answers otherwise when asked again."""

    def forward(self, x):
        self.scale.data.neg_()
        return super().forward(x)


@pytest.fixture
def images():
    return torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def flags_of(module, images, rows=None, access=("white-box",), not_reproduced=0):
    network = Network(module.requires_grad_(False), CPU, 64)
    everyone = torch.arange(len(images))
    images = TensorImages(images)
    labels = predictions(network, images, everyone)
    rows = everyone if rows is None else rows
    return sanity_flags(network, images, labels, rows, set(access), not_reproduced)


def test_a_plain_model_raises_no_flag(images):
    assert flags_of(Linear(), images) == ()


def test_predictions_are_those_of_the_module_in_order(images):
    module = Linear()
    expected = (images.mean((1, 2, 3)) > 0.5).long()
    network, rows = Network(module, CPU, 16), torch.randperm(50)
    assert torch.equal(predictions(network, TensorImages(images), rows), expected[rows])
    assert 0 < expected.sum() < 50


def test_not_reproduced_adversarials_are_counted(images):
    assert flags_of(Linear(), images, not_reproduced=3) == ("not-reproduced:3",)


def test_a_model_that_changes_its_mind_is_flagged(images):
    # The first pass over all images gets one answer, the second the other.
    assert flags_of(Restless(), images, torch.arange(10)) == ("unstable-predictions:10",)


@pytest.mark.parametrize(("dead", "expected"), [(50, "100%"), (10, "20%"), (5, None), (0, None)])
def test_gradients_that_vanish_for_more_than_a_tenth_are_flagged(images, dead, expected):
    images[:, 0, 0, 0] = 0.4
    images[:dead, 0, 0, 0] = 0.0
    found = flags_of(Linear(lambda x: x[:, 0, 0, 0] == 0.0), images)
    assert found == (() if expected is None else (f"vanishing-gradients:{expected}",))


def test_only_examples_under_attack_and_gradient_attacks_are_of_interest(images):
    def deaf(x):
        return torch.ones(len(x), dtype=torch.bool)

    assert flags_of(Linear(deaf), images, access=("score", "decision")) == ()
    assert flags_of(Linear(deaf), images, rows=torch.arange(0)) == ()
    assert flags_of(Linear(deaf), images, access=("score", "white-box")) == (
        "vanishing-gradients:100%",
    )


def test_a_saturated_loss_is_flagged(images):
    module = Linear()
    module.scale.data.fill_(1e6)
    assert flags_of(module, images) == ("vanishing-gradients:100%",)


MASKED = """
from torch import nn
from quintain.bench.api import registry
from quintain.models.resnet import resnet

@registry.model("masked")
def masked(inputs, *, depth: int = 8, width: float = 0.25):
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = resnet(inputs, depth=depth, width=width)
        def forward(self, x):
            return self.inner(x if self.training else x.detach() + 0.0 * x)
    return Masked()
"""
ATTACKS = """
[[attacks]]
name = "pgd"
steps = 3
[[attacks]]
name = "pgd-finite-differences"
steps = 4
step_size = 1.0
gradient = { name = "finite-differences", coordinates = 64 }
"""


def test_a_model_that_hides_its_gradient_is_flagged_in_the_tables(tmp_path, write_suite, quintain):
    (tmp_path / "masked.py").write_text(MASKED)
    suite = write_suite(
        plugins='["masked.py"]', models='[[models]]\nname = "masked"\n', attacks=ATTACKS
    )
    answer = quintain("run", suite, "--out", tmp_path / "out", "--device", "cpu", "--verbose")
    assert answer.code == 0
    table = pd.read_csv(tmp_path / "out" / "tradeoff.csv", keep_default_na=False)
    flags = table.drop_duplicates("attack").set_index("attack")["flags"]
    assert flags["pgd"] == "vanishing-gradients:100%"
    assert flags["pgd-finite-differences"] == ""
    first, second = flags["worst-case"].split(";")
    assert first.startswith("black-box-beats-white-box:")
    assert int(first.partition(":")[2]) > 2
    assert second == "vanishing-gradients:100%"
    assert "- masked x none x pgd: vanishing-gradients:100%" in answer.out
