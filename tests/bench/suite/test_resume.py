"""A run that is killed at any moment goes on where it stopped, with the same numbers."""

import json
import random
import signal
import time

import pytest

from quintain.bench.store.checkpoints import read_about
from quintain.bench.store.records import read_cell

# An attack that takes its time, so that there is a moment to be killed in.
PLUGIN = """
import time
from dataclasses import dataclass
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api import registry

@registry.attack("slow")
@dataclass(frozen=True)
class Slow(PGD):
    steps: int = 3
    rest: float = 0.002

    def step(self, problem, state):
        time.sleep(self.rest)
        return super().step(problem, state)
"""
ATTACKS = "".join(
    f'[[attacks]]\nname = "slow"\nlabel = "slow-{steps}"\nsteps = {steps}\n'
    for steps in (1, 2, 3, 4, 5)
)
CELLS = 5


@pytest.fixture
def suite(tmp_path, write_suite):
    (tmp_path / "slow.py").write_text(PLUGIN)
    return write_suite(plugins='["slow.py"]', attacks=ATTACKS)


@pytest.fixture
def undisturbed(tmp_path, suite, quintain, tables):
    out = tmp_path / "undisturbed"
    assert quintain("run", suite, "--out", out, "--device", "cpu").code == 0
    return tables(out)


def records(out):
    return sorted((out / "records").glob("*.parquet")) if (out / "records").is_dir() else []


def look(out):
    """Whatever has its final name must be whole; return the cells that are finished."""
    for name in ("manifest.json", "suite.toml", "tradeoff.csv", "leaderboard.csv"):
        path = out / name
        if path.exists():
            text = path.read_text()
            assert text.endswith("\n")
            if name == "manifest.json":
                json.loads(text)
    for path in records(out):
        assert len(read_cell(path).records) == 24
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in records(out)}


def inode(path):
    return path.stat().st_ino if path.exists() else 0


def start(forge, out, suite, *more):
    """Start a run and wait until it is past its checks, and has written the suite's copy again."""
    before = inode(out / "suite.toml")
    forge.start("run", suite, "--out", out, "--device", "cpu", *more)
    wait(lambda: inode(out / "suite.toml") != before)


def wait(ready):
    deadline = time.monotonic() + 60
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def check_finished(out, suite, kept, quintain, tables, undisturbed):
    answer = quintain("run", suite, "--out", out, "--device", "cpu")
    assert answer.code == 0
    reused = f"({len(kept)} were there already)" if kept else "5 of 5 cells done;"
    assert reused in answer.out
    after = look(out)
    assert len(after) == CELLS
    assert {name: after[name] for name in kept} == kept
    assert tables(out) == undisturbed
    assert not list(out.rglob("*.tmp"))


@pytest.mark.parametrize("count", [1, 3, CELLS])
def test_killed_when_some_cells_are_finished(
    count, tmp_path, suite, forge, quintain, tables, undisturbed
):
    out = tmp_path / "out"
    start(forge, out, suite)
    wait(lambda: len(records(out)) >= count)
    forge.kill()
    forge.ending()
    kept = look(out)
    assert len(kept) >= count
    assert not (count < CELLS and (out / "tradeoff.csv").exists())
    check_finished(out, suite, kept, quintain, tables, undisturbed)


def test_what_a_killed_run_was_just_writing_is_removed_wherever_it_is(tmp_path, suite, quintain):
    suite.write_text(f"save_adversarials = true\nshard_examples = 7\n{suite.read_text()}")
    out = tmp_path / "out"
    command = ("run", suite, "--out", out, "--device", "cpu")
    assert quintain(*command).code == 0
    written = [path for path in out.rglob("*.*") if path.is_file()]
    written += [out / "shards" / path.stem / "0-7.safetensors" for path in records(out)]
    folders = {path.parent.name for path in written}
    assert folders == {"out", "records", "examples", *(path.stem for path in records(out))}
    left = [path.with_name(f".{path.name}.16792.tmp") for path in written]
    mine = out / "examples" / ".mine.tmp"
    for path in [*left, mine]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half of")
    assert quintain(*command).code == 0
    assert list(out.rglob("*.tmp")) == [mine]


@pytest.mark.parametrize("turns", [5, pytest.param(40, marks=pytest.mark.slow)])
def test_killed_again_and_again(turns, tmp_path, suite, forge, quintain, tables, undisturbed):
    out = tmp_path / "out"
    chance = random.Random(7)
    kept, moments = {}, set()
    for turn in range(turns):
        start(forge, out, suite)
        if turn % 2:
            wanted = min(len(kept) + 1, CELLS)
            wait(lambda wanted=wanted: len(records(out)) >= wanted)
        time.sleep(chance.uniform(0.0, 0.2))
        forge.kill()
        assert forge.ending() in (-signal.SIGKILL, 0)
        now = look(out)
        assert {name: now[name] for name in kept} == kept
        kept = now
        moments.add(len(kept))
    assert len(moments) > 1
    check_finished(out, suite, kept, quintain, tables, undisturbed)


def test_killed_while_training(tmp_path, suite, forge, quintain, tables, undisturbed, monkeypatch):
    out, cache = tmp_path / "out", tmp_path / "cold"
    monkeypatch.setenv("QUINTAIN_CACHE", str(cache))
    chance = random.Random(3)
    forge.environment["QUINTAIN_CACHE"] = str(cache)
    try:
        for _ in range(4):
            start(forge, out, suite)
            time.sleep(chance.uniform(0.0, 0.3))
            forge.kill()
            assert forge.ending() in (-signal.SIGKILL, 0)
            for path in (cache / "networks").glob("*.safetensors"):
                assert read_about(path)["weights"]
    finally:
        del forge.environment["QUINTAIN_CACHE"]
    check_finished(out, suite, look(out), quintain, tables, undisturbed)


def test_a_killed_update_goes_on_too(tmp_path, suite, forge, quintain, tables, undisturbed):
    out = tmp_path / "out"
    complete = suite.read_text()
    suite.write_text(complete[: complete.rindex("[[attacks]]")])
    assert quintain("run", suite, "--out", out, "--device", "cpu").code == 0
    before = look(out)
    assert len(before) == CELLS - 1
    suite.write_text(complete)
    start(forge, out, suite, "--update")
    forge.kill()
    forge.ending()
    kept = look(out)
    assert {name: kept[name] for name in before} == before
    answer = quintain("run", suite, "--out", out, "--device", "cpu", "--update")
    assert answer.code == 0
    assert {name: look(out)[name] for name in before} == before
    assert tables(out) == undisturbed


def test_a_run_that_holds_the_directory_keeps_others_out(tmp_path, suite, forge, quintain):
    out = tmp_path / "out"
    start(forge, out, suite)
    answer = quintain("run", suite, "--out", out, "--device", "cpu")
    forge.kill()
    forge.ending()
    assert answer.code == 2
    assert answer.error == f"{out} is in use by another run"
