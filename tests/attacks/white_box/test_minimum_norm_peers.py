"""Minimum-norm attacks beside other libraries: same network, images and number of steps.

Run by `pytest -m peers` where foolbox, torchattacks and adv_lib are installed.
"""

import numpy as np
import pytest
import torch

from quintain.bench import evaluate
from quintain.bench.api.threat import measure

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

NO_WORSE = 1.02  # times their median norm, at most
INFINITY = float("inf")


def foolbox_runs(name, **settings):
    def run(module, x, y, norm):
        import foolbox

        model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
        attack = getattr(foolbox.attacks, name)(**settings)
        return attack.run(model, x, foolbox.criteria.Misclassification(y))

    return run


def adv_lib_runs(name, *, takes_norm=False, **settings):
    def run(module, x, y, norm):
        import adv_lib.attacks

        order = {"Linf": INFINITY, "L2": 2, "L1": 1}[norm]
        given = {"norm": order, **settings} if takes_norm else settings
        return getattr(adv_lib.attacks, name)(module, x, y, **given)

    return run


def torchattacks_fab(module, x, y, norm):
    import torchattacks

    attack = torchattacks.FAB(module, norm=norm, steps=100, n_classes=10)
    return attack.attack_single_run(x, y)  # `forward` keeps what lies within an epsilon only


ROUNDS = {"binary_search_steps": 10, "steps": 100, "abort_early": False}
LINF_ROUNDS = {"name": "carlini-wagner", "steps": 3000, "rounds": 30}  # as many passes as theirs
CASES = [
    ("deepfool", "Linf", foolbox_runs("LinfDeepFoolAttack", steps=50)),
    ("deepfool", "Linf", adv_lib_runs("df", steps=50, takes_norm=True)),
    ("deepfool", "L2", foolbox_runs("L2DeepFoolAttack", steps=50)),
    ("deepfool", "L2", adv_lib_runs("df", steps=50, takes_norm=True)),
    ("ddn", "L2", foolbox_runs("DDNAttack", steps=100)),
    ("ddn", "L2", adv_lib_runs("ddn", steps=100, levels=None)),
    ("fmn", "Linf", foolbox_runs("LInfFMNAttack", steps=100)),
    ("fmn", "Linf", adv_lib_runs("fmn", steps=100, takes_norm=True)),
    ("fmn", "L2", foolbox_runs("L2FMNAttack", steps=100)),
    ("fmn", "L2", adv_lib_runs("fmn", steps=100, takes_norm=True)),
    ("fmn", "L1", foolbox_runs("L1FMNAttack", steps=100)),
    ("fmn", "L1", adv_lib_runs("fmn", steps=100, takes_norm=True)),
    ("carlini-wagner", "L2", foolbox_runs("L2CarliniWagnerAttack", **ROUNDS)),
    (
        "carlini-wagner",
        "L2",
        adv_lib_runs(
            "carlini_wagner_l2", binary_search_steps=10, max_iterations=100, abort_early=False
        ),
    ),
    (LINF_ROUNDS, "Linf", adv_lib_runs("carlini_wagner_linf", max_iterations=100)),
    ("fab", "Linf", torchattacks_fab),
    ("fab", "Linf", adv_lib_runs("fab", takes_norm=True, n_iter=100)),
    ("fab", "L2", torchattacks_fab),
    ("fab", "L2", adv_lib_runs("fab", takes_norm=True, n_iter=100)),
    ("fab", "L1", torchattacks_fab),
    ("fab", "L1", adv_lib_runs("fab", takes_norm=True, n_iter=100)),
    ("ead", "L1", foolbox_runs("EADAttack", decision_rule="L1", **ROUNDS)),
]


def norms_found(module, x, x_adv, y, norm):
    """(N,): infinite where the point is not adversarial or not an image."""
    missed = (module(x_adv).argmax(1) == y) | ((x_adv < 0) | (x_adv > 1)).flatten(1).any(1)
    distance = measure(x_adv.double() - x.double(), norm)
    return torch.where(missed, torch.inf, distance).numpy()


@pytest.mark.parametrize(("attack", "norm", "peer"), CASES)
def test_the_median_norm_is_no_larger_than_theirs(digits, attack, norm, peer):
    module, x, y = digits.module, digits.images, digits.labels
    right = module(x).argmax(1) == y
    x, y = x[right], y[right]
    records = evaluate(module, x, y, attack, norm=norm, epsilons=[1e-6, 100.0]).records
    ours = records["distance"].fillna(np.inf)
    torch.manual_seed(0)
    theirs = norms_found(module, x, peer(module, x, y, norm).detach(), y, norm)
    assert np.isfinite(ours).all()
    hit = np.isfinite(theirs)  # adv_lib's FMN misses half of them in L2, Foolbox's 17 in L1
    assert hit.mean() > 0.4
    assert np.median(ours[hit]) <= NO_WORSE * np.median(theirs[hit])
