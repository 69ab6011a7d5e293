"""Build the page: template, style and script in one file, and a policy that allows nothing else."""

import base64
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata, resources
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from ...api.plugins.source_digest import installed_digest
from ...api.shared.safe_text import plain
from ...store.atomic import write_text
from ...store.hashing import hash_bytes
from ...store.spreadsheet import to_csv
from ..formats.numbers import blank_or
from ..gathering import Gathered
from . import charts, sections
from .content import Content, content, sentence

_PARTS = ("template.html", "style.css", "script.js")
_BACKTICKS = re.compile("`([^`]+)`")
_MOST_BYTES_OF_TABLES = 3_000_000
_SAFE = "/,;:!$()*@=?~-._[]| "  # characters of a CSV that stay what they are in the address
_HEAD = 4096  # bytes in which a page says what it was made of


def write_page(
    directories: Sequence[Path],
    output: Path,
    note: Callable[[str], None],
    known: Mapping[Path, Gathered] | None = None,
) -> int:
    """Write the page of some run directories; return its size in bytes.

    note: is told what was left out. known: what need not be read, since it is in memory.

    Raises: RunDirectoryError; OSError.
    """
    text = page(content(directories, note, known), made_of(directories))
    write_text(output, text)
    return len(text.encode())


def is_up_to_date(directories: Sequence[Path], output: Path) -> bool:
    """Whether a page was made of these very runs by this very code."""
    try:
        with output.open("rb") as file:
            return f'content="{made_of(directories)}"'.encode() in file.read(_HEAD)
    except OSError:
        return False


def made_of(directories: Sequence[Path]) -> str:
    """Name everything that a page follows from: the manifests, and the code."""
    manifests = [
        hash_bytes(file.read_bytes())
        for one in directories
        if (file := one / "manifest.json").is_file()
    ]
    maps = sorted(f.name for d in directories for f in d.glob("explain/*.maps.safetensors"))
    code = [
        *maps,
        str(installed_digest(__name__)),
        *map(_part, _PARTS),
        metadata.version("quintain"),
    ]
    return hash_bytes("".join([*code, *manifests]).encode())[:32]


def page(shown: Content, made: str = "") -> str:
    """The page as text."""
    parts = {name: _part(name) for name in ("style.css", "script.js")}
    environment = _environment()
    template = environment.from_string(_part("template.html"))
    return template.render(
        content=shown,
        made_of=made,
        sections=sections,
        sentence=sentence,
        key=charts.key,
        bar=charts.interval_bar,
        style=parts["style.css"],
        script=parts["script.js"],
        hashes={name: _policy_hash(text) for name, text in parts.items()},
        files=_embedded(shown),
    )


def _environment() -> Environment:
    made = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    made.filters["fraction"] = blank_or("{:.3f}")
    made.filters["count"] = blank_or("{:,.0f}")
    made.filters["plain"] = lambda value: plain(str(value))
    made.filters["code"] = _code
    return made


def _code(text: str) -> Markup:
    """Markdown's backticks as code; all else is text."""
    return Markup(_BACKTICKS.sub(r"<code>\1</code>", str(escape(text.rstrip(".")))))


def _part(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _policy_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _embedded(shown: Content) -> dict[str, str]:
    """The tables as data URIs; an empty one where a table is too large for a page."""
    made, bytes_left = {}, _MOST_BYTES_OF_TABLES
    for name, table in shown.files.items():
        # per cent, not base64: of CSV it is less, since almost no character needs it
        uri = f"data:text/csv;charset=utf-8,{quote(to_csv(table), safe=_SAFE, errors='replace')}"
        made[name] = uri if len(uri) <= bytes_left else ""
        bytes_left -= len(made[name])
    return made
