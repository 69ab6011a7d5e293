"""Minimum-norm attacks beside the true distances, on networks where these are known."""

import numpy as np
import pytest

from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.epsilon import farthest
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.threat import measure
from quintain.bench.tools.conformance import check_attack

NORMS = {
    "deepfool": ("Linf", "L2"),
    "ddn": ("L2",),
    "fmn": ("Linf", "L2", "L1"),
    "carlini-wagner": ("Linf", "L2"),
    "fab": ("Linf", "L2", "L1"),
    "fab-t": ("Linf", "L2", "L1"),
    "ead": ("L1",),
}
EACH = [(name, norm) for name, norms in NORMS.items() for norm in norms]


def everywhere(images, norm="Linf"):
    """A grid whose largest ball holds every image: no attempt ends before its last step."""
    return [1e-6, farthest(norm, images.shape[1:])]


def factors(known, name, norm, *, targeted=False):
    """(N,): the norm found over the true distance, infinite where none was found."""
    result = evaluate(
        known.module,
        known.images,
        known.labels,
        name,
        norm=norm,
        epsilons=everywhere(known.images, norm),
        targets=known.targets if targeted else None,
    )
    found = result.records["distance"].fillna(np.inf).to_numpy()
    hit = np.isfinite(found)
    delta = result.adversarials(everywhere(known.images, norm)[1]).double() - known.images.double()
    assert measure(delta, norm).numpy()[hit] == pytest.approx(found[hit], rel=1e-9)
    return found / (known.targeted if targeted else known.distances)[norm]


# What each adversarial examples at most, in the median and for nine of ten: on two classes parted
# by a plane, on
# five affine classes, on the ReLU network. DDN's sphere begins at 1 and shrinks by a twentieth a
# step, so that tiny distances are beyond it; Carlini and Wagner's steps in Linf are coarse.
MOST = {
    "deepfool": [(1.05, 1.1), (1.05, 1.3), (1.05, 1.25)],
    "ddn": [(1.01, 1.1), (1.3, 2.5), (1.05, 1.2)],
    "fmn": [(1.001, 1.001), (1.001, 1.05), (1.01, 1.6)],
    "carlini-wagner": [(1.2, 1.5), (1.2, 1.6), (1.1, 1.7)],
    "fab": [(1.001, 1.001), (1.001, 1.001), (1.001, 1.1)],
    "fab-t": [(1.001, 1.001), (1.001, 1.001), (1.001, 1.05)],
    "ead": [(1.01, 1.02), (1.02, 1.15), (1.02, 1.1)],
}


def check(found, most):
    assert np.isfinite(found).all()
    assert found.min() > 1.0 - 1e-3  # float32 logits blur where the boundary is
    assert np.median(found) <= most[0]
    assert np.quantile(found, 0.9) <= most[1]


@pytest.mark.parametrize(("name", "norm"), EACH)
def test_on_a_plane_the_distance_is_the_score_over_the_dual_norm(linear, name, norm):
    check(factors(linear, name, norm), MOST[name][0])


@pytest.mark.parametrize(("name", "norm"), EACH)
def test_of_affine_classes_the_nearest_is_found(affine, name, norm):
    check(factors(affine, name, norm), MOST[name][1])


@pytest.fixture(scope="module")
def on_relu(relu):
    return {(name, norm): factors(relu, name, norm) for name, norm in EACH}


@pytest.mark.parametrize(("name", "norm"), EACH)
def test_on_a_relu_network_each_comes_near_the_nearest_point(on_relu, name, norm):
    check(on_relu[name, norm], MOST[name][2])


@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_the_best_of_them_is_within_a_twentieth_of_the_true_distance(on_relu, norm):
    best = np.min([found for (_, at), found in on_relu.items() if at == norm], axis=0)
    assert np.median(best) <= 1.001
    assert np.mean(best <= 1.05) >= 0.95


@pytest.mark.parametrize(("name", "norm"), [one for one in EACH if one[0] != "ead"])
def test_aimed_at_a_class_it_comes_near_the_nearest_point_of_that_class(relu, name, norm):
    found = factors(relu, name, norm, targeted=True)
    assert np.isfinite(found).mean() >= 0.95
    assert found.min() > 1.0 - 1e-3
    assert np.median(found) <= (1.2 if name == "deepfool" else 1.1)


def test_ead_aimed_at_a_class(relu):
    assert np.median(factors(relu, "ead", "L1", targeted=True)) <= 1.02


@pytest.mark.parametrize(
    ("name", "asked", "gradients"),
    [
        ({"name": "ddn", "steps": 7}, 7 + 1, 7),  # and a look at the last iterate
        ({"name": "fmn", "steps": 7}, 7 + 1, 7),
        ({"name": "carlini-wagner", "steps": 11}, 11 + 1, 11),
        ({"name": "ead", "steps": 11}, 2 * 11, 11),
        ({"name": "fab", "steps": 7}, 1 + 2 * 7, 7 * 4),  # four other classes
        ({"name": "fab-t", "steps": 7}, 4 * (1 + 2 * 7), 4 * 7),
    ],
)
def test_what_it_costs(affine, name, asked, gradients):
    norm = NORMS[name["name"]][0]
    records = evaluate(
        affine.module,
        affine.images,
        affine.labels,
        name,
        norm=norm,
        epsilons=everywhere(affine.images, norm),
    ).records
    assert (records["queries"] == asked).all()
    assert (records["backward"] == gradients).all()


def test_deepfool_asks_nothing_more_once_it_is_through(linear):
    """The clean image's ranking, its gradient, the look that shows it is through, the last look."""
    records = evaluate(
        linear.module, linear.images, linear.labels, "deepfool", epsilons=everywhere(linear.images)
    ).records
    assert (records["queries"] == 4).all()
    assert (records["backward"] == 2).all()


def test_deepfool_looks_at_the_likeliest_classes_only(affine):
    def distance(classes):
        attack = {"name": "deepfool", "classes": classes}
        run = evaluate(
            affine.module,
            affine.images,
            affine.labels,
            attack,
            norm="L2",
            epsilons=everywhere(affine.images, "L2"),
        )
        return run.records["distance"].to_numpy(), run.records["backward"].to_numpy()

    few, all_of_them = distance(1), distance(10)
    assert (few[1] < all_of_them[1]).all()
    assert (few[0] > all_of_them[0] * 1.01).any()
    assert (few[0] >= all_of_them[0] * 0.95).all()


def test_the_whole_grid_comes_out_of_one_run(relu):
    grid = np.quantile(relu.distances["L2"], [0.2, 0.5, 0.8]) * 1.01
    records = evaluate(
        relu.module, relu.images, relu.labels, "fab", norm="L2", epsilons=list(grid)
    ).records
    assert (records["queries"] <= 1 + 2 * 100).all()
    broken = np.array(records["broken"].tolist())
    within = relu.distances["L2"][:, None] <= grid
    assert not (broken & ~within).any()
    assert (broken == within).mean() > 0.95


def test_restarts_of_fab_begin_elsewhere_and_find_what_the_first_missed(relu):
    def distance(restarts):
        attack = {"name": "fab", "restarts": restarts}
        grid = [float(one) for one in np.geomspace(1e-4, 1.0, 30)]
        run = evaluate(relu.module, relu.images, relu.labels, attack, epsilons=grid)
        return run.records["distance"].to_numpy()

    once, often = distance(1), distance(4)
    assert (often <= once).all()
    assert (often < 0.98 * once).any()


def test_fab_ends_with_a_search_that_brings_its_adversarial_example_nearer(affine):
    def distance(final_search):
        attack = {"name": "fab", "steps": 8, "final_search": final_search}
        run = evaluate(
            affine.module,
            affine.images,
            affine.labels,
            attack,
            norm="L2",
            epsilons=everywhere(affine.images, "L2"),
        )
        return run.records["distance"].to_numpy() / affine.distances["L2"]

    without, searched = distance(0), distance(3)
    assert np.median(without) > 1.002
    assert np.median(searched) < 1.0005


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("deepfool", {"steps": 0}),
        ("deepfool", {"classes": 0}),
        ("deepfool", {"overshoot": -0.1}),
        ("ddn", {"gamma": 1.0}),
        ("ddn", {"initial_radius": 0.0}),
        ("fmn", {"step_size": float("nan")}),
        ("fab", {"alpha_max": 1.0}),
        ("fab", {"eta": 0.9}),
        ("fab-t", {"targets": 0}),
        ("carlini-wagner", {"steps": 4}),  # fewer than rounds
        ("carlini-wagner", {"step_size": 0.0}),
        ("ead", {"rounds": 0}),
        ("ead", {"beta": 0.0}),
    ],
)
def test_parameters_that_make_no_attack_are_refused(name, wrong):
    (parameter,) = wrong
    with pytest.raises(BadParameter, match=parameter):
        registry.build("attacks", {"name": name, **wrong})


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "ddn", "steps": 12},
        {"name": "fmn", "steps": 12},
        {"name": "fab", "steps": 5},
        {"name": "fab-t", "steps": 5, "targets": 2},
        {"name": "carlini-wagner", "steps": 90, "rounds": 2, "step_size": 0.3},
        {"name": "ead", "steps": 40, "rounds": 2, "initial_constant": 1.0, "step_size": 0.03},
    ],
    ids=lambda spec: spec["name"],
)
def test_with_few_steps_it_conforms(spec):
    """The kit with the default steps takes a minute for each: it is run with the slow tests."""
    report = check_attack(spec["name"], lambda: registry.build("attacks", spec))
    assert report.passed, report.text()
