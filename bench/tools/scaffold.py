"""The beginnings of a plugin: `quintain new attack` writes one that works, to be changed."""

import keyword
import re
from importlib import resources
from pathlib import Path

from ..api import registry
from ..api.errors import BadParameter, DuplicatePlugin

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z][a-z]*|[a-z]+|[0-9]+")


def write_attack(name: str, out: Path | None) -> Path:
    """Write a working attack plugin and return its path.

    name: such as my-attack, my_attack or MyAttack. out: the file, or the folder to write it into;
    by default my_attack.py here.

    Raises: BadParameter for a name that cannot be used or a file that exists or cannot be
    written; DuplicatePlugin when an attack of that name is there already.
    """
    words = _words(name)
    title = "-".join(words)
    taken = next((one for one in registry.plugins("attacks") if one.name == title), None)
    if taken is not None:
        raise DuplicatePlugin(
            f"there is an attack '{title}' already, in {taken.source}: choose another name"
        )
    path = _path(out, "_".join(words))
    camel = "".join(word.capitalize() for word in words)
    shown = camel if "Attack" in camel else f"{camel}Attack"
    template = (
        resources.files("quintain.bench.tools")
        .joinpath("attack_template.py.txt")
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


def _words(name: str) -> list[str]:
    """Split a name into lower-case words."""
    stem = name.removesuffix(".py")
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]*", stem):
        raise BadParameter(
            f"'{name}' cannot be an attack's name: expected letters, digits and hyphens, "
            f"a letter first, such as my-attack"
        )
    return [word.lower() for word in _WORD.findall(stem)]


def _path(out: Path | None, stem: str) -> Path:
    """The file to write. A stem that is a word of Python's own gets an ending, to be importable."""
    file = f"{stem}_attack.py" if keyword.iskeyword(stem) else f"{stem}.py"
    if out is None:
        return Path(file)
    if out.is_dir():
        return out / file
    if out.suffix != ".py":
        raise BadParameter(f"--out {out}: expected a .py file, or a folder that is there")
    return out
