"""Black-box attacks beside other libraries': same network and examples, and queries counted alike.

Every library's questions go through one counter, ours too, an example at a time. Run by
`pytest -m peers` where foolbox, torchattacks and the Adversarial Robustness Toolbox are installed.
"""

from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from quintain.bench import evaluate

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]

EXAMPLES = 30
MANY = 100  # examples where the difference is small
SEEDS = (0, 1, 2)
OUR_SEEDS = range(8)  # ours take a second each
SQUARE = {"Linf": 0.14, "L2": 0.8}
SQUARE_QUERIES = 1000
QUERIES = (500, 1500)  # of attacks on labels
NES = {"epsilon": 0.2, "steps": 40, "samples": 50, "step_size": 0.0625}


class Spent(Exception):
    """The budget of the counter is used up."""


class Counter(nn.Module):
    """A network that notes how near to x the adversarial inputs were, and when they came."""

    def __init__(self, module, x, y, norm, budget):
        super().__init__()
        self.module, self.x, self.y, self.norm, self.budget = module, x, y, norm, budget
        self.asked, self.seen = 0, []

    def forward(self, x):
        if self.asked >= self.budget:
            raise Spent
        with torch.no_grad():
            logits = self.module(x.float())  # some ask in float64
        for one, label in zip(x, logits.argmax(1), strict=True):
            self.asked += 1
            if label != self.y and self.asked <= self.budget:
                delta = (one.detach() - self.x).flatten().double()
                size = delta.abs().max() if self.norm == "Linf" else delta.norm()
                self.seen.append((self.asked, float(size)))
        return logits

    def first_within(self, epsilon):
        """Queries to the first adversarial input in the ball, or infinity."""
        return min((at for at, size in self.seen if size <= epsilon + 1e-6), default=np.inf)

    def nearest(self, budget):
        """Distance of the nearest adversarial input among so many."""
        return min((size for at, size in self.seen if at <= budget), default=np.inf)


@dataclass(frozen=True)
class Task:
    """What a peer is given: a counter that is the network, one example, and a radius."""

    network: Counter
    x: torch.Tensor
    y: torch.Tensor
    norm: str
    epsilon: float
    budget: int


def counted(digits, peer, norm, epsilon, budget, seed, examples=EXAMPLES):
    """The counters of a peer's runs, one for each of the first examples that are read rightly."""
    right = (digits.module(digits.images).argmax(1) == digits.labels).nonzero().flatten()
    counters = []
    for row in right[:examples].tolist():
        x, y = digits.images[row : row + 1], digits.labels[row : row + 1]
        counter = Counter(digits.module, x[0], y[0], norm, budget)
        torch.manual_seed(seed * 1000 + row)
        np.random.seed(seed * 1000 + row)
        with suppress(Spent):
            peer(Task(counter, x, y, norm, epsilon, budget))
        counters.append(counter)
    return counters


def ours(digits, attack, norm, epsilons, budget, seed, examples=EXAMPLES):
    """Our records of the same examples under the same budget."""
    right = (digits.module(digits.images).argmax(1) == digits.labels).nonzero().flatten()
    rows = right[:examples]
    return evaluate(digits.module, digits.images[rows], digits.labels[rows], attack, norm=norm,
                    epsilons=epsilons, query_budget=budget, seed=seed)  # fmt: skip


def art_classifier(task):
    from art.estimators.classification import PyTorchClassifier

    return PyTorchClassifier(task.network.eval(), nn.CrossEntropyLoss(), tuple(task.x.shape[1:]),
                             10, clip_values=(0.0, 1.0), device_type="cpu")  # fmt: skip


def art_order(task):
    return np.inf if task.norm == "Linf" else 2


def torchattacks_square(task):
    import torchattacks

    seed = int(torch.randint(2**31, (1,)))
    torchattacks.Square(task.network, norm=task.norm, eps=task.epsilon, n_queries=task.budget,
                        seed=seed)(task.x, task.y)  # fmt: skip


def art_square(task):
    from art.attacks.evasion import SquareAttack

    attack = SquareAttack(art_classifier(task), norm=art_order(task), eps=task.epsilon,
                          max_iter=task.budget, verbose=False)  # fmt: skip
    attack.generate(task.x.numpy(), task.y.numpy())


def foolbox_nes(task):
    import foolbox
    from foolbox.gradient_estimators import es_gradient_estimator

    kind = es_gradient_estimator(foolbox.attacks.LinfPGD, samples=NES["samples"], sigma=0.001,
                                 bounds=(0, 1), clip=True)  # fmt: skip
    model = foolbox.PyTorchModel(task.network.eval(), bounds=(0, 1), device="cpu")
    attack = kind(rel_stepsize=NES["step_size"], steps=NES["steps"], random_start=False)
    attack(model, task.x, task.y, epsilons=task.epsilon)


def foolbox_decision(name):
    def run(task):
        import foolbox

        model = foolbox.PyTorchModel(task.network.eval(), bounds=(0, 1), device="cpu")
        if name == "boundary":
            attack = foolbox.attacks.BoundaryAttack(steps=25_000)
        else:
            attack = foolbox.attacks.HopSkipJumpAttack(constraint=task.norm.lower(), steps=64)
        attack(model, task.x, task.y, epsilons=None)

    return run


def art_hop_skip_jump(task):
    from art.attacks.evasion import HopSkipJump

    attack = HopSkipJump(art_classifier(task), norm=art_order(task), max_iter=64, verbose=False)
    attack.generate(task.x.numpy(), task.y.numpy())


def censored_median(falls, budget):
    return float(np.median(np.minimum(falls, budget)))


def square_figures(digits, peer, norm, seed):
    """Median queries over all examples, and share of successes: ours for peer None."""
    epsilon, budget = SQUARE[norm], SQUARE_QUERIES
    if peer is None:
        attack = {"name": "square", "steps": budget}
        result = ours(digits, attack, norm, [epsilon], budget, seed)
        return (result.query_summary["censored_queries_median"].item(),
                result.curve["attack_success_rate"].item())  # fmt: skip
    falls = np.array(
        [one.first_within(epsilon) for one in counted(digits, peer, norm, epsilon, budget, seed)]
    )
    return censored_median(falls, budget), float(np.isfinite(falls).mean())


def nes_figures(digits, peer, seed):
    """Mean queries over all examples, whose median would be a multiple of a gradient's; successes.

    One example at a time for Foolbox, which takes the loss of a batch as one number.
    """
    epsilon, budget = NES["epsilon"], NES["steps"] * (NES["samples"] + 1)
    if peer is None:
        attack = {"name": "pgd-nes", "steps": NES["steps"], "step_size": NES["step_size"],
                  "gradient": {"name": "nes", "samples": NES["samples"]}}  # fmt: skip
        result = ours(digits, attack, "Linf", [epsilon], budget, seed, MANY)
        return (result.query_summary["censored_queries_mean"].item(),
                result.curve["attack_success_rate"].item())  # fmt: skip
    counters = counted(digits, peer, "Linf", epsilon, budget, seed, MANY)
    falls = np.array([one.first_within(epsilon) for one in counters])
    return float(np.minimum(falls, budget).mean()), float(np.isfinite(falls).mean())


def decision_distances(digits, peer, norm, budgets, seed):
    """Geometric mean distance with so many queries each: ours for a name, else a peer's."""
    if isinstance(peer, str):
        runs = [ours(digits, peer, norm, [1e-4, 20.0], budget, seed, MANY) for budget in budgets]
        found = [one.records["distance"].fillna(np.inf).to_numpy() for one in runs]
    else:
        counters = counted(digits, peer, norm, 0.0, max(budgets), seed, MANY)
        found = [np.array([one.nearest(budget) for one in counters]) for budget in budgets]
    return [float(np.exp(np.log(one).mean())) for one in found]


def over_seeds(figure, peer):
    """The mean over seeds of a figure, made by `figure(peer, seed)`."""
    seeds = OUR_SEEDS if peer is None or isinstance(peer, str) else SEEDS
    return np.mean([figure(peer, seed) for seed in seeds], axis=0)


@pytest.mark.parametrize("norm", SQUARE)
@pytest.mark.parametrize("peer", [torchattacks_square, art_square])
def test_square_needs_no_more_queries(digits, peer, norm):
    mine, theirs = (
        over_seeds(lambda one, seed: square_figures(digits, one, norm, seed), kind)
        for kind in (None, peer)
    )
    assert 0.3 < theirs[1] < 1.0
    assert mine[0] <= theirs[0]
    assert mine[1] >= theirs[1]


def test_nes_needs_as_many_queries(digits):
    mine, theirs = (
        over_seeds(lambda one, seed: nes_figures(digits, one, seed), kind)
        for kind in (None, foolbox_nes)
    )
    assert 0.3 < theirs[1] <= 1.0
    assert mine[0] <= 1.03 * theirs[0]
    assert mine[1] >= theirs[1] - 0.03


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("peer", [foolbox_decision("hop-skip-jump"), art_hop_skip_jump])
def test_hop_skip_jump_comes_as_near_with_as_many_queries(digits, peer, norm):
    mine, theirs = (
        over_seeds(lambda one, seed: decision_distances(digits, one, norm, QUERIES, seed), kind)
        for kind in ("hop-skip-jump", peer)
    )
    assert (mine <= 1.05 * theirs).all()  # ART draws unseeded, and spreads by 2%


def test_the_boundary_attack_comes_as_near_with_as_many_queries(digits):
    mine, theirs = (
        over_seeds(lambda one, seed: decision_distances(digits, one, "L2", QUERIES, seed), kind)
        for kind in ("boundary", foolbox_decision("boundary"))
    )
    assert (mine <= theirs).all()
