"""What many tests build: tiny networks, images, victims, and what an attack is handed."""

from dataclasses import dataclass

import torch
from torch import nn

from quintain.bench.api.attack import Problem
from quintain.bench.api.defense import InputSpec
from quintain.bench.api.rng import Draws
from quintain.bench.api.threat import make_ball


def linear(outputs=2, inputs=16):
    """A linear network of flattened images. Seeds torch's generator, from which the weights are."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs))


def convolutional(outputs=2, *, side=6, channels=1, dropout=None):
    """A convolution, batch normalisation, ReLU and a linear layer. Seeds torch's generator.

    side: of the images, (channels, side, side). dropout: before the linear layer; None for none.
    """
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        *([] if dropout is None else [nn.Dropout(dropout)]), nn.Linear(4 * side * side, outputs),
    )  # fmt: skip


def plane(weight, bias):
    """Two classes: the second where weight . x + bias > 0."""
    layer = nn.Linear(len(weight), 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(len(weight)), torch.tensor(weight)]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return nn.Sequential(nn.Flatten(), layer).eval()


def random_images(*shape, seed=0):
    """Uniform over [0, 1]."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def input_spec(height, width=None, channels=3, n_classes=10):
    """What a network is built for, with channels of mean 0.5 and spread 0.25."""
    shape = (channels, height, width or height)
    return InputSpec(shape, n_classes, (0.5,) * channels, (0.25,) * channels)


def parameters(network):
    """How many numbers a network learns."""
    return sum(one.numel() for one in network.parameters())


def draws(examples, seed=0, restart=0, step=0):
    """Random numbers of examples: of the first so many, or of those that are listed."""
    example = torch.arange(examples) if isinstance(examples, int) else torch.tensor(examples)
    return Draws(seed, example, torch.full_like(example, restart), torch.full_like(example, step))


def problem_at(
    x,
    victim=None,
    *,
    y=None,
    targeted=False,
    norm="Linf",
    epsilon=0.1,
    restart=0,
    step=0,
    start_points=None,
    warm=None,
):
    """What an attack is handed at a step: x (B, C, H, W), labels 0 unless given, one epsilon."""
    zeros = torch.zeros(len(x), dtype=torch.int64)
    return Problem(
        x=x,
        y=zeros if y is None else y,
        targeted=targeted,
        ball=make_ball(norm, x, torch.full((len(x),), epsilon, dtype=torch.float64)),
        victim=victim,
        draws=draws(len(x), restart=restart, step=step),
        step=zeros + step,
        start_points=x if start_points is None else start_points,
        warm=zeros.bool() if warm is None else warm,
    )


@dataclass
class Iterate:
    """The state of an attack that keeps nothing else."""

    x_adv: torch.Tensor


class Scores:
    """A victim that answers with a function's values and counts the questions of each example."""

    access = "score"

    def __init__(self, function, count):
        self.function = function
        self.asked = torch.zeros(count, dtype=torch.int64)
        self.points = []
        self.rows = []

    def scores(self, x, rows=None):
        rows = torch.arange(len(x)) if rows is None else rows
        self.asked += torch.bincount(rows, minlength=len(self.asked))
        self.points.append(x)
        self.rows.append(rows)
        return self.function(x)


def first_logit(logits, y=None, *, targeted=False):
    """A loss, or an objective: the logit of class 0."""
    return logits[:, 0]
