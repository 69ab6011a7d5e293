"""Other libraries' attacks through the harness beside the same attacks run by themselves.

Run by `pytest -m peers` where foolbox, torchattacks and the Adversarial Robustness Toolbox are.
"""

import inspect
import warnings
from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn import functional

from quintain.attacks.third_party.foolbox import Foolbox
from quintain.attacks.third_party.torchattacks import Torchattacks
from quintain.attacks.third_party.whole import seed_of, seeded
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.attack import Problem
from quintain.bench.api.errors import BadParameter, UnknownPlugin
from quintain.bench.api.rng import Draws
from quintain.bench.api.threat import make_ball, measure
from quintain.bench.victim.counters import UNLIMITED, AttackCounters
from quintain.bench.victim.decision import decision_of
from quintain.bench.victim.model import Network
from quintain.bench.victim.oracle import AttackedModel, Oracle

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

GRIDS = {"Linf": [0.04, 0.08, 0.12, 0.16], "L2": [0.4, 0.7, 1.0, 1.3], "L1": [2.0, 4.0]}


def problem_of(digits, norm, epsilon, count=24, targeted=False):
    x, y = digits.images[:count], digits.labels[:count]
    y = (y + 1) % 10 if targeted else y
    ball = make_ball(norm, x, torch.full((count,), epsilon, dtype=torch.float64))
    allowance = torch.full((count,), UNLIMITED)
    counters = AttackCounters.open(ball, y, allowance, ball.epsilon[:, None])
    rows = torch.arange(count)
    draws = Draws(5, rows, torch.zeros_like(rows), torch.zeros_like(rows))
    network = Network(digits.module.requires_grad_(False), torch.device("cpu"), 128)
    network.logits(x)

    def victim(access):
        model = AttackedModel(decision_of(network, targeted=targeted), access)
        return Oracle(model, counters, draws)

    def at(access):
        zeros = torch.zeros_like(rows)
        return Problem(x, y, targeted, ball, victim(access), draws, zeros, x, zeros.bool())

    return at, counters


def foolbox_alone(name, module, x, y, epsilon, parameters, targeted):
    import foolbox

    model = foolbox.PyTorchModel(module, bounds=(0, 1), device="cpu")
    criteria = foolbox.criteria
    goal = criteria.TargetedMisclassification(y) if targeted else criteria.Misclassification(y)
    return getattr(foolbox.attacks, name)(**parameters)(model, x, goal, epsilons=epsilon)[1]


def torchattacks_alone(name, module, x, y, epsilon, parameters, targeted):
    import torchattacks

    kind = getattr(torchattacks, name)
    taken = inspect.signature(kind).parameters
    ours = {"eps": epsilon, "seed": torch.initial_seed()}
    attack = kind(module, **{k: v for k, v in ours.items() if k in taken}, **parameters)
    if targeted:
        attack.set_mode_targeted_by_label(quiet=True)
    return attack(x, y)


def art_alone(name, module, x, y, epsilon, parameters, targeted):
    import art.attacks.evasion as evasion
    from art.estimators.classification import PyTorchClassifier

    classifier = PyTorchClassifier(
        module, loss=nn.CrossEntropyLoss(), input_shape=(1, 8, 8), nb_classes=10,
        clip_values=(0.0, 1.0), device_type="cpu",
    )  # fmt: skip
    named = {"batch_size": len(x), "verbose": False, **parameters}
    if epsilon is not None:
        named["eps"] = epsilon
    if targeted:
        named["targeted"] = True
    attack = getattr(evasion, name)(classifier, **named)
    goals = functional.one_hot(y, 10).float().numpy()
    return torch.from_numpy(attack.generate(x.numpy(), y=goals))


class Watched(nn.Module):
    """Counts what a library asks of the bare network, which is run on 16 rows at least, as ours."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.forwards, self.backwards = inner, 0, 0
        self.eval()  # or torchattacks would leave the network in the training mode

    def forward(self, x):
        self.forwards += len(x)
        filled = torch.cat([x, x[:1].detach().expand(max(0, 16 - len(x)), -1, -1, -1)])
        logits = self.inner(filled)[: len(x)]
        if logits.requires_grad:
            logits.register_hook(lambda g: setattr(self, "backwards", self.backwards + len(g)))
        return logits


CASES = {
    "foolbox:LinfPGD": (foolbox_alone, "Linf", {"steps": 7}),
    "foolbox:L2PGD": (foolbox_alone, "L2", {"steps": 7, "random_start": False}),
    "foolbox:LinfAdamPGD": (foolbox_alone, "Linf", {"steps": 5}),
    "foolbox:SparseL1DescentAttack": (foolbox_alone, "L1", {}),
    "foolbox:L2DeepFoolAttack": (foolbox_alone, "L2", {"steps": 9}),
    "foolbox:DDNAttack": (foolbox_alone, "L2", {"steps": 15}),
    "foolbox:L2FMNAttack": (foolbox_alone, "L2", {"steps": 15}),
    "torchattacks:APGD": (torchattacks_alone, "Linf", {"steps": 6}),
    "torchattacks:PGD": (torchattacks_alone, "Linf", {"steps": 6}),
    "torchattacks:MIFGSM": (torchattacks_alone, "Linf", {}),
    "torchattacks:Square": (torchattacks_alone, "Linf", {"n_queries": 30}),
    "torchattacks:CW": (torchattacks_alone, "L2", {"steps": 8, "c": 5}),
    "art:ProjectedGradientDescentPyTorch": (
        art_alone, "Linf", {"max_iter": 6, "eps_step": 0.02, "num_random_init": 1}),
    "art:AutoProjectedGradientDescent": (
        art_alone, "Linf", {"max_iter": 4, "nb_random_init": 1, "eps_step": 0.02}),
    "art:SquareAttack": (art_alone, "Linf", {"max_iter": 20}),
    "art:DeepFool": (art_alone, "L2", {"max_iter": 5}),
    "art:CarliniL2Method": (art_alone, "L2", {"max_iter": 3, "binary_search_steps": 2}),
}  # fmt: skip
TARGETED = ["foolbox:LinfPGD", "foolbox:L2FMNAttack", "torchattacks:PGD", "torchattacks:Square",
            "art:ProjectedGradientDescentPyTorch"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "targeted"), [(one, False) for one in CASES] + [(one, True) for one in TARGETED]
)
def test_points_and_passes_are_those_of_the_library_by_itself(digits, name, targeted):
    alone, norm, parameters = CASES[name]
    attack = registry.build("attacks", {"name": name, **parameters})
    assert norm in attack.norms
    epsilon = GRIDS[norm][1]
    at, counters = problem_of(digits, norm, epsilon, targeted=targeted)
    problem = at(attack.access)
    ours = attack.run(problem)
    watched = Watched(digits.module)
    limit = None if attack.minimum_norm else epsilon
    with seeded(seed_of(problem, 0), problem.x.device), warnings.catch_warnings():
        theirs = alone(
            name.partition(":")[2], watched, problem.x, problem.y, limit, parameters, targeted
        )
    # The library rounds by itself; the harness brings its answer into the ball.
    off = (ours - theirs.detach().clamp(0, 1)).abs().flatten(1).amax(dim=1)
    assert (off <= 2e-6).all(), off
    assert int(counters.counts["forward"].sum()) == watched.forwards
    assert int(counters.counts["backward"].sum()) == watched.backwards
    assert watched.forwards > 0
    if not attack.minimum_norm:
        assert (measure(ours.double() - problem.x.double(), norm) <= epsilon).all()


@pytest.mark.parametrize(
    ("spec", "norm", "most"),
    [
        ({"name": "foolbox:LinfPGD", "steps": 10}, "Linf", 40),
        ({"name": "torchattacks:APGD"}, "Linf", 25),
        ({"name": "torchattacks:Square", "n_queries": 50}, "L2", 20),
        ({"name": "torchattacks:DeepFool", "steps": 5}, "L2", 3),
        ({"name": "art:SquareAttack", "max_iter": 30}, "Linf", 20),
        ({"name": "art:HopSkipJump", "max_iter": 2, "max_eval": 50, "init_eval": 5}, "L2", 60),
        ({"name": "art:BoundaryAttack", "max_iter": 5}, "L2", 60),
        ({"name": "foolbox:BoundaryAttack", "steps": 10}, "L2", 100),
    ],
)
def test_a_budget_is_kept_to(digits, spec, norm, most):
    x, y = digits.images[:12], digits.labels[:12]
    result = evaluate(digits.module, x, y, spec, norm=norm, epsilons=GRIDS[norm], query_budget=most)
    assert (result.records["queries"] <= most).all()
    assert (result.records["queries"] > 0).any()


@pytest.mark.parametrize(
    ("spec", "peer", "norm"),
    [
        ({"name": "foolbox:LinfPGD", "steps": 20, "rel_stepsize": 0.1}, "pgd", "Linf"),
        ({"name": "torchattacks:APGD", "steps": 20}, "pgd", "Linf"),
        ({"name": "torchattacks:PGDL2", "steps": 20, "step_size": 0.2}, "pgd", "L2"),
        (
            {"name": "art:ProjectedGradientDescentPyTorch", "max_iter": 20, "step_size": 0.1},
            "pgd",
            "Linf",
        ),
    ],
)
def test_the_curve_is_that_of_our_own_pgd_within_noise(digits, spec, peer, norm):
    x, y = digits.images, digits.labels
    curves = [
        evaluate(digits.module, x, y, one, norm=norm, epsilons=GRIDS[norm]).curve["robust_accuracy"]
        for one in (spec, peer)
    ]
    assert curves[0].tolist() == pytest.approx(curves[1].tolist(), abs=0.06)
    assert curves[0].iloc[-1] < curves[0].iloc[0]


def test_the_standard_ensemble_is_not_weaker_than_its_first_member(digits):
    x, y = digits.images[:16], digits.labels[:16]
    robust = [
        evaluate(digits.module, x, y, name, epsilons=[0.12]).curve["robust_accuracy"].item()
        for name in ("torchattacks:AutoAttack", "torchattacks:APGD")
    ]
    assert robust[0] <= robust[1]


@pytest.mark.parametrize(
    ("spec", "norm", "says"),
    [
        ("foolbox:LinfPGD", "L2", "foolbox:LinfPGD works in Linf, not in L2"),
        ("foolbox:L2DeepFoolAttack", "Linf", "works in L2, not in Linf"),
        ("torchattacks:Square", "L1", "torchattacks:Square works in Linf, L2, not in L1"),
        ("art:DeepFool", "Linf", "art:DeepFool works in L2, not in Linf"),
        ("foolbox:L0FMNAttack", "L2", "is an L0 attack"),
    ],
)
def test_a_norm_that_an_attack_has_not_is_refused(digits, spec, norm, says):
    with pytest.raises(BadParameter, match=says):
        evaluate(digits.module, digits.images, digits.labels, spec, norm=norm, epsilons=[0.1])


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"name": "foolbox:LinfPGD", "step": 3}, "has no parameter 'step'; did you mean 'steps'"),
        ({"name": "foolbox:LinfPGD", "steps": "many"}, "steps = 'many' is not"),
        ({"name": "foolbox:LinfPGD", "eps": 0.1}, "has no parameter 'eps'"),
        ({"name": "torchattacks:PGD", "model": 3}, "has no parameter 'model'"),
        ({"name": "torchattacks:PGD", "alpha": 0.1, "step_size": 0.1}, "give step_size or alpha"),
        ({"name": "art:SquareAttack", "p_init": 7.0}, "art:SquareAttack.*p_init"),
        ({"name": "art:DeepFool", "max_iter": -1}, "art:DeepFool.*iteration"),
    ],
)
def test_hyper_parameters_are_checked_before_any_work(spec, says):
    with pytest.raises(BadParameter, match=says):
        registry.build("attacks", spec)


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("foolbox:LinfPDG", "LinfPGD"),
        ("torchattacks:autoatack", "AutoAttack"),
        ("art:HopSkipJumps", "HopSkipJump"),
    ],
)
def test_a_name_that_a_library_has_not_is_answered_with_the_closest(name, closest):
    with pytest.raises(UnknownPlugin, match=f"did you mean '{closest}'"):
        registry.find("attacks", name)


def test_foolbox_says_the_same_of_targets_as_we_do(digits):
    """What we call untargeted must refuse a target or never reach it on purpose, and no other."""
    library = Foolbox()
    import foolbox

    model = foolbox.PyTorchModel(digits.module, bounds=(0, 1), device="cpu")
    x, y = digits.images[:2], digits.labels[:2]
    refused = Counter()
    for name in library.names():
        try:
            attack = library.factory(name)()
        except (BadParameter, TypeError, ImportError):  # L0; no default; numba is not there
            continue
        if not attack.targetable and "DeepFool" not in name:
            goal = foolbox.criteria.TargetedMisclassification((y + 1) % 10)
            epsilon = None if attack.minimum_norm else 0.1
            with pytest.raises(ValueError, match="criterion"):
                getattr(foolbox.attacks, name)()(model, x, goal, epsilons=epsilon)
            refused[name] += 1
    assert refused


def test_what_is_built_says_what_it_is(digits):
    import foolbox

    attack = registry.build("attacks", {"name": "foolbox:LinfPGD", "steps": 3})
    assert (attack.release, attack.parameters) == (foolbox.__version__, {"steps": 3})
    for name in ("foolbox:FGSM", "torchattacks:FGSM", "art:FastGradientMethod"):
        assert not registry.build("attacks", name).monotone
        assert attack.monotone
    for name in Torchattacks().names():
        made = registry.build("attacks", f"torchattacks:{name}")
        assert made.norms
        assert made.title == f"torchattacks:{name}"
        assert made == registry.build("attacks", f"torchattacks:{name}")
        assert isinstance(hash(made), int)
