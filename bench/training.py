"""Networks made to order: built, trained by a defense, and kept under a name made of all that."""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import nn

from . import registry
from .checkpoints import load_checkpoint, read_about, save_checkpoint
from .datasets.memory import channel_statistics, fingerprint
from .desk import Desk
from .errors import BadCheckpoint, BadParameter, CellError
from .partial import Partial
from .progress import say
from .protocols import (
    Defense,
    ImageData,
    InputSpec,
    Keeper,
    Progress,
    Trained,
    Training,
    configuration,
)
from .switches import torch_defaults
from .threat import Norm


@dataclass(frozen=True)
class Order:
    """What to train: everything that can change the weights.

    model: a spec. defense: a plugin. data: to train on. norm, epsilon: the threat to train against.
    data_hash: the data's fingerprint, where it is known: many orders may be for the same data.
    """

    model: Mapping[str, Any]
    defense: Defense
    data: ImageData
    seed: int
    device: torch.device
    norm: Norm
    epsilon: float | None
    data_hash: str = ""

    def build(self) -> nn.Module:
        """Build the network, with weights that depend on the seed alone.

        Raises: BadParameter and UnknownPlugin for what the architecture refuses.
        """
        mean, std = channel_statistics(self.data)
        inputs = InputSpec(self.data.shape, self.data.n_classes, mean, std)
        return build_network(self.model, inputs, self.seed)

    def key(self) -> str:
        """Name the trained network by what it is made of."""
        return digest(
            {
                **architecture(self.model),
                "defense": configuration(self.defense),
                "sources": registry.local_sources(configuration(self.defense)),
                "data": self.data_hash or fingerprint(self.data),
                "seed": self.seed,
                "device": self.device.type,
                "norm": self.norm,
                "epsilon": self.epsilon,
                "torch": torch.__version__,
            }
        )


def architecture(model: Mapping[str, Any]) -> dict[str, Any]:
    """What an architecture is, as JSON: its spec, and the version and the code of its plugin."""
    plugin = registry.find("models", model["name"])
    return {
        "model": dict(model),
        "model_version": str(getattr(plugin.load(), "version", "1")),
        "model_source": plugin.digest,
    }


def build_network(model: Mapping[str, Any], inputs: InputSpec, seed: int) -> nn.Module:
    """Build a fresh network from its spec, without touching torch's global random state.

    Its attribute `built_for` holds the inputs, for defenses that build others beside it.

    Raises: UnknownPlugin; BadParameter.
    """
    factory = registry.bind("models", model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            network: nn.Module = factory(inputs)
        except TypeError as error:
            raise BadParameter(f"model '{model['name']}': {error}") from None
    network.built_for = inputs  # type: ignore[assignment]
    # On a CPU it took from a sixth to all of the time of forward passes and input gradients.
    return network.to(memory_format=torch.channels_last)


@torch_defaults()
def obtain(
    order: Order, cache: Path | None, progress: Progress, desk: Desk | None = None
) -> Trained:
    """Fetch the network from the cache, or train it and keep it there.

    Two processes that want the same network train it once. A damaged cache file is trained anew.
    A training that was cut off goes on: its state is kept beside the cache's entry, or, without a
    cache, where the desk says.

    Raises: CellError when training diverges or the cache cannot be written; BadParameter.
    """
    key = order.key() if cache is not None or desk is not None else ""
    if cache is None:
        keeper = None if desk is None else desk.keeper(key)
        return _train(order, cache, progress, desk, keeper, key)[0]
    path = _cached(key, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            try:
                module = _wrapped(order)
                about = load_checkpoint(path, module)
                return Trained(
                    module.to(order.device).eval(),
                    tuple(about["history"]),
                    tuple(about["flags"]),
                    about.get("epoch", 0),
                )
            except (BadCheckpoint, KeyError):
                path.unlink()
        partial = Partial(path.with_suffix(".partial"), key, _say)
        trained, cacheable = _train(order, cache, progress, desk, partial, key)
        if cacheable:
            _keep(path, trained, order)
        partial.discard()
    return trained


def about_training(trained: Trained, defense: Defense) -> dict[str, Any]:
    """How a network came to be, as its checkpoint says it."""
    return {
        "defense": configuration(defense),
        "history": [dict(one) for one in trained.history],
        "flags": list(trained.flags),
        "epoch": trained.epoch,
    }


def _keep(path: Path, trained: Trained, order: Order) -> None:
    about = {"model": dict(order.model), **about_training(trained, order.defense)}
    try:
        save_checkpoint(path, trained.model, about)
    except OSError as error:
        raise CellError(
            f"the trained network cannot be kept in {path}: {error.strerror or error}; "
            "make room or set QUINTAIN_CACHE, and run again"
        ) from error


def _say(text: str) -> None:
    say(f"quintain: {text}")


def cached_weights(key: str, cache: Path | None) -> str | None:
    """Name the weights that the cache says it holds for an order; None where it holds none."""
    if cache is None or not _cached(key, cache).is_file():
        return None
    try:
        return str(read_about(_cached(key, cache)).get("weights"))
    except BadCheckpoint:  # to be trained anew, when it is needed
        return None


def train_proxy(
    seed: int,
    device: torch.device,
    cache: Path | None,
    progress: Progress,
    model: Mapping[str, Any],
    data: ImageData,
    parameters: Mapping[str, Any],
) -> nn.Module:
    """Train a network of the attacker's by the plain defense, or fetch it from the cache."""
    defense = registry.build("defenses", {"name": "none", **parameters})
    seed = zlib.crc32(b"proxy %d" % seed)  # never the victim's own first weights
    return obtain(Order(model, defense, data, seed, device, "Linf", None), cache, progress).model


def _cached(key: str, cache: Path) -> Path:
    return cache / "networks" / f"{key}.safetensors"


def _train(
    order: Order,
    cache: Path | None,
    progress: Progress,
    desk: Desk | None,
    keeper: Keeper | None,
    key: str,
) -> tuple[Trained, bool]:
    """Train, and tell whether the cache could make the same module again."""

    def another(
        defense: Defense, *, seed: int | None = None, model: Mapping[str, Any] | None = None
    ) -> Trained:
        changed = replace(
            order,
            defense=defense,
            seed=order.seed if seed is None else seed,
            model=order.model if model is None else model,
        )
        return obtain(changed, cache, progress, desk)

    built = order.build()
    training = Training(
        order.data,
        order.seed,
        order.device,
        progress,
        order.norm,
        order.epsilon,
        another,
        keeper,
        None if desk is None else desk.recorder(key),
    )
    trained = order.defense.fit(built, training)
    trained.model.to(order.device).eval()
    return trained, trained.model is built or hasattr(order.defense, "wrap")


def _wrapped(order: Order) -> nn.Module:
    """Build what the defense's `fit` returns, untrained: `wrap` for defenses that wrap a model."""
    wrap: Callable[[nn.Module], nn.Module] = getattr(order.defense, "wrap", lambda module: module)
    return wrap(order.build())


def digest(value: Any) -> str:
    """Name a JSON-able value by its content: a SHA-256."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
