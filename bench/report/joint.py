"""Leaderboards and figures of several run directories."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ..api.errors import BadParameter, RunDirectoryError
from ..store.atomic import writing
from ..store.run_directory import read_manifest
from .formats import ENDINGS, FORMATS, Format

Note = Callable[[str], None]  # is told, in one line, what the user should know besides


def joint_leaderboard(
    directories: Sequence[Path], form: Format | None, output: Path | None, note: Note
) -> str:
    """One leaderboard of several run directories, as text in a format or in that of a file's name.

    Raises: RunDirectoryError; BadParameter for a format that is not the file's.
    """
    chosen = _format(form, output)
    _refuse_strangers(directories)
    from .formats.leaderboard import leaderboard_table
    from .gathering import gather

    return leaderboard_table(gather(directories, note).leaderboard(), chosen)


def _refuse_strangers(directories: Sequence[Path]) -> None:
    """Say that no directory is a run's before what takes long to import. Raises: as `gather`."""
    if len(directories) == 1:
        read_manifest(directories[0])
    elif not any((one / "manifest.json").is_file() for one in directories):
        shown = ", ".join(map(str, directories))
        raise RunDirectoryError(f"no finished cell in {shown}: none is a run directory")


def _format(chosen: Format | None, output: Path | None) -> Format:
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


def plot_runs(
    directories: Sequence[Path], output: Path, note: Note, kind: str = "tradeoff"
) -> None:
    """Draw a figure of one or more run directories into a file.

    Raises: RunDirectoryError; BadParameter for an ending that is no format, for runs that do not
    compare or have nothing of the kind, and when the file cannot be written; QuintainError without
    matplotlib.
    """
    from .figure_style import check_ending, save_figure

    check_ending(output)
    _refuse_strangers(directories)
    from .comparison import comparison
    from .figure import tradeoff_figure
    from .gathering import gather
    from .plots import MAKERS

    found = gather(directories, note)
    tradeoff, board = found.tables
    shown = comparison(tradeoff, board)
    if kind == "tradeoff":
        figure = tradeoff_figure(shown)
    else:
        tables = {"tradeoff": tradeoff, "queries": found.queries, "transfer": found.transfers}
        figure = MAKERS[kind](tables, shown.epsilon)
    with writing(output):
        save_figure(figure, output)
