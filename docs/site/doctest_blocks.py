"""Examples in docstrings as blocks of code, for Markdown."""

from typing import Any

import griffe


class DoctestBlocks(griffe.Extension):
    """mkdocstrings calls this for everything that it shows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Fence the examples of a docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


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
