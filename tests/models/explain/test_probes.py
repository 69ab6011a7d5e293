"""Probes on features whose classes are known to be, or not to be, linearly separable."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from quintain.bench.api.errors import BadData, BadParameter
from quintain.models.explain.probes import Labelled, fit_probe, pooled_features, probe_layers


class Rings(nn.Module):
    """Classes by brightness |v - 1/2|: not linear in the pixel, linear after the layer `fold`."""

    def __init__(self):
        super().__init__()
        self.plain = nn.Identity()
        self.fold = nn.Conv2d(1, 2, 1)
        self.rectify = nn.ReLU()
        with torch.no_grad():
            self.fold.weight.copy_(torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1))
            self.fold.bias.copy_(torch.tensor([-0.5, 0.5]))

    def forward(self, x):
        return self.rectify(self.fold(self.plain(x))).mean(dim=(2, 3))


def rings(count, seed):
    value = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    return Labelled(
        value[:, None, None, None].expand(-1, 1, 4, 4), ((value - 0.5).abs() > 0.25).long()
    )


def test_a_layer_that_unfolds_the_classes_is_told_from_one_that_does_not():
    before, after, logits = probe_layers(
        Rings(), ["plain", "rectify", ""], rings(400, 0), rings(300, 1), grid=1
    )
    assert before.accuracy < 0.65
    assert after.accuracy > 0.95
    assert logits.accuracy == after.accuracy  # the mean of a flat map is the map
    assert (before.layer, before.values, after.values) == ("plain", 1, 2)


def test_without_a_class_in_the_features_it_is_chance_on_other_images():
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.rand(600, 1, 6, 6, generator=generator),
        torch.randint(4, (600,), generator=generator),
    )
    [probe] = probe_layers(
        nn.Sequential(nn.Identity(), nn.Flatten()), ["0"], Labelled(x[:200], y[:200]),
        Labelled(x[200:], y[200:]), grid=6,
    )  # fmt: skip
    assert probe.accuracy == pytest.approx(0.25, abs=0.07)
    assert probe.train_accuracy > 0.4


def test_where_things_are_is_kept_by_the_grid_and_lost_by_the_average():
    """The class is which half is bright."""
    x = torch.full((200, 1, 8, 8), 0.2)
    y = torch.arange(200) % 2
    x[y == 0, :, :, :4] = 0.8
    x[y == 1, :, :, 4:] = 0.8
    x = x + 0.05 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    train, test = Labelled(x[:100], y[:100]), Labelled(x[100:], y[100:])
    model = nn.Sequential(nn.Identity(), nn.Flatten())
    [averaged] = probe_layers(model, ["0"], train, test, grid=1)
    [kept] = probe_layers(model, ["0"], train, test, grid=4)
    assert averaged.accuracy < 0.7
    assert kept.accuracy == 1.0


def test_pooling_is_the_mean_of_areas_and_small_maps_stay():
    x = torch.arange(64.0).reshape(1, 1, 8, 8)
    model = nn.Sequential(nn.Identity(), nn.MaxPool2d(4), nn.Flatten())
    found = pooled_features(model, x, ["0", "1"], grid=4)
    expected = x.reshape(4, 2, 4, 2).mean(dim=(1, 3)).flatten()[None]
    torch.testing.assert_close(found["0"], expected)
    assert torch.equal(found["1"], model[1](x).flatten(1))
    many = torch.rand(7, 1, 8, 8)
    whole = pooled_features(model, many, ["0"])["0"]
    assert torch.equal(whole, pooled_features(model, many, ["0"], batch_size=3)["0"])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probe_is_scikit_learns_on_standardised_features(classes):
    generator = np.random.default_rng(classes)
    features = generator.normal(size=(90, 4)) * [1.0, 10.0, 0.1, 0.0] + 3.0
    labels = np.arange(90) % classes
    features[:, 0] += labels
    ours = fit_probe(torch.from_numpy(features), torch.from_numpy(labels), strength=0.01)
    standard = (features[:, :3] - features[:, :3].mean(0)) / features[:, :3].std(0)
    theirs = LogisticRegression(C=1 / (0.01 * 90), max_iter=200).fit(standard, labels)
    found = ours(torch.from_numpy(features)).softmax(dim=1).numpy()
    np.testing.assert_allclose(found, theirs.predict_proba(standard), atol=1e-6)


def test_a_class_without_images_is_never_predicted():
    y = torch.tensor([0, 2, 4]).repeat(10)
    probe = fit_probe(nn.functional.one_hot(y).float(), y)
    assert probe(torch.eye(5)[[0, 2, 4]]).argmax(dim=1).tolist() == [0, 2, 4]
    assert probe(torch.zeros(1, 5)).shape == (1, 5)
    assert torch.isneginf(probe(torch.rand(9, 5))[:, [1, 3]]).all()


def test_bad_input_is_refused():
    good = rings(20, 0)
    with pytest.raises(BadParameter, match="grid = 0"):
        probe_layers(Rings(), ["fold"], good, good, grid=0)
    with pytest.raises(BadParameter, match="did you mean 'fold'"):
        probe_layers(Rings(), ["folds"], good, good)
    with pytest.raises(BadData, match="5 labels for 20 images"):
        probe_layers(Rings(), ["fold"], good, Labelled(good.images, good.labels[:5]))
    with pytest.raises(BadData, match="two classes"):
        fit_probe(torch.rand(5, 2), torch.zeros(5, dtype=torch.int64))
