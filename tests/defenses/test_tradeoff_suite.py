import pytest

from quintain.bench import cli
from quintain.bench.report.write import read_table

BETAS = ["0.1", "0.3", "1", "3", "10"]


@pytest.mark.slow
def test_robustness_rises_and_accuracy_falls_with_beta(tmp_path, monkeypatch):
    """The bundled suite, end to end: the ends of the sweep differ by more than their intervals."""
    monkeypatch.setenv("QUINTAIN_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SystemExit) as ending:
        cli.main(["run", "tradeoff", "--out", str(tmp_path / "run"), "--device", "cpu"])
    assert ending.value.code == 0
    table = read_table(tmp_path / "run" / "leaderboard.csv").set_index("defense")
    least, most = table.loc["trades beta=0.1"], table.loc["trades beta=10"]
    assert most["ci_low"] > least["ci_high"]
    assert most["clean_accuracy"] < least["clean_accuracy"] - 0.02
    sweep = table.loc[[f"trades beta={one}" for one in BETAS]]
    assert (sweep["robust_accuracy"].diff().dropna() > -0.05).all()  # rising, within intervals
    assert (sweep["clean_accuracy"].diff().dropna() < 0.02).all()
    assert (sweep["robust_accuracy"] > table.loc["none", "ci_high"]).all()
    assert (table["flags"] == "").all()
