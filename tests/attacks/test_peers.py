"""PGD and SPSA beside other libraries: same network, images, steps, step size and samples.

Run by `pytest -m peers` where foolbox and torchattacks are installed.
"""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import nn

from quintain.attacks.gradients.spsa import SPSA
from quintain.attacks.presets import pgd_spsa
from quintain.bench import evaluate

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

STEPS, STEP_SIZE = 40, 0.0625
GRIDS = {"Linf": [0.04, 0.08, 0.12, 0.16], "L2": [0.4, 0.7, 1.0, 1.3]}


def foolbox_pgd(module, x, y, norm, epsilon):
    import foolbox

    attack = {"Linf": foolbox.attacks.LinfPGD, "L2": foolbox.attacks.L2PGD}[norm]
    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    run = attack(rel_stepsize=STEP_SIZE, steps=STEPS, random_start=True)
    return run(model, x, y, epsilons=epsilon)[1]


def torchattacks_pgd(module, x, y, norm, epsilon):
    import torchattacks

    attack = {"Linf": torchattacks.PGD, "L2": torchattacks.PGDL2}[norm]
    return attack(module, eps=epsilon, alpha=STEP_SIZE * epsilon, steps=STEPS)(x, y)


@pytest.mark.parametrize("norm", GRIDS)
@pytest.mark.parametrize("peer", [foolbox_pgd, torchattacks_pgd])
def test_robust_accuracy_is_theirs_within_noise(digits, peer, norm):
    x, y = digits.images, digits.labels
    ours = evaluate(
        digits.module,
        x,
        y,
        {"name": "pgd", "steps": STEPS, "step_size": STEP_SIZE},
        norm=norm,
        epsilons=GRIDS[norm],
        search="exhaustive",
    ).curve["robust_accuracy"]
    for epsilon, robust in zip(GRIDS[norm], ours, strict=True):
        torch.manual_seed(0)
        theirs = (digits.module(peer(digits.module, x, y, norm, epsilon)).argmax(1) == y).float()
        # Five of 200: starts differ, and torchattacks' in L2 lie nearer to the clean image.
        assert robust == pytest.approx(theirs.mean().item(), abs=0.025)


@dataclass(frozen=True)
class TheirSPSA:
    """The gradients of torchattacks' SPSA, as a source."""

    access: ClassVar[str] = "score"
    monotone: ClassVar[bool] = False
    module: nn.Module
    samples: int

    def __call__(self, problem, x, loss):
        import torchattacks

        peer = torchattacks.SPSA(self.module)
        pairs = self.samples // 2
        return -peer.spsa_grad(x, problem.y, 0.01, pairs, pairs)  # theirs is made to fall


@pytest.mark.parametrize("samples", [8, 64])
def test_spsa_breaks_as_much_as_theirs_with_as_many_queries(digits, samples):
    x, y = digits.images, digits.labels
    robust = []
    for source in (SPSA(samples), TheirSPSA(digits.module, samples)):
        torch.manual_seed(0)
        attack = pgd_spsa(steps=10, gradient=source)
        result = evaluate(digits.module, x, y, attack, epsilons=[0.12], early_leaving=False)
        robust.append(result.curve["robust_accuracy"].item())
    assert 0.05 < robust[1] < 0.95
    assert robust[0] == pytest.approx(robust[1], abs=0.06)
