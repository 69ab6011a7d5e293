"""For people with a model and data in hand: one call, one result."""

import copy
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, get_args

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .api import registry
from .api.data import ImageData
from .api.epsilon import Epsilon, Norm, check_radii, checked_norm, parse_grid
from .api.errors import BadData, BadParameter, CellError, check_choice, closest
from .api.paths import usable_cache
from .api.progress import Progress, Silent
from .api.shared.options import parse_device
from .api.shared.progress_bars import Bar
from .api.shared.torch_switches import torch_defaults
from .datasets.arguments import as_classes, as_tensor, images_and_labels, whole_number
from .datasets.in_memory import TensorImages, in_memory
from .datasets.validation import check_images
from .engine.adversarials import InMemoryStore
from .engine.case import Case, CellResult
from .engine.cell import assess
from .engine.certify import certifier_of, certify, remembered
from .engine.config import AttackStage, CellConfig, SearchName
from .engine.preparation import Attackers
from .engine.targets import read_targets
from .report.certificates import certified_columns, without_attack
from .report.detection import detection_of
from .report.query_curves import query_curve, query_summary
from .report.render import summary
from .report.tables import curve_of
from .training.networks import train_proxy
from .victim.fast_copy import Precision
from .victim.traits import Adaptation, ModelTraits, naive

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from .studies.explanation import Explanation

AttackLike = Any  # a name, a spec, an attack object, or a list of these


@dataclass(frozen=True, repr=False)
class Result(CellResult):
    """What the attacks showed: what `CellResult` holds, and the tables made of it.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> evaluate(model, images, labels, "pgd", epsilons=[0.025, 0.055])
    Result of pgd
    10 examples, clean accuracy 1.000
      epsilon  robust accuracy (95% interval)
      0.025    0.800 (0.490 to 0.943)
      0.055    0.500 (0.237 to 0.763)
    no flags
    """

    @classmethod
    def of(cls, found: CellResult) -> "Result":
        """Add the views to what an attack gave."""
        return cls(**vars(found))

    def __repr__(self) -> str:
        """The attack, the curve and the flags, in ten lines at most."""
        return summary(self._name, self.curve, self.flags)

    @property
    def _name(self) -> str:
        """What was run, for people."""
        return self.title or " + ".join(self.stages) or "certificates"

    def _repr_html_(self) -> str:
        """A table and a curve, for notebooks."""
        from .report.page.notebook import result_html

        return result_html(self._name, self.curve, self.flags)

    def plot(self) -> "Figure":
        """Robust accuracy against epsilon with its 95% interval, a matplotlib figure.

        Needs the extra `figures`. Raises: QuintainError without matplotlib.
        """
        from .report.figure_style import check_ending
        from .report.plots import result_figure

        check_ending(Path("figure.png"))
        return result_figure(self.curve, self._name)

    @property
    def curve(self) -> pd.DataFrame:
        """One row for each epsilon: accuracies with their intervals, and what they cost.

        >>> from quintain.bench import evaluate
        >>> from quintain.bench.api.examples import linear_example
        >>> model, images, labels = linear_example()
        >>> result = evaluate(model, images, labels, "pgd", epsilons=["5/255", "14/255"])
        >>> result.curve[["epsilon", "clean_accuracy", "robust_accuracy", "attack_success_rate"]]
          epsilon  clean_accuracy  robust_accuracy  attack_success_rate
        0   5/255             1.0              0.9                  0.1
        1  14/255             1.0              0.5                  0.5
        """
        return curve_of(self.records, [one.text for one in self.grid])

    @property
    def certificates(self) -> pd.DataFrame | None:
        """One row for each example of a module that certifies: index, label, prediction, radius.

        None for other modules. prediction: -1 where it abstains. radius: in the norm of the attack.
        """
        return None if self.certified is None else certified_columns(self.certified)

    @property
    def certified_accuracy(self) -> pd.DataFrame | None:
        """One row for each epsilon: the share that is right and certified there, as `curve` has it.

        clean_accuracy counts the right predictions of the certificates. None for other modules.
        """
        if self.certified is None:
            return None
        return without_attack(curve_of(self.certified, [one.text for one in self.grid]))

    @property
    def queries(self) -> pd.DataFrame:
        """Success rate against queries at each epsilon, of black-box attacks.

        A few rows for each epsilon. White-box attacks' finds do not count as successes.

        >>> from quintain.bench import evaluate
        >>> from quintain.bench.api.examples import linear_example
        >>> model, images, labels = linear_example()
        >>> result = evaluate(model, images, labels, "square", epsilons=[0.055], query_budget=100)
        >>> result.queries[["queries", "success_rate"]].tail(1)
            queries  success_rate
        14      100           0.1
        """
        return query_curve(self.records, [one.text for one in self.grid], self._query_budget)

    @property
    def query_summary(self) -> pd.DataFrame:
        """Mean and median queries to success at each epsilon, of black-box attacks.

        Over the examples that were broken (`success_`), and over all that were attacked, the others
        counted at the budget, or without one at what was spent on them (`censored_`).

        >>> from quintain.bench import evaluate
        >>> from quintain.bench.api.examples import linear_example
        >>> model, images, labels = linear_example()
        >>> result = evaluate(model, images, labels, "simba", epsilons=[0.055], query_budget=100)
        >>> result.query_summary["success_queries_median"].tolist()
        [14.0]
        """
        return query_summary(self.records, [one.text for one in self.grid], self._query_budget)

    @property
    def detection(self) -> pd.DataFrame:
        """One row for each epsilon, of a model with a reject option: how well it rejects.

        Raises: BadParameter when the model cannot reject.
        """
        if "rejection_margin" not in self.records:
            raise BadParameter("the model does not reject: it has no attribute rejects = True")
        return detection_of(self.records, [one.text for one in self.grid])

    def explain(self, epsilon: str | float, layer: str | None = None) -> "Explanation":
        """Where the model looked, before and after the attack: panels and a table.

        Of the examples that are broken at an epsilon of the grid. layer: of the maps, by default
        the last with 4x4 pixels or more. Needs the extra `insight`.

        Raises: BadParameter where none is broken there, for an unknown layer or epsilon.
        """
        from .studies.explanation import explain_images

        found = self.adversarials(epsilon)
        rows = (found != self._images.read(torch.arange(len(found)))).flatten(1).any(dim=1)
        broken = rows.nonzero()[:, 0]
        if not len(broken) or self._module is None:
            raise BadParameter(f"no example is broken at epsilon {epsilon}: nothing to explain")
        device = next(iter(self._module.parameters()), found).device
        names = self.records["index"].to_numpy()[broken]
        return explain_images(
            self._module,
            self._images.read(broken).to(device),
            found[broken].to(device),
            [f"example {one}" for one in names],
            (),
            layer,
        )

    def adversarials(self, epsilon: str | float) -> Tensor:
        """(N, C, H, W): the adversarial examples at an epsilon of the grid, clean where none is.

        Raises: BadParameter when the epsilon is not on the grid.

        >>> from quintain.bench import evaluate
        >>> from quintain.bench.api.examples import linear_example
        >>> model, images, labels = linear_example()
        >>> result = evaluate(model, images, labels, "pgd", epsilons=["5/255", "14/255"])
        >>> x_adv = result.adversarials("14/255")
        >>> (model(x_adv).argmax(dim=1) == labels).tolist()
        [False, False, False, False, False, True, True, True, True, True]
        >>> bool((x_adv - images).abs().max() <= 14 / 255)
        True
        """
        try:
            wanted = Epsilon.parse(epsilon)
        except ValueError as error:
            raise BadParameter(str(error)) from None
        point = next((i for i, one in enumerate(self.grid) if one == wanted), None)
        if point is None:
            known = ", ".join(one.text for one in self.grid)
            raise BadParameter(f"epsilon {wanted.text} is not on the grid: {known}")
        if self._adversarials is None:
            raise BadParameter("the adversarial examples were not kept")
        images = self._images.read(torch.arange(len(self._images))).clone()
        for row, found in self._adversarials.images.items():
            below = [one for one in found if one <= point]
            if below and self.records["broken"].iloc[row][point]:
                images[row] = found[max(below)]
        return images


@torch_defaults()
def evaluate(
    model: nn.Module,
    images: Any,
    labels: Any = None,
    attack: AttackLike = "pgd",
    *,
    norm: Norm = "Linf",
    epsilons: Iterable[str | float] = ("8/255",),
    targets: Any = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    search: SearchName = "bracket",
    query_budget: int | None = None,
    early_leaving: bool = True,
    batch_size: int | None = None,
    indices: Any = None,
    attacker_images: Tensor | ImageData | None = None,
    attacker_networks: Mapping[str, nn.Module] | None = None,
    precision: Precision = "auto",
    adaptive: bool = True,
    eot_samples: int = 10,
    progress: bool = False,
    **unknown: Never,
) -> Result:
    """Measure how robust a classifier is against one attack or the worst of several.

    model: takes (B, C, H, W) in [0, 1], normalises inside, returns logits (B, K). Left as it was.
        One that is a `Certifier` (bench/api/defense.py) is also asked for its certificates, and
        what is found inside a certified radius is a flag. With an attribute rejects = True it
        returns (B, K + 1), the last for "rejected".
    images: (N, C, H, W) in [0, 1]: a tensor, an array or a list. labels: (N,) integers below K, or
        one-hot (N, K). Or images alone: a DataLoader or a Dataset of (images, labels), which is
        read into memory in its order, once.
    attack: a name ("pgd"), a spec ({"name": "pgd", "steps": 100, "restarts": 5}), an attack object,
        or a list of these: then each example's worst case.
    epsilons: radii on the [0, 1] scale, as numbers or texts such as "8/255".
    targets: (N,) classes to reach; or "random", "least-likely" or "next", or one class for all
        (see `bench/engine/targets.py`); without it any wrong class will do.
    device: where to run; by default where the model is. Elsewhere a copy of the model is used.
    search: "bracket" finds each example's smallest broken epsilon and infers the rest; "exhaustive"
        attacks at every epsilon on its own.
    query_budget: queries for each example, for the whole curve (bracket) or each epsilon.
    early_leaving: whether a broken example leaves at once; False is for timing work.
    batch_size: rows a pass; chosen for the device by default. It does not change the numbers.
    indices: (N,) int64, what each example is called; its random numbers depend on it. 0 to N - 1.
    attacker_images: what the attacker may show the victim to train a proxy on.
    attacker_networks: name -> a network that the attacker has, for the gradient source "network".
    precision: of the gradients that white-box attacks follow: "float32", "bfloat16", or "auto",
        what a short trial finds to be clearly faster and faithful. It may change which examples
        are found; what is found is verified by the float32 model.
    adaptive: whether white-box attacks see layers with `differentiable = False` through their
        surrogates, gradients of models with `stochastic = True` as means over `eot_samples` draws,
        and every attack what the model would reject. False shows what a naive attack would; of a
        model with a reject option it meets the classifier alone, at every epsilon on its own, and
        what is then rejected is no success.

    Raises: BadData, BadParameter, UnknownPlugin for what cannot be used; CellError when the model
    or the attack misbehaves.

    One attack over several epsilons:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> result = evaluate(model, images, labels, "pgd", epsilons=["5/255", "14/255"], seed=0)
    >>> result.curve["robust_accuracy"].tolist()
    [0.9, 0.5]
    >>> result.records["smallest_epsilon"].tolist()[:6]
    ['5/255', '14/255', '14/255', '14/255', '14/255', '']

    Several attacks, of which each example meets the worst, in L2 and with a budget of queries:
    >>> attacks = [{"name": "pgd", "steps": 10, "loss": "margin"}, "square"]
    >>> result = evaluate(
    ...     model, images, labels, attacks, norm="L2", epsilons=[0.22], query_budget=100
    ... )
    >>> result.stages, int(result.records["queries"].max()) <= 100
    (('PGD', 'Square'), True)

    A mistake is named, with what was meant:
    >>> evaluate(model, images, labels, "pdg")
    Traceback (most recent call last):
        ...
    quintain.bench.api.errors.UnknownPlugin: unknown attack 'pdg'; did you mean 'pgd'? ...
    """
    if unknown:
        raise _unknown(next(iter(unknown)))
    eot_samples = whole_number("eot_samples", eot_samples, 1)
    if not isinstance(model, nn.Module):
        raise BadParameter(f"model must be a torch.nn.Module, not {type(model).__name__}")
    images, labels = images_and_labels(images, labels)
    check_images(images)
    rule = read_targets(targets) if isinstance(targets, (str, int)) else None
    given = None if targets is None or rule is not None else as_classes("targets", targets)
    check_choice("search", search, get_args(SearchName))
    check_choice("precision", precision, get_args(Precision))
    settings = CellConfig(
        norm=checked_norm(norm),
        grid=_grid(epsilons, norm, images),
        seed=whole_number("seed", seed, 0, 2**32 - 1),
        search=search,
        query_budget=_checked_count("query_budget", query_budget),
        early_leaving=early_leaving,
        targeted=targets is not None,
        targets=rule,
        precision=precision,
        adaptation=Adaptation(samples=eot_samples)
        if adaptive
        else naive(ModelTraits.of_module(model)),
    )
    names = torch.arange(len(images)) if indices is None else as_tensor("indices", indices)
    home = next(iter(model.parameters()), images).device
    where = home if device is None else parse_device(str(device))
    if where == torch.device(home.type):  # "cuda" is where the model is, whichever card that is
        where = home
    module = model if where == home and not _inferring(model) else copy.deepcopy(model).to(where)
    watch: Progress = Bar("attack") if progress else Silent()
    case = Case(
        module=module,
        device=where,
        images=TensorImages(_ordinary(images.detach().float().cpu())),
        labels=_whole(labels),
        indices=names.cpu().clone(),
        targets=None if given is None else _whole(given),
        attackers=Attackers(
            _owned(attacker_images),
            lambda *what: train_proxy(seed, where, usable_cache(), watch, *what),
            lambda name: copy.deepcopy((attacker_networks or {})[name]),
            tuple(attacker_networks or {}),
        ),
    )
    _check_lengths(case)
    size = _checked_count("batch_size", batch_size)
    stages = stages_of(attack)
    proved = None
    if certifier_of(module) is not None:
        proved = certify(case, settings, watch, size).records
        case = replace(case, certificates=remembered(proved))
    writes = 0 if images.is_inference() else images._version
    result = Result.of(assess(case, stages, settings, watch, size, InMemoryStore()))
    if not images.is_inference() and images._version != writes:
        raise CellError("the images that were given were changed in place while they were attacked")
    return replace(result, certified=proved, title=_titled(attack), _module=module)


def _titled(attack: AttackLike) -> str:
    """What the user called an attack, or several."""
    if isinstance(attack, (list, tuple)):
        return " + ".join(map(_titled, attack))
    if isinstance(attack, Mapping):
        return str(attack["name"])
    return attack if isinstance(attack, str) else type(attack).__name__


def stages_of(attack: AttackLike) -> list[AttackStage]:
    """Read an attack, or a list of attacks, as a cascade.

    Raises: UnknownPlugin; BadParameter.
    """
    if isinstance(attack, (list, tuple)):
        if not attack:
            raise BadParameter("the list of attacks is empty")
        return [stage for one in attack for stage in stages_of(one)]
    if isinstance(attack, str):
        return [AttackStage(registry.build("attacks", attack))]
    if isinstance(attack, Mapping):
        spec = dict(attack)
        restarts = whole_number("restarts", spec.pop("restarts", 1), 1)
        return [AttackStage(registry.build("attacks", spec, besides=["restarts"]), restarts)]
    if isinstance(attack, type):
        raise BadParameter(f"{attack.__name__} is a class, not an attack: pass {attack.__name__}()")
    acts = any(hasattr(attack, name) for name in ("step", "run", "attacks"))
    if not hasattr(attack, "access") or not acts:
        raise BadParameter(f"{attack!r} is not an attack: it needs access, and start/step or run")
    return [AttackStage(attack)]


def _inferring(model: nn.Module) -> bool:
    """Whether a model was made in inference mode: then only a copy of it can be differentiated."""
    held = (*model.parameters(), *model.buffers())
    return any(not is_lazy(one) and one.is_inference() for one in held)


def _ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it was made in inference mode and cannot be differentiated."""
    return tensor.clone() if tensor.is_inference() else tensor


def _whole(classes: Tensor) -> Tensor:
    """A copy as int64 on the CPU; what is no integer is left for the checks to refuse."""
    kind = classes.dtype
    integer = not (kind.is_floating_point or kind.is_complex or kind == torch.bool)
    return (classes.cpu().long() if integer else classes.cpu()).clone()


def _owned(images: Tensor | ImageData | None) -> ImageData | None:
    if not isinstance(images, Tensor):
        return images
    labels = torch.zeros(len(images), dtype=torch.int64)  # an attacker has the victim's answers
    return in_memory(_ordinary(images.cpu()), labels, ("unlabelled",))


def _check_lengths(case: Case) -> None:
    count = len(case.images)
    for name, value in (("indices", case.indices), ("targets", case.targets)):
        if value is not None and value.shape != (count,):
            raise BadData(f"{name} must have shape ({count},), not {tuple(value.shape)}")
    if case.indices.dtype != torch.int64 or bool((case.indices < 0).any()):
        raise BadData("indices must be int64 and not negative: each names an example")


def _unknown(name: str) -> BadParameter:
    """What to say of a parameter that there is not."""
    known = list(inspect.signature(evaluate).parameters)[:-1]
    near = closest(name, known) or f"; there are {', '.join(known)}"
    return BadParameter(f"evaluate has no parameter '{name}'{near}")


def _grid(epsilons: Iterable[str | float], norm: Norm, images: Tensor) -> Any:
    try:
        grid = parse_grid(epsilons)
        check_radii(grid, norm, images.shape[1:])
        return grid
    except ValueError as error:
        raise BadParameter(str(error)) from None


def _checked_count(name: str, value: int | None) -> int | None:
    return None if value is None else whole_number(name, value, 1)
