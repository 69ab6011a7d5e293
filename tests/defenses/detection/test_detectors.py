"""The detectors: their scores against other people's code, their thresholds, their module."""

import numpy as np
import pytest
import torch
from builders import random_images
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import median_filter
from sklearn.covariance import EmpiricalCovariance, LedoitWolf
from sklearn.neighbors import NearestNeighbors
from torch import nn

from quintain.attacks.gradients.bpda import Surrogates
from quintain.bench.api import registry
from quintain.bench.api.defense import Trained
from quintain.bench.api.errors import BadData, BadParameter
from quintain.bench.api.progress import Silent
from quintain.bench.store.checkpoints import load_checkpoint, save_checkpoint
from quintain.bench.training.networks import TrainingRequest, train_or_load
from quintain.bench.victim.traits import ModelTraits
from quintain.defenses.certified.randomised_smoothing import RandomisedSmoothing
from quintain.defenses.detection.detector import Rejecting
from quintain.defenses.detection.feature_squeezing import FeatureSqueezing
from quintain.defenses.detection.features import with_features
from quintain.defenses.detection.knn_distance import KNNDistance
from quintain.defenses.detection.mahalanobis import Mahalanobis
from quintain.defenses.ensemble import Ensemble
from quintain.defenses.none import Undefended
from quintain.defenses.training.adversarial_training import AdversarialTraining
from quintain.defenses.training.loop import loop
from quintain.defenses.transformations.bit_depth import BitDepth, ReducedDepth

BASE = Undefended(epochs=2, augmentation="none", validation_share=0.25)
DETECTORS = [
    FeatureSqueezing(base=BASE, bits=2),
    Mahalanobis(base=BASE),
    KNNDistance(base=BASE, neighbours=3),
]
BY_NAME = {"ids": lambda one: type(one).__name__}


def network():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
            nn.Linear(144, 8), nn.Tanh(), nn.Linear(8, 2),
        )  # fmt: skip


@pytest.fixture
def job(training, stripes):
    return training(*stripes)


def penultimate(model, x):
    with torch.no_grad():
        return model.network[:5](x).double().numpy()


def halves(job):
    """Images and classes of the part that a network is trained on, and those that are held out."""
    split = loop.parts(job, BASE.validation_share)
    return [part.read(torch.arange(len(part))) for part in (split.examples, split.held_out)]


# ----------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize(
    ("shrinkage", "estimator"), [(0.0, EmpiricalCovariance), (None, LedoitWolf)]
)
def test_mahalanobis_scores_are_scikit_learns(job, shrinkage, estimator):
    model = Mahalanobis(base=BASE, shrinkage=shrinkage).fit(network(), job).model
    (x, y), (other, _) = halves(job)
    features, classes = penultimate(model, x), y.numpy()
    means = np.stack([features[classes == one].mean(axis=0) for one in (0, 1)])
    fitted = estimator(assume_centered=True).fit(features - means[classes])
    away = penultimate(model, other)
    squares = np.stack([fitted.mahalanobis(away - mean) for mean in means])
    logits, scores = model.detector(model.network, other)
    np.testing.assert_allclose(scores.detach().numpy() ** 2, squares.min(axis=0), rtol=2e-3)
    torch.testing.assert_close(logits, model.network(other))


def test_more_features_than_images_leave_mahalanobis_usable(training, stripes):
    x, y = stripes
    job = training(x[:80], y[:80])
    model = Mahalanobis(base=BASE, layer="2").fit(network(), job).model  # 144 features of 60 images
    assert model(x[100:]).isfinite().all()
    assert (model(x[100:]).argmax(dim=1) == 2).double().mean() < 0.3


@pytest.mark.parametrize("neighbours", [1, 7, None])
def test_knn_scores_are_scikit_learns(job, neighbours):
    model = KNNDistance(base=BASE, neighbours=neighbours).fit(network(), job).model
    (x, _), (other, _) = halves(job)
    bank, away = (penultimate(model, one) for one in (x, other))
    bank, away = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (bank, away))
    found = NearestNeighbors(n_neighbors=neighbours or 1).fit(bank).kneighbors(away)[0][:, -1]
    _, scores = model.detector(model.network, other)
    np.testing.assert_allclose(scores.detach().numpy(), found, atol=2e-5)


def test_k_is_a_thousandth_of_the_training_images_by_default():
    model = KNNDistance().wrap(network())
    model.detector.bank = nn.functional.normalize(
        torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    )
    x = random_images(4, 1, 6, 6, seed=1)
    _, scores = model.detector(model.network, x)
    at = nn.functional.normalize(with_features(model.network, x, None)[1])
    wanted = torch.cdist(at, model.detector.bank).sort(dim=1).values[:, 4]
    torch.testing.assert_close(scores, wanted, atol=1e-4, rtol=0)


def test_squeezing_scores_are_distances_of_probabilities(job):
    model = FeatureSqueezing(base=BASE, bits=2, median=3).fit(network(), job).model
    _, (x, _) = halves(job)
    with torch.no_grad():
        logits, scores = model.detector(model.network, x)
        grey = torch.from_numpy(np.rint(x.numpy() * 3) / 3)
        smooth = torch.from_numpy(median_filter(x.numpy(), size=(1, 1, 3, 3)))
        seen = [model.network(one).softmax(1) for one in (x, grey, smooth)]
    wanted = torch.maximum((seen[1] - seen[0]).abs().sum(1), (seen[2] - seen[0]).abs().sum(1))
    torch.testing.assert_close(scores, wanted)
    torch.testing.assert_close(logits.softmax(1), seen[0])


def test_bit_depth_leaves_so_many_levels_and_bpda_a_gradient():
    x = torch.linspace(0, 1, 300).reshape(3, 1, 10, 10).requires_grad_()
    assert ReducedDepth(3)(x).unique().tolist() == pytest.approx([level / 7 for level in range(8)])
    module = nn.Sequential(ReducedDepth(3), nn.Flatten(), nn.Linear(100, 1, bias=False))
    (plain,) = torch.autograd.grad(module(x).sum(), x)
    assert not plain.any()
    with Surrogates().applied(module, None):
        (gradient,) = torch.autograd.grad(module(x).sum(), x)
    assert torch.equal(gradient[0].flatten(), module[2].weight[0])


# --------------------------------------------------------------------------------------- features


class Branches(nn.Module):
    """A linear layer that is made last but run first, and a map."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(5, 2)
        self.maps = nn.Conv2d(1, 3, 3)
        self.first = nn.Linear(36, 5)

    def forward(self, x):
        self.maps(x)
        return self.head(self.first(x.flatten(1)).relu())


def test_features_are_those_of_the_last_linear_layer_that_is_run():
    module, x = Branches(), torch.rand(4, 1, 6, 6)
    logits, features = with_features(module, x, None)
    assert torch.equal(features, module.first(x.flatten(1)).relu())
    assert torch.equal(logits, module(x))
    _, maps = with_features(module, x, "maps")
    torch.testing.assert_close(maps, module.maps(x).mean(dim=(2, 3)))
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())


def test_features_carry_a_gradient():
    x = torch.rand(2, 1, 6, 6).requires_grad_()
    _, features = with_features(Branches(), x, None)
    features.sum().backward()
    assert x.grad.any()


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(BadParameter, match=r"no layer 'frist'.*did you mean 'first'"):
        with_features(Branches(), torch.rand(2, 1, 6, 6), "frist")
    with pytest.raises(BadParameter, match="at a linear layer"):
        with_features(nn.Flatten(), torch.rand(2, 1, 6, 6), None)


# -------------------------------------------------------------------------- thresholds and
# predictions


class Given(nn.Module):
    """Logits and scores out of the image's pixels."""

    def forward(self, network, x):
        pixels = x.flatten(1)
        return 1e6 * pixels[:, :2], pixels[:, 2]


FLOATS = st.floats(-2.0, 2.0, width=32)


@given(st.lists(st.tuples(FLOATS, FLOATS, FLOATS), min_size=1, max_size=5), FLOATS)
def test_the_rejection_wins_exactly_where_the_score_is_above_the_threshold(rows, threshold):
    module = Rejecting(nn.Identity(), Given(), 0.05)
    module.threshold = torch.tensor(threshold)
    x = torch.tensor(rows, dtype=torch.float32).reshape(-1, 1, 1, 3)
    logits = module(x)
    rejected = x[:, 0, 0, 2] > module.threshold
    assert torch.equal(logits.argmax(dim=1) == 2, rejected)
    best = logits[:, :2].amax(dim=1)
    assert not (logits[:, 2] == best).any()  # no ties, at logits of a million either


def test_the_rejections_logit_grows_with_the_score_and_has_a_gradient():
    module = Rejecting(nn.Identity(), Given(), 0.05)
    x = torch.zeros(40, 1, 1, 3)
    x[:, 0, 0, 2] = torch.linspace(-50, 50, 40)
    x.requires_grad_()
    logits = module(x)
    (gradient,) = torch.autograd.grad(logits[:, 2].sum(), x)
    assert (logits[:, 2].diff() > 0).all()
    assert (gradient[:, 0, 0, 2] > 0.01).all()
    assert logits[:, 2].abs().max() < 5.0


@pytest.mark.parametrize("detector", DETECTORS, **BY_NAME)
def test_no_more_held_out_images_are_rejected_than_said(detector, job):
    trained = detector.fit(network(), job)
    model = trained.model
    _, (x, _) = halves(job)
    with torch.no_grad():
        scores = model.detector(model.network, x)[1]
        rejected = model(x).argmax(dim=1) == 2
    assert 0.0 < rejected.double().mean() <= 0.05
    assert rejected.sum() == int(0.05 * len(x))  # the largest number that is not above
    assert model.spread == pytest.approx(scores.std().item(), rel=1e-5)
    assert (model.rejects, model.false_positive_rate) == (True, 0.05)
    assert len(trained.history) == BASE.epochs
    assert not model.training


def test_the_threshold_is_set_on_what_the_network_was_not_trained_on(job, monkeypatch):
    seen = []
    real = loop.split
    monkeypatch.setattr(loop, "split", lambda *given: seen.append(real(*given)) or seen[-1])
    KNNDistance(base=BASE, neighbours=3).fit(network(), job)
    ours, theirs = seen[1], seen[0]  # train's is the first
    for part, other in zip(ours, theirs, strict=True):
        rows = torch.arange(len(part))
        assert torch.equal(part.read(rows)[0], other.read(rows)[0])
    assert len(seen) == 2


def test_the_base_may_be_any_defense_by_training(job):
    base = AdversarialTraining(
        epochs=1, epsilon=0.05, steps=1, validation_share=0.5, augmentation="none"
    )
    model = KNNDistance(base=base, neighbours=3).fit(network(), job).model
    assert len(model.detector.bank) == 100


class Bare:
    """A base that says nothing of validation."""

    def fit(self, model, training):
        return Trained(model)


@pytest.mark.parametrize("base", [Bare(), Undefended(validation_share=0.0)])
def test_a_base_that_holds_out_nothing_is_refused(base):
    with pytest.raises(BadParameter, match="validation_share"):
        KNNDistance(base=base)


def test_an_ensemble_cannot_be_the_base_since_its_members_hold_out_others():
    with pytest.raises(BadParameter, match="an ensemble cannot be the base"):
        KNNDistance(base=Ensemble(base=BASE))
    with pytest.raises(BadParameter, match="an ensemble cannot be the base"):
        KNNDistance(base=BitDepth(base=Ensemble(base=BASE)))


def test_a_detector_cannot_watch_a_detector(job):
    with pytest.raises(BadParameter, match="must not reject"):
        KNNDistance(base=Mahalanobis(base=BASE)).fit(network(), job)


@pytest.mark.parametrize(
    ("kind", "wrong", "said"),
    [
        (KNNDistance, {"neighbours": 0}, "neighbours"),
        (KNNDistance, {"false_positive_rate": 0.0}, "false_positive_rate"),
        (Mahalanobis, {"shrinkage": 1.5}, "shrinkage"),
        (FeatureSqueezing, {"bits": -1}, "bits"),
        (FeatureSqueezing, {"bits": 0, "median": 1}, "needs a squeezer"),
    ],
)
def test_values_that_cannot_be_used_are_refused(kind, wrong, said):
    with pytest.raises(BadParameter, match=said):
        kind(**wrong)


def test_what_cannot_be_fitted_is_refused(job):
    with pytest.raises(BadParameter, match="only 150 training images"):
        KNNDistance(base=BASE, neighbours=151).fit(network(), job)
    with pytest.raises(BadData, match="takes 1000 held-out images"):
        KNNDistance(base=BASE, false_positive_rate=0.001).fit(network(), job)


# ------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("detector", DETECTORS, **BY_NAME)
def test_a_checkpoint_brings_back_the_very_model(detector, job, tmp_path):
    model = detector.fit(network(), job).model
    save_checkpoint(tmp_path / "one.safetensors", model, {})
    again = detector.wrap(network())
    load_checkpoint(tmp_path / "one.safetensors", again)
    x = job.data.images.x
    assert torch.equal(again.eval()(x), model(x))


@pytest.mark.parametrize("name", ["feature-squeezing", "knn-distance", "mahalanobis"])
def test_networks_and_their_bases_are_kept_in_the_cache(name, tmp_path):
    digits = registry.build("datasets", {"name": "digits", "size": 8}).load("train")
    base = {"name": "none", "epochs": 1}
    detector = registry.build("defenses", {"name": name, "base": base})
    spec = {"name": "small-cnn", "width": 0.1}
    request = TrainingRequest(spec, detector, digits, 0, torch.device("cpu"), "Linf", None)
    made = train_or_load(request, tmp_path, Silent()).model
    kept = sorted((tmp_path / "networks").glob("*.safetensors"))
    assert len(kept) == 2  # the base's is shared
    times = [one.stat().st_mtime_ns for one in kept]
    again = train_or_load(request, tmp_path, Silent()).model
    x = digits.images.read(torch.arange(50))
    assert torch.equal(again(x), made(x))
    assert [one.stat().st_mtime_ns for one in kept] == times


# --------------------------------------------------------------------------------------- on digits


@pytest.mark.parametrize("name", ["feature-squeezing", "knn-distance", "mahalanobis"])
def test_about_as_many_test_images_are_rejected_as_said(name, tmp_path_factory):
    """A third of the training images held out, so that the threshold is well known."""
    plugin = registry.build("datasets", {"name": "digits", "size": 8})
    train, test = plugin.load("train"), plugin.load("test")
    base = {"name": "none", "epochs": 15, "validation_share": 0.33}
    detector = registry.build("defenses", {"name": name, "base": base})
    spec = {"name": "small-cnn", "width": 0.25}
    cache = tmp_path_factory.getbasetemp() / "detectors"
    request = TrainingRequest(spec, detector, train, 0, torch.device("cpu"), "Linf", None)
    model = train_or_load(request, cache, Silent()).model
    with torch.no_grad():
        predicted = model(test.images.read(torch.arange(len(test)))).argmax(dim=1)
    rejected = float((predicted == 10).double().mean())
    assert 0.02 < rejected < 0.09  # five hundred images say 0.05 +- 0.02, the threshold's own aside
    assert (predicted == test.labels).double().mean() > 0.85


def test_a_transformation_before_a_detector_rejects_as_it_does(job):
    defense = BitDepth(bits=6, base=Mahalanobis(base=BASE))
    assert ModelTraits.of(defense) == ModelTraits(differentiable=False, rejects=True)
    module = defense.fit(network(), job).model
    assert ModelTraits.of_module(module) == ModelTraits(differentiable=False, rejects=True)
    assert module.false_positive_rate == 0.05
    assert module(job.data.images.read(torch.arange(3))).shape == (3, 3)
    assert ModelTraits.of_module(nn.Sequential(nn.Identity(), module)).rejects is False


def test_detectors_have_the_nature_of_their_base():
    assert ModelTraits.of(KNNDistance(base=BitDepth())) == ModelTraits(
        differentiable=False, rejects=True
    )


@pytest.mark.parametrize("around", [Ensemble, RandomisedSmoothing])
def test_what_averages_answers_takes_no_network_that_rejects(around):
    with pytest.raises(BadParameter, match="must be a defense that does not reject"):
        around(base=Mahalanobis(base=BASE))
