"""Adversarial weight perturbation: descend at the worst weights near the present ones."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .loop.objective import Forward, Objective, heads

_TINY = 1e-30


@dataclass(frozen=True)
class WeightPerturbation:
    """Adversarial weight perturbation (Wu et al. 2020, arXiv:2004.05884, algorithm 1).

    The loss on the batch is climbed by one step in the weights, each layer's by `size` times its
    own L2 norm, and the gradient at the weights reached moves the real ones.

    size: gamma, the L2 norm of a layer's perturbation over the layer's; 0 for none.
    warmup_epochs: first epochs without it.

    As in the authors' code, only weights of two or more axes are perturbed, not biases and those of
    normalisation layers, the step reaches the bound, and dropout is drawn again for both passes.
    Where their code climbs with a copy of the network and moves the weights there and back, here
    the perturbed weights are given to the forward pass alone. So nothing has to be undone, weight
    decay pulls at the real weights, and the running statistics of batch normalisation are those of
    the real network: the pass at the perturbed weights updates copies, in their code the real ones.
    """

    size: float = 0.0
    warmup_epochs: int = 0

    def worst(
        self, model: nn.Module, epoch: float, loss: Callable[[Forward], Objective]
    ) -> Objective:
        """The objective at the worst weights near the model's; it is differentiable by the model's.

        loss: called with the forward pass to use. epoch: epochs done.
        """
        found = loss(lambda x: heads(model, model(x)))
        if self.size == 0.0 or epoch < self.warmup_epochs:
            return found
        state = self.perturbed(model, found.loss)
        return loss(lambda x: heads(model, functional_call(model, state, (x,))))

    def perturbed(self, model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
        """The perturbed weights, which `loss` is a function of, and copies of all buffers."""
        weights = {
            name: one
            for name, one in model.named_parameters()
            if one.requires_grad and one.dim() > 1
        }
        gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
        state = {name: one.clone() for name, one in model.named_buffers()}
        for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
            if gradient is not None:
                length = self.size * weight.detach().norm()
                state[name] = weight + length * _unit(gradient)
        return state


def _unit(gradient: Tensor) -> Tensor:
    """The gradient over its L2 norm; zero where it is zero. Squares of tiny ones would vanish."""
    scaled = gradient / gradient.abs().amax().clamp(min=_TINY)
    length: Tensor = scaled.norm()
    return scaled / length.clamp(min=_TINY)
