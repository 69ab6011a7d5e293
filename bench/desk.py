"""What one command keeps of its trainings beside the networks that come of them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .partial import Partial
from .protocols import Recorder
from .tensorboard import TensorBoard

_KEY = 12  # characters of a key that tell networks apart


@dataclass
class Desk:
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
    _partials: list[Partial] = field(default_factory=list, init=False)
    _logs: list[TensorBoard] = field(default_factory=list, init=False)

    def keeper(self, key: str) -> Partial:
        """Where the state of the training of this key is kept."""
        path = self.partial
        if self._partials:
            path = path.with_name(f"{path.stem}.{key[:_KEY]}{path.suffix}")
        keeper = Partial(path, key, self.say)
        if self.fresh:
            keeper.discard()
        self._partials.append(keeper)
        return keeper

    def recorder(self, key: str) -> Recorder | None:
        """Who is told of the training of this key.

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
