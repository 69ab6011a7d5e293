"""The formats that tables and figures can be written in, known without pandas or matplotlib."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from ..api.errors import BadParameter, QuintainError, closest

Format = Literal["csv", "markdown", "latex", "html"]
FORMATS: tuple[Format, ...] = ("csv", "markdown", "latex", "html")
ENDINGS: Mapping[str, Format] = {
    ".csv": "csv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
}
FIGURES = (".png", ".svg", ".pdf")


def check_ending(path: Path) -> None:
    """Look whether a figure can be written in the format that a file's name asks for.

    Raises: BadParameter for another ending; QuintainError without matplotlib.
    """
    if path.suffix.lower() not in FIGURES:
        near = closest(path.suffix, FIGURES) or f"; there are {', '.join(FIGURES)}"
        raise BadParameter(f"{path} ends in '{path.suffix}', which is no format of figures{near}")
    if find_spec("matplotlib") is None:
        raise QuintainError(
            "a figure needs the package matplotlib, not installed: "
            "pip install 'quintain[figures]' brings it"
        )
