"""Every bundled suite, run again where it is finished: nothing is computed, nothing changes."""

import hashlib
import json
import re
import tomllib
from importlib import resources

import pandas as pd
import pytest

from quintain.bench.report.write import read_table
from quintain.bench.suite.config import bundled

CERTIFIED_AND_REJECTING = ("none", "interval-bounds", "feature-squeezing")


def written(value):
    """A value in TOML, on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {written(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(written, value)) + "]"
    return json.dumps(value)


def small(suite):
    """A suite with all its attacks, of few examples, on networks that are hardly trained."""
    text = (
        resources.files("quintain.bench.suite.bundled").joinpath(f"{suite}.toml").read_text("utf-8")
    )
    text = re.sub(r"(?<!_)epochs = \d+", "epochs = 1", text)
    text = re.sub(r"(warmup|ramp)_epochs = \d+", r"\1_epochs = 0", text)
    text = re.sub(r"validate_every = \d+", "validate_every = 1", text)
    parsed = tomllib.loads(text)
    parsed |= {"n_examples": 3, "epsilons": [parsed["leaderboard_epsilon"], 0.9]}
    parsed["models"] = [{"name": "small-cnn", "width": 0.25}]
    kept = [one for one in parsed["defenses"] if one["name"] in CERTIFIED_AND_REJECTING]
    parsed["defenses"] = [
        one | {"warmup_epochs": 0} if one["name"] == "interval-bounds" else one for one in kept
    ]
    return "".join(f"{key} = {written(value)}\n" for key, value in parsed.items())


@pytest.mark.parametrize("suite", bundled())
def test_a_bundled_suite_is_run_twice(suite, tmp_path, quintain, snapshot):
    (tmp_path / f"{suite}.toml").write_text(small(suite))
    command = ["run", tmp_path / f"{suite}.toml", "--out", tmp_path / "out", "--device", "cpu"]
    first = quintain(*command)
    assert first.code == 0, first.err
    before = snapshot(tmp_path / "out")
    second = quintain(*command)
    assert second.code == 0, second.err
    done = re.search(r"(\d+) of \1 cells done", first.out)[1]
    assert f"{done} of {done} cells done ({done} were there already)" in second.out
    assert second.out.split(f"{done} of")[0] == first.out.split(f"{done} of")[0]
    after = snapshot(tmp_path / "out")
    del before["suite.toml"], after["suite.toml"]  # written again
    assert after == before


def test_counts_of_which_some_are_missing_stay_whole_numbers(tmp_path, write_suite, quintain):
    attacks = "".join(
        f'[[attacks]]\nname = "square"\nsteps = 5\nlabel = "{label}"\n{budget}'
        for label, budget in (("with", "query_budget = 20\n"), ("without", ""))
    )
    out = tmp_path / "out"
    suite = write_suite(attacks=attacks, n_examples=6, epsilons="[0.1]")
    assert quintain("run", suite, "--out", out, "--device", "cpu").code == 0
    text = pd.read_csv(out / "queries.csv", dtype=str, keep_default_na=False)
    assert set(zip(text["attack"], text["query_budget"], strict=True)) == {
        ("with", "20"),
        ("without", ""),
    }
    table = read_table(out / "queries.csv")
    assert table["query_budget"].dtype == "Int64"
    # as an earlier version wrote it
    content = (out / "queries.csv").read_text()
    (out / "queries.csv").write_text(content.replace(",20,", ",20.0,"))
    manifest = json.loads((out / "manifest.json").read_text())
    del manifest["seal"]
    found = hashlib.sha256((out / "queries.csv").read_bytes()).hexdigest()
    manifest["tables"]["queries.csv"] = found
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert quintain("run", suite, "--out", out, "--device", "cpu").code == 0
    assert (out / "queries.csv").read_text() == content


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["autoattack", "blackbox", "quickstart", "search"])
def test_a_whole_bundled_suite_is_run_twice(suite, tmp_path, quintain, snapshot):
    command = ["run", suite, "--out", tmp_path / "out", "--device", "cpu"]
    first = quintain(*command)
    assert first.code == 0, first.err
    before = snapshot(tmp_path / "out")
    assert "were there already" in quintain(*command).out
    after = snapshot(tmp_path / "out")
    del before["suite.toml"], after["suite.toml"]
    assert after == before
