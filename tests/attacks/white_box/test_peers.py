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
from quintain.bench.api import registry
from quintain.bench.api.attack import Problem
from quintain.bench.api.rng import Draws
from quintain.bench.api.threat import make_ball
from quintain.bench.victim.counters import UNLIMITED, AttackCounters
from quintain.bench.victim.decision import decision_of
from quintain.bench.victim.model import Network
from quintain.bench.victim.oracle import AttackedModel, Oracle

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


@pytest.mark.parametrize(("ours", "theirs"), [("mi-fgsm", "MIFGSM"), ("ni-fgsm", "NIFGSM")])
def test_momentum_leads_to_the_very_points_of_theirs(digits, ours, theirs):
    import torchattacks

    class Inner(nn.Module):
        """The network on images away from 0 and 1, outside which theirs looks and ours does not."""

        def forward(self, x):
            return digits.module((x - 0.25) / 0.5)

    module = Inner().eval()
    x, y = 0.25 + 0.5 * digits.images[:64], digits.labels[:64]
    right = module(x).argmax(1) == y
    x, y = x[right], y[right]
    epsilon, steps = 0.04, 10
    attack = registry.build("attacks", {"name": ours, "steps": steps})
    ball = make_ball("Linf", x, torch.full((len(x),), epsilon))
    zeros = torch.zeros_like(y)
    rows = torch.arange(len(y))
    network = Network(module, torch.device("cpu"), 128)
    network.logits(x)
    counters = AttackCounters.open(ball, y, zeros + UNLIMITED, ball.epsilon[:, None])
    model = AttackedModel(decision_of(network, targeted=False), "white-box")
    victim = Oracle(model, counters)
    draws = Draws(0, rows, zeros, zeros)
    problem = Problem(x, y, False, ball, victim, draws, zeros, x, zeros.bool())
    state = attack.start(problem)
    for _ in range(steps):
        state = attack.step(problem, state)
    other = getattr(torchattacks, theirs)(module, eps=epsilon, alpha=epsilon / steps, steps=steps)(
        x, y
    )
    off = (state.x_adv - other).abs().flatten(1).amax(1)
    assert (off < 1e-5).float().mean() >= 0.9  # an all but zero gradient may round to another sign


@pytest.mark.parametrize("theirs", ["VMIFGSM", "DIFGSM"])
def test_variance_tuning_and_diversity_break_as_much_as_theirs(digits, theirs):
    import torchattacks

    x, y = digits.images, digits.labels
    spec = {"name": "mi-fgsm", "steps": 10}
    named = {"eps": 0.1, "alpha": 0.01, "steps": 10}
    if theirs == "VMIFGSM":
        spec |= {"name": "vmi-fgsm", "neighbours": 5}
    else:
        spec["gradient"] = {"name": "input-diversity", "smallest": 0.9, "probability": 0.5}
        named["decay"] = 1.0
    ours = evaluate(digits.module, x, y, spec, epsilons=[0.1]).curve["robust_accuracy"].item()
    torch.manual_seed(0)
    other = getattr(torchattacks, theirs)(digits.module, **named)(x, y)
    robust = (digits.module(other).argmax(1) == y).float().mean().item()
    assert robust - 0.12 <= ours <= robust + 0.03  # ours counts all that it sees on its way
