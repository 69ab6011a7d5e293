"""AutoAttack and its Square beside the authors' program, on adversarially trained networks.

Run by `pytest -m peers` where pyautoattack is installed.
"""

from functools import cache

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from quintain.attacks.black_box.square import Square
from quintain.bench import evaluate
from quintain.bench.api.threat import make_ball

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

EPSILONS = {"Linf": 0.15, "L2": 1.0}
SEEDS = (0, 1, 2)
SETTINGS = {"search": "exhaustive", "precision": "float32"}


@cache
def trained(norm):
    """A small convolutional network trained by PGD in a norm, and 200 digits it was not shown."""
    data = load_digits()
    x = torch.from_numpy(data.images / 16).float()[:, None]
    y = torch.from_numpy(data.target).long()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
            nn.Flatten(), nn.Linear(256, 10),
        )  # fmt: skip
        optimizer = torch.optim.Adam(module.parameters(), 5e-3)
        for _ in range(12):
            for batch in torch.randperm(1597).split(64):
                at = worst(module, x[batch], y[batch], norm)
                optimizer.zero_grad()
                nn.functional.cross_entropy(module(at), y[batch]).backward()
                optimizer.step()
    return module.eval().requires_grad_(False), x[1597:], y[1597:]


def worst(module, x, y, norm):
    """Five steps of PGD."""
    ball = make_ball(norm, x, torch.full((len(x),), EPSILONS[norm], dtype=torch.float64))
    at = x
    for _ in range(5):
        at = at.detach().requires_grad_()
        (slope,) = torch.autograd.grad(nn.functional.cross_entropy(module(at), y), at)
        at = ball.project(at.detach() + ball.radius / 3 * ball.steepest(slope, at))
    return at


def left(module, adversarial, y):
    return int((module(adversarial).argmax(1) == y).sum())


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("norm", EPSILONS)
def test_as_many_examples_resist_the_standard_as_resist_the_authors_program(norm, seed):
    from pyautoattack import AutoAttack

    module, x, y = trained(norm)
    epsilon = EPSILONS[norm]
    theirs = AutoAttack(module, norm=norm, eps=epsilon, seed=seed, version="standard")
    resisted = left(module, theirs.run_standard_evaluation(x, y, batch_size=200)[0], y)
    ours = evaluate(module, x, y, "autoattack", norm=norm, epsilons=[epsilon], seed=seed,
                    **SETTINGS)  # fmt: skip
    assert 20 < resisted < 160
    assert abs(round(200 * ours.curve["robust_accuracy"].item()) - resisted) <= 1


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.12), ("L2", 0.8), ("L1", 4.0)])
def test_square_as_published_breaks_as_many_as_the_authors_program(norm, epsilon):
    from pyautoattack.square import SquareAttack

    module, x, y = trained("L2" if norm == "L1" else norm)
    resisted, ours = 0, 0.0
    for seed in SEEDS:
        theirs = SquareAttack(module, norm=norm, n_queries=300, eps=epsilon, seed=seed,
                              resc_schedule=False)  # fmt: skip
        resisted += left(module, theirs.perturb(x, y), y)
        attack = Square(steps=301, scheduled_over=10_000, published=True)
        result = evaluate(module, x, y, attack, norm=norm, epsilons=[epsilon], seed=seed,
                          **SETTINGS)  # fmt: skip
        ours += 200 * result.curve["robust_accuracy"].item()
    assert 60 < resisted < 500
    assert ours == pytest.approx(resisted, abs=15)  # of 600: its squares are the same for a batch


def test_the_package_through_the_harness_breaks_what_it_breaks_alone():
    module, x, y = (one[:24] if isinstance(one, torch.Tensor) else one for one in trained("Linf"))
    settings = {"epsilons": [0.15], "batch_size": 24}
    through = evaluate(module, x, y, "autoattack:standard", **settings)
    ours = evaluate(module, x, y, "autoattack", **settings, **SETTINGS)
    assert through.records["broken"].tolist() == ours.records["broken"].tolist()
    assert 0 < through.curve["robust_accuracy"].item() < 0.9
    resisted = through.records[~through.records["broken"].map(any) & through.records.under_attack]
    assert (resisted["backward"] > 1800).all()  # 101 and nine times 101 gradients, and FAB's
    assert (resisted["queries"] > 7800).all()
