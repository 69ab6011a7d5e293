from functools import partial

import pytest
import torch
from builders import input_spec, parameters
from torch import nn
from torchvision.models import GoogLeNet as Torchvision
from torchvision.models.googlenet import BasicConv2d

from quintain.bench.api.errors import BadParameter
from quintain.models.googlenet import TABLE, googlenet
from quintain.models.inception import Inception, NaiveInception

spec = partial(input_spec, n_classes=1000)


def small(**options):
    torch.manual_seed(0)
    return googlenet(spec(16, channels=1, n_classes=10), width=0.0625, **options)


def test_parameter_count_is_the_papers():
    with torch.device("meta"):
        network = googlenet(spec(224), batch_norm=False, auxiliary=False)
        assert parameters(network) == 6_998_552


def test_each_auxiliary_classifier_has_the_papers_layers():
    with torch.device("meta"):
        network = googlenet(spec(224), batch_norm=False)
    for head, channels in zip(network.auxiliary, (512, 528), strict=True):
        convolution = channels * 128 + 128
        hidden = 4 * 4 * 128 * 1024 + 1024
        assert parameters(head) == convolution + hidden + 1024 * 1000 + 1000


def test_grids_and_channels_of_table_1():
    expected = {
        "stem.conv1": (64, 112, 112),
        "stem.pool1": (64, 56, 56),
        "stem.conv2": (192, 56, 56),
        "stem.pool2": (192, 28, 28),
        "lower.inception3a": (256, 28, 28),
        "lower.inception3b": (480, 28, 28),
        "lower.inception4a": (512, 14, 14),
        "middle.inception4b": (512, 14, 14),
        "middle.inception4c": (512, 14, 14),
        "middle.inception4d": (528, 14, 14),
        "upper.inception4e": (832, 14, 14),
        "upper.inception5a": (832, 7, 7),
        "upper.inception5b": (1024, 7, 7),
    }
    seen = {}
    with torch.device("meta"):
        network = googlenet(spec(224))
        for name in expected:
            network.get_submodule(name).register_forward_hook(
                lambda _, __, out, name=name: seen.__setitem__(name, tuple(out.shape[1:]))
            )
        network(torch.empty(2, 3, 224, 224))
    assert seen == expected


def test_22_layers_deep():
    with torch.device("meta"):
        network = googlenet(spec(224), auxiliary=False)
    in_stem = sum(isinstance(one, nn.Conv2d) for one in network.stem.modules())
    modules = sum(isinstance(one, Inception) for one in network.modules())
    assert in_stem + 2 * modules + 1 == 22


def pair(*, auxiliary):
    """Torchvision's network with the paper's table put back, and ours with the same weights.

    Torchvision's has 3x3 convolutions where table 1 has 5x5, and a last pooling of 2x2. The rest is
    the same network.
    """
    torch.manual_seed(0)
    reference = Torchvision(num_classes=10, aux_logits=auxiliary, init_weights=False)
    reference.maxpool4 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
    for name, filters in TABLE.items():
        module = reference.get_submodule(f"inception{name}")
        module.branch3[1] = BasicConv2d(filters.reduce_five, filters.five, kernel_size=5, padding=2)
    ours = googlenet(spec(64, n_classes=10), auxiliary=auxiliary)
    theirs = reference.state_dict()
    order = sorted(theirs, key=lambda name: name.startswith("aux"))  # we have these at the end
    values = [theirs[name] for name in order if "num_batches" not in name]
    with torch.no_grad():
        for one in values:
            one.uniform_(0.5, 1.5) if one.dim() == 1 else one.normal_(std=one[0].numel() ** -0.5)
    names = [
        name
        for name in ours.state_dict()
        if "num_batches" not in name and not name.startswith("normalise")
    ]
    ours.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return reference, ours


def test_same_outputs_as_torchvision_with_the_papers_table_put_back():
    reference, ours = pair(auxiliary=False)
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = reference.eval()((x - 0.5) / 0.25)
        torch.testing.assert_close(ours.eval()(x), expected, rtol=1e-4, atol=1e-5)
    assert expected.std() > 1e-3


def test_same_auxiliary_outputs_as_torchvision_in_training_mode():
    reference, ours = pair(auxiliary=True)
    for network in (reference, ours):
        for one in network.train().modules():
            if isinstance(one, nn.Dropout):
                one.p = 0.0
    x = torch.rand(4, 3, 64, 64)
    with torch.no_grad():
        logits, after_4d, after_4a = reference((x - 0.5) / 0.25)
        found = ours(x)
    for one, expected in zip(found, (logits, after_4a, after_4d), strict=True):
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-4)
        assert expected.std() > 1e-3


def test_auxiliary_logits_in_training_mode_only():
    network, x = small(), torch.rand(4, 1, 16, 16)
    assert network.auxiliary_weight == 0.3
    outputs = network.train()(x)
    assert [tuple(one.shape) for one in outputs] == [(4, 10)] * 3
    assert isinstance(network.eval()(x), torch.Tensor)
    assert isinstance(small(auxiliary=False).train()(x), torch.Tensor)


def test_auxiliary_classifiers_branch_off_after_4a_and_4d():
    network = small()
    after_4a, after_4d = network.train()(torch.rand(4, 1, 16, 16))[1:]
    reached = [
        {
            name
            for name, one in zip(
                dict(network.named_parameters()),
                torch.autograd.grad(
                    logits.sum(), list(network.parameters()), allow_unused=True, retain_graph=True
                ),
                strict=True,
            )
            if one is not None
        }
        for logits in (after_4a, after_4d)
    ]
    modules = [{name.split(".")[1] for name in names if "inception" in name} for names in reached]
    lower = {"inception3a", "inception3b", "inception4a"}
    assert modules[0] == lower
    assert modules[1] == lower | {"inception4b", "inception4c", "inception4d"}


def test_auxiliary_pooling_is_the_papers_on_its_grid():
    head = small(batch_norm=False).auxiliary[0].eval()
    channels = head.reduce.conv.in_channels
    seen = []
    head.reduce.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = torch.rand(2, channels, 14, 14)
    head(x)
    torch.testing.assert_close(seen[0], nn.AvgPool2d(5, stride=3)(x))
    for side in (2, 4, 7, 28):
        assert head(torch.rand(2, channels, side, side)).shape == (2, 10)


def test_response_norm_only_without_batch_norm():
    for batch_norm, count in ((True, 0), (False, 2)):
        kinds = [type(one).__name__ for one in small(batch_norm=batch_norm).modules()]
        assert kinds.count("LocalResponseNorm") == count
        assert ("BatchNorm2d" in kinds) is batch_norm


def test_bad_dropout_is_refused():
    with pytest.raises(BadParameter, match="dropout"):
        small(dropout=1.0)


@pytest.mark.parametrize("batch_norm", [True, False])
def test_naive_modules_stand_where_the_reduced_ones_do(batch_norm):
    reduced, naive = small(batch_norm=batch_norm), small(batch_norm=batch_norm, modules="naive")
    names = [
        [name for name, one in network.named_modules() if isinstance(one, kind)]
        for network, kind in ((reduced, Inception), (naive, NaiveInception))
    ]
    assert names[0] == names[1]
    assert len(names[0]) == 9
    x = torch.rand(4, 1, 16, 16)
    assert [tuple(one.shape) for one in naive.train()(x)] == [(4, 10)] * 3


def test_other_modules_are_refused():
    with pytest.raises(BadParameter, match="'naif' is not one of reduced, naive; did you"):
        small(modules="naif")
