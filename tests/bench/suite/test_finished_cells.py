"""Finished cells are known without a network made or a record parsed; changed ones are not."""

import json
import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec
from quintain.bench.report import tables, write
from quintain.bench.report.write import read_table
from quintain.bench.store import records, run_directory
from quintain.bench.store.cell import Cell
from quintain.bench.store.checkpoints import save_checkpoint
from quintain.bench.suite import manifest, plan
from quintain.bench.training import load, networks

CELLS = 240


class Calls(dict):
    """How often the dear functions were called."""

    def watch(self, monkeypatch, module, name):
        real = getattr(module, name)
        self[name] = 0

        def counted(*arguments, **keywords):
            self[name] += 1
            return real(*arguments, **keywords)

        monkeypatch.setattr(module, name, counted)


@pytest.fixture
def calls(monkeypatch):
    """Count from here on; `build_network` and `load_checkpoint` where the runner's parts do it."""
    made = Calls()
    made.watch(monkeypatch, networks, "build_network")
    made.watch(monkeypatch, networks, "load_checkpoint")
    made.watch(monkeypatch, plan, "check_model")
    made.watch(monkeypatch, records.pq, "ParquetFile")
    made.watch(monkeypatch, run_directory.RunDirectory, "write_manifest")
    made.watch(monkeypatch, run_directory.RunDirectory, "write_table")
    return made


@pytest.fixture(scope="module")
def original(fabricate, tmp_path_factory):
    """A folder with a suite and its run directory, all of whose 3 x 4 x 20 cells are finished."""
    folder = tmp_path_factory.mktemp("finished")
    with registry.temporary():
        fabricate(folder, 3, 4, 20, n_examples=10)
    return folder


@pytest.fixture
def finished(original, tmp_path, monkeypatch):
    """The suite's file, and the run directory, of a copy."""
    shutil.copytree(original, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return "suite.toml", tmp_path / "out"


def summary(answer):
    """What is printed, but for the last line, which says how many cells were there."""
    return answer.out.splitlines()[:-1]


def again(quintain, suite, out, *more):
    return quintain("run", suite, "--out", out, "--device", "cpu", *more)


def test_nothing_is_made_or_parsed_or_written_where_nothing_is_left(
    finished, quintain, request, snapshot, capsys
):
    suite, out = finished
    assert again(quintain, suite, out).code == 0  # the manifest names the folder of the copy
    shutil.rmtree(out.parent / "cache")
    before = snapshot(out)
    calls = request.getfixturevalue("calls")
    answer = again(quintain, suite, out)
    assert answer.code == 0
    assert f"{CELLS} of {CELLS} cells done ({CELLS} were there already)" in answer.out
    assert set(calls.values()) == {0}, calls  # without a cache the user's networks are not trained
    after = snapshot(out)
    assert {name for name in before if after[name] != before[name]} == {"suite.toml"}
    assert after["suite.toml"][0] == before["suite.toml"][0]

    for name in ("tradeoff.csv", "leaderboard.csv", "queries.csv"):
        (out / name).unlink()
    made_again = again(quintain, suite, out)
    assert summary(made_again) == summary(answer)
    assert calls["write_table"] == 3
    assert calls["build_network"] == calls["check_model"] == 0
    later = snapshot(out)
    assert [later[name][0] for name in before if name != "manifest.json"] == [
        before[name][0] for name in before if name != "manifest.json"
    ]


def test_only_the_networks_of_missing_cells_are_made(finished, quintain, request, snapshot):
    suite, out = finished
    before = snapshot(out / "records")
    lost = min((out / "records").glob("flat_2-as_is_3-pgd_7-*.parquet"))
    lost.unlink()
    calls = request.getfixturevalue("calls")
    answer = again(quintain, suite, out)
    assert f"{CELLS} of {CELLS} cells done ({CELLS - 1} were there already)" in answer.out
    assert calls["load_checkpoint"] == 12  # the user's own code is looked at again: once each
    assert calls["check_model"] == 1
    assert calls["write_manifest"] <= 3
    after = snapshot(out / "records")
    assert set(after) == set(before)
    assert [name for name in before if after[name] != before[name]] == [lost.name]


@pytest.mark.parametrize("name", ["tradeoff.csv", "leaderboard.csv"])
def test_a_table_that_is_altered_is_made_again(name, finished, quintain):
    suite, out = finished
    content = (out / name).read_text()
    (out / name).write_text(content.replace("0.0,", "1.0,", 1))
    assert (out / name).read_text() != content
    assert again(quintain, suite, out).code == 0
    assert (out / name).read_text() == content


def test_a_title_changes_the_tables_and_computes_nothing(finished, quintain, snapshot):
    suite, out = finished
    before = snapshot(out / "records")
    text = (out / "suite.toml").read_text()
    (out.parent / suite).write_text(text.replace('"pgd-5"', '"five"').replace('"flat-2"', '"two"'))
    answer = again(quintain, suite, out, "--update")
    assert f"({CELLS} were there already)" in answer.out
    assert snapshot(out / "records") == before
    table = read_table(out / "tradeoff.csv")
    assert {"two", "flat-1", "flat-3"} == set(table["model"])
    assert "five" in set(table["attack"])
    assert "pgd-5" not in set(table["attack"])


def test_a_directory_of_before_the_manifest_remembered_goes_on(finished, quintain, snapshot):
    suite, out = finished
    before = snapshot(out / "records")
    about = json.loads((out / "manifest.json").read_text())
    del about["tables"], about["seal"]
    for network in about["networks"]:
        del network["key"]
    for cell in about["cells"]:
        del cell["sha256"]
    (out / "manifest.json").write_text(json.dumps(about))
    answer = again(quintain, suite, out)
    assert f"({CELLS} were there already)" in answer.out
    assert snapshot(out / "records") == before
    assert "key" in json.loads((out / "manifest.json").read_text())["networks"][0]


def test_a_manifest_that_a_killed_run_left_behind_loses_nothing(finished, quintain, snapshot):
    suite, out = finished
    before = snapshot(out / "records")
    about = json.loads((out / "manifest.json").read_text())
    del about["cells"][30:], about["seal"]
    about["cells"][0]["sha256"] = "of a file that was written over"
    about["finished"] = None
    (out / "manifest.json").write_text(json.dumps(about))
    answer = again(quintain, suite, out)
    assert f"({CELLS} were there already)" in answer.out
    assert snapshot(out / "records") == before
    cells = json.loads((out / "manifest.json").read_text())["cells"]
    assert len(cells) == CELLS


def test_another_cells_records_under_this_ones_name_are_not_taken(finished, quintain):
    suite, out = finished
    mine, other = sorted((out / "records").glob("flat_1-as_is_1-*.parquet"))[:2]
    content = mine.read_bytes()
    mine.write_bytes(other.read_bytes())
    answer = again(quintain, suite, out)
    assert f"({CELLS - 1} were there already)" in answer.out
    key = records.read_cell(mine).about["key"]
    assert mine.name.endswith(f"{key[:16]}.parquet")
    assert len(content) > 0


def test_other_weights_in_the_cache_are_noticed(finished, quintain):
    suite, out = finished
    network = json.loads((out / "manifest.json").read_text())["networks"][0]
    path = out.parent / "cache" / "networks" / f"{network['key']}.safetensors"
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10))
    save_checkpoint(path, module, {"key": network["key"], "history": [], "flags": []})
    answer = again(quintain, suite, out)
    assert f"({CELLS - 20} were there already)" in answer.out


def test_a_checkpoint_that_changes_on_disk_is_noticed(tmp_path, write_suite, quintain, cache):
    spec = {"name": "resnet", "depth": 8, "width": 0.25}
    inputs = InputSpec((1, 16, 16), 10, (0.5,), (1.0,))
    path, out = tmp_path / "net.safetensors", tmp_path / "out"
    models = '[[models]]\nname = "resnet"\ndepth = 8\nwidth = 0.25\n'
    suite = write_suite(models=f'{models}checkpoint = "net.safetensors"\n', defenses="")
    save_checkpoint(path, networks.build_network(spec, inputs, seed=1), {"model": spec})
    assert "2 of 2 cells done;" in again(quintain, suite, out).out
    assert "(2 were there already)" in again(quintain, suite, out).out
    save_checkpoint(path, networks.build_network(spec, inputs, seed=2), {"model": spec})
    assert "2 of 2 cells done;" in again(quintain, suite, out).out
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    assert "is damaged" in again(quintain, suite, out).error
    path.unlink()
    assert "does not exist" in again(quintain, suite, out).error


def test_a_model_is_tried_where_there_is_work_for_it_and_only_there(
    finished, quintain, snapshot, monkeypatch
):
    suite, out = finished

    def refuse(*_, **__):
        raise RuntimeError("no such shape")

    monkeypatch.setattr(load, "build_network", refuse)
    assert again(quintain, suite, out).code == 0
    min((out / "records").glob("flat_2-*.parquet")).unlink()
    before = snapshot(out)
    answer = again(quintain, suite, out)
    assert answer.code == 2
    assert answer.error.startswith(f"{suite}: models[2]: 'flat' cannot take 1x16x16 images:")
    assert snapshot(out) == before


def test_a_table_is_read_as_it_was_made(tmp_path, finished):
    _, out = finished
    about = json.loads((out / "manifest.json").read_text())
    cells, _ = run_directory.read_cells(out)
    odd = {"model": "nan", "attack": 'a "b",\nc', "defense": "007", "flags": []}
    cells = [Cell({**one.about, **odd}, one.records) for one in cells[:1]] + cells[1:20]
    for name, make in (("tradeoff.csv", tables.tradeoff), ("leaderboard.csv", tables.leaderboard)):
        made = make(cells)
        run_directory.RunDirectory(tmp_path).write_table(name, made)
        read = read_table(tmp_path / name)
        assert list(read.columns) == list(made.columns)
        for column in made:
            if pd.api.types.is_numeric_dtype(made[column]):
                assert np.array_equal(read[column], made[column].astype(float), equal_nan=True)
            else:
                assert read[column].tolist() == made[column].tolist()
    names = {"made_of", "tradeoff.csv", "leaderboard.csv", "queries.csv"}
    assert about["tables"].keys() == names


def test_the_code_that_makes_the_tables_is_part_of_what_they_follow_from(
    finished, quintain, monkeypatch, request
):
    suite, out = finished
    monkeypatch.setattr(write, "installed_digest", lambda module: f"{module} edited")
    calls = request.getfixturevalue("calls")
    assert again(quintain, suite, out).code == 0
    assert calls["write_table"] == 3


def test_the_manifest_is_written_less_often_the_longer_it_takes(
    finished, quintain, monkeypatch, request
):
    suite, out = finished
    clock = [0.0]
    monkeypatch.setattr(manifest.time, "monotonic", lambda: clock[0])
    real = run_directory.RunDirectory.write_manifest
    writes = []

    def slow(self, about):
        clock[0] += 1.0
        writes.append(sum(one["status"] == "done" for one in about["cells"]))
        real(self, about)

    monkeypatch.setattr(run_directory.RunDirectory, "write_manifest", slow)
    looked = manifest.RunManifest.add

    def add(self, place, cell):
        clock[0] += 0.5 if cell.fresh else 0.0
        looked(self, place, cell)

    monkeypatch.setattr(manifest.RunManifest, "add", add)
    for path in (out / "records").glob("flat_1-*.parquet"):
        os.unlink(path)
    monkeypatch.setattr(manifest, "_REST", 10.0)
    assert again(quintain, suite, out).code == 0
    assert writes == [160, 180, 200, 220, 240, 240]
