from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from builders import problem_at
from torch.nn import functional

from quintain.attacks.gradients.autograd import Autograd
from quintain.attacks.gradients.diversity import InputDiversity, resizing
from quintain.attacks.parts.losses import Margin
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter


@dataclass(frozen=True)
class Quadratic:
    """Gradient of half the squared norm, which is the point itself; keeps what it was shown."""

    access = "white-box"
    seen: Any = field(default_factory=list, hash=False)

    def __call__(self, problem, x, loss):
        self.seen.append(x)
        return x


@pytest.mark.parametrize("side", [5, 8, 16])
def test_resizing_is_bilinear_among_zeros(side):
    x = torch.rand(1, 2, side, side, dtype=torch.float64)
    for size in range(1, side + 1):
        for before in range(side - size + 1):
            place = torch.tensor([(before + 0.5) / (side - size + 1)])
            matrix = resizing(side, torch.tensor([size]), place)
            ours = matrix @ x @ matrix.mT
            small = functional.interpolate(x, (size, size), mode="bilinear", align_corners=False)
            after = side - size - before
            wanted = functional.pad(small, (before, after, before, after))
            assert torch.allclose(ours, wanted, atol=1e-12)


def test_the_gradient_goes_back_through_what_was_done():
    """Of |T x|^2 / 2 it is T'T x, for which x . T'T x = |T x|^2."""
    x = torch.rand(30, 3, 9, 7)
    inner = Quadratic()
    gradient = InputDiversity(1.0, 0.5, inner)(problem_at(x), x, Margin())
    (shown,) = inner.seen
    products = (x * gradient).flatten(1).sum(1)
    assert torch.allclose(products, shown.square().flatten(1).sum(1), rtol=1e-5)
    assert (shown != x).flatten(1).any(1).float().mean() > 0.5
    assert ((shown >= 0) & (shown <= 1)).all()


def test_the_loss_beside_it_is_that_of_the_resized_image():
    @dataclass(frozen=True)
    class Summing(Quadratic):
        def valued(self, problem, x, loss):
            return x, x.flatten(1).sum(1)

    x = torch.rand(5, 1, 8, 8)
    inner = Summing()
    source = InputDiversity(1.0, 0.5, inner)
    gradient, value = source.valued(problem_at(x), x, Margin())
    assert torch.equal(gradient, source(problem_at(x), x, Margin()))
    assert torch.equal(value, inner.seen[0].flatten(1).sum(1))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_so_many_are_changed_and_again_at_each_step(probability):
    x = torch.rand(1000, 1, 8, 8)
    inner = Quadratic()
    source = InputDiversity(probability, 0.6, inner)
    for step in (0, 1):
        source(problem_at(x, step=step), x, Margin())
    changed = [(one != x).flatten(1).any(1) for one in inner.seen]
    # of sizes 5 to 8 one in four is the image's own
    assert changed[0].float().mean() == pytest.approx(0.75 * probability, abs=0.05)
    assert probability == 0.0 or not torch.equal(*changed)


def test_a_row_does_not_depend_on_its_neighbours():
    x = torch.rand(64, 3, 16, 16)
    source = InputDiversity(1.0, 0.5, Quadratic())
    whole = source(problem_at(x), x, Margin())
    for count in (1, 3, 17):
        part = source(problem_at(x[:count]), x[:count], Margin())
        assert torch.equal(part, whole[:count])


def test_it_can_wrap_any_source_by_its_spec():
    spec = {"name": "input-diversity", "probability": 1.0, "gradient": "finite-differences"}
    made = registry.build("gradients", spec)
    assert made.access == "score"
    assert made.monotone
    spec["gradient"] = {"name": "translation-invariant", "gradient": "proxy"}
    made = registry.build("gradients", spec)
    assert (made.access, made.monotone) == ("score", False)


@pytest.mark.parametrize(("name", "value"), [("probability", 1.5), ("smallest", 0.0)])
def test_parameters_that_mean_nothing_are_refused(name, value):
    with pytest.raises(BadParameter, match=name):
        InputDiversity(**{name: value})


def test_pgd_through_it_is_still_an_attack(digits):
    x, y = digits.images[:60], digits.labels[:60]
    robust = [
        evaluate(digits.module, x, y, PGD(gradient=one), epsilons=[0.2]).curve["robust_accuracy"]
        for one in (Autograd(), InputDiversity(0.5, 0.9))
    ]
    assert robust[1].item() < 0.3
    assert robust[0].item() <= robust[1].item() + 0.05
