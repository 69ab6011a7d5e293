"""Where the harness keeps what it can make or fetch again."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """Return the user's cache folder, which need not exist yet.

    It is $QUINTAIN_CACHE, else $XDG_CACHE_HOME/quintain, else ~/.cache/quintain. A relative
    XDG_CACHE_HOME is ignored, as the XDG Base Directory Specification asks.
    """
    own = os.environ.get("QUINTAIN_CACHE", "")
    if own:
        return Path(own).expanduser().absolute()
    shared = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (shared if shared.is_absolute() else Path.home() / ".cache") / "quintain"
