"""Docstrings as Markdown: examples as blocks of code, parameters as a list."""

import re
from typing import Any

import griffe

_PARAMETER = re.compile(r"([a-z_]\w*(?:, [a-z_]\w*)*): ")


class DoctestBlocks(griffe.Extension):
    """mkdocstrings calls this for everything that it shows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of a docstring, and list what it says of parameters."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(listed(obj.docstring.value))


def listed(doc: str) -> str:
    """A docstring whose lines `name: what it is` are items of a list."""
    lines: list[str] = []
    for line in doc.splitlines():
        found = _PARAMETER.match(line)
        if found:
            if lines and lines[-1].strip() and not lines[-1].startswith(("- ", "    ")):
                lines.append("")
            line = f"- **{found[1]}**: {line[found.end() :]}"
        lines.append(line)
    return "\n".join(lines)


def fenced(doc: str) -> str:
    """A docstring with its examples, from `>>>` to the next empty line, fenced."""
    lines: list[str] = []
    inside = False
    for line in doc.splitlines():
        if not inside and line.startswith(">>>"):
            lines += ["", "```pycon"]
            inside = True
        if inside and not line.strip():
            lines.append("```")
            inside = False
        lines.append(line)
    return "\n".join([*lines, "```"] if inside else lines)
