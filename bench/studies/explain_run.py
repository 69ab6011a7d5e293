"""Panels of a run directory: the examples that its cells kept, without attacking again."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..api.errors import QuintainError, RunDirectoryError
from ..api.paths import usable_cache
from ..api.shared.options import parse_device
from ..api.shared.progress_bars import Bar
from ..report.figure_style import check_ending, save_figure
from ..store.atomic import write_atomically, write_text, writing
from ..store.hashing import hash_file
from ..store.records import examples_file, read_cell
from ..store.run_directory import read_manifest
from ..store.spreadsheet import to_csv
from ..suite.config import read_suite
from ..suite.keys import Keys
from ..suite.networks import Networks
from ..suite.plan import Plan, make_plan
from .explanation import Explanation, explain_images

_SHOWN = 4  # of the worst, and as many of the median ones


def explain_run(
    directory: Path, out: Path, device: str, suite_file: Path | None = None
) -> list[Path]:
    """Make a figure of each cell's kept examples, and one table of all; say which files.

    suite_file: where the suite lies that was run, if it names files beside it; by default the copy
    in the run directory. Networks come from the cache or their checkpoints.

    Raises: RunDirectoryError where no cell kept examples, or files were changed; BadSuite, BadData
    and BadCheckpoint where the networks or the data are not there any more.
    """
    check_ending(out / "figure.png")
    manifest = read_manifest(directory)
    entries = [one for one in manifest["cells"] if one.get("status") == "done"]
    kept = [(one, file) for one in entries if (file := _examples(directory, one)) is not None]
    if not kept:
        raise RunDirectoryError(
            f"{directory}: no cell kept adversarial examples: none was broken at the leaderboard's "
            "epsilon, or they were run before examples were kept"
        )
    suite, _, folder = read_suite(str(suite_file or directory / "suite.toml"))
    known = {"seed": suite.seed, "training_seed": None, **manifest["suite"]}
    seeds = {name: known[name] for name in ("seed", "training_seed")}
    suite = suite.model_copy(update={**seeds, "seeds": None})
    plan = make_plan(suite, str(suite_file or directory / "suite.toml"), folder)
    networks = Networks(Keys(plan, parse_device(device)), usable_cache(), Bar)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    bar, tables, files = Bar("explain"), [], []
    for number, (entry, file) in enumerate(kept):
        title = f"{entry['model']} x {entry['defense']} x {entry['attack']}"
        bar.update(number, len(kept), title)
        found = _explained(entry, file, plan, networks)
        table = found.table.copy()
        for place, name in enumerate(("model", "defense", "attack")):
            table.insert(place, name, entry[name])
        tables.append(table)
        files.append(out / f"{file.stem}.png")
        save_figure(found.figure, files[-1])
        _keep_maps(found, file, out / f"{file.stem}.maps.safetensors")
    bar.update(len(kept), len(kept))
    write_text(out / "examples.csv", to_csv(pd.concat(tables, ignore_index=True)))
    return [*files, out / "examples.csv"]


def _examples(directory: Path, entry: Mapping[str, Any]) -> Path | None:
    """The file of a cell's kept examples, as it was written. Raises: RunDirectoryError."""
    records: Path = directory / entry["file"]
    expected = read_cell(records).about.get("kept_examples")
    file = examples_file(records)
    if expected is None:
        return None
    if not file.is_file() or hash_file(file) != expected:
        raise RunDirectoryError(f"{file} is missing, or was changed after it was written")
    return file


def _explained(entry: Mapping[str, Any], file: Path, plan: Plan, networks: Networks) -> Explanation:
    """One cell's. Raises: RunDirectoryError where the suite does not hold its network."""
    titles = [(one.model.title, one.defense_title) for one in plan.defended_models]
    place = (entry["model"], entry["defense"])
    if place not in titles:
        raise RunDirectoryError(f"the suite has no {' x '.join(place)}: name the one that was run")
    weights = entry["weights"][0]
    try:
        module = networks.get(titles.index(place), weights).module
    except QuintainError as error:
        raise RunDirectoryError(f"the network {' x '.join(place)}: {error}") from error
    kept = load_file(file)
    rows = torch.tensor(list(_chosen(kept)))
    device = next(iter(module.parameters()), torch.zeros(0)).device
    kinds = ["worst" if worst else "median" for worst in kept["worst"][rows].tolist()]
    captions = [
        f"{kind}, {int(plan.indices[row])}\ndistance {distance:.3g}"
        for kind, row, distance in zip(
            kinds, kept["row"][rows].tolist(), kept["distance"][rows].tolist(), strict=True
        )
    ]
    x, x_adv = kept["x"][rows].to(device), kept["x_adv"][rows].to(device)
    found = explain_images(module, x, x_adv, captions, plan.test.class_names)
    found.table["image"] = plan.indices[kept["row"][rows]].tolist()
    found.table.insert(1, "kind", kinds)
    found.table.insert(2, "distance", kept["distance"][rows].tolist())
    return found


def _keep_maps(found: Explanation, examples: Path, file: Path) -> None:
    """Keep the maps of a cell for the page of the run: `row`, `clean_map`, `adversarial_map`."""
    shown = zip(list(_chosen(load_file(examples))), found.panels, strict=True)
    having = [
        (row, one.clean_map, one.adversarial_map)
        for row, one in shown
        if one.clean_map is not None and one.adversarial_map is not None
    ]
    if having:
        rows, clean, adversarial = zip(*having, strict=True)
        maps = {"clean_map": torch.stack(clean), "adversarial_map": torch.stack(adversarial)}
        tensors = {"row": torch.tensor(rows), **{k: v.cpu().float() for k, v in maps.items()}}
        content = save(tensors, {"examples": hash_file(examples)})
        write_atomically(file, lambda at: at.write_bytes(content))


def _chosen(kept: Mapping[str, Tensor]) -> Iterator[int]:
    """The first of the worst, then of the median ones."""
    for wanted in (True, False):
        of_kind = [row for row, worst in enumerate(kept["worst"].tolist()) if worst == wanted]
        yield from of_kind[:_SHOWN]
