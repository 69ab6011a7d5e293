"""Which files the user's own code reads during a run: what they hold can change a number.

Python reports every file that it opens to an audit hook (PEP 578). Files that a library opens
without Python, as safetensors and pyarrow do, are not seen; of models, whatever they read, the
answers to fixed images are compared as well (`probe`).
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from ..api.plugins import user_files
from ..api.plugins.source_digest import is_local
from ..store.hashing import hash_file

_OURS = str(Path(__file__).parents[2]) + os.sep  # the folder of all of quintain
_CODE = (".py", ".pyc", ".so", ".pyd")
_METADATA = (".dist-info", ".egg-info")  # of what is installed, which keys name by its version
_installed = False
_listening: set[str] | None = None


@contextmanager
def recorded() -> Iterator[set[str]]:
    """Collect the paths of the files that code of the user's opens for reading within."""
    global _installed, _listening
    if not _installed:
        sys.addaudithook(_opened)  # it cannot be taken away again
        _installed = True
    before, _listening = _listening, set()
    try:
        yield _listening
    finally:
        _listening = before


def shown_from(folder: Path, path: str) -> str:
    """A path relative to a folder, so that it is the same where the folder is elsewhere."""
    try:
        return os.path.relpath(path, folder)
    except ValueError:  # on another drive
        return path


def hashed(paths: set[str], folder: Path) -> dict[str, str]:
    """Name the content of each file that is still there: its path -> SHA-256.

    Paths are relative to the folder, or to the home folder (`~`) where that would name it.
    """
    found = {}
    home = os.path.expanduser("~")
    for path in sorted(paths):
        try:
            shown = Path(os.path.relpath(path, folder))
            if shown.parts[0] == ".." and Path(path).is_relative_to(home):
                shown = Path("~", os.path.relpath(path, home))
            found[shown.as_posix()] = hash_file(Path(path))
        except (OSError, ValueError):  # gone again, or on another drive
            continue
    return found


def unchanged(files: Mapping[str, str], folder: Path) -> bool:
    """Whether files hold what they held. files: as `hashed` gives them."""
    try:
        return all(
            hash_file(folder / os.path.expanduser(path)) == sha256 for path, sha256 in files.items()
        )
    except OSError:
        return False


def _opened(event: str, arguments: tuple[Any, ...]) -> None:
    """Note a file that is opened for reading. Called by Python for every event there is."""
    global _listening
    if event != "open" or _listening is None:
        return
    path, mode, flags = arguments
    writing = flags & (os.O_WRONLY | os.O_RDWR) if mode is None else "r" not in str(mode)
    if writing or not isinstance(path, (str, bytes, os.PathLike)):
        return
    name = os.path.abspath(os.fsdecode(path))
    folder = os.path.dirname(name)
    if name.endswith(_CODE) or folder.endswith(_METADATA) or not os.path.isfile(name):
        return
    files, _listening = _listening, None  # what is opened to find out is not meant
    try:
        if _is_users(sys._getframe(1)) and is_local(Path(name)):
            files.add(name)
    finally:
        _listening = files


def _is_users(frame: FrameType | None) -> bool:
    """Whether code of a plugin file, or of what lies in its folder, is at work."""
    folders = tuple(f"{one}{os.sep}" for one in user_files.folders())
    while frame is not None:
        file = frame.f_code.co_filename
        if file.startswith(folders) and not file.startswith(_OURS) and is_local(Path(file)):
            return True
        frame = frame.f_back
    return False
