"""Auto-PGD beside torchattacks: same network, images and steps.

Run by `pytest -m peers` where torchattacks is installed.
"""

import pytest
import torch

from quintain.attacks.white_box.apgd import apgd_ce, apgd_dlr
from quintain.attacks.white_box.apgd_targeted import TargetedAPGD
from quintain.bench import evaluate

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

STEPS = 50
OURS = {"ce": apgd_ce(steps=STEPS), "dlr": apgd_dlr(steps=STEPS), "t": TargetedAPGD(steps=STEPS)}
EPSILONS = {"Linf": 0.1, "L2": 0.8}


def theirs(name, module, norm, epsilon):
    import torchattacks

    shared = {"norm": norm, "eps": epsilon, "steps": STEPS, "seed": 0}
    if name == "t":
        return torchattacks.APGDT(module, n_classes=10, **shared)
    return torchattacks.APGD(module, loss=name, **shared)


@pytest.mark.parametrize("norm", EPSILONS)
@pytest.mark.parametrize("name", OURS)
def test_robust_accuracy_is_theirs_within_noise_or_lower(digits, name, norm):
    x, y, epsilon = digits.images, digits.labels, EPSILONS[norm]
    settings = {"norm": norm, "epsilons": [epsilon], "search": "exhaustive"}
    ours = evaluate(digits.module, x, y, OURS[name], **settings).curve["robust_accuracy"].item()
    adversarial = theirs(name, digits.module, norm, epsilon)(x, y)
    robust = (digits.module(adversarial).argmax(1) == y).float().mean().item()
    assert 0.05 < ours < 0.95
    assert ours <= robust + 0.02  # four of 200: the random starts differ
    torch.testing.assert_close(adversarial.clamp(0, 1), adversarial)
