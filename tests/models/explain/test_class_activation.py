"""CAM against the logit that it adds up to, Grad-CAM against CAM and against captum."""

from functools import partial

import pytest
import torch
from captum.attr import LayerGradCam
from torch import nn

from quintain.bench.api import rng
from quintain.bench.api.defense import InputSpec
from quintain.bench.api.errors import BadData, BadParameter
from quintain.defenses.detection.feature_squeezing import FeatureSqueezing
from quintain.models.alexnet import alexnet
from quintain.models.explain.class_activation import ActivationMaps, cam, grad_cam
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet
from quintain.models.small_cnn import small_cnn
from quintain.models.wide_resnet import wide_resnet

INPUTS = InputSpec((3, 32, 32), 5, (0.5,) * 3, (0.25,) * 3)
POOLED = {
    "stage3": partial(resnet, depth=8),
    "stage4": partial(resnet, depth=18, width=0.125),
    "activation": partial(resnet, depth=14, block="pre-activation"),
    "upper": partial(googlenet, width=0.125),
}


def trained_like(model):
    """Statistics of batch normalisation and a head that are not those of a fresh network."""
    torch.manual_seed(1)
    for layer in model.modules():
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.2, 0.2)
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return model.double().eval()


@pytest.fixture
def x():
    return torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture(params=POOLED)
def pooled(request):
    torch.manual_seed(0)
    return request.param, trained_like(POOLED[request.param](INPUTS))


def convolutional(*after, channels=8):
    return nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), *after).double()


def test_the_logit_is_the_bias_plus_the_mean_of_the_map(pooled, x):
    layer, model = pooled
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    maps = cam(model, x, classes)
    assert maps.layer == layer
    rebuilt = model.classifier.bias[classes] + maps.values.mean(dim=(1, 2))
    expected = model(x)[range(6), classes]
    torch.testing.assert_close(rebuilt, expected, rtol=0.0, atol=1e-12)


def test_grad_cam_is_cam_over_the_number_of_positions(pooled, x):
    layer, model = pooled
    theory, found = cam(model, x, 2), grad_cam(model, x, 2, layer)
    positions = theory.values[0].numel()
    torch.testing.assert_close(found.values, theory.values / positions, rtol=0.0, atol=1e-12)
    assert torch.equal(found.logits, model(x))


@pytest.mark.parametrize("layer", ["stem", "stage1.0", "stage2", "stage3"])
def test_grad_cam_is_captums(x, layer):
    torch.manual_seed(0)
    model = trained_like(resnet(INPUTS, depth=8))
    classes = torch.tensor([0, 1, 2, 3, 4, 0])
    theirs = LayerGradCam(model, model.get_submodule(layer)).attribute(x, classes)[:, 0].detach()
    found = grad_cam(model, x, classes, layer)
    torch.testing.assert_close(found.values, theirs, rtol=0.0, atol=1e-6)
    assert found.values.std() > 1e-4
    theirs_upsampled = LayerGradCam.interpolate(theirs.clamp(min=0)[:, None], (32, 32), "bilinear")
    torch.testing.assert_close(found.upsampled((32, 32)), theirs_upsampled[:, 0])


def test_the_predicted_class_is_the_default_and_batches_change_nothing(pooled, x):
    layer, model = pooled
    found = grad_cam(model, x, layer=layer, batch_size=4)
    assert torch.equal(found.classes, model(x).argmax(dim=1))
    torch.testing.assert_close(found.values, grad_cam(model, x, found.classes, layer).values)
    assert torch.equal(cam(model, x).classes, found.classes)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (alexnet(INPUTS, width=0.05), "more than one linear layer"),
        (small_cnn(InputSpec((3, 32, 32), 5, (0.5,) * 3, (0.25,) * 3), width=0.1), "more than one"),
        (convolutional(nn.Flatten(), nn.Linear(8 * 32 * 32, 5)), "flattened"),
        (
            convolutional(
                nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(8), nn.Linear(8, 5)
            ),
            "batch normalisation follows the pooling",
        ),
        (
            convolutional(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 9), nn.Linear(9, 5)),
            "more than one linear layer",
        ),
        (convolutional(nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(8, 5)), "not the mean"),
        (convolutional(nn.Conv2d(8, 5, 32), nn.Flatten()), "a linear layer gives"),
        (
            convolutional(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5), nn.Softmax(1)),
            "a linear layer gives",
        ),
    ],
)
def test_cam_refuses_other_networks_says_why_and_points_to_grad_cam(model, reason, x):
    with pytest.raises(BadParameter, match=f"(?s){reason}.*grad_cam"):
        cam(trained_like(model), x)
    assert grad_cam(model, x[:1], 1).values.shape[0] == 1


def test_a_functional_pooling_and_dropout_are_seen_through(x):
    class Functional(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = convolutional()
            self.head = nn.Linear(8, 5)

        def forward(self, x):
            return self.head(nn.functional.dropout(self.body(x).mean((2, 3)), 0.5, self.training))

    model = Functional().double().train()
    assert cam(model, x).layer == "body"
    assert model.training  # left as it was


def test_small_last_maps_are_told_and_larger_ones_taken(x):
    torch.manual_seed(0)
    found = grad_cam(alexnet(INPUTS, width=0.1).double(), x)
    assert found.layer == "features.relu5"
    assert found.note == (
        "the last maps, of 'features', have 3x3 pixels; "
        "those of 'features.relu5' were taken, with 7x7"
    )
    resnet8 = grad_cam(resnet(INPUTS, depth=8).double(), x)
    assert (resnet8.layer, resnet8.note) == ("stage3", "")
    with pytest.raises(BadParameter, match="no layer of the network has maps of 4x4"):
        grad_cam(nn.Sequential(nn.Conv2d(3, 4, 30), nn.Flatten(), nn.Linear(36, 5)).double(), x)


def test_a_map_of_no_positive_value_is_blank_and_never_nan(x):
    model = convolutional(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with torch.no_grad():
        model[4].weight[3], model[4].weight[1] = -1.0, 1.0
    dark, bright = grad_cam(model, x, 3, "1"), grad_cam(model, x, 1, "1")
    assert dark.blank.all()
    assert not bright.blank.any()
    assert (dark.upsampled((32, 32)) == 0).all()
    assert torch.equal(dark.values, -bright.values)  # kept as computed
    mixed = ActivationMaps(torch.tensor([[[0.0, -1.0]], [[0.0, 2.0]]]), *[torch.zeros(2)] * 2, "1")
    assert mixed.blank.tolist() == [True, False]


def test_within_an_ensemble_the_layer_of_one_network_is_named_through_it(x):
    class Mean(nn.Module):
        def __init__(self, *networks):
            super().__init__()
            self.networks = nn.ModuleList(networks)

        def forward(self, x):
            return torch.stack([one(x) for one in self.networks]).mean(dim=0)

    torch.manual_seed(0)
    one, other = (trained_like(resnet(INPUTS, depth=8, width=w)) for w in (1.0, 0.5))
    found = grad_cam(Mean(one, other), x, 1, "networks.1.stage2")
    torch.testing.assert_close(found.values, grad_cam(other, x, 1, "stage2").values / 2)
    assert grad_cam(Mean(one, other), x, 1).layer == "networks.1.stage3"


def test_of_a_detector_it_is_the_pass_that_classifies(x):
    torch.manual_seed(0)
    network = trained_like(resnet(INPUTS, depth=8)).float()
    detector = FeatureSqueezing().wrap(network).eval()
    x = x.float()
    found = grad_cam(detector, x, 1)
    assert found.layer == "network.stage3:1"  # it is called for the squeezed images too
    torch.testing.assert_close(found.values, grad_cam(network, x, 1).values)
    rejection = grad_cam(detector, x, 5, "network.stage3:3")
    assert rejection.values.abs().max() > 0


def test_of_a_stochastic_network_it_is_the_mean_over_draws(x):
    class Noise(nn.Module):
        stochastic = True

        def forward(self, z):
            return z + 0.1 * rng.noise(z).normal(z.shape[1:], "test").to(z)

    torch.manual_seed(0)
    noisy = convolutional(
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
    )
    noisy.insert(1, Noise())
    once = grad_cam(noisy, x, 1, draws=1)
    default, many = grad_cam(noisy, x, 1), grad_cam(noisy, x, 1, draws=300, seed=5)
    assert torch.equal(default.values, grad_cam(noisy, x, 1, draws=16, batch_size=4).values)
    again = grad_cam(noisy, x, 1, draws=300, seed=9)
    areas = cam(noisy, x, 1, draws=300, seed=5)
    torch.testing.assert_close(areas.values / areas.values[0].numel(), many.values)
    assert (many.values - again.values).norm() < 0.2 * (once.values - again.values).norm()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"layer": "stage33"}, "no layer 'stage33'; did you mean 'stage3'.*the network has"),
        ({"layer": "classifier"}, r"'classifier' gives \(6, 5\), not maps"),
        ({"classes": 5}, "class 5 is out of range: the network has 5 classes, 0 to 4"),
        ({"classes": torch.tensor([0, 1, 2, 3, 4, -1])}, "class -1 is out of range"),
        ({"classes": torch.tensor([0, 1])}, "for 6 images"),
        ({"draws": 0}, "draws = 0 must be 1 or more"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, said, x):
    with pytest.raises(BadParameter, match=said) as caught:
        grad_cam(resnet(INPUTS, depth=8).double(), x, **arguments)
    assert "\n" not in str(caught.value)


def test_a_network_without_convolutions_and_images_of_another_size_are_refused(x):
    dense = nn.Sequential(nn.Flatten(), nn.Linear(3072, 5)).double()
    with pytest.raises(BadParameter, match="no convolution"):
        grad_cam(dense, x)
    flattening = convolutional(nn.Flatten(), nn.Linear(8 * 32 * 32, 5))
    with pytest.raises(BadData, match="does not take images of 3x16x16"):
        grad_cam(flattening, x[:, :, :16, :16])
    with pytest.raises(BadData, match="images must be"):
        grad_cam(flattening, x[0])
    with pytest.raises(BadData, match="images must be"):
        grad_cam(flattening, x[:0], layer="0")


def test_a_layer_behind_a_cut_gradient_is_refused(x):
    class Cut(nn.Module):
        def forward(self, z):
            return z.detach()

    model = convolutional(Cut(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
    with pytest.raises(BadParameter, match="no gradient leads from the logits to layer '1'"):
        grad_cam(model, x, 1, "1")


def test_wide_resnets_have_cam_too(x):
    torch.manual_seed(0)
    model = trained_like(wide_resnet(INPUTS, depth=10, width=1))
    assert cam(model, x).layer == "activation"
