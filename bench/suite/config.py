"""Suite files: what a benchmark runs, in TOML, checked before any work is done."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from ..api.epsilon import Epsilon, Norm, check_radii, parse_grid
from ..api.errors import BadSuite, closest, reason
from ..api.flags import CERTIFIED
from ..api.shared.file_checks import check_regular
from ..api.shared.toml import BadTOML, read_toml, shortened
from ..engine.targets import RULES, read_targets

DEFAULT = "quickstart"
TRANSFER = "transfer from "  # how the attacks of the transfer matrix are called
NAIVELY = " (naive)"  # how those end that do not know of the defense
_TAKEN = ("worst-case", CERTIFIED)
_UNSEEN = ("Cc", "Cs", "Zl", "Zp")  # Unicode's control characters, halves of pairs, line ends
_LONGEST = 100  # bytes of a folder's name


class ExactFloat(float):
    """A number of a TOML file that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> "ExactFloat":
        """Read the number and keep its text."""
        made = super().__new__(cls, text)
        made.text = text
        return made


def _named(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value


def _listed(value: object) -> object:
    """One entry that is not in a list is a list of one."""
    return [value] if isinstance(value, (str, dict)) else value


class Entry(BaseModel):
    """A plugin with hyper-parameters: every key that is not ours is the plugin's.

    label: what the tables call it; by default its name.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    name: str
    label: str = ""

    @property
    def title(self) -> str:
        """What the tables call it."""
        return self.label or self.name

    @property
    def spec(self) -> dict[str, Any]:
        """The plugin's name and hyper-parameters."""
        return {"name": self.name, **(self.model_extra or {})}


class ModelEntry(Entry):
    """A model to train, or one that has weights, in a checkpoint or of its own, and is not trained.

    train: whether to train it although it brings weights, or not to although it does not say so; by
    default as it says. defense: what the tables name as the defense of one that is not trained.
    """

    checkpoint: str | None = None
    train: bool | None = None
    defense: str = "pretrained"


class AttackEntry(Entry):
    """An attack. query_budget, search, eot_samples: instead of the suite's."""

    restarts: Annotated[int, Field(ge=1)] = 1
    query_budget: Annotated[int, Field(ge=1)] | None = None
    search: Literal["bracket", "exhaustive"] | None = None
    eot_samples: Annotated[int, Field(ge=1)] | None = None


Models = Annotated[list[Annotated[ModelEntry, BeforeValidator(_named)]], BeforeValidator(_listed)]
Defenses = Annotated[list[Annotated[Entry, BeforeValidator(_named)]], BeforeValidator(_listed)]
Attacks = Annotated[list[Annotated[AttackEntry, BeforeValidator(_named)]], BeforeValidator(_listed)]


def _transfer(value: object) -> object:
    """`true` is the plain transfer attack, `false` none."""
    if isinstance(value, bool):
        return {"name": "mi-fgsm"} if value else None
    return _named(value)


def _aim(value: object) -> object:
    return None if value is None else read_targets(value)


Grid = Annotated[
    tuple[Epsilon, ...],
    BeforeValidator(parse_grid),
    PlainSerializer(lambda grid: [one.text for one in grid]),
]
Aim = Annotated[Any, BeforeValidator(_aim)]
Radius = Annotated[Epsilon, BeforeValidator(Epsilon.parse), PlainSerializer(lambda one: one.text)]


Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Suite(BaseModel):
    """A suite: models x defenses x attacks, on one dataset, over one grid of epsilons.

    n_examples: how many test images, drawn by the seed; all of them by default.
    training_seed: of the networks alone; by default the seed. seeds: several of these: everything
        is run with each, on the same examples, and a table tells what training again changes.
    leaderboard_epsilon: where the leaderboard compares; by default the middle of the grid.
    eot_samples: draws of a stochastic model that a white-box attack's gradients are means over.
    shard_examples: how many examples of a cell are computed at a time, by one worker; by default
        all where one process works alone, and else so many as take about a minute. Records are the
        same.
    num_cpus, num_gpus: of a worker on a cluster; by default a core, or with Slurm one for each
        thread, and a GPU where the device is one. Half a GPU has two workers share it.
    plugins: Python files to load, relative to the suite's.
    targets: every attack that can aim also runs targeted, at a class for each example: "random",
        "least-likely", "next", or one class. Its rows are its own, and not in the worst case.
    transfer: an attack that follows a gradient: it attacks every defended model by the gradients of
        every other one. true: MI-FGSM.
    """

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True
    )

    name: str = ""
    description: str = ""
    plugins: list[str] = []
    dataset: Annotated[Entry, BeforeValidator(_named)]
    n_examples: Annotated[int, Field(ge=1)] | None = None
    seed: Seed = 0
    training_seed: Seed | None = None
    seeds: list[Seed] | None = None
    norm: Norm = "Linf"
    targets: Aim = None
    epsilons: Grid
    leaderboard_epsilon: Radius | None = None
    search: Literal["bracket", "exhaustive"] = "bracket"
    query_budget: Annotated[int, Field(ge=1)] | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    eot_samples: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] | None = None
    shard_examples: Annotated[int, Field(ge=1)] | None = None
    num_cpus: Annotated[int, Field(ge=1)] | None = None
    num_gpus: Annotated[float, Field(gt=0, strict=False)] = 1.0
    save_adversarials: bool = False
    models: Annotated[Models, Field(min_length=1)]
    defenses: Defenses = [Entry(name="none")]
    attacks: Annotated[Attacks, Field(min_length=1)] = [AttackEntry(name="strongest")]
    transfer: Annotated[AttackEntry | None, BeforeValidator(_transfer)] = None

    @model_validator(mode="after")
    def _combinations(self) -> "Suite":
        for kind in ("models", "defenses", "attacks"):
            entries = getattr(self, kind)
            for entry in entries:
                _check_title(entry.title)
            titles = Counter(_as_seen(entry.title) for entry in entries)
            for title, count in titles.items():
                if count > 1:
                    raise ValueError(f"two {kind} are called '{title}': give one a label")
        _check_title(self.dataset.title)
        for model in self.models:
            _check_title(model.defense)
        for taken in _TAKEN:
            if any(entry.title == taken for entry in self.attacks):
                raise ValueError(f"an attack cannot be called '{taken}': the tables use that name")
        if any(entry.title.startswith(TRANSFER) for entry in self.attacks):
            raise ValueError(
                f"an attack cannot be called '{TRANSFER}...': the tables use that name"
            )
        if any(entry.title.endswith(NAIVELY) for entry in self.attacks):
            raise ValueError(f"an attack cannot be called '...{NAIVELY}': the tables use that name")
        if any(entry.title.endswith(f" ({rule})") for entry in self.attacks for rule in RULES):
            raise ValueError("an attack cannot be called '... (random)', '... (next)' and the like")
        if self.seeds is not None:
            if self.training_seed is not None:
                raise ValueError("training_seed is one of seeds: leave one of the two out")
            if len(set(self.seeds)) < max(2, len(self.seeds)):
                raise ValueError("seeds must be two or more different ones")
        check_radii(self.epsilons, self.norm)
        wanted = self.leaderboard_epsilon
        if wanted is not None and wanted not in self.epsilons:
            grid = ", ".join(one.text for one in self.epsilons)
            raise ValueError(f"leaderboard_epsilon {wanted.text} is not one of epsilons: {grid}")
        return self

    @property
    def headline(self) -> Epsilon:
        """The epsilon that the leaderboard compares at."""
        wanted = self.leaderboard_epsilon
        at = len(self.epsilons) // 2 if wanted is None else self.epsilons.index(wanted)
        return self.epsilons[at]

    @property
    def folder_name(self) -> str:
        """The name as that of one folder, whatever it holds: `../../x` becomes `x`."""
        last = re.split(r"[\\/]", self.name)[-1]
        plain = re.sub(r"[^\w. +,=()-]+", "_", last)
        short = plain.encode()[:_LONGEST].decode(errors="ignore")
        return short.strip(". ") or "suite"

    def resolved(self) -> dict[str, Any]:
        """Everything that the suite says, defaults included, as JSON.

        What came with a later version is left out where it is not used: older runs go on.
        """
        said = self.model_dump(mode="json")
        for name in ("targets", "training_seed", "seeds"):
            if said[name] is None:
                del said[name]
        for name in ("shard_examples", "num_cpus", "num_gpus"):
            del said[name]  # how it is computed, not what
        return said


def _check_title(title: str) -> None:
    """Refuse a name that would break a table's line, or that nobody can see. Raises: ValueError."""
    breaking = [one for one in title if unicodedata.category(one) in _UNSEEN]
    if breaking:
        raise ValueError(
            f"the name {shortened(title)} holds {shortened(breaking[0])}: names go into tables, "
            "so they take letters, digits, signs and plain spaces"
        )
    if not title.strip():
        raise ValueError(f"the name {shortened(title)} is empty: give it a label")


def _as_seen(title: str) -> str:
    """A title as a reader of the tables sees it: not how its letters are encoded or spaced."""
    return " ".join(unicodedata.normalize("NFC", title).split())


def bundled() -> tuple[str, ...]:
    """Names of the suites that come with the package."""
    folder = resources.files("quintain.bench.suite.bundled")
    names = (one.name for one in folder.iterdir() if one.name.endswith(".toml"))
    return tuple(sorted(name.removesuffix(".toml") for name in names))


def read_suite(name: str) -> tuple[Suite, str, Path]:
    """Read a suite by bundled name or file; return it with its text and the folder it is from.

    Raises: BadSuite, naming the file, the key and what was expected.
    """
    path = Path(name)
    if name in bundled() and not path.is_file():
        text = (
            resources.files("quintain.bench.suite.bundled")
            .joinpath(f"{name}.toml")
            .read_text("utf-8")
        )
        return parse_suite(text, name, name), text, Path.cwd()
    if not os.path.exists(path) or path.is_dir():
        known = bundled()
        raise BadSuite(
            f"no suite '{name}': neither a file nor a bundled suite{closest(name, known) or ';'} "
            f"bundled: {', '.join(known)}"
        )
    try:
        check_regular(path)
        text = path.read_text("utf-8-sig")  # Windows editors begin a file with a mark
    except (OSError, UnicodeDecodeError) as error:
        raise BadSuite(f"suite {name} cannot be read: {reason(error)}") from None
    return parse_suite(text, name, path.stem), text, path.resolve().parent


def parse_suite(text: str, file: str, name: str) -> Suite:
    """Check a suite's text.

    Raises: BadSuite.
    """
    try:
        raw = read_toml(text, parse_float=ExactFloat)
    except BadTOML as error:
        raise BadSuite(f"{file}: not valid TOML: {error}") from None
    try:
        return Suite.model_validate({"name": name, **raw})
    except ValidationError as error:
        faults = error.errors()
        unknown = (one for one in faults if one["type"] == "extra_forbidden")
        raise BadSuite(f"{file}: {_explain(next(unknown, faults[0]))}") from None


def _explain(fault: Mapping[str, Any]) -> str:
    """One line from one of pydantic's errors."""
    where = ""
    for part in fault["loc"]:
        where += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if where else ''}{part}"
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        known = list(Suite.model_fields)
        near = closest(str(fault["loc"][-1]), known)
        return f"unknown key '{where}'{near or '; known are ' + ', '.join(known)}"
    if fault["type"] == "missing":
        return f"key '{where}' is missing"
    if not where:
        return message
    got = "" if fault["type"] == "value_error" else f", not {shortened(fault['input'])}"
    return f"{where}: {message[:1].lower()}{message[1:]}{got}"
