"""Where work reports how far it is."""

from dataclasses import dataclass, field
from typing import Protocol


class Progress(Protocol):
    """Where work reports how far it is."""

    def update(self, done: int, total: int, note: str = "") -> None:
        """Report `done` of `total`, with a short note such as the accuracy so far."""


@dataclass
class Silent:
    """Progress that nobody watches."""

    seen: int = field(default=0)

    def update(self, done: int, total: int, note: str = "") -> None:
        """Remember how far it went; show nothing."""
        self.seen = done
