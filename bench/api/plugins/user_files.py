"""Python files of the user's: run once, under a name made of their content."""

import hashlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

from ..errors import BadPlugin, DuplicatePlugin, one_line, reason
from ..shared.file_checks import check_regular
from ..shared.path_names import located

FILE_MODULE = "quintain_plugin_"  # how modules made from local files are called
_FACTORY = re.compile(r"(.+\.py):(\w+)")

_files: set[str] = set()  # that were run


def reference(name: str) -> tuple[Path, str] | None:
    """The file and the factory that a name such as `nets/mine.py:make` stands for, if it is one."""
    match = _FACTORY.fullmatch(name)
    if match is None:
        return None
    return absolute(located(match[1])), match[2]


def absolute(path: Path) -> Path:
    """A path without links and `~`. Links that lead in circles stay as they are."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def digest(path: Path) -> str:
    """Name a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def module_name(path: Path) -> str:
    """What the module made from a file is called. Raises: BadPlugin when it cannot be read."""
    try:
        check_regular(path)
    except FileNotFoundError:
        raise BadPlugin(f"plugin file {path} does not exist") from None
    except OSError as error:
        raise BadPlugin(f"plugin file {path} cannot be read: {reason(error)}") from None
    return f"{FILE_MODULE}{path.stem}_{digest(path)[:8]}"


def folders() -> set[Path]:
    """The folders of the files that have been run."""
    return {Path(one).parent for one in _files}


def run(path: Path) -> ModuleType:
    """Run a file, or return the module that it made before.

    Raises: BadPlugin when it is missing or fails; DuplicatePlugin.
    """
    name = module_name(path)
    known = sys.modules.get(name)
    if known is not None and known.__file__ == str(path):  # a copy may read what lies beside it
        return known
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None:
        raise BadPlugin(f"plugin file {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    _files.add(str(path))
    try:
        # not by the loader, which would leave bytecode in the user's folder
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except BaseException as error:
        sys.modules.pop(name, None)
        if isinstance(error, (DuplicatePlugin, KeyboardInterrupt)):
            raise
        raise BadPlugin(f"plugin file {path}: {one_line(error)}") from error
    return module
