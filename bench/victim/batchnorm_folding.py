"""Batch normalisation folded into the convolution or linear layer before it.

In evaluation mode batch normalisation multiplies and shifts each channel by constants, which the
layer before it can do in its weights: one pass over the activations less, forward and backward.
"""

import copy
from collections import Counter
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

_CONVOLUTIONS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: nn.BatchNorm1d,
    nn.Conv2d: nn.BatchNorm2d,
    nn.Conv3d: nn.BatchNorm3d,
}


_NORMALISATIONS = tuple(_CONVOLUTIONS.values())


class CannotFold(Exception):
    """Why a module's batch normalisations stay as they are."""


def fold(module: nn.Module, x: Tensor) -> fx.GraphModule:
    """Make a copy of a module in evaluation mode with every batch normalisation folded that can be.

    A normalisation is folded when the graph shows that it is the only reader of a plain convolution
    or linear layer, which is called once, and that it normalises by running statistics.
    x: (B, C, H, W), some input.

    Raises: CannotFold when the module's graph cannot be read, has hooks (which may do anything), or
    holds nothing to fold.
    """
    if not any(isinstance(one, _NORMALISATIONS) for one in module.modules()):
        raise CannotFold("it has no batch normalisation to fold")
    if any(_hooked(one) for one in module.modules()):
        raise CannotFold("it has hooks")
    try:
        graph = fx.symbolic_trace(copy.deepcopy(module).eval())
        with torch.no_grad():
            _Dimensions(graph).run(x)
    except Exception as error:  # tracing runs the model's own code on stand-ins for tensors
        raise CannotFold(f"its graph cannot be read: {_first_line(error)}") from error
    pairs = _pairs(graph)
    if not pairs:
        raise CannotFold("it has no batch normalisation to fold")
    for before, norm in pairs:
        layer, batch_norm = (graph.get_submodule(str(one.target)) for one in (before, norm))
        name = f"folded_{norm.name}"  # names of nodes are unique, modules may be called twice
        graph.add_submodule(name, _merged(layer, batch_norm))
        with graph.graph.inserting_after(before):
            merged = graph.graph.call_module(name, before.args, before.kwargs)
        norm.replace_all_uses_with(merged)
        graph.graph.erase_node(norm)
        graph.graph.erase_node(before)
    graph.delete_all_unused_submodules()
    graph.recompile()
    return graph


class _Dimensions(fx.Interpreter):
    """Notes the shape of what each node returns; torch's own pass takes a second to import."""

    def run_node(self, n: fx.Node) -> Any:
        result = super().run_node(n)
        n.meta["shape"] = getattr(result, "shape", ())
        return result


def _pairs(graph: fx.GraphModule) -> list[tuple[fx.Node, fx.Node]]:
    """Find the (layer, batch normalisation) nodes that may become one."""
    calls = Counter(
        id(graph.get_submodule(str(node.target)))
        for node in graph.graph.nodes
        if node.op == "call_module"
    )
    return [
        (node.args[0], node)
        for node in graph.graph.nodes
        if _is_call(node) and len(node.args) == 1 and not node.kwargs
        and _is_call(node.args[0]) and len(node.args[0].users) == 1
        and _fit(graph, node.args[0], node, calls)
    ]  # fmt: skip


def _is_call(node: object) -> bool:
    return isinstance(node, fx.Node) and node.op == "call_module"


def _fit(graph: fx.GraphModule, before: fx.Node, norm: fx.Node, calls: Counter[int]) -> bool:
    layer, batch_norm = (graph.get_submodule(str(one.target)) for one in (before, norm))
    if calls[id(layer)] > 1:
        return False
    if type(layer) is nn.Linear:
        # Of three axes batch normalisation takes the second for channels, not the last.
        suits = type(batch_norm) is nn.BatchNorm1d and len(before.meta["shape"]) == 2
    else:
        suits = type(layer) in _CONVOLUTIONS and type(batch_norm) is _CONVOLUTIONS[type(layer)]
    return suits and batch_norm.running_mean is not None and not batch_norm.training


def _merged(layer: Any, norm: Any) -> Any:
    """Make the layer that does the work of both. The arithmetic is float64."""
    merged, exact = copy.deepcopy(layer).double(), copy.deepcopy(norm).double()
    merged.weight, merged.bias = fuse_conv_bn_weights(
        merged.weight,
        merged.bias,
        exact.running_mean,
        exact.running_var,
        exact.eps,
        exact.weight,
        exact.bias,
    )
    return merged.to(layer.weight.dtype)


def _hooked(module: nn.Module) -> bool:
    """Whether somebody's code runs whenever the module does, forward or backward."""
    return any(
        getattr(module, f"_{kind}_hooks", None)
        for kind in ("forward", "forward_pre", "backward", "backward_pre")
    )


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
