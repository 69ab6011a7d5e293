"""The beginnings of a plugin: `quintain new KIND NAME` writes one that works, to be changed."""

import keyword
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from ..api import registry
from ..api.errors import BadParameter, DuplicatePlugin
from ..api.plugins.plugin import KINDS

TEMPLATES: Mapping[str, str] = {  # what may be begun, as messages call it -> its kind
    KINDS[kind].singular: kind for kind in ("attacks", "models", "defenses", "datasets", "studies")
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|[0-9]+")


def write_plugin(singular: str, name: str, out: Path | None) -> Path:
    """Write a working plugin and return its path.

    singular: its kind, such as "attack". name: such as my-attack, my_attack or MyAttack. out: the
    file, or the folder to write it into; by default my_attack.py here.

    Raises: BadParameter for a name that cannot be used or a file that exists or cannot be
    written; DuplicatePlugin when a plugin of that kind and name is there already.
    """
    words = _words(name, singular)
    title = "-".join(words)
    known = registry.plugins(TEMPLATES[singular])
    taken = next((one for one in known if one.name == title), None)
    if taken is not None:
        raise DuplicatePlugin(
            f"there is {_article(singular)} {singular} '{title}' already, in {taken.source}: "
            "choose another name"
        )
    path = _path(out, "_".join(words), singular)
    camel = "".join(word.capitalize() for word in words)
    ending = singular.capitalize()
    shown = camel if ending in camel else f"{camel}{ending}"
    template = (
        resources.files("quintain.bench.tools")
        .joinpath("templates", f"{singular}.py.txt")
        .read_text("utf-8")
    )
    text = template.replace("@FILE@", path.name).replace("@NAME@", title).replace("@CLASS@", shown)
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise BadParameter(
            f"{path} exists already and is left as it is: choose another name or --out"
        ) from None
    except OSError as error:
        raise BadParameter(f"{path} cannot be written: {error.strerror or error}") from None
    return path


def _article(singular: str) -> str:
    return "an" if singular[0] in "aeiou" else "a"


def _words(name: str, singular: str) -> list[str]:
    """Split a name into lower-case words."""
    stem = name.removesuffix(".py")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", stem):
        raise BadParameter(
            f"'{name}' cannot be {_article(singular)} {singular}'s name: expected letters, digits "
            f"and hyphens, a letter first, such as my-{singular}"
        )
    return [word.lower() for word in _WORD.findall(stem)]


def _path(out: Path | None, stem: str, singular: str) -> Path:
    """The file to write. A stem that is a word of Python's own gets an ending, to be importable."""
    file = f"{stem}_{singular}.py" if keyword.iskeyword(stem) else f"{stem}.py"
    if out is None:
        return Path(file)
    if out.is_dir():
        return out / file
    if out.suffix != ".py":
        raise BadParameter(f"--out {out}: expected a .py file, or a folder that is there")
    return out
