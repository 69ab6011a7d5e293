"""Models with a reject option: what attacks see of them, what counts, and what is recorded."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from sklearn.metrics import roc_auc_score
from torch import nn

from quintain.attacks.parts.losses import DLR, CrossEntropy, Margin
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import AccessDenied, BadData, BadParameter
from quintain.bench.api.rng import noise
from quintain.bench.api.threat import make_ball
from quintain.bench.victim.counters import AttackCounters
from quintain.bench.victim.decision import decision_of, fooled
from quintain.bench.victim.model import Network
from quintain.bench.victim.oracle import AttackedModel, Oracle
from quintain.bench.victim.rejection import bare, merged, rejection_margin
from quintain.bench.victim.voting import prediction

# ------------------------------------------------------------------------------ merged logits

# few values, so that ties are common, as they are among votes
LOGITS = st.lists(st.lists(st.integers(-2, 2), min_size=5, max_size=5), min_size=1, max_size=6)


@given(LOGITS, st.integers(0, 3), st.booleans())
def test_merged_logits_give_the_prediction_by_definition(rows, goal, targeted):
    logits = torch.tensor(rows, dtype=torch.float32)
    y = torch.full((len(logits),), goal)
    predicted = logits.argmax(dim=1)
    wanted = predicted == goal if targeted else (predicted != goal) & (predicted != 4)
    seen = merged(logits, y, targeted=targeted)
    assert seen.shape == (len(rows), 4)
    assert torch.equal(fooled(seen, y, targeted=targeted), wanted)
    assert torch.equal(rejection_margin(logits) > 0, predicted == 4)


@pytest.mark.parametrize(("goal", "targeted"), [(0, False), (1, True)])
def test_the_gradient_is_that_of_what_stands_in_the_way(goal, targeted):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0], [1.0, 2.0, 0.0, 5.0]], requires_grad=True)
    y = torch.full((2,), goal)
    loss = Margin()(merged(logits, y, targeted=targeted), y, targeted=targeted)
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    assert slope.tolist() == [[-1, 1, 0, 0], [0, 1, 0, -1]]  # class 0, then the rejection


# ---------------------------------------------------------------------------------- a known optimum


class Planes(nn.Module):
    """Class 1 where w (x - 0.5) is above `edge`; rejected where v (x - 0.5) is above `limit`."""

    rejects = True
    false_positive_rate = 0.05

    def __init__(self, w, v, edge, limit):
        super().__init__()
        self.w, self.v = nn.Parameter(w), nn.Parameter(v)
        self.edge, self.limit = edge, limit

    def forward(self, x):
        z = x.flatten(1) - 0.5
        score = z @ self.w - self.edge
        logits = torch.stack([-score, score], dim=1)
        rejection = logits.amax(dim=1) + z @ self.v - self.limit
        return torch.cat([logits, rejection[:, None]], dim=1)


@dataclass
class Toy:
    """One grey image of class 0, the shortest ways out undetected, and those to the class alone."""

    module: Planes
    image: torch.Tensor
    optimum: dict
    naive: dict


@pytest.fixture(scope="module")
def toy():
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(16, generator=generator)
    v = 0.6 * w + torch.randn(16, generator=generator)  # the nearest way out is seen
    edge, limit = 1.0, 0.1
    rows = np.stack([-w.double().numpy(), v.double().numpy()])
    bounds = np.array([-edge, limit])  # rows @ delta <= bounds
    # L2: both constraints hold with equality where neither multiplier is negative
    multipliers = np.linalg.solve(rows @ rows.T, -bounds)
    assert (multipliers > 0).all()
    l2 = float(np.linalg.norm(rows.T @ multipliers))
    # Linf: min t with |delta| <= t
    eye, one = np.eye(16), np.ones((16, 1))
    found = linprog(
        np.r_[np.zeros(16), 1.0],
        A_ub=np.block([[rows, np.zeros((2, 1))], [eye, -one], [-eye, -one]]),
        b_ub=np.r_[bounds, np.zeros(32)],
        bounds=[(None, None)] * 17,
    )
    optimum = {"L2": l2, "Linf": float(found.fun)}
    naive = {"L2": edge / float(w.norm()), "Linf": edge / float(w.abs().sum())}
    return Toy(Planes(w, v, edge, limit).eval(), torch.full((1, 1, 4, 4), 0.5), optimum, naive)


WHITE = [
    PGD(steps=100, loss=Margin()),
    PGD(steps=100, loss=CrossEntropy()),
    PGD(steps=100, loss=DLR()),
    "apgd-ce",
    "apgd-margin",
]


@pytest.mark.parametrize("norm", ["L2", "Linf"])
@pytest.mark.parametrize("attack", WHITE, ids=str)
def test_attacks_find_the_nearest_point_that_is_not_rejected(toy, norm, attack):
    best = toy.optimum[norm]
    assert best > 1.15 * toy.naive[norm]  # what is nearest to the classifier alone is rejected
    result = evaluate(
        toy.module, toy.image, torch.tensor([0]), attack, norm=norm,
        epsilons=[0.99 * best, 1.12 * best],
    )  # fmt: skip
    assert result.curve["robust_accuracy"].tolist() == [1.0, 0.0]
    found = result.adversarials(1.12 * best)
    assert toy.module(found).argmax(dim=1).tolist() == [1]


@pytest.mark.parametrize(
    ("attack", "reach"),
    [
        ("deepfool", 1.03),
        ("carlini-wagner", 1.03),
        ({"name": "hop-skip-jump", "steps": 10}, 1.1),
        ({"name": "square", "steps": 300}, 2.0),
    ],
)
def test_other_kinds_of_attacks_pass_the_detector_too(toy, attack, reach):
    best = toy.optimum["L2"]
    result = evaluate(
        toy.module, toy.image, torch.tensor([0]), attack, norm="L2", epsilons=[reach * best]
    )
    assert result.curve["robust_accuracy"].tolist() == [0.0]
    assert result.records["distance"].item() >= best


def test_who_does_not_know_of_the_detector_is_rejected(toy):
    epsilon = 1.3 * toy.optimum["Linf"]
    result = evaluate(
        toy.module, toy.image, torch.tensor([0]), "pgd", epsilons=[epsilon], adaptive=False
    )
    row = result.detection.iloc[0]
    assert row[["accuracy", "detection_rate", "roc_auc", "n_adversarial"]].tolist() == [1, 1, 1, 1]
    assert result.flags == ()  # to be rejected is not to be not reproduced
    # where PGD ends: at the corner of the ball that the classifier's gradient points to
    corner = toy.image + epsilon * toy.module.w.sign().reshape(1, 1, 4, 4)
    wanted = rejection_margin(toy.module(corner.detach())).item()
    assert result.records["candidate_rejection_margin"].iloc[0][0] == pytest.approx(
        wanted, rel=1e-3
    )


def test_a_targeted_attack_must_reach_the_class_undetected(toy):
    best = toy.optimum["Linf"]
    result = evaluate(
        toy.module, toy.image, torch.tensor([0]), PGD(steps=100, loss=Margin()),
        targets=torch.tensor([1]), epsilons=[0.99 * best, 1.12 * best],
    )  # fmt: skip
    assert result.curve["robust_accuracy"].tolist() == [1.0, 0.0]


# ------------------------------------------------------------------------------------- the victim


def victim(toy, access, count=3, budget=10, *, detector_unaware=False):
    network = Network(toy.module, torch.device("cpu"), 16)
    x = toy.image.expand(count, 1, 4, 4)
    ball = make_ball("Linf", x, torch.full((count,), 0.4, dtype=torch.float64))
    grid = torch.full((count, 1), 0.4, dtype=torch.float64)
    counters = AttackCounters.open(
        ball, torch.zeros(count, dtype=torch.int64), torch.full((count,), budget), grid
    )
    rule = decision_of(network, targeted=False, detector_unaware=detector_unaware)
    return Oracle(AttackedModel(rule, access), counters), counters


@pytest.fixture
def points(toy):
    """The image; one that is misclassified and rejected; one that is misclassified and passes."""
    rejected = toy.image + 0.3 * toy.module.w.sign().reshape(1, 1, 4, 4)
    passing = evaluate(
        toy.module, toy.image, torch.tensor([0]), PGD(steps=100, loss=Margin()), epsilons=[0.4]
    ).adversarials(0.4)
    return torch.cat([toy.image, rejected.detach(), passing])


def test_a_victim_answers_with_the_classes_alone(toy, points):
    assert toy.module(points).argmax(dim=1).tolist() == [0, 2, 1]
    asked, counters = victim(toy, "score")
    logits = asked.scores(points)
    assert logits.shape == (3, 2)
    assert asked.n_classes == 2
    wanted = merged(toy.module(points).detach(), counters.y, targeted=False)
    torch.testing.assert_close(logits, wanted)
    asked, counters = victim(toy, "decision")
    assert asked.labels(points).tolist() == [0, 0, 1]
    assert counters.broken.tolist() == [False, False, True]
    rows = torch.tensor([2, 0, 0, 1])
    assert asked.labels(points[[2, 2, 1, 1]], rows).tolist() == [1, 1, 0, 0]
    assert counters.broken.tolist() == [True, False, True]


def test_a_victim_of_who_does_not_know_answers_for_the_classifier(toy, points):
    asked, counters = victim(toy, "white-box", detector_unaware=True)
    torch.testing.assert_close(asked.scores(points), bare(toy.module(points).detach()))
    assert asked.labels(points).tolist() == [0, 1, 1]
    answer = asked.gradient(points, lambda logits: logits[:, 1])
    weight = toy.module.w.detach().reshape(1, 1, 4, 4).expand_as(points)
    torch.testing.assert_close(answer.gradient, weight)
    assert counters.broken.tolist() == [False, True, True]


def test_every_way_to_ask_gives_the_same_logits(toy, points):
    asked, counters = victim(toy, "white-box")
    scores = asked.scores(points)
    answer = asked.gradient(points, lambda logits: logits.sum(dim=1))
    open_ended = asked.differentiable(points.clone().requires_grad_())
    assert torch.equal(answer.logits, scores)
    assert torch.equal(open_ended, scores)
    open_ended.sum().backward()
    assert (counters.counts["queries"].tolist(), counters.counts["backward"].tolist()) == (
        [3] * 3,
        [2] * 3,
    )


def test_access_and_budgets_hold_for_models_that_reject(toy, points):
    asked, _ = victim(toy, "decision")
    with pytest.raises(AccessDenied):
        asked.scores(points)
    asked, counters = victim(toy, "score", budget=1)
    asked.scores(points)
    assert asked.scores(points).isnan().all()
    assert asked.labels(points).tolist() == [-1] * 3
    assert counters.counts["queries"].tolist() == [1] * 3


# ---------------------------------------------------------------------- what is evaluated, and how


class Brightness(nn.Module):
    """Class 1 from a mean of 0.5 on; rejects what has a mean within 0.1 of 0.5, or below 0.1."""

    rejects = True

    def forward(self, x):
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        logits = torch.cat([0.5 - mean, mean - 0.5], dim=1)
        strange = torch.maximum(0.1 - (mean - 0.5).abs(), 0.1 - mean)
        return torch.cat([logits, logits.amax(dim=1, keepdim=True) + strange], dim=1)


def grey(*values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()


def test_a_clean_rejection_is_an_error():
    images, labels = grey(0.05, 0.2, 0.3, 0.45, 0.55, 0.9), torch.tensor([0, 0, 1, 0, 1, 1])
    result = evaluate(Brightness(), images, labels, "pgd", epsilons=[0.01], search="exhaustive")
    assert result.records["clean_prediction"].tolist() == [2, 0, 0, 2, 2, 1]
    assert result.curve["clean_accuracy"].item() == pytest.approx(2 / 6)
    assert result.detection["clean_accuracy"].item() == pytest.approx(2 / 6)
    assert result.detection["false_positive_rate"].item() == pytest.approx(3 / 6)
    assert result.records["under_attack"].tolist() == [False, True, False, False, False, True]


@pytest.mark.parametrize("search", ["bracket", "exhaustive"])
def test_rejections_under_attack_are_robust_until_there_is_a_way_around(search):
    # 0.3 becomes class 1 from 0.5 on, and is let through from 0.6 on
    result = evaluate(
        Brightness(), grey(0.3, 0.35), torch.tensor([0, 0]), PGD(steps=40, loss=Margin()),
        epsilons=[0.1, 0.22, 0.32], search=search,
    )  # fmt: skip
    assert result.curve["robust_accuracy"].tolist() == [1.0, 1.0, 0.0]
    assert result.flags == ()


def test_figures_of_detection_agree_with_scikit_learn(digits):
    module = nn.Sequential(digits.module, Doubt())
    module.rejects = True
    x, y = digits.images[:100], digits.labels[:100]
    result = evaluate(module, x, y, "pgd", epsilons=[0.15, 0.3], search="exhaustive")
    table, records = result.detection, result.records
    with torch.no_grad():
        logits = module(x)
    clean = rejection_margin(logits).double().numpy()
    np.testing.assert_allclose(records["rejection_margin"], clean, atol=1e-5)
    for point, row in enumerate(table.itertuples()):
        scores = np.array([one[point] for one in records["candidate_rejection_margin"]])
        scores = scores[np.isfinite(scores)]
        truth = [0] * 100 + [1] * len(scores)
        assert row.n_adversarial == len(scores) > 20
        assert row.roc_auc == pytest.approx(roc_auc_score(truth, [*clean, *scores]), abs=1e-4)
        assert row.detection_rate == pytest.approx((scores > 0).mean())
        assert row.false_positive_rate == pytest.approx((logits.argmax(1) == 10).double().mean())
        assert row.accuracy == result.curve["robust_accuracy"][point]
        # whatever was broken is a candidate that passes
        broken = np.array([one[point] for one in records["broken"]])
        best = np.array([one[point] for one in records["candidate_rejection_margin"]])
        assert (best[broken] <= 0).all()


class Doubt(nn.Module):
    """Rejects what is classified with a margin below 3."""

    def forward(self, logits):
        top = logits.topk(2, dim=1).values
        rejection = top[:, :1] + 0.2 * (3.0 - top[:, :1] + top[:, 1:])
        return torch.cat([logits, rejection], dim=1)


def test_candidates_stay_in_their_ball_at_each_epsilon(toy):
    best = toy.optimum["Linf"]
    grid = [0.8 * best, 1.5 * best]
    result = evaluate(
        toy.module, toy.image, torch.tensor([0]), PGD(steps=60, loss=Margin()), epsilons=grid,
        search="exhaustive",
    )  # fmt: skip
    near, far = result.records["candidate_rejection_margin"].iloc[0]
    assert not near <= 0  # nothing passes in the smaller ball
    assert -0.01 > far > least_rejection_margin(toy, grid[1]) - 1e-5
    stopping = evaluate(
        toy.module, toy.image, torch.tensor([0]), PGD(steps=60, loss=Margin()), epsilons=grid
    )
    first = stopping.records["candidate_rejection_margin"].iloc[0][1]
    assert first > far  # an exhaustive search goes on when it has won: deep in what is let through


def least_rejection_margin(toy, epsilon):
    """The smallest v delta - limit over the ball with w delta >= edge."""
    w, v = (one.detach().double().numpy() for one in (toy.module.w, toy.module.v))
    found = linprog(v, A_ub=[-w], b_ub=[-toy.module.edge], bounds=[(-epsilon, epsilon)] * 16)
    return float(found.fun) - toy.module.limit


class Unsure(Brightness):
    """Rejects at random, with a chance."""

    stochastic = True

    def __init__(self, chance):
        super().__init__()
        self.chance = chance

    def forward(self, x):
        logits = super().forward(x)[:, :2]
        heads = noise(x).uniform((1,), "coin") < self.chance
        return torch.cat([logits, torch.where(heads, 1.0, -1.0)], dim=1)


@pytest.mark.parametrize(("chance", "robust", "clean"), [(0.1, 0.0, 1.0), (0.9, 0.0, 0.0)])
def test_a_stochastic_model_rejects_by_votes(chance, robust, clean):
    images, labels = grey(0.4, 0.45, 0.42), torch.zeros(3, dtype=torch.int64)
    result = evaluate(Unsure(chance), images, labels, "pgd", epsilons=[0.2])
    assert result.curve["clean_accuracy"].item() == clean
    assert result.curve["robust_accuracy"].item() == robust
    assert result.detection["false_positive_rate"].item() == 1.0 - clean


def test_a_model_that_does_not_reject_has_no_figures_of_detection(digits):
    result = evaluate(digits.module, digits.images[:3], digits.labels[:3], "fgsm")
    with pytest.raises(BadParameter, match="does not reject"):
        _ = result.detection
    assert "rejection_margin" not in result.records


def test_the_rejection_is_no_class_to_aim_at(toy):
    with pytest.raises(BadData, match="targets"):
        evaluate(toy.module, toy.image, torch.tensor([0]), "pgd", targets=torch.tensor([2]))


def test_proxies_learn_from_the_classifiers_answers(digits):
    module = nn.Sequential(digits.module, Doubt())
    module.rejects = True
    spec = {"name": "transfer", "gradient": {"name": "network", "network": "same"}}
    result = evaluate(
        module, digits.images[:40], digits.labels[:40], spec, epsilons=[0.15],
        attacker_networks={"same": module}, adaptive=False,
    )  # fmt: skip
    # by its own gradients: most candidates fool the classifier
    assert result.detection["n_adversarial"].item() > 20


def test_a_rejecting_network_within_a_model_that_says_nothing_of_it_is_refused(digits):
    inner = nn.Sequential(digits.module, Doubt())
    inner.rejects = True
    outer = nn.Sequential(nn.Identity(), inner)
    with pytest.raises(BadData, match="layer '1' of the model has a reject option"):
        evaluate(outer, digits.images[:4], digits.labels[:4], "fgsm", epsilons=[0.1])
    outer.rejects = True
    result = evaluate(outer, digits.images[:4], digits.labels[:4], "fgsm", epsilons=[0.1])
    assert "rejection_margin" in result.records


# ------------------------------------------------------------------------- random and rejecting


class Doubtful(nn.Module):
    """Class 1 above 0.5; what is above 0.5 is rejected with probability `chance`."""

    stochastic, rejects, false_positive_rate = True, True, 0.05

    def __init__(self, chance):
        super().__init__()
        self.chance = chance

    def forward(self, x):
        score = x.flatten(1).mean(1) - 0.5
        struck = noise(x).uniform((1,), "strike")[:, 0] < self.chance
        top = score.abs()
        return torch.stack([-score, score, torch.where(struck & (score > 0), 1 + top, -1.0)], dim=1)


@pytest.mark.parametrize("chance", [0.3, 0.7, 1.0])
def test_naive_candidates_are_judged_by_the_classifiers_votes(chance):
    x, y = torch.full((40, 1, 2, 2), 0.45), torch.zeros(40, dtype=torch.int64)
    result = evaluate(Doubtful(chance), x, y, PGD(steps=5), epsilons=[0.1], adaptive=False)
    row = result.detection.iloc[0]
    assert row["n_adversarial"] == 40
    assert row["detection_rate"] == (chance > 0.5)
    assert row["accuracy"] == (chance > 0.5)


def test_the_rejection_margin_of_votes_grows_with_the_share_that_rejects():
    """However many were asked for: few of the certain, many of the open."""
    x = torch.full((60, 1, 2, 2), 0.6)
    found = []
    for chance in (0.6, 0.65, 0.8, 1.0):
        network = Network(Doubtful(chance), torch.device("cpu"), 256)
        found.append(rejection_margin(prediction(network, x, torch.arange(60)).whole).mean().item())
    assert found == sorted(found)
    assert found[-1] == 1.0
