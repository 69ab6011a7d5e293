"""Training curves for TensorBoard, which is an extra."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import BadParameter


class TensorBoard:
    """Writes each epoch's figures as scalars: `loss/train`, `accuracy/robust_validation`, ...

    Raises: BadParameter when TensorBoard is not installed or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise BadParameter(
                "--log-dir needs TensorBoard: pip install 'quintain[tensorboard]'"
            ) from None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadParameter(
                f"--log-dir {folder} cannot be written: {error.strerror or error}"
            ) from None
        self._make = SummaryWriter
        self._folder = folder
        self._writer: Any = None

    def record(self, row: Mapping[str, float]) -> None:
        """Write a row of the history; hide what a run that was cut off wrote from here on."""
        epoch = int(row["epoch"])
        if self._writer is None:
            self._writer = self._make(str(self._folder), purge_step=epoch)
        for name, value in row.items():
            if name != "epoch":
                self._writer.add_scalar(_tag(name), value, epoch)
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()


def _tag(name: str) -> str:
    """`robust_validation_accuracy` -> `accuracy/robust_validation`; a bare `loss` is training's."""
    of, _, kind = name.rpartition("_")
    return f"{kind}/{of or 'train'}" if kind in ("loss", "accuracy") else name
