"""The formats that leaderboards can be written in, their names known without pandas."""

from collections.abc import Mapping
from typing import Literal

Format = Literal["csv", "markdown", "latex", "html", "robustbench"]
FORMATS: tuple[Format, ...] = ("csv", "markdown", "latex", "html", "robustbench")
ENDINGS: Mapping[str, Format] = {
    ".csv": "csv",
    ".md": "markdown",
    ".markdown": "markdown",
    ".tex": "latex",
    ".html": "html",
    ".htm": "html",
    ".json": "robustbench",
}
