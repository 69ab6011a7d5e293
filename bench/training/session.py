"""One command's training: interrupted ones resumed, TensorBoard logs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..api.defense import Recorder
from ..api.errors import BadParameter
from .snapshot import TrainingSnapshot


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
        """Write a row of the history; hide what a run that was interrupted wrote from here on."""
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


_KEY = 12  # characters of a key that tell networks apart


@dataclass
class TrainingSession:
    """States of unfinished trainings, and logs for TensorBoard.

    The first network is the command's own; others are those that its defense obtains. Their files
    and folders have the key of what is trained in their names.

    partial: the first one's state. log_dir: where to log, if anywhere. say: tells people a line.
    fresh: whether states that are there already are to be taken away.
    """

    partial: Path
    log_dir: Path | None
    say: Callable[[str], None]
    fresh: bool = False
    _partials: list[TrainingSnapshot] = field(default_factory=list, init=False)
    _logs: list[TensorBoard] = field(default_factory=list, init=False)

    def keeper(self, key: str) -> TrainingSnapshot:
        """Where the state of the training of this key is kept."""
        path = self.partial
        if self._partials:
            path = path.with_name(f"{path.stem}.{key[:_KEY]}{path.suffix}")
        keeper = TrainingSnapshot(path, key, self.say)
        if self.fresh:
            keeper.discard()
        self._partials.append(keeper)
        return keeper

    def recorder(self, key: str) -> Recorder | None:
        """Who records the training of this key.

        Raises: BadParameter when TensorBoard is not installed or the folder cannot be written.
        """
        if self.log_dir is None:
            return None
        self._logs.append(TensorBoard(self.log_dir / key[:_KEY] if self._logs else self.log_dir))
        return self._logs[-1]

    def clear(self) -> None:
        """Take away the states: all is done."""
        for one in self._partials:
            one.discard()
        for log in self._logs:
            log.close()
