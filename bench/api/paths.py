"""Where files are: those that a suite names, and what the harness can make or fetch again."""

import atexit
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

from .errors import reason
from .shared.file_checks import check_writable
from .shared.streams import note


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
