"""The formats that tables can be written in, known without pandas."""

from collections.abc import Mapping
from typing import Literal

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
