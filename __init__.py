"""An adversarial-robustness benchmark harness for image classifiers on PyTorch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    """The installed version, looked up when it is asked for."""
    if name == "__version__":
        from importlib.metadata import version

        return version("quintain")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
