"""What the smaller commands do."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .directory import read_manifest
from .errors import BadParameter, RunDirectoryError, closest
from .files import check_writable, write_text
from .formats import ENDINGS, FORMATS, Format
from .grid import Epsilon, Norm, check_radii, checked_norm
from .privacy import private_values
from .toml import BadTOML, read_toml

if TYPE_CHECKING:
    from .protocols import Trained


Note = Callable[[str], None]  # is told, in one line, what the user should know besides


def joint_leaderboard(
    directories: Sequence[Path], form: str | None, output: Path | None, note: Note
) -> str:
    """One leaderboard of several run directories, as text in a format or in that of a file's name.

    Raises: RunDirectoryError; BadParameter for an unknown format, or one that is not the file's.
    """
    chosen = _format(form, output)
    _refuse_strangers(directories)
    from .gathering import gather
    from .report import leaderboard_table

    return leaderboard_table(gather(directories, note).leaderboard(), chosen)


def _refuse_strangers(directories: Sequence[Path]) -> None:
    """Say that no directory is a run's before what takes long to import. Raises: as `gather`."""
    if len(directories) == 1:
        read_manifest(directories[0])
    elif not any((one / "manifest.json").is_file() for one in directories):
        shown = ", ".join(map(str, directories))
        raise RunDirectoryError(f"no finished cell in {shown}: none is a run directory")


def _format(form: str | None, output: Path | None) -> Format:
    chosen: Format | None = next((one for one in FORMATS if one == form), None)
    if form is not None and chosen is None:
        near = closest(form, FORMATS) or "; there are " + ", ".join(FORMATS)
        raise BadParameter(f"unknown format '{form}'{near}")
    ending = "" if output is None else output.suffix.lower()
    if ending in ("", ".txt"):
        return chosen or "markdown"
    named = ENDINGS.get(ending)
    if chosen is None and named is None:
        raise BadParameter(
            f"{output}: the ending {ending} is no format; there are {', '.join(ENDINGS)}, or say "
            f"--format {', '.join(FORMATS)}"
        )
    if chosen is not None and named is not None and chosen != named:
        raise BadParameter(f"{output} ends as {named}, but --format says {chosen}: leave one out")
    return chosen or named or "markdown"


def plot_runs(directories: Sequence[Path], output: Path, note: Note) -> None:
    """Draw the trade-off figure of one or more run directories into a file.

    Raises: RunDirectoryError; BadParameter for an ending that is no format, for runs that do not
    compare, and when the file cannot be written; QuintainError without matplotlib.
    """
    from .formats import check_ending

    check_ending(output)
    _refuse_strangers(directories)
    from .figure import write_figure
    from .gathering import gather
    from .sweeps import comparison

    found = gather(directories, note)
    shown = comparison(found.tradeoff(), found.leaderboard())
    with writing(output):
        write_figure(output, shown)


def train_checkpoint(
    path: Path,
    model: str,
    defense: str,
    dataset: str,
    norm: str,
    epsilon: str | None,
    seed: int,
    device: str,
    settings: Sequence[str],
    plugins: Sequence[Path],
    fresh: bool,
    log_dir: Path | None,
) -> str:
    """Train a model with a defense, write a checkpoint, and say how it did.

    A training of this very network that was cut off goes on, unless it is to begin `fresh`.

    Raises: QuintainError for what cannot be used.
    """
    from . import registry

    specs = read_specs({"model": model, "defense": defense, "dataset": dataset}, settings)
    if path.suffix != ".safetensors":
        raise BadParameter(f"a checkpoint is a .safetensors file, not {path.name}")
    threat = checked_norm(norm)
    read_radius(epsilon, threat)
    for plugin in plugins:
        registry.load_named(str(plugin), Path.cwd())
    for kind, name in (("models", model), ("defenses", defense), ("datasets", dataset)):
        registry.check_name(kind, name)  # type: ignore[arg-type]

    from .api import parse_device  # this and what follows bring torch
    from .checkpoints import save_checkpoint
    from .desk import Desk
    from .plan import check_training, load_split, try_model
    from .progress import Bar, say
    from .training import Order, about_training, check_defense, obtain

    plugin = registry.build("defenses", specs["defense"])
    source = registry.build("datasets", specs["dataset"])
    where = parse_device(device)
    with writing(path):
        check_writable(path)
    data = load_split(source, dataset, "train")
    check_training(data)
    radius = read_radius(epsilon, threat, data.shape)
    check_defense(plugin, data, threat, radius)
    try_model(specs["model"], data)
    order = Order(specs["model"], plugin, data, seed, where, threat, radius)
    desk = Desk(path.with_suffix(".partial"), log_dir, lambda text: say(f"quintain: {text}"), fresh)
    trained = obtain(order, None, Bar(f"train {model} x {defense}"), desk)
    about = {
        "model": specs["model"],
        "dataset": private_values(specs["dataset"]),
        "defense_spec": specs["defense"],
        **about_training(trained, plugin),
    }
    with writing(path):
        save_checkpoint(path, trained.model, about)
    desk.clear()
    return f"wrote {path}: {_figures(trained)}"


def read_radius(
    written: str | None, norm: Norm, shape: Sequence[int] | None = None
) -> float | None:
    """Read a command's --epsilon. shape: (C, H, W) of the images, where it is known.

    Raises: BadParameter when it is no radius, or beyond every image.
    """
    if written is None:
        return None
    try:
        radius = Epsilon.parse(written)
        check_radii([radius], norm, shape)
    except ValueError as error:
        raise BadParameter(f"--epsilon: {error}") from None
    return radius.value


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


def write_output(path: Path, text: str) -> None:
    """Write what a command made into a file.

    Raises: BadParameter when it cannot be written.
    """
    with writing(path):
        write_text(path, text)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of a file that cannot be written which one it is.

    Raises: BadParameter.
    """
    try:
        yield
    except OSError as error:
        raise BadParameter(f"{path} cannot be written: {error.strerror or error}") from None


def read_specs(names: Mapping[str, str], settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Plugin specs from names and `part.key=value` settings, whose values are TOML.

    Raises: BadParameter for a setting of a part that was not named.
    """
    specs: dict[str, dict[str, Any]] = {part: {"name": name} for part, name in names.items()}
    for setting in settings:
        left, separator, right = setting.partition("=")
        part, dot, key = left.strip().partition(".")
        if not (separator and dot and key) or part not in specs:
            raise BadParameter(
                f"--set {setting}: expected PART.KEY=VALUE with PART one of "
                + (", ".join(names) or "those that other options name")
            )
        try:
            specs[part][key] = read_toml(f"value = {right}")["value"]
        except BadTOML:
            specs[part][key] = right.strip()
    return specs
