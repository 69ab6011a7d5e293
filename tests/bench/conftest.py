"""A tiny suite to run, the command line to run it with, and a cache that is nobody's."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from quintain.bench import cli
from quintain.bench.api import registry

MODEL = """
[[models]]
name = "resnet"
depth = 8
width = 0.25
"""
DEFENSE = """
[[defenses]]
name = "none"
epochs = 4
batch_size = 32
learning_rate = 0.1
augmentation = "none"
validate_every = 4
"""
ATTACKS = """
[[attacks]]
name = "fgsm"

[[attacks]]
name = "pgd"
steps = 3
"""
TOP = {"dataset": '"digits"', "n_examples": "24", "epsilons": '["8/255", 0.10, 0.031, 0.25]'}


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """One cache for the whole session, never the user's: its networks are trained once."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUINTAIN_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def forgotten_plugins():
    """Plugins that a test registers are gone after it."""
    with registry.temporary():
        yield


@dataclass(frozen=True)
class Answer:
    """What a command said and how it ended."""

    code: int
    out: str
    err: str

    @property
    def error(self):
        """The error, which must be one line, the last, with nothing like it before."""
        lines = self.err.splitlines()
        assert lines, "nothing on stderr"
        assert lines[-1].startswith("quintain: error: "), self.err
        assert sum(line.startswith("quintain: error: ") for line in lines) == 1, self.err
        for line in lines[:-1]:
            assert line.startswith(("quintain: suite ", "[")), self.err
        assert "Traceback" not in self.err + self.out
        return lines[-1].removeprefix("quintain: error: ")


@pytest.fixture
def quintain(capsys):
    """Run the command line in this process."""

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ending:
            cli.main([str(one) for one in arguments])
        return Answer(ending.value.code, *capsys.readouterr())

    return run


@pytest.fixture
def write_suite(tmp_path):
    """Write a tiny suite; keys of its top are given as TOML, None leaves one out."""

    def write(
        name="tiny.toml", *, folder=tmp_path, models=MODEL, defenses=DEFENSE, attacks=ATTACKS, **top
    ):
        lines = [f"{key} = {value}\n" for key, value in (TOP | top).items() if value is not None]
        path = folder / name
        path.write_text("".join(lines) + models + defenses + attacks)
        return path

    return write


@pytest.fixture(scope="session")
def tiny_run(cache, tmp_path_factory):
    """The tiny suite's run directory, finished. Not to be changed: copy it."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.toml").write_text(
        "".join(f"{key} = {value}\n" for key, value in TOP.items()) + MODEL + DEFENSE + ATTACKS
    )
    with pytest.raises(SystemExit) as ending:
        cli.main(
            ["run", str(folder / "tiny.toml"), "--out", str(folder / "run"), "--device", "cpu"]
        )
    assert ending.value.code == 0
    return folder / "run"


def snapshot(folder):
    """Every file below a folder, lock files aside, with a hash, its inode and its time."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file() and path.name != ".lock":
            at = path.stat()
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            found[str(path.relative_to(folder))] = (content, at.st_ino, at.st_mtime_ns)
    return found


@pytest.fixture(name="snapshot")
def snapshot_fixture():
    return snapshot


def tables(folder):
    """Both tables of a run directory, as text, without the timings."""
    made = {}
    for name in ("tradeoff", "leaderboard"):
        table = pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False)
        made[name] = table.drop(columns="seconds", errors="ignore").to_csv(index=False)
    return made


@pytest.fixture(name="tables")
def tables_fixture():
    return tables


_FORGE = """
import json, multiprocessing, os, signal, sys
import quintain.bench.evaluate_model, quintain.bench.suite.runner, quintain.bench.report.render
from quintain.bench import cli
from quintain.bench.suite import executors
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have background jobs ignore it
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        out = os.open(os.devnull, os.O_WRONLY)
        os.dup2(out, 1)
        os.dup2(out, 2)
        arguments, environment = json.loads(line)
        os.environ.update(environment)
        if "QUINTAIN_TEST_START" in environment:
            executors._CONTEXT = multiprocessing.get_context(environment["QUINTAIN_TEST_START"])
        try:
            cli.main(arguments)
        except SystemExit as ending:
            os._exit(ending.code)
        os._exit(99)
    print(child, flush=True)
    sys.stdin.readline()
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""


class Forge:
    """Makes processes that run the command line, quickly: each is forked from one that is ready.

    environment: what the next processes get besides.
    """

    def __init__(self, environment):
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", _FORGE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._line() == "ready"
        self.child = 0
        self.environment = {}

    def _line(self):
        return self._process.stdout.readline().strip()

    def start(self, *arguments):
        """Start a process."""
        task = [str(one) for one in arguments], self.environment
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        self.child = int(self._line())

    def kill(self):
        """Send SIGKILL. Until `ending` the child's number stays its own, even when it is done."""
        os.kill(self.child, signal.SIGKILL)

    def ending(self):
        """Wait for the process and return its status, -9 when it was killed."""
        self._process.stdin.write("wait\n")
        self._process.stdin.flush()
        return int(self._line())

    def close(self):
        """End the process that the others are forked from."""
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


@pytest.fixture(scope="module")
def forge(cache):
    """A maker of processes with as many threads as this one: training rounds by their number."""
    import torch

    made = Forge(os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())})
    yield made
    made.close()
