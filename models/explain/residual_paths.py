"""The gradient of a residual network, taken apart by how many residual branches it passed.

Every block adds a residual branch to its shortcut, so that n blocks unroll into 2^n paths: n choose
k of them pass k branches.

Source: Veit, Wilber & Belongie 2016, "Residual networks behave like ensembles of relatively shallow
networks", arXiv:1605.06431, sections 3 and 5.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ...bench.api.errors import BadParameter
from .layers import read


@dataclass(frozen=True)
class PathGradients:
    """gradients: (n + 1, B, C, H, W), at [k] the sum over all paths of k residual branches.

    They add up to the gradient of the loss by the image. blocks: names of the n blocks, in order.
    """

    gradients: Tensor
    blocks: tuple[str, ...]

    @property
    def norms(self) -> Tensor:
        """(n + 1, B) float64: the L2 norm of what each length carries."""
        found: Tensor = self.gradients.double().flatten(2).norm(dim=2)
        return found

    @property
    def shares(self) -> Tensor:
        """(n + 1,) float64: each length's part of the sum of norms, averaged over images.

        Lengths cancel each other in part: this says how much they carry, not how much is left.
        """
        norms = self.norms
        return (norms / norms.sum(dim=0)).mean(dim=1)


def gradient_by_path_length(model: nn.Module, x: Tensor, y: Tensor) -> PathGradients:
    """The gradient of the cross-entropy by the image, exactly, for each path length.

    One gradient a length goes back through the network: from each block's output through its
    shortcut, which keeps the length, and through its residual branch, which adds one.

    x: (B, C, H, W) in [0, 1]. y: (B,) int64. The blocks are all modules that have a `residual` and
    a `shortcut`, as those of `resnet` and `wide_resnet`; they must follow each other.

    Raises: BadParameter for a network without such blocks.

    >>> from ...bench.api.defense import InputSpec
    >>> from ..resnet import resnet
    >>> model = resnet(InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3), depth=8).double()
    >>> x, y = torch.rand(2, 3, 16, 16).double(), torch.tensor([0, 1])
    >>> found = gradient_by_path_length(model, x, y)
    >>> found.gradients.shape, found.blocks
    (torch.Size([4, 2, 3, 16, 16]), ('stage1.0', 'stage2.0', 'stage3.0'))
    """
    graph = _Graph.of(model, x, y)
    by_length = [graph.at_last_block()]
    for block, below in graph.downwards():
        longer = [torch.zeros_like(block.given) for _ in range(len(by_length) + 1)]
        for length, gradient in enumerate(by_length):
            inside = block.before_sum(gradient)
            longer[length] = longer[length] + _back(block.shortcut, block.given, inside)
            longer[length + 1] = longer[length + 1] + _back(block.residual, block.given, inside)
        by_length = [_back(block.given, below, gradient) for gradient in longer]
    names = tuple(block.name for block in graph.blocks)
    return PathGradients(torch.stack(by_length).detach(), names)


def sampled_path_gradients(
    model: nn.Module, x: Tensor, y: Tensor, *, draws: int = 100, seed: int = 0
) -> Tensor:
    """The norms of gradients along single random paths, as the paper measures them (section 5).

    (n + 1, draws) float64: at [k] of random paths of k residual branches, each the mean over images
    of the L2 norm at the image. Times `path_counts` it estimates what a length would carry if its
    paths did not cancel; tails are heavy, so take 100 draws or more. It costs (n + 1) draws passes.

    Raises: BadParameter for a network without residual blocks, or fewer than one draw.

    >>> from ...bench.api.defense import InputSpec
    >>> from ..resnet import resnet
    >>> model = resnet(InputSpec((3, 16, 16), 5, (0.5,) * 3, (0.25,) * 3), depth=8)
    >>> sampled_path_gradients(model, torch.rand(2, 3, 16, 16), torch.tensor([0, 1]), draws=3).shape
    torch.Size([4, 3])
    """
    if draws < 1:
        raise BadParameter(f"draws = {draws} must be 1 or more")
    graph = _Graph.of(model, x, y)
    count = len(graph.blocks)
    generator = torch.Generator().manual_seed(seed)
    norms = torch.zeros(count + 1, draws, dtype=torch.float64)
    for length in range(count + 1):
        for draw in range(draws):
            chosen = set(torch.randperm(count, generator=generator)[:length].tolist())
            gradient = graph.at_last_block()
            for number, (block, below) in enumerate(graph.downwards()):
                branch = block.residual if number in chosen else block.shortcut
                gradient = _back(branch, block.given, block.before_sum(gradient))
                gradient = _back(block.given, below, gradient)
            norms[length, draw] = gradient.double().flatten(1).norm(dim=1).mean().cpu()
    return norms


def path_counts(blocks: int) -> Tensor:
    """How many paths have each length: n choose k, (n + 1,) float64.

    >>> path_counts(3)
    tensor([1., 3., 3., 1.], dtype=torch.float64)
    """
    return torch.tensor(
        [float(math.comb(blocks, length)) for length in range(blocks + 1)], dtype=torch.float64
    )


@dataclass(frozen=True, eq=False)
class _Block:
    """What was seen of a block in a pass: tensors (B, C, H, W) of one graph."""

    name: str
    given: Tensor
    shortcut: Tensor
    residual: Tensor
    output: Tensor

    def before_sum(self, gradient: Tensor) -> Tensor:
        """A gradient by the block's output -> by the sum of its branches."""
        deleted = not self.residual.requires_grad
        return _back(self.output, self.shortcut if deleted else self.residual, gradient)


@dataclass(frozen=True)
class _Graph:
    """A pass of a residual network, to go back through: its image, blocks and summed loss."""

    x: Tensor
    blocks: Sequence[_Block]
    loss: Tensor

    @classmethod
    def of(cls, model: nn.Module, x: Tensor, y: Tensor) -> "_Graph":
        """Run the network."""
        seen: dict[tuple[str, str], list[Tensor]] = {}

        def note(name: str, part: str) -> Any:
            def keep(_: nn.Module, given: Any, output: Tensor) -> None:
                seen[name, part] = [given[0], output]

            return keep

        names = [
            name
            for name, one in model.named_modules()
            if all(isinstance(getattr(one, part, None), nn.Module) for part in _PARTS)
        ]
        if not names:
            raise BadParameter("the network has no residual blocks")
        with ExitStack() as hooks, torch.enable_grad():
            for name in names:
                block = model.get_submodule(name)
                hooks.callback(block.register_forward_hook(note(name, "")).remove)
                for part in _PARTS:
                    inside = block.get_submodule(part)
                    hooks.callback(inside.register_forward_hook(note(name, part)).remove)
            x = x.detach().requires_grad_()
            logits, _ = read(model, x, [])
            loss = F.cross_entropy(logits, y, reduction="sum")
        blocks = [
            _Block(
                name,
                seen[name, ""][0],
                seen[name, "shortcut"][1],
                seen[name, "residual"][1],
                seen[name, ""][1],
            )
            for name in names
        ]
        return cls(x, blocks, loss)

    def at_last_block(self) -> Tensor:
        """The gradient by the output of the last block."""
        one = torch.ones_like(self.loss)
        return _back(self.loss, self.blocks[-1].output, one)

    def downwards(self) -> Iterator[tuple[_Block, Tensor]]:
        """Blocks from the last to the first, each with what the one below gave, or the image."""
        below = [self.x, *(block.output for block in self.blocks[:-1])]
        return zip(reversed(self.blocks), reversed(below), strict=True)


_PARTS = ("residual", "shortcut")


def _back(output: Tensor, given: Tensor, gradient: Tensor) -> Tensor:
    """A gradient by an output -> by what it was made of; zero where it was not."""
    found = None
    if output.requires_grad:
        (found,) = torch.autograd.grad(
            output, given, gradient, retain_graph=True, allow_unused=True
        )
    return torch.zeros_like(given) if found is None else found
