"""MI-FGSM, NI-FGSM and variance tuning, on networks with known gradients."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from builders import problem_at, random_images

from quintain.attacks.presets import transfer_strong
from quintain.attacks.white_box.momentum import MomentumIterative, ni_fgsm, unit, vmi_fgsm
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.threat import measure


@dataclass(frozen=True)
class Watched:
    """A source with a function for a gradient; keeps the points and the draws it was asked with."""

    access = "white-box"
    function: Any = field(hash=False)
    seen: Any = field(default_factory=list, hash=False)

    def __call__(self, problem, x, loss):
        self.seen.append((x, problem.draws.uniform((1,), "theirs")))
        return self.function(x)


def run(attack, x, norm="Linf", epsilon=0.2):
    states = []
    for step in range(attack.steps):
        at = problem_at(x, norm=norm, epsilon=epsilon, step=step)
        state = attack.start(at) if step == 0 else states[-1]
        states.append(attack.step(at, state))
    return states


X = 0.3 + 0.4 * random_images(6, 1, 4, 4)


def test_gradients_add_up_with_decay():
    gradients = torch.randn(3, 6, 1, 4, 4)
    left = list(gradients)
    states = run(MomentumIterative(3, decay=0.5, gradient=Watched(lambda x: left.pop(0))), X)
    scaled = gradients / gradients.abs().mean(dim=(2, 3, 4), keepdim=True)
    wanted = scaled[2] + 0.5 * (scaled[1] + 0.5 * scaled[0])
    assert torch.allclose(states[-1].momentum, wanted, atol=1e-6)
    moved = sum(0.2 / 3 * one.momentum.sign() for one in states)
    assert torch.allclose(states[-1].x_adv - X, moved, atol=1e-6)


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_a_scaled_gradient_is_a_step_of_unit_length(norm):
    gradient = (
        torch.randn(5, 3, 4, 4) * torch.tensor([1e-25, 1e-3, 1.0, 1e6, 0.0])[:, None, None, None]
    )
    scaled = unit(gradient, norm)
    length = scaled.abs().flatten(1).mean(1) if norm == "Linf" else measure(scaled, norm).float()
    assert torch.allclose(length, torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]), atol=1e-5)


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_nesterov_looks_where_the_momentum_leads(norm):
    source = Watched(lambda x: torch.ones_like(x))
    states = run(ni_fgsm(steps=3, decay=1.0, gradient=source), X, norm)
    assert torch.equal(source.seen[0][0], X)
    for before, (looked, _) in zip(states, source.seen[1:], strict=False):
        ahead = (before.x_adv + 0.2 / 3 * before.momentum).clamp(0, 1)
        assert torch.allclose(looked, ahead, atol=1e-6)
        assert not torch.allclose(looked, before.x_adv, atol=1e-3)


def test_the_variance_is_what_neighbours_say_more_than_the_point_itself():
    """With the gradient x^2 it is the mean of 2 x r + r^2, near the second moment of r."""
    source = Watched(lambda x: x.square())
    attack = vmi_fgsm(steps=2, neighbours=400, reach=0.5, gradient=source)
    first, _ = run(attack, X)
    moment = (0.5 * 0.2) ** 2 / 3
    assert first.variance.mean().item() == pytest.approx(moment, rel=0.3)
    near = torch.stack([point for point, _ in source.seen[1:401]])
    assert (near - X).abs().max() <= 0.5 * 0.2 + 1e-6
    assert len({draw[0].item() for _, draw in source.seen[:401]}) == 401  # each draws again
    exact = near.square().mean(0) - X.square()
    assert torch.allclose(first.variance, exact, atol=1e-6)


def test_the_variance_corrects_the_next_gradient():
    source = Watched(lambda x: x.square())
    states = run(vmi_fgsm(steps=2, neighbours=3, gradient=source), X)
    corrected = states[0].x_adv.square() + states[0].variance
    wanted = states[0].momentum + unit(corrected, "Linf")
    assert torch.allclose(states[1].momentum, wanted, atol=1e-6)
    assert len(source.seen) == 2 * 4


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
@pytest.mark.parametrize("name", ["mi-fgsm", "ni-fgsm", "vmi-fgsm"])
def test_on_a_plane_the_optimum_is_found(linear, norm, name):
    grid = linear.grid(norm, 6)
    attack = {"name": name, "steps": 40} if name != "vmi-fgsm" else {"name": name, "neighbours": 2}
    result = evaluate(linear.module, linear.images, linear.labels, attack, norm=norm, epsilons=grid)
    wanted = [(linear.distances[norm] > epsilon).mean() for epsilon in grid]
    slack = 0.0 if norm == "Linf" else 0.15  # in L1 a step is spread over 5% of the coordinates
    for robust, best in zip(result.curve["robust_accuracy"], wanted, strict=True):
        assert best - 1e-9 <= robust <= best + slack


def test_a_target_is_reached(digits):
    x, y = digits.images[:50], digits.labels[:50]
    targets = (y + 1) % 10
    result = evaluate(
        digits.module, x, y, {"name": "mi-fgsm", "steps": 20}, epsilons=[0.5], targets=targets
    )
    assert result.curve["attack_success_rate"].item() > 0.9
    reached = digits.module(result.adversarials(0.5)).argmax(1) == targets
    assert reached.float().mean() > 0.8


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("step_size", 0.0), ("decay", -0.1), ("neighbours", -1), ("reach", 0.0)],
)
def test_parameters_that_mean_nothing_are_refused(name, value):
    with pytest.raises(BadParameter, match=name):
        MomentumIterative(**{name: value})


def test_the_strong_transfer_attack_is_made_of_its_parts():
    attack = registry.build("attacks", "transfer-strong")
    assert attack == transfer_strong()
    assert attack.neighbours > 0
    parts = []
    part = attack
    while hasattr(part, "gradient"):
        part = part.gradient
        parts.append(type(part).__name__)
    assert parts == ["TranslationInvariant", "InputDiversity", "Proxy"]
    assert attack.access == "score"
    assert not attack.monotone
