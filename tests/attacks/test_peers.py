"""PGD beside two other libraries: same network, images, steps and step size.

Run by `pytest -m peers` where foolbox and torchattacks are installed.
"""

import pytest
import torch

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
