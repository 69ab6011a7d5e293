"""What code a plugin runs: one hash of the local source files that it imports, at any depth.

Code of a released package is named by its version and not looked into. All else is local and named
by its contents: a file of the user's, an editable install, a package installed from a folder.
"""

import ast
import hashlib
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache, lru_cache
from pathlib import Path

_INSTALLED = ("site-packages", "dist-packages")
_STANDARD = [Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")]


def source_digest(file: Path, module: str = "") -> str:
    """Name the code of a Python file and of the local modules that it imports: a SHA-256.

    module: what the file is imported as, where it belongs to a package. Imports within functions
    count; a module that is imported by a computed name does not.

    Raises: OSError when the file cannot be read.
    """
    seen: dict[Path, str] = {}
    waiting = [(file.resolve(), module)]
    while waiting:
        at, name = waiting.pop()
        if at not in seen:
            status = at.stat()
            seen[at], imported = _read(at, name, status.st_mtime_ns, status.st_size)
            waiting += imported
    return hashlib.sha256("".join(sorted(seen.values())).encode()).hexdigest()


def installed_digest(module: str) -> str | None:
    """Name the code of an installed module; None where it is a released package's."""
    file = _file_of(module)
    return source_digest(file, module) if file is not None and is_local(file) else None


@lru_cache(maxsize=4096)
def _read(
    file: Path, module: str, modified: int, size: int
) -> tuple[str, tuple[tuple[Path, str], ...]]:
    """The hash of a file's content, and what it imports; again where the file has changed."""
    content = file.read_bytes()
    return hashlib.sha256(content).hexdigest(), tuple(_imported(file, module, content))


def _imported(file: Path, module: str, content: bytes) -> Iterator[tuple[Path, str]]:
    """The local files that a file imports, each with its module's name."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):  # it will say so itself when it is run
        return
    for name in sorted(set(_names(tree, module, is_package=file.name == "__init__.py"))):
        found = (None if module else _beneath(file.parent, name)) or _file_of(name)
        if found is not None and is_local(found):
            yield found, name


def _names(tree: ast.AST, module: str, *, is_package: bool) -> Iterator[str]:
    """Every module that a file may import, and the packages around each."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for one in node.names:
                yield from _with_parents(one.name)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from _with_parents(base)
            yield from (f"{base}.{one.name}" for one in node.names if base)


def _with_parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1) if name)


def _beneath(folder: Path, name: str) -> Path | None:
    """A module's source file, where the module lies in a folder."""
    at = folder.joinpath(*name.split("."))
    candidates = (at.with_name(f"{at.name}.py"), at / "__init__.py")
    return next((one.resolve() for one in candidates if one.is_file()), None)


def _file_of(name: str) -> Path | None:
    """The source file of a module, which is not imported for that; None where it has none."""
    loaded = getattr(sys.modules.get(name), "__file__", None)
    found = Path(loaded).resolve() if loaded else _located(name, tuple(sys.path))
    return found if found is not None and found.suffix == ".py" else None


@cache
def _located(name: str, path: tuple[str, ...]) -> Path | None:
    """The file of a module that has not been imported; packages of others are not looked into."""
    parent, _, last = name.rpartition(".")
    if parent and parent not in sys.modules:
        around = _located(parent, path)
        local = around is not None and around.name == "__init__.py" and is_local(around)
        return _beneath(around.parent, last) if local and around is not None else None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):  # the parent is no package, or is broken
        return None
    origin = getattr(spec, "origin", None)
    return None if origin is None else Path(origin)


def is_local(file: Path) -> bool:
    """Whether a file is neither the standard library's nor a released package's."""
    for at, part in enumerate(file.parts):
        if part in _INSTALLED:
            name = file.parts[at + 1].removesuffix(".py")
            return name in _unreleased(Path(*file.parts[: at + 1]))
    return not any(file.is_relative_to(one) for one in _STANDARD)


@cache
def _unreleased(folder: Path) -> frozenset[str]:
    """Top-level names in a site-packages that were installed from a folder or a repository."""
    names: set[str] = set()
    for origin in folder.glob("*.dist-info/direct_url.json"):
        record = origin.with_name("RECORD")
        if record.is_file():
            lines = record.read_text("utf-8", errors="replace").splitlines()
            names |= {one.partition("/")[0].partition(".py")[0] for one in lines}
    return frozenset(names)
