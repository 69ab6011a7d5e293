"""The tables of docs/models.md, measured again."""

from functools import partial
from pathlib import Path

import pytest
import torch

from quintain.bench.api.defense import InputSpec
from quintain.models.alexnet import alexnet
from quintain.models.cost import cost
from quintain.models.googlenet import googlenet
from quintain.models.resnet import resnet
from quintain.models.small_cnn import small_cnn
from quintain.models.wide_resnet import wide_resnet

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
PAPERS = {"batch_norm": False, "auxiliary": False}
PHOTOGRAPHS = {
    "AlexNet, `groups = 2`": [partial(alexnet, groups=2)],
    "AlexNet, `groups = 1`": [partial(alexnet, groups=1)],
    "GoogLeNet, no batch norm, no auxiliary": [partial(googlenet, **PAPERS)],
    "GoogLeNet of naive modules, the same": [partial(googlenet, **PAPERS, modules="naive")],
    "ResNet-18": [resnet],
    "ResNet-34": [partial(resnet, depth=34)],
    **{
        f'ResNet-{depth}, `"3x3"` / `"1x1"`': [
            partial(resnet, depth=depth, bottleneck_stride=stride) for stride in ("3x3", "1x1")
        ]
        for depth in (50, 101, 152)
    },
    "plain 34": [partial(resnet, depth=34, block="plain")],
}
CIFAR = {
    **{f"ResNet-{depth}, CIFAR": partial(resnet, depth=depth) for depth in (20, 32, 44, 56, 110)},
    **{
        f"PreAct-ResNet-{depth}, CIFAR": partial(resnet, depth=depth, block="pre-activation")
        for depth in (18, 164, 1001)
    },
    **{f"WRN-{depth}-10, CIFAR": partial(wide_resnet, depth=depth) for depth in (28, 34)},
}


def rows(heading):
    """The cells of the table whose first heading this is: label -> the others."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table = {}
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            return table
        label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        table[label] = cells
    return table


NETWORKS = rows("network")


def test_every_row_is_measured():
    assert NETWORKS.keys() == {*PHOTOGRAPHS, *CIFAR, "small CNN, MNIST"}


def measured(factory, shape, n_classes):
    spec = InputSpec(shape, n_classes, (0.5,) * shape[0], (0.25,) * shape[0])
    with torch.device("meta"):
        return cost(factory(spec), shape)


def check(label, found):
    parameters, _, multiply_adds, _ = NETWORKS[label]
    assert {f"{one.parameters:,}" for one in found} == {parameters}
    for one, written in zip(found, multiply_adds.split(" / "), strict=True):
        number, power = written.split("e")
        digits = len(number.partition(".")[2])
        assert f"{one.multiply_adds / 10 ** int(power):.{digits}f}" == number


@pytest.mark.parametrize("label", PHOTOGRAPHS)
def test_networks_for_photographs(label):
    check(label, [measured(one, (3, 224, 224), 1000) for one in PHOTOGRAPHS[label]])


@pytest.mark.parametrize("label", CIFAR)
def test_networks_for_cifar(label):
    check(label, [measured(CIFAR[label], (3, 32, 32), 10)])


def test_the_small_network():
    check("small CNN, MNIST", [measured(small_cnn, (1, 28, 28), 10)])


def test_inception_modules():
    reduced, naive = (
        measured(partial(googlenet, **PAPERS, modules=one), (3, 224, 224), 1000)
        for one in ("reduced", "naive")
    )
    table = rows("module")
    names = [one for one in reduced.every if one.rpartition(".")[2].startswith("inception")]
    assert list(table) == [one[-2:] for one in names]
    for name, a, b in zip(table, reduced.of(names), naive.of(names), strict=True):
        assert table[name] == [
            str(a.output[1]),
            *(f"{one.output[0]:,}" for one in (a, b)),
            *(f"{one.parameters:,}" for one in (a, b)),
            *(f"{one.multiply_adds / 1e6:,.1f}e6" for one in (a, b)),
        ]
