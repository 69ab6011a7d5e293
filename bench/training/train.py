"""Train a model with a defense into a checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..api.epsilon import Norm
from ..api.errors import BadParameter
from ..api.shared.file_checks import check_writable
from ..store.privacy import private_values

if TYPE_CHECKING:
    from ..api.defense import Trained
from ..api.plugins.plugin import read_specs
from ..api.shared.options import read_radius
from ..store.atomic import writing


def train_checkpoint(
    path: Path,
    model: str,
    defense: str,
    dataset: str,
    norm: Norm,
    epsilon: str | None,
    seed: int,
    device: str,
    settings: Sequence[str],
    plugins: Sequence[Path],
    fresh: bool,
    log_dir: Path | None,
    initial: Path | None = None,
) -> str:
    """Train a model with a defense, write a checkpoint, and say how it did.

    A training of this very network that was interrupted goes on, unless it is to begin `fresh`.
    initial: a checkpoint whose weights it begins with.

    Raises: QuintainError for what cannot be used.
    """
    from ..api import registry

    specs = read_specs({"model": model, "defense": defense, "dataset": dataset}, settings)
    if path.suffix != ".safetensors":
        raise BadParameter(f"a checkpoint is a .safetensors file, not {path.name}")
    read_radius(epsilon, norm)
    for plugin in plugins:
        registry.load_named(str(plugin), Path.cwd())
    for kind, name in (("models", model), ("defenses", defense), ("datasets", dataset)):
        registry.check_name(kind, name)

    from ..api.shared.options import parse_device  # this and what follows bring torch
    from ..api.shared.progress_bars import Bar, say
    from ..datasets.validation import check_training, load_split
    from ..store.checkpoints import save_checkpoint
    from .load import check_model
    from .networks import TrainingRequest, about_training, check_defense, train_or_load
    from .session import TrainingSession

    plugin = registry.build("defenses", specs["defense"])
    source = registry.build("datasets", specs["dataset"])
    where = parse_device(device)
    with writing(path):
        check_writable(path)
    data = load_split(source, dataset, "train")
    check_training(data)
    radius = read_radius(epsilon, norm, data.shape)
    check_defense(plugin, data, norm, radius)
    check_model(specs["model"], data)
    request = TrainingRequest(
        specs["model"], plugin, data, seed, where, norm, radius, initial=initial
    )
    request.build()  # refuses initial weights of another network before any work
    session = TrainingSession(
        path.with_suffix(".partial"), log_dir, lambda text: say(f"quintain: {text}"), fresh
    )
    trained = train_or_load(request, None, Bar(f"train {model} x {defense}"), session)
    about = {
        "model": specs["model"],
        "dataset": private_values(specs["dataset"]),
        "defense_spec": specs["defense"],
        **about_training(trained, plugin),
    }
    with writing(path):
        save_checkpoint(path, trained.model, about)
    session.clear()
    return f"wrote {path}: {_figures(trained)}"


def _figures(trained: "Trained") -> str:
    """How the kept weights did on the part held out, and what makes them doubtful."""
    flags = "".join(f" [{flag}]" for flag in trained.flags)
    if not trained.history:
        return f"a {type(trained.model).__name__}{flags}"
    epochs = len(trained.history)
    if "member" in trained.history[-1]:
        return f"an ensemble, {epochs} epochs of training in all{flags}"
    kept = trained.epoch or epochs
    row = trained.history[kept - 1]
    shown = {
        "validation_accuracy": "clean accuracy",
        "robust_validation_accuracy": "robust accuracy",
        "loss": "training loss",
    }
    figures = [f"{text} {row[name]:.3f}" for name, text in shown.items() if name in row]
    return f"epoch {kept} of {epochs}, {', '.join(figures)}{flags}"
