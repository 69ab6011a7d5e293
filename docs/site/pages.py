"""Pages of the site that are made from the code and from files beside docs/, as mkdocs builds it.

mkdocs calls `on_files` and `on_page_markdown` (`hooks` in mkdocs.yml).
"""

import inspect
import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))
from doctest_blocks import fenced

from quintain.bench.api import registry
from quintain.bench.api.flags import KINDS
from quintain.bench.api.plugins.plugin import Plugin
from quintain.bench.suite.config import bundled, read_suite
from quintain.bench.tools.information import described_parameters, source_of

CHECKOUT = Path(__file__).resolve().parents[2]
BESIDE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
REFERENCE = {
    "attacks": "Attacks",
    "gradients": "Gradient sources",
    "losses": "Losses",
    "defenses": "Defenses",
    "models": "Models",
    "datasets": "Datasets",
    "studies": "Studies",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add README and its like, and the reference of plugins, suites and flags."""
    made = {page: (CHECKOUT / name).read_text("utf-8") for name, page in BESIDE.items()}
    made |= {f"reference/{kind}.md": _kind(kind, title) for kind, title in REFERENCE.items()}
    made |= {"reference/suites.md": _suites(), "reference/flags.md": _flags()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Have links lead to pages of the site; what is not on it is named without a link."""
    beside = {page: name for name, page in BESIDE.items()}
    here = beside.get(page.file.src_uri, f"docs/{page.file.src_uri}")

    def moved(found: re.Match[str]) -> str:
        picture, text, target, anchor = found.groups()
        if ":" in target:
            return found[0]
        meant = posixpath.normpath(posixpath.join(posixpath.dirname(here), target))
        there = BESIDE.get(meant, meant.removeprefix("docs/") if meant.startswith("docs/") else "")
        if not there or (not picture and files.get_file_from_path(there) is None):
            return f"`{meant}`" if text == meant else f"{text} (`{meant}`)"
        start = posixpath.dirname(page.file.src_uri) or "."
        return f"{picture}[{text}]({posixpath.relpath(there, start)}{anchor or ''})"

    return _LINK.sub(moved, markdown)


def _kind(kind: str, title: str) -> str:
    """The reference page of a kind of plugins: what each is, takes, and an example that runs."""
    ours = [one for one in registry.plugins(kind) if one.source == "quintain"]
    parts = [f"# {title}\n\nMade from the docstrings; `quintain info NAME` shows the same.\n"]
    return "\n".join([*parts, *(_plugin(kind, one) for one in ours)])


def _plugin(kind: str, plugin: Plugin) -> str:
    doc = inspect.getdoc(plugin.load()) or ""
    parameters = described_parameters(kind, plugin.name)
    lines = [f"## {plugin.name}\n", _prose(doc, {one.name for one in parameters}), ""]
    if parameters:
        lines += ["| parameter | type | default | |", "|---|---|---|---|"]
        lines += [
            f"| `{one.name}` | {_code(one.type)} | {_code(one.default)} | {_cell(one.meaning)} |"
            for one in parameters
        ]
    if source_of(doc) and "arXiv" in doc:
        number = re.search(r"arXiv:(\d{4}\.\d{4,5})", doc)
        lines += ["", f"Paper: <https://arxiv.org/abs/{number[1]}>"] if number else []
    return "\n".join(lines) + "\n"


def _prose(doc: str, names: set[str]) -> str:
    """A docstring without its list of parameters, which the table shows."""
    kept = [
        one
        for one in doc.split("\n\n")
        if not (found := re.match(r"(\w+)(?:, \w+)*: ", one)) or found[1] not in names
    ]
    return fenced("\n\n".join(kept))


def _code(text: str) -> str:
    return f"`{text}`".replace("|", "\\|")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _suites() -> str:
    parts = ["# Suites\n\nBundled ones: `quintain run NAME`.\n"]
    for name in bundled():
        suite, text, _ = read_suite(name)
        parts.append(f"## {name}\n\n{suite.description}\n\n```toml\n{text.strip()}\n```\n")
    return "\n".join(parts)


def _flags() -> str:
    head = "# Flags\n\nWhat makes a number doubtful, what it means, and what to do about it.\n"
    each = (
        f"## {one.name}\n\nOf: {one.scope}.\n\n{one.meaning}\n\n**What to do:** {one.remedy}\n"
        for one in KINDS
    )
    return "\n".join([head, *each])
