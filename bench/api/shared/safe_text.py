"""Text from outside, made inert: a label, a name or a message is shown, and nothing in it is run.

A label may come from a suite, a name from an installed package, a title from somebody's manifest.
`plain`, `lines` and `short` are for terminals, `markdown` is for Markdown, `drawn` for figures;
spreadsheets are in `spreadsheet`.
"""

import re

_CONTROLS = r"\x00-\x1f\x7f-\x9f"
_TURNING = r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # of the direction of writing, of lines
_NO_TEXT = r"\ud800-\udfff"  # halves of characters, from file names in another encoding
_UNSAFE = re.compile(f"[{_CONTROLS}{_TURNING}{_NO_TEXT}]")
_BESIDES_LINES = re.compile(f"(?!\n)[{_CONTROLS}{_TURNING}{_NO_TEXT}]")

_MARKUP = re.compile(r"[\\`|\[]")
_ENTITY = re.compile(r"&(?=#?\w+;)")


def plain(text: str) -> str:
    r"""One line: what a terminal would obey, or not print, is written as an escape such as `\x1b`.

    >>> plain("a\x1b[2Jb\n")
    'a\\x1b[2Jb\\n'
    """
    return _UNSAFE.sub(_escape, text)


def lines(text: str) -> str:
    """Text of several lines, as `plain` otherwise."""
    return _BESIDES_LINES.sub(_escape, text)


def short(text: str, limit: int = 200) -> str:
    """Text on one line, as `plain`, of at most so many characters."""
    cut = text if len(text) <= limit else text[: limit - 3] + "..."
    return plain(" ".join(cut.split()))


def markdown(text: str) -> str:
    """A cell of a table, or a piece of a line, in Markdown: no HTML, no link, no further column.

    >>> markdown("<b>|x")
    '&lt;b>\\\\|x'
    """
    marked = _MARKUP.sub(lambda found: "\\" + found[0], plain(text))
    return _ENTITY.sub("&amp;", marked).replace("<", "&lt;")


def drawn(text: str) -> str:
    """Text of a figure, where dollars would make it mathematics."""
    return plain(text).replace("$", r"\$")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()
