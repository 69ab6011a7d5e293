"""What the kit found, as data and as text."""

from dataclasses import dataclass
from typing import Literal

CheckOutcome = Literal["pass", "FAIL", "skip"]


class Failed(Exception):
    """A check is not met: one line that says what was expected and what was seen."""


class NotRun(Exception):
    """A check could not be made, because something before it failed."""


@dataclass(frozen=True)
class Outcome:
    """One check's prediction. demand: what it asks for. seen: what was seen, if it is not met."""

    name: str
    demand: str
    outcome: CheckOutcome
    seen: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of one plugin.

    source: the file or the distribution that it comes from. kind: what it is, as messages say it.
    """

    plugin: str
    source: str
    outcomes: tuple[Outcome, ...]
    kind: str = "attack"

    @property
    def passed(self) -> bool:
        """Whether every check was made and met."""
        return all(one.outcome == "pass" for one in self.outcomes)

    def failed(self) -> tuple[str, ...]:
        """Names of the checks that were not met."""
        return tuple(one.name for one in self.outcomes if one.outcome == "FAIL")

    def text(self) -> str:
        """For the terminal: a line for each check, and one below each that was not met."""
        lines = [f"{self.kind} {self.plugin} ({self.source})"]
        width = max(len(one.name) for one in self.outcomes)
        for one in self.outcomes:
            lines.append(f"  {one.outcome}  {one.name:{width}}  {one.demand}")
            if one.outcome == "FAIL":
                lines.append(f"  {'':{6 + width}}  -> {one.seen}")
        met = sum(one.outcome == "pass" for one in self.outcomes)
        untried = sum(one.outcome == "skip" for one in self.outcomes)
        after = f", {untried} not tried because of the failures" if untried else ""
        lines.append(f"{self.plugin}: {met} of {len(self.outcomes)} checks passed{after}")
        return "\n".join(lines)
