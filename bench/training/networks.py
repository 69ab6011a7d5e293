"""Networks made to order: built, trained by a defense, and kept under a name made of all that."""

import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import nn

from ..api import registry
from ..api.data import ImageData
from ..api.defense import Defense, InputSpec, Keeper, Trained, Training
from ..api.errors import BadCheckpoint, BadParameter, CellError
from ..api.flags import read_flags, stored
from ..api.progress import Progress, Silent
from ..api.shared.module_state import evaluation_mode, has_plain_state, needs_a_pass
from ..api.shared.progress_bars import say
from ..api.shared.threads import suited_threads
from ..api.shared.torch_switches import torch_defaults
from ..api.threat import Norm
from ..datasets.in_memory import channel_statistics, fingerprint
from ..store.atomic import meant_for
from ..store.checkpoints import load_checkpoint, read_about, save_checkpoint
from ..store.hashing import configuration, hash_file, hash_json
from .session import TrainingSession
from .snapshot import TrainingSnapshot


@dataclass(frozen=True)
class TrainingRequest:
    """What to train: everything that can change the weights.

    model: a spec. defense: a plugin. data: to train on. norm, epsilon: the threat to train against.
    data_hash: the data's fingerprint, where it is known: many orders may be for the same data.
    initial: a checkpoint of the same model, whose weights training begins with.
    """

    model: Mapping[str, Any]
    defense: Defense
    data: ImageData
    seed: int
    device: torch.device
    norm: Norm
    epsilon: float | None
    data_hash: str = ""
    initial: Path | None = None

    def build(self) -> nn.Module:
        """Build the network, with weights that depend on the seed alone, or the initial ones.

        Raises: BadParameter and UnknownPlugin for what the architecture refuses; BadCheckpoint for
        initial weights of another network.
        """
        mean, std = channel_statistics(self.data)
        inputs = InputSpec(self.data.shape, self.data.n_classes, mean, std)
        network = build_network(self.model, inputs, self.seed)
        if self.initial is not None:
            load_checkpoint(self.initial, network)
        return network

    def key(self) -> str:
        """Name the trained network by what it is made of."""
        return hash_json(
            {
                **architecture(self.model),
                "defense": configuration(self.defense),
                "code": registry.code_of(configuration(self.defense)),
                "data": self.data_hash or fingerprint(self.data),
                "seed": self.seed,
                "device": self.device.type,
                "norm": self.norm,
                "epsilon": self.epsilon,
                "torch": torch.__version__,
                **({} if self.initial is None else {"initial": hash_file(self.initial)}),
            }
        )


def check_defense(
    defense: Defense, data: ImageData, norm: Norm, epsilon: float | None, seed: int = 0
) -> None:
    """Have a defense say, before any work, what it could not train with.

    Raises: BadParameter and BadData, as the defense does.
    """
    check: Callable[[Training], None] | None = getattr(defense, "check", None)
    if check is not None:
        check(Training(data, seed, torch.device("cpu"), Silent(), norm, epsilon))


def architecture(model: Mapping[str, Any]) -> dict[str, Any]:
    """What an architecture is, as JSON: its spec, and the version and the code of its plugin."""
    plugin = registry.find("models", model["name"])
    return {
        "model": dict(model),
        "model_version": str(getattr(plugin.load(), "version", "1")),
        "model_code": plugin.code,
    }


def build_network(model: Mapping[str, Any], inputs: InputSpec, seed: int) -> nn.Module:
    """Build a fresh network from its spec, without touching torch's global random state.

    Its attribute `built_for` is the inputs, for defenses that build others beside it.

    Raises: UnknownPlugin; BadParameter.
    """
    factory = registry.bind("models", model)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            network: nn.Module = factory(inputs)
        except TypeError as error:
            raise BadParameter(f"model '{model['name']}': {error}") from None
        if needs_a_pass(network):
            with torch.no_grad():
                evaluation_mode(network)(torch.zeros(2, *inputs.shape))
            network.train()
    network.built_for = inputs  # type: ignore[assignment]
    with suppress(NotImplementedError):  # of quantised weights
        # On a CPU it took from a sixth to all of the time of forward passes and input gradients.
        network.to(memory_format=torch.channels_last)
    return network


@torch_defaults()
def train_or_load(
    request: TrainingRequest,
    cache: Path | None,
    progress: Progress,
    session: TrainingSession | None = None,
) -> Trained:
    """Fetch the network from the cache, or train it and keep it there.

    Two processes that want the same network train it once. A damaged cache file is trained again.
    A training that was interrupted goes on: its state is kept beside the cache's entry, or, without
    a cache, where the session says.

    Raises: CellError when training diverges or the cache cannot be written; BadParameter.
    """
    key = request.key() if cache is not None or session is not None else ""
    if cache is None:
        keeper = None if session is None else session.keeper(key)
        return _train(request, cache, progress, session, keeper, key)[0]
    path = cached_file(key, cache)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if path.is_file():
            try:
                module = _wrapped(request)
                about = load_checkpoint(path, module)
                if about["key"] != key:  # somebody put another network here
                    raise BadCheckpoint(f"{path} holds another network")
                return Trained(
                    evaluation_mode(module.to(request.device)),
                    tuple(about["history"]),
                    read_flags(about["flags"]),
                    about.get("epoch", 0),
                )
            except (BadCheckpoint, KeyError, TypeError, ValueError):  # its flags are checked too
                path.unlink()
        snapshot = TrainingSnapshot(path.with_suffix(".partial"), key, _say)
        trained, cacheable = _train(request, cache, progress, session, snapshot, key)
        if cacheable:
            _keep(path, trained, request, key)
        snapshot.discard()
    return trained


def sweep(cache: Path) -> None:
    """Remove what killed processes were just writing into the cache, unless one still writes it."""
    for one in (cache / "networks").glob(".*.tmp"):
        meant = meant_for(one.name)
        if meant is not None:
            lock = one.with_name(f"{meant.partition('.')[0]}.lock")
            with suppress(Timeout, OSError), FileLock(lock, timeout=0):
                one.unlink(missing_ok=True)


def about_training(trained: Trained, defense: Defense) -> dict[str, Any]:
    """How a network came to be, as its checkpoint says it."""
    return {
        "defense": configuration(defense),
        "history": [dict(one) for one in trained.history],
        "flags": stored(trained.flags),
        "epoch": trained.epoch,
    }


def _keep(path: Path, trained: Trained, request: TrainingRequest, key: str) -> None:
    about = {"key": key, "model": dict(request.model), **about_training(trained, request.defense)}
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
    """Name the weights that the cache says it has for an order; None where it has none."""
    if cache is None or not cached_file(key, cache).is_file():
        return None
    try:
        about = read_about(cached_file(key, cache))
    except BadCheckpoint:  # to be trained again, when it is needed
        return None
    return str(about["weights"]) if about.get("key") == key else None


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
    return train_or_load(
        TrainingRequest(model, defense, data, seed, device, "Linf", None), cache, progress
    ).model


def cached_file(key: str, cache: Path) -> Path:
    """Where the network of a key is kept."""
    return cache / "networks" / f"{key}.safetensors"


def _train(
    request: TrainingRequest,
    cache: Path | None,
    progress: Progress,
    session: TrainingSession | None,
    keeper: Keeper | None,
    key: str,
) -> tuple[Trained, bool]:
    """Train, and say whether the cache could make the same module again."""

    def another(
        defense: Defense, *, seed: int | None = None, model: Mapping[str, Any] | None = None
    ) -> Trained:
        changed = replace(
            request,
            defense=defense,
            seed=request.seed if seed is None else seed,
            model=request.model if model is None else model,
        )
        return train_or_load(changed, cache, progress, session)

    built = request.build()
    training = Training(
        request.data,
        request.seed,
        request.device,
        progress,
        request.norm,
        request.epsilon,
        another,
        keeper,
        None if session is None else session.recorder(key),
    )
    with suited_threads(built, torch.zeros(1, *request.data.shape), request.device):
        trained = request.defense.fit(built, training)
    evaluation_mode(trained.model.to(request.device))
    again = trained.model is built or hasattr(request.defense, "wrap")
    return trained, again and has_plain_state(trained.model)


def _wrapped(request: TrainingRequest) -> nn.Module:
    """Build what the defense's `fit` returns, untrained: `wrap` for defenses that wrap a model."""
    wrap: Callable[[nn.Module], nn.Module] = getattr(request.defense, "wrap", lambda module: module)
    return wrap(request.build())
