"""What the smaller commands do."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .directory import read_cells
from .errors import BadParameter, RunDirectoryError, closest
from .files import check_writable, write_text
from .grid import Epsilon, Norm, check_radii
from .report import FORMATS, Format, leaderboard_table
from .tables import Cell, leaderboard, tradeoff

if TYPE_CHECKING:
    from .protocols import Trained


def joint_leaderboard(directories: Sequence[Path], form: str) -> str:
    """One leaderboard of several run directories, as text.

    Raises: RunDirectoryError; BadParameter for an unknown format.
    """
    chosen: Format | None = next((one for one in FORMATS if one == form), None)
    if chosen is None:
        near = closest(form, FORMATS) or "; there are " + ", ".join(FORMATS)
        raise BadParameter(f"unknown format '{form}'{near}")
    return leaderboard_table(leaderboard(*_finished(directories)), chosen)


def plot_runs(directories: Sequence[Path], output: Path) -> None:
    """Draw the trade-off figure of one or more run directories into a file.

    Raises: RunDirectoryError; BadParameter for an ending that is no format, for runs that do not
    compare, and when the file cannot be written; QuintainError without matplotlib.
    """
    from .figure import check_ending, write_figure
    from .sweeps import comparison

    check_ending(output)
    cells, failed = _finished(directories)
    shown = comparison(tradeoff(cells, failed), leaderboard(cells, failed))
    with writing(output):
        write_figure(output, shown)


def _finished(directories: Sequence[Path]) -> tuple[list[Cell], list[tuple[str, ...]]]:
    """Every finished cell of run directories once, and the failed ones.

    Raises: RunDirectoryError, also where there is none.
    """
    cells: dict[tuple[str, ...], Cell] = {}
    failed: list[tuple[str, ...]] = []
    for directory in directories:
        done, lost = read_cells(directory)
        cells |= {(*cell.subject, cell.about["attack"], cell.about["key"]): cell for cell in done}
        failed += lost
    if not cells:
        raise RunDirectoryError(f"no finished cell in {', '.join(map(str, directories))}")
    return list(cells.values()), failed


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
    from .api import checked_norm, parse_device
    from .checkpoints import save_checkpoint
    from .desk import Desk
    from .plan import check_training, load_split, try_model
    from .progress import Bar, say
    from .training import Order, about_training, check_defense, obtain

    for plugin in plugins:
        registry.load_file(plugin)
    specs = read_specs({"model": model, "defense": defense, "dataset": dataset}, settings)
    if path.suffix != ".safetensors":
        raise BadParameter(f"a checkpoint is a .safetensors file, not {path.name}")
    plugin = registry.build("defenses", specs["defense"])
    source = registry.build("datasets", specs["dataset"])
    where, threat = parse_device(device), checked_norm(norm)
    read_radius(epsilon, threat)
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
        "dataset": specs["dataset"],
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
            specs[part][key] = tomllib.loads(f"value = {right}")["value"]
        except tomllib.TOMLDecodeError:
            specs[part][key] = right.strip()
    return specs
