"""benchmarks.csv and the table on the terminal."""

import io

import pandas as pd
import pytest
import torch

from quintain.bench.tools.speed.contenders import Job
from quintain.bench.tools.speed.machine import Machine, flops_per_step, matmul_rate
from quintain.bench.tools.speed.measurements import Score
from quintain.bench.tools.speed.table import COLUMNS, Entry, benchmarks_table, summary
from quintain.bench.tools.speed.timing import Spread

CPU = Machine("cpu", "Some Processor", 2, "2.15")


def entry(contender, seconds, timed=4, robust=(1.0, 0.75, 0.5, 0.25), **more):
    job = Job(None, range(8), range(8), 10, 20, 0.125, 8)
    ratio = Spread.of([one / 2 for one in seconds])
    score = Score(
        "curve-4", contender, "1.0", job, (0.1, 0.2, 0.3, 0.4), timed, seconds, ratio,
        40.0, 42.0, robust,
    )  # fmt: skip
    return Entry("cnn-standard", "digits", score, **more)


ENTRIES = [
    entry("bare loop", (2.0, 2.0), timed=1, robust=(None, None, 0.5, None)),
    entry("quintain", (1.0, 2.0)),
    entry("slow", (40.0, 40.0), timed=1, robust=(None, None, 0.5, None)),
    entry("fast", (20.0, 30.0), timed=1, robust=(None, None, 0.5, None)),
]


def test_a_row_holds_everything_that_the_comparison_depends_on():
    table = pd.read_csv(io.StringIO(benchmarks_table(ENTRIES, CPU).to_csv(index=False)))
    assert tuple(table.columns) == COLUMNS
    row = table[table["contender"] == "quintain"].iloc[0]
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (0.75, 0.5, 1.0)
    assert (row["seconds"], row["repeats"], row["timed_epsilons"]) == (1.5, 2, 4)
    assert (row["forward"], row["backward"], row["runs_worth"]) == (40, 42, 2)
    assert (row["epsilons"], row["robust_accuracy"]) == ("0.1 0.2 0.3 0.4", "1 0.75 0.5 0.25")
    assert (row["device"], row["device_name"], row["threads"]) == ("cpu", "Some Processor", 2)
    assert (row["precision"], row["torch"]) == ("float32", 2.15)
    assert table["robust_accuracy"].iloc[0] == "- - 0.5 -"


def test_the_summary_says_what_was_scaled_and_names_the_best_peer():
    text = summary(ENTRIES, CPU)
    assert "| fast (1 of 4 epsilons, scaled)" in text
    assert "scaled" not in next(line for line in text.splitlines() if "quintain" in line)
    assert "quintain is 17.5 times (15 to 20) as fast as fast, the best peer" in text
    assert "images x steps" not in text
    assert "| 2.00   | 0.50 " in text  # runs, and the accuracy at the middle epsilon


def test_without_peers_there_is_nothing_to_boast_of():
    assert "best peer" not in summary(ENTRIES[:2], CPU)


def test_absolute_rates_are_shown_with_the_card_s_name():
    card = Machine("cuda", "Some Card", 2, "2.15", {"float32": 1e12})
    rates = {"throughput": 12345.6, "matmul_share": 0.25}
    text = summary([entry(name, (2.0,), **rates) for name in ("bare loop", "quintain")], card)
    assert "On Some Card" in text
    assert "12,346" in text
    assert "25.0%" in text


def test_the_attack_alone_is_set_beside_the_captured_step_as_precise_as_it():
    names = ["bare loop", "bare loop, captured, float32", "quintain, attack alone", "quintain"]
    text = summary(
        [entry(name, (one,)) for name, one in zip(names, (4, 2, 2.5, 3), strict=True)], CPU
    )
    assert "float32: the attack alone has 0.80 (0.80 to 0.80) of the throughput" in text
    assert "best peer" not in text


@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16"])
def test_the_matrix_rate_counts_two_operations_for_each_product(dtype):
    ticks = iter(range(0, 1000, 2))
    rate = matmul_rate(torch.device("cpu"), lambda: next(ticks), dtype, side=8)
    assert rate == 2 * 8**3 / 2
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_card_is_measured_in_the_arithmetic_that_was_used():
    card = Machine("cuda", "Some Card", 2, "2.15", {"float32": 1.0, "bfloat16": 8.0})
    assert card.matmul_rate("bfloat16+channels-last+folded") == 8.0
    assert card.matmul_rate("float32") == 1.0


def test_operations_of_a_step_are_those_of_its_products(linear):
    module = linear.module.requires_grad_(False)
    job = Job(module, linear.images, linear.labels, 2, 4, 0.5, 8)
    # 16 pixels into 2 logits and back, a multiplication and an addition each.
    assert flops_per_step(job) == 2 * (2 * 16 * 2)


def test_the_machine_is_named():
    machine = Machine.of(torch.device("cpu"), lambda: 0.0)
    assert machine.name
    assert machine.device == "cpu"
    assert machine.matmul_rate("float32") is None
