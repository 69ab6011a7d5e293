"""The harness: what a sweep is, how it runs, what it writes."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import evaluate

__all__ = ["evaluate"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("quintain")
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
