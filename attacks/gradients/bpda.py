"""The gradient around layers that have none: through a differentiable stand-in."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from ...bench.api.attack import Access, Loss, Problem
from ...bench.api.errors import BadParameter


@dataclass(frozen=True)
class Surrogates:
    """A surrogate gradient: layers without a gradient have that of their surrogates."""

    faithful: ClassVar[bool] = True

    @contextmanager
    def applied(self, module: nn.Module, setting: Tensor | None) -> Iterator[None]:
        """Stand in for such layers on the way back."""
        with ExitStack() as stack:
            for layer in module.modules():
                if getattr(layer, "differentiable", True) is False:
                    stack.enter_context(layer.register_forward_hook(_straight_through))
            yield


def _straight_through(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    """The layer's output, with the derivative of its surrogate."""
    surrogate = getattr(layer, "surrogate", None)
    stand_in: Tensor = inputs[0] if surrogate is None else surrogate(inputs[0])
    if stand_in.shape != output.shape:
        name = type(layer).__name__
        raise BadParameter(
            f"{name} turns {tuple(inputs[0].shape)} into {tuple(output.shape)}, and its stand-in "
            f"into {tuple(stand_in.shape)}: give it a method surrogate(x) of the same shape"
        )
    return output.detach() + (stand_in - stand_in.detach())


@dataclass(frozen=True)
class BPDA:
    """Backward pass differentiable approximation: forwards the model, backwards a surrogate.

    A layer with `differentiable = False` is passed as it is on the way there; on the way back it is
    replaced by its method `surrogate(x)`, a differentiable function of the same shape, or by the
    identity where it has none. White-box. Source: Athalye et al. 2018 (arXiv:1802.00420), section
    4.1. Models without such a layer give their exact gradient.

    Rounded pixels have no gradient, and a naive attack finds nothing:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> import torch
    >>> class Rounded(torch.nn.Module):
    ...     differentiable = False
    ...
    ...     def forward(self, x):
    ...         return (x * 255).round() / 255
    >>> rounded = torch.nn.Sequential(Rounded(), model)
    >>> for gradient in ("autograd", "bpda"):
    ...     attack = {"name": "fgsm", "gradient": gradient}
    ...     result = evaluate(rounded, images, labels, attack, epsilons=[0.055], adaptive=False)
    ...     gradient, result.curve["robust_accuracy"].tolist()
    ('autograd', [1.0])
    ('bpda', [0.5])
    """

    adapts: ClassVar[tuple[str, ...]] = ("differentiable",)
    surrogate: ClassVar[Surrogates] = Surrogates()

    @property
    def access(self) -> Access:
        """White-box."""
        return "white-box"

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the approximate gradient at x."""
        return self.valued(problem, x, loss)[0]

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the approximate gradient at x, and the exact loss there."""
        answer = problem.victim.gradient(
            x,
            lambda logits: loss(logits, problem.y, targeted=problem.targeted),
            surrogate=self.surrogate,
        )
        return answer.gradient, answer.loss
