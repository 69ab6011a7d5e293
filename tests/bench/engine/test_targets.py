"""Targeted attacks by rule: which class, which examples, and rows of their own in the tables."""

import re

import pandas as pd
import pytest
import torch
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter
from quintain.bench.engine.target_choice import choose_targets
from quintain.bench.engine.targets import NO_TARGET, read_targets
from quintain.bench.store.run_directory import read_cells, read_manifest
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.keys import Keys
from quintain.bench.suite.plan import make_plan

LABELS = torch.arange(200) % 10
EXAMPLES = torch.arange(200)


def chosen(rule, seed=0, examples=EXAMPLES, labels=LABELS, logits=None, classes=10):
    return choose_targets(rule, labels, classes, seed, examples, lambda: logits)


def test_next_is_the_following_class():
    assert chosen("next").tolist() == [(one + 1) % 10 for one in LABELS.tolist()]


def test_random_targets_are_even_and_never_the_label():
    labels, examples = torch.arange(9000) % 10, torch.arange(9000)
    drawn = chosen("random", labels=labels, examples=examples)
    assert not bool((drawn == labels).any())
    assert drawn.min() == 0
    assert drawn.max() == 9
    counts = torch.bincount(drawn * 10 + labels, minlength=100).reshape(10, 10)
    off = counts[~torch.eye(10, dtype=torch.bool)]
    assert int(off.min()) > 55  # 100 expected: 4.5 standard deviations
    assert int(off.max()) < 145


def test_random_targets_depend_on_the_seed_and_the_example_alone():
    whole, order = chosen("random"), torch.randperm(200, generator=torch.Generator().manual_seed(1))
    assert torch.equal(chosen("random", examples=EXAMPLES[order], labels=LABELS[order]),
                       whole[order])  # fmt: skip
    assert not torch.equal(chosen("random", seed=1), whole)
    assert chosen("random", labels=LABELS % 2, classes=2).tolist() == (1 - LABELS % 2).tolist()


def test_the_least_likely_class_is_never_the_label():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 1.0, 1.0]])
    found = chosen("least-likely", labels=torch.tensor([0, 0, 0]), examples=torch.arange(3),
                   logits=logits, classes=3)  # fmt: skip
    assert found.tolist() == [1, 2, 1]


def test_one_class_leaves_its_own_examples_out():
    found = chosen(3)
    assert torch.equal(found == NO_TARGET, LABELS == 3)
    assert set(found.tolist()) == {3, NO_TARGET}
    with pytest.raises(BadParameter, match="targets = 10: there are 10 classes"):
        chosen(10)


@pytest.mark.parametrize(
    ("written", "message"),
    [("leastlikely", "did you mean 'least-likely'"), ("ll", "did you mean 'least-likely'"),
     ("nxt", "did you mean 'next'"), (-1, "nor a class"), (True, "nor a class"), (1.0, "nor a")],
)  # fmt: skip
def test_what_is_no_rule(written, message):
    with pytest.raises(BadParameter, match=message):
        read_targets(written)


@pytest.fixture(scope="module")
def three():
    """A linear model of three classes in the plane, and points that it gets right."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([[4.0, 0, 0, 0], [0, 4.0, 0, 0], [0, 0, 2.0, 0]]))
    x = 0.3 + 0.4 * torch.rand(60, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return module, x, module(x).argmax(1)


GRID = (0.05, 0.1, 0.3)


@pytest.mark.parametrize("rule", ["random", "least-likely", "next", 1])
def test_evaluate_reaches_the_class_of_the_rule(three, rule):
    module, x, y = three
    result = evaluate(module, x, y, {"name": "pgd", "steps": 5}, epsilons=GRID, targets=rule)
    with torch.no_grad():
        logits = module(x)
        adversarial = module(result.adversarials(0.3)).argmax(1)
    targets = torch.tensor(result.records["target"].to_numpy())
    expected = choose_targets(rule, y, 3, 0, torch.arange(60), lambda: logits)
    assert torch.equal(targets, expected)
    broken = torch.tensor(result.records["broken"].map(lambda one: one[2]).tolist())
    assert int(broken.sum()) > 5
    assert torch.equal(adversarial[broken], targets[broken])
    attacked = torch.tensor(result.records["under_attack"].to_numpy())
    assert torch.equal(attacked, targets != NO_TARGET)
    assert not bool(broken[~attacked].any())
    # the optimum is known: the target's pixel up, the others' down, no pixel meets the box
    weight, goal = torch.tensor([4.0, 4.0, 2.0]), targets.clamp(min=0)
    at_best = logits - 0.3 * weight
    rows = torch.arange(60)
    at_best[rows, goal] += 0.6 * weight[goal]
    others = at_best.scatter(1, goal[:, None], -torch.inf).amax(dim=1)
    margin = at_best[rows, goal] - others
    assert bool(broken[attacked & (margin > 0.1)].all())
    assert not bool(broken[margin < -1e-4].any())


def test_a_rule_gives_the_same_as_its_classes(three):
    module, x, y = three
    spec = {"name": "pgd", "steps": 5}
    by_rule = evaluate(module, x, y, spec, epsilons=GRID, targets="next")
    by_hand = evaluate(module, x, y, spec, epsilons=GRID, targets=((y + 1) % 3).tolist())
    assert by_rule.records.equals(by_hand.records)


SUITE = {
    "n_examples": "30",
    "epsilons": "[0.1, 0.3]",
    "attacks": '[[attacks]]\nname = "pgd"\nsteps = 4\n[[attacks]]\nname = "rays"\nlabel = "r"\n'
    "query_budget = 20\n",
}


def test_a_suite_gives_targeted_attacks_rows_of_their_own(quintain, write_suite, tmp_path):
    plain, aimed = tmp_path / "plain", tmp_path / "aimed"
    answer = quintain("run", write_suite(**SUITE), "--out", plain, "--device", "cpu")
    assert answer.code == 0, answer.err
    suite = write_suite(**SUITE, targets='"least-likely"')
    answer = quintain("run", suite, "--out", aimed, "--device", "cpu")
    assert answer.code == 0, answer.err

    before, after = (
        pd.read_csv(one / "tradeoff.csv").drop(columns="seconds") for one in (plain, aimed)
    )
    titles = ["pgd", "r", "worst-case", "pgd (least-likely)"]
    assert list(dict.fromkeys(after["attack"])) == titles
    rest = after[after["attack"] != titles[-1]].reset_index(drop=True)
    pd.testing.assert_frame_equal(rest, before)
    boards = [pd.read_csv(one / "leaderboard.csv") for one in (plain, aimed)]
    pd.testing.assert_frame_equal(*boards)

    robust = after.pivot(index="epsilon", columns="attack", values="robust_accuracy")
    assert (robust["pgd (least-likely)"] >= robust["pgd"]).all()
    (cell,) = [one for one in read_cells(aimed)[0] if "targets" in one.about]
    assert cell.about["targets"] == "least-likely"
    assert (cell.records["target"] != cell.records["label"]).all()
    assert cell.records["broken"].map(any).any()

    again = quintain("run", suite, "--out", aimed, "--device", "cpu")
    assert again.code == 0
    assert "3 were there already" in again.out


def test_keys_of_untargeted_cells_do_not_change(write_suite):
    """A run directory of before goes on: cells keep their names, the suite says nothing new."""
    made = {}
    for targets in (None, '"random"', '"next"', "3"):
        path = write_suite(targets=targets)
        suite, _, folder = read_suite(str(path))
        plan = make_plan(suite, str(path), folder)
        named = Keys(plan, torch.device("cpu"))
        keys = {attack: named.cell((0, attack)) for attack in plan.tasks_on(0)}
        made[targets] = {plan.tasks[n].title: key for n, key in keys.items()}
        assert ("targets" in suite.resolved()) == (targets is not None)
    for rule in ("random", "next", "3"):
        there = made[rule if rule == "3" else f'"{rule}"']
        assert {one: there[one] for one in made[None]} == made[None]
        assert set(there) - set(made[None]) == {f"fgsm ({rule})", f"pgd ({rule})"}
    every = [key for keys in made.values() for key in keys.values()]
    assert len(set(every)) == 2 + 3 * 2


@pytest.mark.parametrize(
    ("targets", "attacks", "message"),
    [
        ('"leastlikely"', None, "'leastlikely' is none of .* did you mean 'least-likely'"),
        ("10", None, "targets: targets = 10: there are 10 classes"),
        ("-1", None, "targets = -1 is none of"),
        ('"next"', '[[attacks]]\nname = "rays"\n', r"targets: .*none of the attacks can aim"),
        (None, '[[attacks]]\nname = "pgd"\nlabel = "pgd (next)"\n', "cannot be called"),
    ],
)  # fmt: skip
def test_targets_that_cannot_be(quintain, write_suite, tmp_path, targets, attacks, message):
    more = {} if attacks is None else {"attacks": attacks}
    answer = quintain("run", write_suite(targets=targets, **more), "--out", tmp_path / "run")
    assert answer.code == 2
    assert re.search(message, answer.error), answer.error


def test_a_failed_targeted_cell_is_not_missed_by_the_worst_case(quintain, write_suite, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import dataclass\n"
        "from quintain.bench.api import registry\n"
        '@registry.attack("mine")\n'
        "@dataclass(frozen=True)\n"
        "class Mine:\n"
        '    access = "decision"\n'
        "    def run(self, problem):\n"
        "        assert not problem.targeted\n"
        "        return 1 - problem.x\n"
    )
    suite = write_suite(plugins='["mine.py"]', targets='"next"', epsilons="[0.2]",
                        attacks='[[attacks]]\nname = "mine"\n')  # fmt: skip
    answer = quintain("run", suite, "--out", tmp_path / "run", "--device", "cpu")
    assert answer.code == 1
    board = pd.read_csv(tmp_path / "run" / "leaderboard.csv", keep_default_na=False)
    assert "failed" not in board["flags"].iloc[0]
    states = {one["attack"]: one["status"] for one in read_manifest(tmp_path / "run")["cells"]}
    assert states == {"mine": "done", "mine (next)": "failed"}
    assert read_cells(tmp_path / "run")[1] == []
