"""Flags: what makes a number doubtful, what it means, and what to do about it. No torch here.

Every kind of flag is declared once, in `KINDS`: to add one, add it there, raise it where it is
seen, and let `python -m quintain.bench.tools.results_page docs/results.md` write the page's table.

A flag is a text, as tables and people see it, and a value for code:

>>> flag = Flag("no-progress", count=3)
>>> flag, flag.name, flag.count, flag.scope
('no-progress:3', 'no-progress', 3, 'attack')
>>> raised("vanishing-gradients", share=0.05)  # below the 10% from which it is raised
()
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Measure = Literal["count", "share", "attack", "sentence"]
Scope = Literal["training", "model", "attack", "certificates", "worst-case"]
Combine = Literal["any", "all", "largest", "own"]
CONTRADICTED = "contradicted-certificates"
CERTIFIED = "certified"  # what tables call a network's own certificates, which are no attack


@dataclass(frozen=True)
class Kind:
    """A reason to doubt a number.

    name: stable; scripts rely on it. measure: what is said beside the name: a `count` of examples,
        a `share` of them, the name of an `attack`; or a `sentence`, which is shown alone.
    scope: what is doubtful.
    meaning, remedy: for people, in Markdown.
    combine: when the worst case over several attacks has it: as soon as `any` attack does, only if
        `all` do, with the `largest` count alone, or never from the attacks but of its `own`.
    naive: whether the worst case also takes it from a naive attack, which knows nothing of the
        defense, and is blind where the defense hides the gradient.
    above: the share of examples from which on it is raised, exclusive.
    incomplete: whether the row lacks an attack, so that it is ranked below the complete ones.
    """

    name: str
    measure: Measure
    scope: Scope
    meaning: str
    remedy: str
    combine: Combine = "any"
    naive: bool = True
    above: float = 0.0
    incomplete: bool = False


_DETERMINISTIC = "make the model deterministic, or declare its random layers (`stochastic = True`)"

KINDS = (
    Kind(
        "not-reproduced",
        "count",
        "model",
        "N examples had an adversarial example that was not reproduced when the model was asked "
        "again",
        "look for hidden randomness, or for a batch that matters: `unrepeatable-logits` and "
        "`batch-dependent-logits`",
    ),
    Kind(
        "unstable-predictions",
        "count",
        "model",
        "N clean predictions changed when the model was asked again",
        _DETERMINISTIC,
    ),
    Kind(
        "vanishing-gradients",
        "share",
        "model",
        "the loss has no gradient at all at P% of the examples, as the attack looks at the model: "
        "gradient attacks are blind there",
        "declare layers without a gradient (`differentiable = False`); against saturation attack "
        'the margin (`loss = "margin"`) or use `pgd-smoothed`; add attacks on scores and labels',
        naive=False,
        above=0.1,
    ),
    Kind(
        "unrepeatable-logits",
        "share",
        "model",
        "the logits changed when the model was asked the same again",
        _DETERMINISTIC,
    ),
    Kind(
        "batch-dependent-logits",
        "share",
        "model",
        "the logits changed with the other images of the batch",
        "normalise by fixed statistics: no batch norm in training mode, no scale over the batch",
    ),
    Kind(
        "grad-mode-dependent-logits",
        "share",
        "model",
        "the logits were different while gradients were recorded: attacks see another model",
        "let the model do the same with and without `torch.no_grad()`",
    ),
    Kind(
        "non-finite-gradients",
        "share",
        "model",
        "the gradient at the image is NaN or infinite",
        "look for the cause with `torch.autograd.set_detect_anomaly(True)`: often a root or a norm "
        "at 0",
    ),
    Kind(
        "inaccurate-gradients",
        "share",
        "model",
        "the gradient does not predict by how much the logits change over a short step",
        "attack the layers that hide it through surrogates (`differentiable = False`), or by "
        "scores",
        naive=False,
        above=0.15,
    ),
    Kind(
        "misleading-gradients",
        "share",
        "model",
        "a step of 8/255 along the gradient's signs raises the loss no more than one against them",
        "use better surrogates, smoothed gradients (`pgd-smoothed`), and attacks on scores or "
        "labels",
        naive=False,
        above=0.15,
    ),
    Kind(
        "probability-outputs",
        "share",
        "model",
        "the outputs are probabilities, not logits: losses flatten out on them",
        "return what goes into the softmax, or the logarithm of what comes out",
    ),
    Kind(
        "rounded-outputs",
        "share",
        "model",
        "the outputs are rounded, clipped or one-hot: small changes do not show",
        "return the logits before that, or trust attacks on labels alone",
    ),
    Kind(
        "black-box-beats-white-box",
        "count",
        "worst-case",
        "N examples were broken by black-box attacks alone: white-box gradients mislead. A cascade "
        "has it too, when its black-box stages broke what no white-box stage before them could",
        "believe the smaller accuracy; look for what hides the gradient, and attack it adaptively",
        combine="largest",
        naive=False,
        above=0.05,
    ),
    Kind(
        "no-progress",
        "count",
        "attack",
        "N examples resisted an attack that took all its steps and ended at the clean image: its "
        "gradient is zero there, or its constants do not fit the images. Not raised for attacks "
        "that keep the clean image until they succeed, for other libraries' attacks, nor where a "
        "query budget ended",
        "use more steps or another step size; against a zero gradient do as for "
        "`vanishing-gradients`",
        naive=False,
    ),
    Kind(
        "query-budget-exhausted",
        "count",
        "attack",
        "N examples were still robust at some epsilon when their query budget ended: what it did "
        "not reach counts as robust",
        "give a larger `query_budget`",
        combine="all",  # where one attack had no queries left, another went on
    ),
    Kind(
        CONTRADICTED,
        "count",
        "certificates",
        "N examples have an adversarial example strictly inside the certified radius of a right "
        "prediction, and the certifier's own `predict`, asked again, gives another class there: "
        "the certificates are wrong (those by sampling may be, with a chance of alpha each). "
        "Adversarial examples that are older than the certificates count without being asked "
        "again",
        "do not use the certificates: look for the fault in the certifier",
        combine="own",
    ),
    Kind(
        "missing",
        "attack",
        "worst-case",
        "the run was interrupted before that attack's cell was done; the model is ranked below the "
        "complete ones",
        "run the same command again: it goes on",
        combine="own",
        incomplete=True,
    ),
    Kind(
        "failed",
        "attack",
        "worst-case",
        "the worst case lacks that attack, whose cell failed; the model is ranked below the "
        "complete ones",
        "read the error beside the records (`*.error.txt`), mend it, run again",
        combine="own",
        incomplete=True,
    ),
    Kind(
        "catastrophic-overfitting",
        "sentence",
        "training",
        "training ended early: the network had learnt to blind the attack that it is trained on",
        "train against an attack of more steps, or with a smaller step size or epsilon",
    ),
    Kind(
        "did-not-learn",
        "sentence",
        "training",
        "the network is hardly better than guessing on clean images: robust accuracy says nothing",
        "another learning rate, more epochs, or a weaker attack in training",
    ),
    Kind(
        "training",
        "sentence",
        "training",
        "anything else that a defense said of its training",
        "as it says",
    ),
)
_BY_NAME = {one.name: one for one in KINDS}


class Flag(str):
    """A flag: prints and compares as its text, such as `no-progress:3`; code reads attributes.

    name, count, share, about: as given. Of count (an int), share (a fraction) and about (an
    attack's name, or a sentence) one is there, as its kind wants it, and the others are None.

    Raises: ValueError for a name that no kind has, or another measure than the kind's.
    """

    name: str
    count: int | None  # type: ignore[assignment]  # of examples, not the letters that str counts
    share: float | None
    about: str | None

    def __new__(
        cls,
        name: str,
        *,
        count: int | None = None,
        share: float | None = None,
        about: str | None = None,
    ) -> Self:
        """Check the measure, and make the text."""
        if name not in _BY_NAME:
            raise ValueError(f"no flag is called '{name}': {__name__}.KINDS declares them")
        measure = _BY_NAME[name].measure
        given = {"count": count, "share": share, "about": about}
        wanted = measure if measure in given else "about"
        if [one for one, value in given.items() if value is not None] != [wanted]:
            raise ValueError(f"flag '{name}' has {wanted}, and nothing else")
        count = None if count is None else int(count)
        share = None if share is None else float(share)
        text = f"{share:.0%}" if share is not None else str(about if count is None else count)
        self = super().__new__(cls, text if measure == "sentence" else f"{name}:{text}")
        self.name, self.count, self.share = name, count, share
        self.about = None if about is None else str(about)
        return self

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        """Copy and pickle."""
        return (self.name,), {"count": self.count, "share": self.share, "about": self.about}

    @property
    def kind(self) -> Kind:
        """What is said once of all flags of this name."""
        return _BY_NAME[self.name]

    @property
    def scope(self) -> Scope:
        """What is doubtful."""
        return self.kind.scope

    @property
    def meaning(self) -> str:
        """What it means, for people."""
        return self.kind.meaning

    @property
    def remedy(self) -> str:
        """What to do about it, for people."""
        return self.kind.remedy

    @property
    def incomplete(self) -> bool:
        """Whether an attack is lacking. A network's own certificates are no attack."""
        return self.kind.incomplete and self.about != CERTIFIED


def raised(
    name: str, *, count: int | None = None, share: float | None = None, of: int = 0
) -> tuple[Flag, ...]:
    """The flag, if its count or share is large enough for its kind, or nothing.

    of: how many examples there are, of which the count may be a share that is too small.
    """
    flag = Flag(name, count=count, share=share)
    if flag.count is not None:
        return (flag,) if flag.count > flag.kind.above * of else ()
    return (flag,) if (flag.share or 0.0) > flag.kind.above else ()


def combined(
    attacks: Iterable[tuple[Iterable[str], bool]], own: Iterable[str] = ()
) -> tuple[Flag, ...]:
    """The flags of the worst case over several attacks, in the order of their texts.

    attacks: of each its flags, and whether it is naive. own: what the worst case is flagged with by
    itself.
    """
    each = [
        {flag for flag in read_flags(flags) if flag.kind.naive or not naive}
        for flags, naive in attacks
    ]
    kept = set(read_flags(own))
    for flag in set().union(*each):
        everywhere = all(flag.name in {one.name for one in flags} for flags in each)
        if flag.kind.combine in ("any", "largest") or (flag.kind.combine == "all" and everywhere):
            kept.add(flag)
    largest: dict[str, Flag] = {}
    for flag in kept:
        if flag.kind.combine == "largest":
            largest[flag.name] = max(flag, largest.get(flag.name, flag), key=_count)
    return tuple(sorted(one for one in kept if largest.get(one.name, one) == one))


def _count(flag: Flag) -> int:
    return flag.count or 0


# ------------------------------------------------------------------- in files, and back


def stored(flags: Iterable[str]) -> list[dict[str, Any]]:
    """Flags as JSON holds them: `{"name": "no-progress", "count": 3}`."""
    measures = ("count", "share", "about")
    return [
        {"name": flag.name}
        | {one: value for one in measures if (value := getattr(flag, one)) is not None}
        for flag in read_flags(flags)
    ]


def read_flags(flags: Iterable[str | Mapping[str, Any]]) -> tuple[Flag, ...]:
    """Flags from JSON, or from texts, as older records hold them and defenses may give them.

    A text that is no declared flag is a sentence of a defense's. Raises: TypeError or ValueError
    when an entry is neither.
    """
    return tuple(map(_read, flags))


def read_column(text: str) -> tuple[Flag, ...]:
    """Flags from a cell of a table, where they are joined by semicolons."""
    return read_flags(one for one in text.split(";") if one)


def _read(entry: str | Mapping[str, Any]) -> Flag:
    if isinstance(entry, Flag):
        return entry
    if not isinstance(entry, str):
        return Flag(**entry)
    name, _, rest = entry.partition(":")
    measure = _BY_NAME[name].measure if name in _BY_NAME else "sentence"
    if measure == "count" and rest.isdecimal():
        return Flag(name, count=int(rest))
    if measure == "share" and rest[-1:] == "%" and rest[:-1].isdecimal():
        return Flag(name, share=int(rest[:-1]) / 100)
    if measure == "attack" and rest:
        return Flag(name, about=rest)
    return Flag("training", about=entry)
