"""The bundled suite of every defense, end to end: the orderings that the literature has."""

import pytest

from quintain.bench import cli
from quintain.bench.api import registry
from quintain.bench.report.write import read_table

TRAINED = ("fast", "free", "pgd", "pgd + weights", "trades", "mart", "interval-bounds")
TRANSFORMED = ("bit-depth", "jpeg", "median-filter", "total-variation", "random-resize-pad")
DETECTING = ("feature-squeezing", "mahalanobis", "knn-distance")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory."""
    folder = tmp_path_factory.mktemp("defenses")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUINTAIN_CACHE", str(folder / "cache"))
        with pytest.raises(SystemExit) as ending:
            cli.main(["run", "defenses", "--out", str(folder / "run"), "--device", "cpu"])
    assert ending.value.code == 0
    return folder / "run"


@pytest.fixture(scope="module")
def robust(run):
    """Robust accuracy: (defense, attack) x epsilon."""
    table = read_table(run / "tradeoff.csv")
    return table.pivot(
        index=["defense", "attack"], columns="epsilon", values="robust_accuracy"
    ).sort_index()


@pytest.mark.slow
def test_every_defense_takes_part_and_learns(run, robust):
    manifest = read_table(run / "leaderboard.csv")
    assert not manifest["flags"].str.contains("did not learn|failed|contradicted").any()
    labels = {"adversarial-training", "gaussian-noise"}  # under other titles, and as a base
    assert {one.name for one in registry.plugins("defenses")} - labels <= set(manifest["defense"])


@pytest.mark.slow
@pytest.mark.parametrize("defense", TRAINED)
def test_adversarially_trained_networks_stand_above_the_standard_one(robust, defense):
    assert (
        robust.loc[(defense, "worst-case"), "0.1"] > robust.loc[("none", "worst-case"), "0.1"] + 0.4
    )


@pytest.mark.slow
@pytest.mark.parametrize("defense", TRANSFORMED)
def test_transformations_are_near_zero_once_attacked_adaptively(robust, defense):
    assert robust.loc[(defense, "worst-case"), "0.1"] <= 0.1
    assert robust.loc[(defense, "worst-case"), "0.15"] <= 0.02
    if (defense, "pgd (naive)") in robust.index and defense != "random-resize-pad":
        assert robust.loc[(defense, "pgd (naive)"), "0.15"] > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("defense", DETECTING)
def test_detectors_stop_naive_attacks_rather_than_adaptive_ones(robust, defense):
    naive, adaptive = (robust.loc[(defense, name)] for name in ("apgd-ce (naive)", "apgd-ce"))
    assert naive["0.1"] > adaptive["0.1"] + 0.15
    assert adaptive["0.2"] <= 0.05


@pytest.mark.slow
@pytest.mark.parametrize("defense", ["randomised-smoothing", "interval-bounds"])
def test_what_is_certified_is_below_what_attacks_leave_at_every_radius(robust, defense):
    certified, empirical = robust.loc[(defense, "certified")], robust.loc[(defense, "worst-case")]
    assert (certified <= empirical).all()
    assert certified["0.01"] > 0.5
