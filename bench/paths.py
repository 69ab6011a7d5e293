"""Where files are: those that a suite names, and what the harness can make or fetch again."""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path

from .errors import reason
from .files import check_writable
from .streams import note

_folder: ContextVar[Path | None] = ContextVar("folder", default=None)


@contextmanager
def relative_to(folder: Path) -> Iterator[None]:
    """Within, relative paths of plugins and data are relative to a folder, such as a suite's."""
    token = _folder.set(folder)
    try:
        yield
    finally:
        _folder.reset(token)


def located(written: str | os.PathLike[str], folder: Path | None = None) -> Path:
    """Return the path that a user wrote, `~` read as the home folder.

    folder: what a relative path starts from; by default what `relative_to` says, else the current
        folder. Where backslashes are ordinary characters and no file has that very name, they are
        read as Windows writes them: `data\\photos` is `data/photos`.
    """
    base = folder or _folder.get() or Path.cwd()
    path = base / os.path.expanduser(written)
    text = os.fspath(written)
    if os.sep == "/" and "\\" in text and not os.path.lexists(path):
        return base / os.path.expanduser(text.replace("\\", "/"))
    return path


def printable(path: str | os.PathLike[str]) -> str:
    """Return a path's text in which bytes that are not UTF-8 are written as `\\xe9`."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def cache_folder() -> Path:
    """Return the user's cache folder, which need not exist yet.

    It is $QUINTAIN_CACHE, else $XDG_CACHE_HOME/quintain, else ~/.cache/quintain. A relative
    XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification asks. Of a user without a
    home it is a temporary folder of this process.
    """
    own = os.environ.get("QUINTAIN_CACHE", "")
    if own:
        return Path(os.path.expanduser(own)).absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    home = shared if shared.is_absolute() else Path(os.path.expanduser("~")) / ".cache"
    return home / "quintain" if home.is_absolute() else _temporary("there is no home folder")


def usable_cache() -> Path:
    """The cache folder, made if it is missing; a temporary one where a user's cannot be written.

    One that QUINTAIN_CACHE names is returned as it is: its owner wants to hear of it.
    """
    folder = cache_folder()
    if not os.environ.get("QUINTAIN_CACHE", ""):
        try:
            check_writable(folder / "networks" / "probe")
        except OSError as error:
            return _temporary(f"{folder} cannot be written: {reason(error)}")
    return folder


@cache
def _temporary(why: str) -> Path:
    """Make a folder that is gone when the process ends, and say so."""
    folder = tempfile.mkdtemp(prefix="quintain-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    note(
        f"quintain: {why}; trained networks are kept until the end of this command only. "
        "Set QUINTAIN_CACHE to a folder to keep them in"
    )
    return Path(folder)
