"""ResNets of the CIFAR-10 family trained by others, as weights of our own `resnet`.

Source: the layout of github.com/akamaster/pytorch_resnet_cifar10 (depths 20, 32, 44, 56, 110), and
of the many networks that were made after it. Where the shape changes their shortcut pads channels
on both sides, ours at the end (both are option A of arXiv:1512.03385); so channels are permuted.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ...bench.api.defense import InputSpec
from ...bench.api.errors import BadCheckpoint, BadParameter, reason
from ..resnet import PLANS, resnet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What these networks were trained with: ImageNet's statistics, in units of [0, 1]."""

_OUTSIDE = {"conv1": "stem.0", "bn1": "stem.1", "linear": "classifier"}
_INSIDE = {"conv1": "0", "bn1": "1", "conv2": "3", "bn2": "4"}
_DEPTHS = (8, 14, 20, 32, 44, 56, 110)


def from_cifar_resnet(
    state: Mapping[str, Tensor],
    *,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> nn.Module:
    """Make our `resnet` with the weights of such a network: the same logits, to rounding.

    state: a state dict with keys conv1, bn1, layer1.0.conv1, ..., linear, with or without
    "module." before them. mean, std: of the channels, which the network is to subtract and divide
    by; it takes images (B, 3, 32, 32) in [0, 1]. The depth follows from the keys.

    Raises: BadCheckpoint for a state dict of another form.

        from safetensors.torch import load_file
        model = from_cifar_resnet(load_file("resnet20.safetensors"))
    """
    theirs = {key.removeprefix("module."): value for key, value in state.items()}
    blocks = [key for key in theirs if re.fullmatch(r"layer\d+\.\d+\.conv1\.weight", key)]
    depth = 2 * len(blocks) + 2
    if depth not in _DEPTHS or "linear.weight" not in theirs or "conv1.weight" not in theirs:
        raise BadCheckpoint(
            "these are not the weights of a ResNet of the CIFAR-10 family: expected keys such as "
            "conv1.weight, layer1.0.bn2.bias and linear.weight"
        )
    inputs = InputSpec((3, 32, 32), len(theirs["linear.weight"]), mean, std)
    model = resnet(inputs, depth=depth)
    fresh = {  # what a state dict of theirs need not have
        key: value
        for key, value in model.state_dict().items()
        if key.startswith("normalise.") or key.endswith(".num_batches_tracked")
    }
    ours = {**fresh, **{_renamed(key): value for key, value in theirs.items()}}
    try:
        _permute(ours, depth)
        model.load_state_dict(ours)
    except (RuntimeError, KeyError, IndexError) as error:
        raise BadCheckpoint(
            f"the weights do not fit resnet(depth = {depth}): {reason(error)}"
        ) from error
    return model.eval()


def cifar_resnet(inputs: InputSpec, *, weights: str) -> nn.Module:
    """A ResNet of the CIFAR-10 family with weights that others trained, from a file.

    Source: github.com/akamaster/pytorch_resnet_cifar10, whose files are named as
    resnet20-12fca82f.th.

    weights: the file, of torch or safetensors; read without running code in it.

    >>> from quintain.bench.api.defense import InputSpec
    >>> inputs = InputSpec((3, 32, 32), 10, mean=(0.5,) * 3, std=(0.25,) * 3)
    >>> cifar_resnet(inputs, weights="resnet20-12fca82f.th")  # before it is downloaded
    Traceback (most recent call last):
        ...
    quintain.bench.api.errors.BadCheckpoint: cifar-resnet: weights = resnet20-12fca82f.th is no file

    Raises: BadCheckpoint when it is missing or holds other weights; BadParameter for images of
    another shape, or another number of classes.
    """
    network = from_cifar_resnet(_read(Path(weights).expanduser()))
    classes = network.classifier.out_features  # type: ignore[union-attr]
    if inputs.shape != (3, 32, 32) or inputs.n_classes != classes:
        shape = "x".join(map(str, inputs.shape))
        raise BadParameter(
            f"cifar-resnet: {weights} is for images of 3x32x32 in {classes} classes; the dataset "
            f"has {shape} in {inputs.n_classes}"
        )
    return network


cifar_resnet.brings_weights = lambda given: True  # type: ignore[attr-defined]


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, by itself or under "state_dict". Raises: BadCheckpoint."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise BadCheckpoint(f"cifar-resnet: weights = {path} is no file") from None
    except (OSError, SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise BadCheckpoint(f"cifar-resnet: {path} cannot be read: {reason(error)}") from error
    except Exception as error:  # an unpickler's own, where a file holds more than tensors
        raise BadCheckpoint(f"cifar-resnet: {path} holds more than weights") from error
    state = found.get("state_dict", found) if isinstance(found, Mapping) else {}
    return {str(key): one for key, one in state.items() if isinstance(one, Tensor)}


def _renamed(key: str) -> str:
    """Their name of a tensor -> ours."""
    layer, _, rest = key.partition(".")
    if layer in _OUTSIDE:
        return f"{_OUTSIDE[layer]}.{rest}"
    number, _, rest = rest.partition(".")
    part, _, what = rest.partition(".")
    if not layer.startswith("layer") or part not in _INSIDE:
        raise BadCheckpoint(f"'{key}' is no tensor of a ResNet of the CIFAR-10 family")
    return f"stage{layer.removeprefix('layer')}.{number}.residual.{_INSIDE[part]}.{what}"


def _permute(state: dict[str, Tensor], depth: int) -> None:
    """Put the channels of each stage in our order; those within a block stay as they are."""
    order = torch.arange(len(state["stem.0.weight"]))
    for stage, channels in enumerate(PLANS[depth].channels, start=1):
        outputs = _order(order, channels)
        for block in range(PLANS[depth].blocks[stage - 1]):
            within = f"stage{stage}.{block}.residual"
            entering = order if block == 0 else outputs
            state[f"{within}.0.weight"] = state[f"{within}.0.weight"][:, entering]
            for key in [key for key in state if key.startswith((f"{within}.3.", f"{within}.4."))]:
                if state[key].dim():
                    state[key] = state[key][outputs]
        order = outputs
    state["classifier.weight"] = state["classifier.weight"][:, order]


def _order(entering: Tensor, channels: int) -> Tensor:
    """Which of a stage's channels, in their order, stands at each place of ours.

    entering: the same of the channels that come in. Theirs come out behind half of the new ones,
    ours before all of them.
    """
    before = (channels - len(entering)) // 2
    carried = entering + before
    new = [one for one in range(channels) if one < before or one >= before + len(entering)]
    return torch.cat([carried, torch.tensor(new, dtype=torch.int64)])
