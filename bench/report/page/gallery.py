"""The kept examples of the runs on a page."""

from collections.abc import Iterable, Sequence

from ...store.run_directory import read_manifest
from .pictures import Picture, pictures, size_of
from .runs import Pair, Run

_MOST_BYTES = 5_000_000  # of pictures on a page


def gallery(runs: Sequence[Run], order: Sequence[Pair]) -> dict[Pair, dict[str, list[Picture]]]:
    """Of each defended model, in an order, the pictures of its cells."""
    made: dict[Pair, dict[str, list[Picture]]] = {one: {} for one in order}
    bytes_left = _MOST_BYTES
    for run in runs:
        if not run.found.cells or not (run.directory / "examples").is_dir():
            continue
        manifest = read_manifest(run.directory)
        classes = [str(one) for one in manifest.get("classes", ())]
        entries = [one for one in manifest["cells"] if one["status"] == "done"]
        by_key = {one.about.get("key"): one for one in run.found.cells.values()}
        for entry in entries:
            pair, cell = run.title(entry["model"], entry["defense"]), by_key.get(entry.get("key"))
            if pair not in made or cell is None:
                continue
            found = _within(bytes_left, pictures(run.directory, entry, cell, classes))
            if found:
                bytes_left -= size_of(found)
                made[pair][f"{' x '.join(pair)} x {entry['attack']}"] = found
    return made


def _within(most: int, shown: Iterable[Picture]) -> list[Picture]:
    """The pictures of a cell; none as soon as they take more bytes than that."""
    found: list[Picture] = []
    for one in shown:
        found.append(one)
        if size_of(found) > most:
            return []
    return found
