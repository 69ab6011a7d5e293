"""How much of the loss's gradient reaches each layer: what vanishing and exploding mean."""

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def weight_gradients(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    """The L2 norm of the loss's gradient at each convolution's and linear layer's weight.

    The loss is the mean cross-entropy of a training step: in training mode, with the statistics of
    this very batch in batch normalisation, and with auxiliary classifiers by their weight. Dropout
    is off, so that the answer is one number. The model itself is left as it is.

    x: (B, C, H, W) in [0, 1]. y: (B,) int64. Returns name of the layer -> norm, in the order in
    which the model has its layers.

    >>> import torch
    >>> from quintain.bench.api.examples import linear_example
    >>> from quintain.models.explain.gradient_flow import weight_gradients
    >>> model, images, labels = linear_example()
    >>> found = weight_gradients(model, images, labels)
    >>> list(found), found["1"] > 0
    (['1'], True)
    """
    copy = deepcopy(model).train()
    for layer in copy.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd):
            layer.p = 0.0
    layers = {
        name: layer
        for name, layer in copy.named_modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    }
    with torch.enable_grad():
        gradients = torch.autograd.grad(
            training_loss(copy, x, y), [one.weight for one in layers.values()], allow_unused=True
        )
    return {
        name: 0.0 if one is None else float(one.double().norm())  # squares underflow in float32
        for name, one in zip(layers, gradients, strict=True)
    }


def training_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Mean cross-entropy, that of auxiliary classifiers by the model's `auxiliary_weight`."""
    out: Any = model(x)
    main, *auxiliary = out if isinstance(out, tuple) else (out,)
    loss = F.cross_entropy(main, y)
    for logits in auxiliary:
        loss = loss + model.auxiliary_weight * F.cross_entropy(logits, y)  # type: ignore[operator]
    return loss
