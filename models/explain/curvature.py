"""The sharpest curvature of the loss in weight space: the Hessian's largest eigenvalue.

Source of the product with a vector: Pearlmutter 1994, "Fast exact multiplication by the Hessian";
of its use here: Li et al. 2018, arXiv:1712.09913, section 6.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.func import functional_call

from ...bench.api.errors import BadParameter
from .layers import evaluating

Product = Callable[[Tensor], Tensor]
"""v (P,) -> H v (P,), of a symmetric matrix."""


@dataclass(frozen=True)
class Eigenvalue:
    """The eigenvalue that is largest in magnitude, with its sign.

    vector: (P,), of length 1. residual: ||H v - value v|| / |value|: large where the iteration has
    not converged, as between two eigenvalues of nearly equal magnitude. iterations: made.
    """

    value: float
    vector: Tensor
    residual: float
    iterations: int


def largest_eigenvalue(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    iterations: int = 100,
    tolerance: float = 1e-3,
    seed: int = 0,
    batch_size: int = 256,
) -> Eigenvalue:
    """Of the Hessian of the mean cross-entropy by all parameters, by power iteration.

    x: (B, C, H, W), y: (B,). In evaluation mode. iterations: at most; it ends when the residual is
    below the tolerance. One iteration costs about two gradients.

    Raises: BadParameter for fewer than one iteration.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2)).double()
    >>> x, y = torch.rand(4, 3, 1, 1).double(), torch.tensor([0, 1, 0, 1])
    >>> found = largest_eigenvalue(model, x, y)
    >>> found.value > 0, found.vector.shape
    (True, torch.Size([8]))
    """
    product = hessian_product(model, x, y, batch_size=batch_size)
    weights = list(model.parameters())
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn(sum(one.numel() for one in weights), generator=generator).to(weights[0])
    return power_iteration(product, start, iterations=iterations, tolerance=tolerance)


def power_iteration(
    product: Product, start: Tensor, *, iterations: int = 100, tolerance: float = 1e-3
) -> Eigenvalue:
    """Multiply by the matrix and normalise, until the residual is below the tolerance.

    Raises: BadParameter for fewer than one iteration.

    >>> found = power_iteration(lambda v: torch.tensor([1.0, -3.0]) * v, torch.ones(2))
    >>> round(found.value, 3)
    -3.0
    """
    if iterations < 1:
        raise BadParameter(f"iterations = {iterations} must be 1 or more")
    vector = start / start.norm()
    for iteration in range(1, iterations + 1):
        after = product(vector)
        value = torch.dot(vector, after)
        size = float(value.abs())
        residual = float((after - value * vector).norm()) / size if size else 0.0
        if residual <= tolerance or iteration == iterations:
            break
        vector = after / after.norm()
    return Eigenvalue(float(value), vector, residual, iteration)


def hessian_product(model: nn.Module, x: Tensor, y: Tensor, *, batch_size: int = 256) -> Product:
    """The Hessian of the mean cross-entropy by all parameters, as a product with a vector.

    Vectors are ordered as `torch.nn.utils.parameters_to_vector(model.parameters())` orders them.

    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    >>> product = hessian_product(model, torch.rand(4, 3, 1, 1), torch.tensor([0, 1, 0, 1]))
    >>> product(torch.ones(8)).shape
    torch.Size([8])
    """
    names = [name for name, _ in model.named_parameters()]
    weights = [one.detach().requires_grad_() for one in model.parameters()]
    parameters = dict(zip(names, weights, strict=True))

    def product(vector: Tensor) -> Tensor:
        parts = vector.split([one.numel() for one in weights])
        shaped = [part.reshape(one.shape) for part, one in zip(parts, weights, strict=True)]
        total = torch.zeros_like(vector)
        with evaluating(model), torch.enable_grad():
            for rows in torch.arange(len(x), device=x.device).split(batch_size):
                logits = functional_call(model, parameters, (x[rows],))
                loss = F.cross_entropy(logits, y[rows], reduction="sum") / len(x)
                slopes = torch.autograd.grad(
                    loss, weights, create_graph=True, materialize_grads=True
                )
                along = torch.stack(
                    [(slope * part).sum() for slope, part in zip(slopes, shaped, strict=True)]
                ).sum()
                second = torch.autograd.grad(along, weights, materialize_grads=True)
                total += torch.cat([one.flatten() for one in second])
        return total

    return product
