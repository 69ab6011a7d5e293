"""Small networks on which the distance to the nearest adversarial point is known exactly."""

from dataclasses import dataclass
from itertools import product

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, nnls
from torch import nn


@dataclass(frozen=True)
class Known:
    """A network, images, their labels and targets, and the distances: norm -> (N,).

    distances: to the nearest image of another class. targeted: to the nearest one of the target's.
    """

    module: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    distances: dict[str, np.ndarray]
    targets: torch.Tensor
    targeted: dict[str, np.ndarray]


@pytest.fixture(scope="session")
def affine():
    """Five classes, logits affine in 16 pixels; the box never binds."""
    random = torch.Generator().manual_seed(5)
    images = 0.5 + 0.2 * (torch.rand(40, 1, 4, 4, generator=random) - 0.5)
    module = nn.Sequential(nn.Flatten(), nn.Linear(16, 5))
    with torch.no_grad():
        module[1].weight.copy_(torch.randn(5, 16, generator=random))
        module[1].bias.copy_(-module[1].weight.sum(1) / 2)
        logits = module(images).double()
    labels = logits.argmax(1)
    gaps = (logits.gather(1, labels[:, None]) - logits).numpy()
    weight = module[1].weight.detach().double().numpy()
    slopes = weight[None] - weight[labels.numpy()][:, None]
    dual = {
        "Linf": np.abs(slopes).sum(2),
        "L2": np.sqrt((slopes**2).sum(2)),
        "L1": np.abs(slopes).max(2),
    }
    other = gaps > 0
    distances = {
        norm: np.where(other, gaps / np.where(other, one, 1.0), np.inf).min(1)
        for norm, one in dual.items()
    }
    return Known(module, images, labels, distances, (labels + 1) % 5, {})


@pytest.fixture(scope="session")
def relu():
    """Three classes, 4 pixels, 6 hidden rectified units: images in a box that often binds."""
    random = torch.Generator().manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        module[1].weight.copy_(torch.randn(6, 4, generator=random))
        kinks = torch.rand(6, 4, generator=random)
        module[1].bias.copy_(-(module[1].weight * kinks).sum(1))
        module[3].weight.copy_(torch.randn(3, 6, generator=random))
        images = torch.rand(400, 1, 2, 2, generator=random)
        middle = module[2](module[1](images.flatten(1))).mean(0)
        module[3].bias.copy_(-module[3].weight @ middle)
        labels = module(images).argmax(1)
    images, labels = images[:24], labels[:24]
    targets = (labels + 1) % 3
    return Known(
        module,
        images,
        labels,
        exact_distances(module, images, lambda row, goal: goal != labels[row]),
        targets,
        exact_distances(module, images, lambda row, goal: goal == targets[row]),
    )


def exact_distances(module, images, wanted):
    """Norm -> (N,) distances to the nearest image in [0, 1] of a class that is wanted.

    In the region of one activation pattern the network is affine, so the nearest point where it
    prefers a class is that of a polyhedron: in L2 a least-distance problem (Lawson & Hanson 1974,
    chapter 23), in Linf and L1 a linear programme, left out where its answer cannot be nearer.
    wanted: (row, class) -> bool.
    """
    first, second = (
        (one.weight.detach().double().numpy(), one.bias.detach().double().numpy())
        for one in (module[1], module[3])
    )
    points = images.flatten(1).double().numpy()
    found = {norm: np.full(len(points), np.inf) for norm in ("Linf", "L2", "L1")}
    for pattern in product((0.0, 1.0), repeat=len(first[1])):
        for goal in range(len(second[1])):
            matrix, bound = region(first, second, np.array(pattern), goal)
            for row, point in enumerate(points):
                if wanted(row, goal):
                    lower(found, row, matrix, bound - matrix @ point)
    return found


def region(first, second, pattern, goal):
    """Matrix and bound: matrix @ z <= bound where the pattern holds, in the box, and goal wins."""
    (w, b), (v, c) = first, second
    sign = 1.0 - 2.0 * pattern  # active: w z + b >= 0
    weight, offset = (v * pattern) @ w, (v * pattern) @ b + c
    others = np.arange(len(c)) != goal
    eye = np.eye(w.shape[1])
    matrix = np.vstack([sign[:, None] * w, weight[others] - weight[goal], eye, -eye])
    ones = np.ones(len(eye))
    bound = np.concatenate([-sign * b, offset[goal] - offset[others], ones, 0.0 * ones])
    return matrix, bound


def lower(found, row, matrix, bound):
    """Lower a row's distances to those of the shortest moves with matrix @ move <= bound."""
    euclidean = least_distance(matrix, bound)
    if euclidean is None:
        return
    found["L2"][row] = min(found["L2"][row], euclidean)
    d, eye = matrix.shape[1], np.eye(matrix.shape[1])
    for norm, count in (("Linf", 1), ("L1", d)):  # so many sizes bound the coordinates
        at_least = euclidean / np.sqrt(d) if norm == "Linf" else euclidean
        if at_least >= found[norm][row]:
            continue
        sizes = np.ones((d, 1)) if norm == "Linf" else eye
        rows = np.block([[matrix, np.zeros((len(matrix), count))], [eye, -sizes], [-eye, -sizes]])
        limits = np.concatenate([bound, np.zeros(2 * d)])
        cost = np.concatenate([np.zeros(d), np.ones(count)])
        bounds = [(None, None)] * d + [(0, None)] * count
        answer = linprog(cost, rows, limits, bounds=bounds)
        if answer.status == 0:
            found[norm][row] = min(found[norm][row], answer.fun)


def least_distance(matrix, bound):
    """Length of the shortest move with matrix @ move <= bound, None when there is none."""
    system = np.vstack([-matrix.T, -bound])
    goal = np.zeros(len(system))
    goal[-1] = 1.0
    multipliers, length = nnls(system, goal, maxiter=1000)
    if length < 1e-9:
        return None
    residual = system @ multipliers - goal
    return float(np.linalg.norm(residual[:-1] / residual[-1]))
