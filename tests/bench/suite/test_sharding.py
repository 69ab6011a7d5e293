"""A cell in shards is the cell, to the byte; what is done of it is not done again."""

import hashlib
import json

import pytest
import torch

from quintain.bench.engine.adversarials import FewExamples
from quintain.bench.store.records import read_cell
from quintain.bench.store.shards import read_shard, write_shard
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.executors.scheduling import InProcess
from quintain.bench.suite.jobs import CellJob, Run, ShardJob
from quintain.bench.suite.runner import run_suite
from quintain.bench.suite.sharding import divided

from .test_certified_suite import PLUGIN as CERTIFYING

PLUGIN = """
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api import registry

HERE = Path(__file__).parent
BEGUN = []

@registry.model("flat")
def flat(inputs, hidden: int = 0):
    return nn.Sequential(nn.Flatten(), nn.Linear(256, inputs.n_classes))

@registry.attack("raises")
@dataclass(frozen=True)
class Raises(PGD):
    '''Fails when it begins for the third time.'''
    steps: int = 2

    def start(self, problem):
        BEGUN.append(1)
        if (HERE / "raise").exists() and len(BEGUN) > 10:
            raise RuntimeError("not this one")
        return super().start(problem)

@registry.attack("reads")
@dataclass(frozen=True)
class Reads(PGD):
    steps: int = 2

    def start(self, problem):
        assert (HERE / "note").read_text() == "as read"
        return super().start(problem)
"""
PLUGINS = ("models", "defenses", "attacks")
MODELS = '["flat", {name = "flat", label = "other", hidden = 1}]'
DEFENSES = '[{name = "none", epochs = 1, augmentation = "none"}]'
ATTACKS = '["fgsm", {name = "pgd", steps = 4}, "deepfool", {name = "square", query_budget = 40}]'


@pytest.fixture
def suite(tmp_path, write_suite, monkeypatch):
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "own.py").write_text(PLUGIN)
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))

    def write(plugin=PLUGIN, **changes):
        (folder / "own.py").write_text(plugin)
        settings = {"models": MODELS, "attacks": ATTACKS, "defenses": DEFENSES} | changes
        plugins = {name: f"{name} = {settings.pop(name)}\n" for name in PLUGINS}
        top = {"n_examples": "8"} | settings
        return write_suite(folder=folder, plugins='["own.py"]', **plugins, **top)

    return write


def hashes(out):
    found = [*(out / "records").iterdir(), *(out / "examples").iterdir()]
    return {
        str(one.relative_to(out)): hashlib.sha256(one.read_bytes()).hexdigest() for one in found
    }


@pytest.mark.parametrize("size", [1, 3, 7])
def test_shards_make_the_very_files_that_one_job_makes(suite, tmp_path, quintain, tables, size):
    common = {"transfer": "true", "save_adversarials": "true"}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert quintain("run", suite(**common), "--out", whole, "--device", "cpu").code == 0
    path = suite(**common, shard_examples=str(size))
    assert quintain("run", path, "--out", parts, "--device", "cpu").code == 0
    assert len(hashes(whole)) > 20
    assert hashes(parts) == hashes(whole)
    assert tables(parts) == tables(whole)
    assert not (parts / "shards").exists()


def test_certificates_and_their_audit_too(suite, tmp_path, quintain, tables):
    changes = {
        "plugin": CERTIFYING,
        "models": '["flat"]',
        "defenses": '[{name = "proved", boast = 3.0}]',
        "norm": '"L2"',
        "epsilons": "[0.1, 0.3, 0.6]",
        "n_examples": "30",
    }
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    answer = quintain("run", suite(**changes), "--out", whole, "--device", "cpu")
    assert answer.code == 0
    assert "contradicted-certificates:" in (whole / "leaderboard.csv").read_text()
    path = suite(**changes, shard_examples="7")
    assert quintain("run", path, "--out", parts, "--device", "cpu").code == 0
    assert hashes(parts) == hashes(whole)
    assert tables(parts) == tables(whole)


class Stops(InProcess):
    """Ends after so many jobs, as a run that is killed; counts them."""

    def __init__(self, most=10**6):
        self.most, self.jobs = most, []

    def run(self, next_job):
        for answered in super().run(next_job):
            self.jobs.append(answered.job)
            yield answered
            if len(self.jobs) == self.most:
                return


def go_on(path, out, executor):
    parsed, text, folder = read_suite(str(path))
    cache = out.parent / "cache"
    device = torch.device("cpu")
    return run_suite(parsed, text, path.name, folder, out, device, cache, executor=executor)


def test_shards_that_a_killed_run_left_are_not_computed_again(suite, tmp_path):
    path = suite(shard_examples="3", models='["flat"]', attacks='["fgsm"]')
    whole, out = tmp_path / "whole", tmp_path / "out"
    go_on(path, whole, None)
    first = Stops(3)  # the network, and two of three shards
    assert go_on(path, out, first).done == 0
    left = sorted(one.name for one in out.glob("shards/*/*"))
    assert left == ["0-3.safetensors", "3-6.safetensors"]
    (damaged,) = out.glob("shards/*/3-6.safetensors")
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    second = Stops()
    assert go_on(path, out, second).done == 1
    shards = [job.shard.start for job in second.jobs if isinstance(job, ShardJob)]
    assert shards == [3, 6]  # what was whole is used; what was damaged is computed
    assert hashes(out) == hashes(whole)


def test_files_that_shards_read_are_named_as_seen_from_the_suite(suite, tmp_path):
    path = suite(shard_examples="3", models='["flat"]', attacks='["reads"]')
    (path.parent / "note").write_text("as read")
    out = tmp_path / "out"
    go_on(path, out, Stops(2))
    (shard,) = out.glob("shards/*/*")
    assert read_shard(shard)[0]["files"] == ["note"]
    go_on(path, out, None)
    (records,) = out.glob("records/*.parquet")
    assert [*read_cell(records).about["files"]] == ["note"]


def test_shards_without_the_adversarial_examples_that_are_wanted_are_computed(suite, tmp_path):
    settings = {"models": '["flat"]', "attacks": '["fgsm"]', "shard_examples": "3"}
    out, whole = tmp_path / "out", tmp_path / "whole"
    go_on(suite(**settings), out, Stops(3))
    (out / "manifest.json").unlink()  # of a suite that saved none
    path = suite(**settings, save_adversarials="true")
    (out / "suite.toml").write_text(path.read_text())
    second = Stops()
    assert go_on(path, out, second).done == 1
    assert sum(isinstance(job, ShardJob) for job in second.jobs) == 3
    go_on(path, whole, None)
    assert hashes(out) == hashes(whole)


def test_a_shard_that_fails_fails_its_cell_once_and_the_rest_go_on(suite, tmp_path, quintain):
    path = suite(
        shard_examples="3", models='["flat"]', attacks='["raises", "fgsm"]', n_examples="60"
    )
    (path.parent / "raise").touch()
    out = tmp_path / "out"
    answer = quintain("run", path, "--out", out, "--device", "cpu")
    assert (answer.code, answer.err.count("FAILED: RuntimeError: not this one")) == (1, 1)
    entries = json.loads((out / "manifest.json").read_text())["cells"]
    assert [one["status"] for one in entries] == ["failed", "done"]
    done = len(list(out.glob("shards/*/*.safetensors")))
    assert 0 < done < 20
    (path.parent / "raise").unlink()
    assert "2 of 2 cells done (1 were there already)" in quintain("run", path, "--out", out).out


def job(tmp_path, suite):
    path = suite()
    parsed, _, folder = read_suite(str(path))
    run = Run(parsed, path.name, folder, torch.device("cpu"), tmp_path)
    network = {"weights_hash": "w", "precision": None}
    records = tmp_path / "records" / "cell.parquet"
    return CellJob(run, (0, 1), "key", records, network, None, (), frozenset(), {}, {})


def sizes(shards):
    return [one.stop - one.start for one in shards]


def test_cells_are_divided_as_the_suite_says_or_by_what_they_cost(tmp_path, suite):
    one = job(tmp_path, suite)
    assert sizes(divided(one, 100, 7, 1, 0.0)) == [7] * 14 + [2]
    assert divided(one, 100, 100, 1, 99.0) == ()
    assert divided(one, 10_000, None, 100, 6e-5) == ()  # a minute
    assert sizes(divided(one, 10_000, None, 100, 24e-5)) == [2500] * 4
    assert set(sizes(divided(one, 320, None, 10**6, 1.0))) == {32}  # a batch of some size
    shard = ShardJob(one, divided(one, 100, 7, 1, 0.0)[0])
    write_shard(shard.path, shard.identity, {})
    assert sizes(divided(one, 100, None, 1, 0.0))[0] == 7  # as an earlier run did


def test_a_shard_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "shards" / "cell" / "0-3.safetensors"
    arrays = {
        "none": torch.empty(3, 0).numpy(),
        "some": torch.tensor([[True, False]]).numpy().T,
        "stage": torch.tensor([-1, 2], dtype=torch.int8).numpy(),
    }
    write_shard(path, {"start": 0, "report": {"a": 0.1}}, arrays)
    about, read = read_shard(path)
    assert about == {"start": 0, "report": {"a": 0.1}}
    assert {name: one.tolist() for name, one in read.items()} == {
        name: one.tolist() for name, one in arrays.items()
    }


def test_the_few_examples_of_shards_are_those_of_the_whole(tmp_path):
    generator = torch.Generator().manual_seed(0)
    distances = torch.rand(300, generator=generator).tolist()
    images = torch.rand(300, 1, 2, 2, generator=generator)
    whole = FewExamples(0, 300)
    joined = FewExamples(0, 300)
    for start in range(0, 300, 70):
        part = FewExamples(0, 300, start)
        for row in range(start, min(start + 70, 300)):
            for factor in (2.0, 1.0):
                whole.keep(row, 0, factor * images[row], factor * distances[row])
                part.keep(row - start, 0, factor * images[row], factor * distances[row])
        joined.add(part.arrays(), start)
    for one, few in (("whole", whole), ("joined", joined)):
        few.save(tmp_path / one, torch_images(images))
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "joined").read_bytes()


def torch_images(images):
    from quintain.bench.datasets.in_memory import TensorImages

    return TensorImages(images)
