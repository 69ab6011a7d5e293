"""The harness: nine packages, and three entry modules: this one, `evaluate_model` and `cli`.

What a plugin may import is in `quintain.bench.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluate_model import Result, evaluate

__all__ = ["Result", "evaluate"]


def __getattr__(name: str) -> Any:
    """Import what needs torch only when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("quintain")
    if name in __all__:
        import importlib

        return getattr(importlib.import_module(".evaluate_model", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
