"""Several processes write the very records that one writes, whatever becomes of them."""

import hashlib
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from filelock import FileLock

from quintain.bench.api.errors import QuintainError
from quintain.bench.api.shared.options import read_jobs
from quintain.bench.store.environment import software
from quintain.bench.store.records import read_cell
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.executors import memory, processes, ray_cluster
from quintain.bench.suite.executors.remote import RemoteJob, usable
from quintain.bench.suite.jobs import Failed, NetworkFound, NetworkJob, Run
from quintain.bench.suite.workspace import run_job

PLUGIN = """
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api import registry

HERE = Path(__file__).parent

@registry.attack("fatal")
@dataclass(frozen=True)
class Fatal(PGD):
    '''Signals the process that it runs in, once, where there is a file `kill` with the number.'''
    steps: int = 3

    def step(self, problem, state):
        if (HERE / "kill").exists():
            number = int((HERE / "kill").read_text() or signal.SIGKILL)
            (HERE / "kill").unlink()
            os.kill(os.getpid(), number)
        return super().step(problem, state)

@registry.attack("raises")
@dataclass(frozen=True)
class Raises(PGD):
    def step(self, problem, state):
        raise RuntimeError(f"something broke in {HERE}/x")

@registry.attack("reads")
@dataclass(frozen=True)
class Reads(PGD):
    '''Depends on a file beside the plugin, and on the environment.'''
    steps: int = 3

    def start(self, problem):
        assert os.environ["QUINTAIN_TEST_WORD"] == (HERE / "word").read_text()
        return super().start(problem)

@registry.attack("slow")
@dataclass(frozen=True)
class Slow(PGD):
    steps: int = 2

    def step(self, problem, state):
        (HERE / f"pid-{os.getpid()}").touch()
        time.sleep(float(os.environ.get("QUINTAIN_TEST_REST", 0)))
        return super().step(problem, state)

@registry.model("diverges")
def diverges(inputs):
    class Diverges(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(256, inputs.n_classes)
        def forward(self, x):
            logits = self.layer(x.flatten(1))
            return logits / 0.0 * 0.0 if self.training else logits
    return Diverges()

@registry.model("flat")
def flat(inputs, which: int = 0):
    made = nn.Sequential(nn.Flatten(), nn.Linear(256, inputs.n_classes))
    with torch.no_grad():
        made[1].weight *= 1 + which
    return made
"""
NAMES = ("fgsm", "fatal", "raises", "reads")
ATTACKS = "".join(f'[[attacks]]\nname = "{name}"\n' for name in NAMES)
MODELS = "".join(f'[[models]]\nname = "flat"\nlabel = "flat-{n}"\nwhich = {n}\n' for n in range(2))
BROKEN = '[[models]]\nname = "diverges"\n'
DEFENSE = '[[defenses]]\nname = "none"\nepochs = 1\naugmentation = "none"\n'


@pytest.fixture
def suite(tmp_path, write_suite, monkeypatch):
    """Two networks of the user's, one that cannot be trained, and attacks of the user's."""
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "own.py").write_text(PLUGIN)
    (folder / "word").write_text("as read")
    monkeypatch.setenv("QUINTAIN_TEST_WORD", "as read")
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))

    def write(**changes):
        settings = {"models": MODELS + BROKEN, "defenses": DEFENSE, "attacks": ATTACKS} | changes
        return write_suite(folder=folder, plugins='["own.py"]', n_examples="8", **settings)

    return write


@pytest.fixture
def forked(monkeypatch):
    """Workers that are there at once: only how they are started is not the real thing."""
    monkeypatch.setattr(processes, "_CONTEXT", multiprocessing.get_context("fork"))


def hashes(out):
    found = (out / "records").iterdir()
    return {one.name: hashlib.sha256(one.read_bytes()).hexdigest() for one in found}


def cells(out):
    entries = json.loads((out / "manifest.json").read_text())["cells"]
    return [{key: value for key, value in one.items() if key != "seconds"} for one in entries]


def test_two_processes_write_what_one_writes_though_one_is_killed(
    suite, tmp_path, quintain, tables
):
    path = suite(transfer="true", save_adversarials="true")
    one, two = tmp_path / "one", tmp_path / "two"
    alone = quintain("run", path, "--out", one, "--device", "cpu")
    shutil.rmtree(tmp_path / "cache")
    (path.parent / "kill").touch()
    together = quintain("run", path, "--out", two, "--device", "cpu", "--jobs", "2")
    assert not (path.parent / "kill").exists()
    assert alone.code == together.code == 1
    assert together.out.replace("/two", "/one") == alone.out
    written = hashes(one)
    assert sum(name.endswith(".parquet") for name in written) == 2 * 4
    assert sum(name.endswith(".safetensors") for name in written) == 2 * 4
    reasons = {name for name in written if name.endswith(".error.txt")}
    assert hashes(two) == written
    assert sum("diverges" not in name for name in reasons) == 2  # of attacks that raise
    assert len(reasons) == 2 + (4 + 2) + 2  # and those that miss a network, or its gradients
    assert cells(two) == cells(one)
    assert tables(two) == tables(one)
    assert together.err.count("diverges x none: FAILED") == 1
    manifests = [json.loads((out / "manifest.json").read_text()) for out in (one, two)]
    assert [about["executor"] for about in manifests] == ["in-process", "processes"]
    assert all(about["computed_on"] == [about["hardware"]] for about in manifests)
    for name in written:
        if "-reads-" in name and name.endswith(".parquet"):
            assert "word" in read_cell(two / "records" / name).about["files"]
    assert not list(two.rglob("*.tmp"))
    again = quintain("run", path, "--out", two, "--device", "cpu")
    assert "8 were there already" in again.out


@pytest.fixture
def one_cluster():
    """No other test on this machine starts Ray meanwhile."""
    with FileLock(Path(tempfile.gettempdir()) / "quintain-test-ray.lock"):
        yield


@pytest.fixture
def ray(one_cluster):
    """Ray, where it is installed; nothing of it is left after a test."""
    found = pytest.importorskip("ray", reason="THE RAY EXECUTOR WAS NOT TESTED: ray is missing")
    yield found
    found.shutdown()


def test_a_ray_cluster_writes_what_one_process_writes_though_a_worker_is_killed(
    suite, tmp_path, quintain, tables, ray
):
    path = suite()
    one, two = tmp_path / "one", tmp_path / "two"
    alone = quintain("run", path, "--out", one, "--device", "cpu")
    shutil.rmtree(tmp_path / "cache")
    (path.parent / "kill").touch()
    suite(shard_examples="3")  # the same file
    together = quintain(
        "run", path, "--out", two, "--device", "cpu", "--executor", "ray", "--jobs", "2"
    )
    assert not (path.parent / "kill").exists()
    assert alone.code == together.code == 1
    said = [line for line in together.out.splitlines(keepends=True) if "(raylet)" not in line]
    assert "".join(said).replace("/two", "/one") == alone.out  # Ray tells of the lost worker itself
    assert without_tracebacks(two) == without_tracebacks(one)  # these differ: it was in shards
    assert cells(two) == cells(one)
    assert tables(two) == tables(one)
    assert not list(two.rglob("*.tmp"))


def test_ray_workers_that_do_not_see_the_files_are_sent_them(
    suite, tmp_path, quintain, tables, ray, monkeypatch
):
    changes = {"transfer": "true", "save_adversarials": "true", "models": MODELS}
    path = suite(**changes)
    one, two = tmp_path / "one", tmp_path / "two"
    quintain("run", path, "--out", one, "--device", "cpu")
    trained = networks(tmp_path)
    shutil.rmtree(tmp_path / "cache")
    suite(**changes, shard_examples="3")
    monkeypatch.setattr(ray_cluster, "workers_folder", lambda folder: nullcontext(Path("/nowhere")))
    together = quintain(
        "run", path, "--out", two, "--device", "cpu", "--executor", "ray", "--jobs", "2"
    )
    assert "files are sent there, and results back" in together.err
    assert together.code == 1
    assert without_tracebacks(two) == without_tracebacks(one)
    assert cells(two) == cells(one)
    assert tables(two) == tables(one)
    assert networks(tmp_path) == trained != set()


def networks(folder):
    return {one.name for one in (folder / "cache").rglob("*.safetensors")}


def test_a_gpu_that_a_cluster_does_not_have_is_said_in_a_line(suite, tmp_path, quintain, ray):
    arguments = ["run", suite(), "--out", tmp_path / "out", "--executor", "ray", "--device"]
    answer = quintain(*arguments, "cuda")
    assert (answer.code, answer.error) == (
        2,
        "the Ray cluster has 0 GPUs, and a worker needs 1",
    )
    assert "say --device cuda" in quintain(*arguments, "cuda:1").error
    suite(num_cpus="1000")
    assert "CPUs, and a worker needs 1000" in quintain(*arguments, "cpu").error


def without_tracebacks(out):
    return {name: one for name, one in hashes(out).items() if not name.endswith(".error.txt")}


def test_a_cluster_that_is_not_there_is_said_at_once(suite, tmp_path, quintain, ray, monkeypatch):
    arguments = ["run", suite(), "--out", tmp_path / "out", "--address", "127.0.0.1:1"]
    began = time.monotonic()
    answer = quintain(*arguments, "--executor", "ray")
    assert (answer.code, "no Ray cluster at 127.0.0.1:1" in answer.error) == (2, True)
    assert time.monotonic() - began < 30
    assert "say --executor ray" in quintain(*arguments).error
    monkeypatch.setattr(ray_cluster, "_last_started", lambda: "127.0.0.1:1")  # and is gone
    assert "no Ray cluster at" in quintain(
        "run", suite(), "--out", tmp_path / "out", "--executor", "ray", "--address", "auto"
    ).error  # fmt: skip


def test_without_ray_the_package_is_named(suite, tmp_path, quintain, monkeypatch):
    monkeypatch.setattr("quintain.bench.suite.executors.ray_cluster.find_spec", lambda name: None)
    answer = quintain("run", suite(), "--out", tmp_path / "out", "--executor", "ray")
    assert (answer.code, "pip install 'quintain[ray]'" in answer.error) == (2, True)


def test_a_worker_without_quintain_is_said_in_a_few_words():
    class ActorDiedError(Exception):
        actor_init_failed = True

    said = "The actor died because of an error\n  File x\nModuleNotFoundError: No module 'quintain'"
    assert ray_cluster._why(ActorDiedError(said)) == "ModuleNotFoundError: No module 'quintain'"
    assert (
        ray_cluster._why(Exception("Killed\n by the system")) == "Exception: Killed by the system"
    )


def test_workers_that_cannot_be_used_are_refused(tmp_path):
    ours = software()
    other = RemoteJob(None, {**ours, "torch": "0.4.1"}, tmp_path)
    unseen = RemoteJob(None, ours, tmp_path / "folder" / "token")
    with pytest.raises(QuintainError, match="this computer 0"):
        usable(other.answer(run_job))
    with pytest.raises(QuintainError, match="must be on a file system that all machines share"):
        usable(unseen.answer(run_job))


def test_a_cell_that_kills_its_process_again_and_again_fails(suite, tmp_path, quintain, forked):
    path, out = suite(models=MODELS), tmp_path / "out"
    (path.parent / "own.py").write_text(PLUGIN.replace('(HERE / "kill").unlink()', "pass"))
    (path.parent / "kill").touch()
    answer = quintain("run", path, "--out", out, "--device", "cpu", "--jobs", "2")
    assert answer.code == 1
    assert "4 of 8 cells done, 4 failed" in answer.out
    (said,) = {one["error"] for one in cells(out) if one["attack"] == "fatal"}
    assert said == "the worker at work on it was ended by signal 9 (Killed), 3 times"


def test_what_a_worker_printed_stands_beside_a_cell_that_fails(suite, tmp_path, quintain, forked):
    path, out = suite(models=MODELS, attacks=ATTACKS), tmp_path / "out"
    changed = PLUGIN.replace('(HERE / "kill").unlink()', 'print("before", "the end")')
    changed = changed.replace("raise Runtime", 'os.write(2, b"from C\\n"); raise Runtime')
    (path.parent / "own.py").write_text(changed)
    (path.parent / "kill").touch()
    answer = quintain("run", path, "--out", out, "--device", "cpu", "--jobs", "2")
    assert "4 of 8 cells done, 4 failed" in answer.out
    assert "4 failed" in answer.err.splitlines()[-1]
    assert " running, " in answer.err
    killed, broken = (
        next(out.glob(f"records/*-{name}-*.error.txt")).read_text() for name in ("fatal", "raises")
    )
    assert killed.startswith("the worker at work on it was ended by signal 9 (Killed), 3 times")
    assert killed.endswith("output:\nbefore the end\n")
    assert "RuntimeError: something broke in x" in broken
    assert broken.endswith("output:\nfrom C\n")


def alive(folder):
    """The workers that a slow attack was seen in, and that are still there."""
    numbers = [int(one.name.partition("-")[2]) for one in folder.glob("pid-*")]
    return [one for one in numbers if os.path.exists(f"/proc/{one}")]


def wait(ready):
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_end_with_the_run_which_then_goes_on(
    ending, suite, tmp_path, quintain, forge, tables
):
    slow = "".join(
        f'[[attacks]]\nname = "slow"\nlabel = "slow-{n}"\nsteps = {n}\n' for n in range(1, 5)
    )
    path, out = suite(models=MODELS, attacks=slow), tmp_path / "out"
    cache = str(tmp_path / "cache")
    forge.environment |= {"QUINTAIN_CACHE": cache, "QUINTAIN_TEST_REST": "0.2"}
    forge.environment["QUINTAIN_TEST_START"] = "fork"
    forge.start("run", path, "--out", out, "--device", "cpu", "--jobs", "2")
    wait(lambda: len(list(out.glob("records/*.parquet"))) > 1 and len(alive(path.parent)) == 2)
    workers = alive(path.parent) if ending == signal.SIGINT else []
    for process in (*workers, forge.child):  # as a terminal does
        os.kill(process, ending)
    assert forge.ending() == (-signal.SIGKILL if ending == signal.SIGKILL else 130)
    wait(lambda: not alive(path.parent))
    kept = hashes(out)
    assert 2 <= len(kept) < 2 * 4
    answer = quintain("run", path, "--out", out, "--device", "cpu")
    assert answer.code == 0
    assert f"({len([one for one in kept if one.endswith('.parquet')])} were there" in answer.out
    assert kept.items() <= hashes(out).items()
    assert quintain("run", path, "--out", tmp_path / "whole", "--device", "cpu").code == 0
    assert hashes(out) == hashes(tmp_path / "whole")
    assert tables(out) == tables(tmp_path / "whole")


def test_a_worker_that_builds_something_else_computes_nothing(
    suite, tmp_path, quintain, forked, monkeypatch
):
    path, out = suite(models=MODELS, attacks='[[attacks]]\nname = "slow"\n'), tmp_path / "out"
    monkeypatch.setattr("quintain.bench.suite.keys.Keys.cell", cell_by_process(os.getpid()))
    answer = quintain("run", path, "--out", out, "--device", "cpu", "--jobs", "2")
    assert "0 of 2 cells done, 2 failed" in answer.out
    (said,) = {one["error"] for one in cells(out)}
    assert said == "its plugins or its data changed while the suite was running"


def cell_by_process(parent):
    """Keys as if files had changed since the parent read them."""
    return lambda self, place: f"{place}-{os.getpid() == parent}".rjust(64, "0")


def test_jobs_travel(suite, tmp_path):
    path = suite()
    parsed, _, folder = read_suite(str(path))
    run = Run(parsed, path.name, folder, torch.device("cpu"), tmp_path)
    job = NetworkJob(run, 0, "key", {"weights": {"variant": "float32"}}, timed=True)
    back = pickle.loads(pickle.dumps(job))
    assert back == job
    assert pickle.loads(pickle.dumps(job)).run is back.run  # unpickled once
    assert [one.text for one in back.run.suite.epsilons] == ["0.031", "8/255", "0.10", "0.25"]


def test_a_job_that_cannot_begin_says_why(tmp_path, suite):
    path = suite()
    parsed, _, folder = read_suite(str(path))
    (folder / "own.py").unlink()
    run = Run(parsed, path.name, folder, torch.device("cpu"), tmp_path)
    answer = run_job(NetworkJob(run, 0, "key", {}, timed=False))
    reason = f"{path.name}: plugins: plugin file {folder / 'own.py'} does not exist"
    assert isinstance(answer, Failed)
    assert answer.reason == reason
    assert "in make_plan" in answer.details


@pytest.mark.parametrize("written", ["0", "-1", "two", "1.5", "", "²"])
def test_a_number_of_jobs_that_cannot_be_is_refused(written, quintain, suite, tmp_path):
    answer = quintain("run", suite(), "--out", tmp_path / "out", "--jobs", written)
    assert answer.code == 2
    assert answer.error == f"--jobs {written}: a number of workers, from 1, or auto"


def test_auto_is_the_number_of_cores_or_of_gpus(monkeypatch):
    assert read_jobs("auto") is None
    assert 1 <= processes.usable_cores() <= os.cpu_count()

    def count(device):
        return processes.Processes(None, torch.device(device))._count

    assert count("cpu") == processes.usable_cores()
    for gpus in (0, 1, 3):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        assert count("cuda") == max(gpus, 1)
    assert count("cuda:1") == count("mps") == 1


def test_each_process_gets_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for visible, wanted in (("", ["0", "1", "0"]), ("4, 7", ["4", "7", "4"])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        executor = processes.Processes(3, torch.device("cuda"))
        assert [executor._gpu(number) for number in range(3)] == wanted
    chosen = processes.Processes(2, torch.device("cuda:1"))  # by the user: all work there
    assert chosen._gpu(0) is None
    assert processes.Processes(2, torch.device("cpu"))._gpu(0) is None


def test_a_process_sees_the_gpu_that_is_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with processes._seeing("7"):
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "7"
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "4,7"
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with processes._seeing("0"):
        pass
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_a_worker_that_would_not_fit_is_not_started(suite, tmp_path, quintain, forked, monkeypatch):
    path = suite(models=MODELS, attacks='[[attacks]]\nname = "slow"\n')
    monkeypatch.setattr(memory, "available", lambda: 1024)
    answer = quintain("run", path, "--out", tmp_path / "out", "--device", "cpu", "--jobs", "2")
    assert (answer.code, "no memory for more than 1 process" in answer.err) == (0, True)
    assert len(list(path.parent.glob("pid-*"))) == 1


def test_more_threads_than_cores_are_said_once(monkeypatch, capsys):
    monkeypatch.setattr(processes, "usable_cores", lambda: 4)
    for threads, count, device, lines in ((2, 3, "cpu", 1), (2, 2, "cpu", 0), (1, 9, "cpu", 0)):
        executor = processes.Processes(count, torch.device(device))
        for _ in range(2):
            executor._warn_of_threads(NetworkFound({"threads": threads}, frozenset(), 0.0, 0.0))
        said = capsys.readouterr().err
        assert said.count("OMP_NUM_THREADS=1 is faster") == lines


def test_memory_is_what_the_system_says():
    own = memory.resident(os.getpid())
    if own is None:
        pytest.skip("MEMORY WAS NOT TESTED: this system has no /proc")
    kept = bytearray(2**27)
    kept[::4096] = b"1" * len(kept[::4096])
    assert own + 2**26 < memory.resident(os.getpid()) < memory.available() + 2**40
    assert memory.resident(None) is None
    assert memory.fits_another([]) == (memory.available() > 1.25 * memory.resident(os.getpid()))


@pytest.mark.parametrize(
    ("sizes", "fits"),
    [
        ([], True),  # this process has 4: another one needs 5
        ([4, 4], True),
        ([1], True),
        ([1, 1], False),  # two that have only just started are to have 6 more
        ([7], True),
        ([9], False),
        ([7, 4], False),
    ],
)
def test_workers_that_have_just_started_are_to_grow(sizes, fits, monkeypatch):
    size = {10**9 + one: one for one in sizes} | {os.getpid(): 4}  # by the process's number
    monkeypatch.setattr(memory, "available", lambda: 10)
    monkeypatch.setattr(memory, "resident", size.get)
    assert memory.fits_another(10**9 + one for one in sizes) == fits
