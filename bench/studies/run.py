"""Run a study on networks that the user names, and write what came of it into a folder."""

import json
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..api import registry
from ..api.data import ImageData
from ..api.epsilon import Epsilon, Norm, checked_norm
from ..api.errors import BadParameter
from ..api.paths import usable_cache
from ..api.plugins.plugin import read_specs
from ..api.shared.options import parse_device, read_radius
from ..api.shared.progress_bars import Bar
from ..api.study import StudiedNetwork, Study, StudyDefaults, StudyResult
from ..datasets.in_memory import fingerprint
from ..report.figure_style import check_ending, save_figure
from ..store.atomic import write_text, writing
from ..store.checkpoints import read_about, weights_hash
from ..store.environment import hardware, software
from ..store.hashing import configuration
from ..store.privacy import private_values
from ..store.spreadsheet import to_csv
from ..training.load import open_ready
from .context import Context


@dataclass(frozen=True)
class StudyRequest:
    """What the user asked for. None: as the study has it by default.

    model: a plugin's name. defenses: names; each makes one network of the model. checkpoints:
    weights, each of one more network, instead of training. settings: `part.key=value` for the
    parts model, defense, dataset and study. n_examples: of the test split.
    """

    study: str
    out: Path
    model: str | None = None
    defenses: Sequence[str] = ()
    checkpoints: Sequence[Path] = ()
    dataset: str | None = None
    n_examples: int | None = None
    norm: str = "Linf"
    epsilon: str = "8/255"
    seed: int = 0
    device: str = "auto"
    settings: Sequence[str] = ()
    plugins: Sequence[Path] = ()


_FORMATS = (".png", ".svg")
_BATCH = 128


def run_study(request: StudyRequest) -> StudyResult:
    """Make the networks, do the study, write its tables, figures and manifest.

    Raises: QuintainError for what cannot be used, before any training where it can be known.
    """
    for suffix in _FORMATS:
        check_ending(request.out / f"figure{suffix}")
    for plugin in request.plugins:
        registry.load_named(str(plugin), Path.cwd())
    parts = _parts(request)
    study: Study = registry.build("studies", parts["study"])
    with writing(request.out):
        request.out.mkdir(parents=True, exist_ok=True)
    context = _context(request, parts)
    there = len(context.data("test"))
    if request.n_examples is not None and request.n_examples > there:
        raise BadParameter(
            f"n_examples = {request.n_examples}, but the test split has {there} images"
        )
    context.networks = tuple(_networks(request, parts, context))
    began = time.monotonic()
    result = study.run(context)
    context.bar.close()
    seconds = time.monotonic() - began
    known = [_described(network, context) for network in context.networks]
    result = replace(result, notes=[*known, *result.notes])
    _write(request, parts, study, context, result, seconds)
    return result


def _parts(request: StudyRequest) -> dict[str, Any]:
    """The specs of study, dataset and model, and of the defenses in a list.

    Raises: BadParameter; UnknownPlugin.
    """
    plugin = registry.find("studies", request.study)
    defaults: StudyDefaults = getattr(plugin.load(), "defaults", StudyDefaults())
    named = {"study": request.study, "model": "", "defense": "", "dataset": ""}
    given = read_specs(named, request.settings)
    ours = {part: {**one, "name": None} for part, one in given.items()}

    def spec(part: str, name: str | None, default: Any) -> dict[str, Any]:
        whole = {"name": default} if isinstance(default, str) else dict(default)
        base = whole if name in (None, whole["name"]) else {"name": name}
        return {**base, **{key: one for key, one in ours[part].items() if key != "name"}}

    model = spec("model", request.model, defaults.model)
    ready = registry.brings_weights(model)
    if ready and request.defenses:
        raise BadParameter(
            f"{model['name']} brings its weights: train it with `quintain train`, and name the "
            "checkpoint"
        )
    wanted = request.defenses or (() if request.checkpoints or ready else None)
    defenses = (
        [spec("defense", name, name) for name in wanted or ()]
        if wanted is not None
        else [spec("defense", None, one) for one in defaults.defenses]
    )
    return {
        "study": {**given["study"]},
        "model": model,
        "ready": ready,
        "dataset": spec("dataset", request.dataset, defaults.dataset),
        "defenses": defenses,
        "n_examples": defaults.n_examples,
    }


def _context(request: StudyRequest, parts: dict[str, Any]) -> Context:
    norm: Norm = checked_norm(request.norm)
    read_radius(request.epsilon, norm)
    return Context(
        dataset=registry.build("datasets", parts["dataset"]),
        dataset_name=parts["dataset"]["name"],
        n_examples=request.n_examples or parts["n_examples"],
        norm=norm,
        epsilon=Epsilon.parse(request.epsilon),
        seed=request.seed,
        device=parse_device(request.device),
        cache=usable_cache(),
        bar=Bar(request.study),
        model=parts["model"],
    )


def _networks(
    request: StudyRequest, parts: dict[str, Any], context: Context
) -> "list[StudiedNetwork]":
    """Open a model that brings its weights and the checkpoints, train the others.

    Raises: BadCheckpoint; BadParameter; CellError when a training diverges.
    """
    opened: list[tuple[Path | None, str]] = []
    if parts["ready"]:
        opened.append((None, parts["model"]["name"]))
    opened += [(path, path.stem) for path in request.checkpoints]
    made = []
    for path, title in opened:
        known = {} if path is None else read_about(path)
        spec = known.get("model") or parts["model"]
        module = open_ready(path, spec, context.data("train")).to(context.device)
        made.append(StudiedNetwork(title, module))
        context.model = spec
    for defense in parts["defenses"]:
        trained = context.trained(parts["model"], defense)
        title = f"{parts['model']['name']} x {defense['name']}"
        made.append(StudiedNetwork(title, trained.model, trained.flags))
    titles = [one.title for one in made]
    if len(set(titles)) < len(titles):
        raise BadParameter(f"two networks are called the same: {', '.join(titles)}")
    return made


def _described(network: StudiedNetwork, context: Context) -> str:
    """How good the network is, and what makes it doubtful."""
    data = context.data("test")
    right = _accuracy(network.module, data, context.device)
    flags = "".join(f" [{flag}]" for flag in network.flags)
    return f"{network.title}: {right:.2f} of {len(data)} images right{flags}"


@torch.no_grad()
def _accuracy(module: nn.Module, data: ImageData, device: torch.device) -> float:
    """The share of the examples that a network gets right."""
    right = 0
    for rows in torch.arange(len(data)).split(_BATCH):
        logits = module(data.images.read(rows).to(device))
        right += int((logits.argmax(dim=1).cpu() == data.labels[rows]).sum())
    return right / len(data)


def _write(
    request: StudyRequest,
    parts: dict[str, Any],
    study: Study,
    context: Context,
    result: StudyResult,
    seconds: float,
) -> None:
    out, data = request.out, context.data("test")
    for name, table in result.tables.items():
        write_text(out / f"{name}.csv", to_csv(table))
    for name, figure in result.figures.items():
        for suffix in _FORMATS:
            save_figure(figure, out / f"{name}{suffix}")
    about = {
        "study": configuration(study),
        "repeat": _repeat(request),
        "dataset": private_values(parts["dataset"]),
        "examples": fingerprint(data),
        "n_examples": len(data),
        "networks": [
            {
                "title": one.title,
                "weights_hash": weights_hash(one.module),
                "accuracy": _accuracy(one.module, data, context.device),
                "flags": list(one.flags),
            }
            for one in context.networks
        ],
        "model": parts["model"],
        "defenses": parts["defenses"],
        "norm": context.norm,
        "epsilon": context.epsilon.text,
        "seed": request.seed,
        "seconds": round(seconds, 1),
        "software": software(),
        "hardware": hardware(context.device),
        "notes": list(result.notes),
        "tables": [f"{name}.csv" for name in result.tables],
        "figures": [f"{name}{suffix}" for name in result.figures for suffix in _FORMATS],
    }
    write_text(out / "manifest.json", json.dumps(about, indent=2) + "\n")


def _repeat(request: StudyRequest) -> str:
    """The command that does the same again."""
    options: list[str] = []
    for name in ("model", "dataset", "n_examples", "norm", "epsilon", "seed", "device"):
        value = getattr(request, name)
        if value is not None:
            options += [f"--{'examples' if name == 'n_examples' else name}", str(value)]
    for option, values in (
        ("--defense", request.defenses),
        ("--checkpoint", [path.name for path in request.checkpoints]),
        ("--set", request.settings),
        ("--plugin", [Path(path).name for path in request.plugins]),
    ):
        for value in values:
            options += [option, str(value)]
    return shlex.join(["quintain", "study", request.study, *options, "--out", "NEW_DIRECTORY"])
