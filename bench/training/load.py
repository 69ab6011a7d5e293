"""Networks that have their weights already, and models tried before there is work for them."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..api import registry
from ..api.data import ImageData
from ..api.defense import Defense, InputSpec, rejects
from ..api.errors import (
    BadCheckpoint,
    BadData,
    BadParameter,
    UnknownPlugin,
    errors_as,
    one_line,
)
from ..api.shared.module_state import dtype_of, evaluation_mode
from ..api.shared.safe_text import short
from ..datasets.in_memory import channel_statistics
from ..store.checkpoints import load_checkpoint, read_about
from .networks import build_network

_SHOWN = 2000  # characters of what somebody else's checkpoint makes us say


def check_model(model: dict[str, Any], train: ImageData, checkpoint: Path | None = None) -> None:
    """Build a model and run it on two images; read its checkpoint if it has one.

    Raises: BadParameter, UnknownPlugin, BadCheckpoint, BadData.
    """
    name, shape = model["name"], "x".join(map(str, train.shape))
    with errors_as(BadParameter, f"'{name}' cannot take {shape} images"):
        if checkpoint is not None:
            network = open_ready(checkpoint, model, train)
        else:
            mean, std = channel_statistics(train, limit=64)
            spec = InputSpec(train.shape, train.n_classes, mean, std)
            network = build_network(model, spec, seed=0)
        with torch.no_grad():
            images = train.images.read(torch.tensor([0, 0]))
            logits = evaluation_mode(network)(images.to(dtype_of(network)))
    found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if found != (2, train.n_classes + rejects(network)):
        more = " and a rejection" if rejects(network) else ""
        raise BadData(
            f"'{name}' returns logits of shape {found} for 2 images of a dataset with "
            f"{train.n_classes} classes{more}"
        )


def open_ready(path: Path | None, model: dict[str, Any], data: ImageData) -> nn.Module:
    """Build a network that has its weights already; fill it from a checkpoint if there is one.

    It is wrapped by the defense that the checkpoint says it was trained with, if that wraps models.

    Raises: BadCheckpoint when that is missing, damaged or for another network; BadParameter.
    """
    made_from = None if path is None else read_about(path).get("model")
    if made_from is not None and made_from != model:
        raise BadCheckpoint(
            f"checkpoint {path} is of the model {short(str(made_from))}, not {model}"
        )
    mean, std = channel_statistics(data)
    network = build_network(model, InputSpec(data.shape, data.n_classes, mean, std), seed=0)
    if path is not None:
        wrap = getattr(wrapper_of(path), "wrap", None)
        network = network if wrap is None else wrap(network)
        load_checkpoint(path, network)
    return evaluation_mode(network)


def wrapper_of(path: Path) -> Defense | None:
    """The defense that a checkpoint says its network was trained with; None when it does not say.

    It is one of those that are registered: a checkpoint is data, and chooses no code to run.

    Raises: BadCheckpoint when that defense is not there, or the file is damaged.
    """
    spec = read_about(path).get("defense_spec")
    if spec is None:
        return None
    try:
        defense: Defense = registry.build("defenses", spec, from_data=True)
    except UnknownPlugin as error:
        unknown = short(str(error), _SHOWN)
        raise BadCheckpoint(
            f"checkpoint {path} was trained with an {unknown}; one of your own loads with "
            '--plugin FILE.py (in a suite: plugins = ["FILE.py"])'
        ) from None
    except Exception as error:  # a spec that somebody else has written
        reason = short(one_line(error), _SHOWN)
        raise BadCheckpoint(f"checkpoint {path}: its defense cannot be used: {reason}") from None
    return defense
