"""Models without useful gradients: attacked through surrogates and means, and naively beside it."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from quintain.attacks.gradients.bpda import BPDA
from quintain.attacks.gradients.eot import EOT
from quintain.attacks.gradients.smoothed import Smoothed
from quintain.attacks.parts.losses import Margin
from quintain.attacks.white_box.fab import FABT
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter, BadSuite
from quintain.bench.api.rng import noise
from quintain.bench.engine.config import flatten_cascade
from quintain.bench.report.tables import WORST_CASE
from quintain.bench.store.checkpoints import save_checkpoint
from quintain.bench.suite.config import read_suite
from quintain.bench.suite.keys import Keys
from quintain.bench.suite.plan import make_plan
from quintain.bench.training.load import open_ready
from quintain.bench.victim.traits import Adaptation, ModelTraits, adapts, misses, naive

NONE = (
    '{ name = "none", epochs = 4, batch_size = 32, learning_rate = 0.1, '
    'augmentation = "none", validate_every = 4 }'
)
DEFENSES = f"""
[[defenses]]
name = "none"
epochs = 4
batch_size = 32
learning_rate = 0.1
augmentation = "none"
validate_every = 4

[[defenses]]
name = "bit-depth"
bits = 2
base = {NONE}

[[defenses]]
name = "random-resize-pad"
base = {NONE}
"""
ATTACKS = """
[[attacks]]
name = "pgd"
steps = 4
loss = "margin"

[[attacks]]
name = "square"
steps = 10
"""
EPSILONS = ["0.03", "0.1"]


class Broken(nn.Module):
    """Few grey levels, by a way that the gradient cannot follow."""

    differentiable = False

    def forward(self, x):
        return torch.from_numpy(np.round(x.detach().cpu().numpy() * 8) / 8).to(x)


class Jitter(nn.Module):
    stochastic = True

    def forward(self, x):
        return x + 0.2 * noise(x).normal(x.shape[1:], "jitter")


def success(module, digits, attack, count=40, epsilon=0.15, **named):
    x, y = digits.images[:count], digits.labels[:count]
    settings = {"epsilons": [epsilon], "search": "exhaustive"} | named
    return evaluate(module, x, y, attack, **settings)


# ------------------------------------------------------------------------- what is told of whom


def test_natures_are_told_by_layers_and_attributes():
    assert ModelTraits.of_module(nn.Sequential(nn.Linear(2, 2))).ordinary
    both = nn.Sequential(Jitter(), nn.Sequential(Broken()))
    assert ModelTraits.of_module(both) == ModelTraits(differentiable=False, stochastic=True)
    assert ModelTraits.of(None, Broken()).needs == {"differentiable"}


def test_what_attacks_adapt_to_is_told_by_their_parts():
    assert adapts(PGD()) == frozenset()
    nested = PGD(gradient=EOT(gradient=BPDA()))
    assert adapts(nested) == {"differentiable", "stochastic"}
    flat, random = ModelTraits(differentiable=False), ModelTraits(stochastic=True)
    assert misses([PGD()], flat)
    assert misses([PGD(gradient=EOT())], flat)
    assert not misses([PGD(gradient=EOT())], random)
    assert not misses([PGD()], ModelTraits())
    square = registry.build("attacks", "square")
    assert not misses([square, registry.build("attacks", "pgd-nes")], flat)
    parts = [one.attack for one in flatten_cascade([registry_stage("strongest")])]
    assert misses(parts, random)


def registry_stage(name):
    from quintain.bench.engine.config import AttackStage

    return AttackStage(registry.build("attacks", name))


# ------------------------------------------------------------------------------ of one's own


@pytest.mark.parametrize(
    "attack",
    [
        PGD(steps=15, loss=Margin()),
        PGD(steps=15, loss=Margin(), gradient=BPDA()),
        PGD(steps=15, loss=Margin(), gradient=Smoothed(temperature=0.1)),
        FABT(steps=10, targets=2),
    ],
    ids=["autograd", "bpda", "another surrogate gradient", "logits of its own"],
)
def test_a_model_without_gradient_is_attacked_through_surrogates(digits, attack):
    module = nn.Sequential(Broken(), digits.module)
    found = success(module, digits, attack)
    assert found.curve["attack_success_rate"].item() > 0.4
    assert not any(flag.startswith(("vanishing", "not-reproduced")) for flag in found.flags)
    assert not module[0]._forward_hooks


@pytest.mark.parametrize("attack", [PGD(steps=5, random_start=False), FABT(steps=4, targets=2)])
def test_a_naive_attack_finds_no_gradient_and_does_not_break(digits, attack):
    module = nn.Sequential(Broken(), digits.module)
    found = success(module, digits, attack, adaptive=False)
    assert found.curve["attack_success_rate"].item() < 0.1
    assert "vanishing-gradients:100%" in found.flags


def test_a_model_that_breaks_the_graph_without_saying_so_is_refused(digits):
    class Silent(Broken):
        differentiable = True

    with pytest.raises(Exception, match="cannot be differentiated"):
        success(nn.Sequential(Silent(), digits.module), digits, PGD(steps=2))


@pytest.mark.parametrize(
    ("gradient", "each"), [("autograd", 6), ({"name": "eot", "samples": 3}, 3)]
)
def test_gradients_of_a_stochastic_model_are_means_over_draws(digits, gradient, each):
    module = nn.Sequential(Jitter(), digits.module)
    spec = {"name": "pgd", "steps": 2, "gradient": gradient}
    found = success(module, digits, spec, count=20, epsilon=1e-6, eot_samples=6)
    under = found.records[found.records["under_attack"]]
    assert set(under["backward"]) == {2 * each}
    assert set(under["forward"]) == {2 * each + 1}
    once = success(module, digits, spec, count=20, epsilon=1e-6, adaptive=False)
    naive = {2 * (3 if isinstance(gradient, dict) else 1)}
    assert set(once.records["backward"][once.records["under_attack"]]) == naive


def test_logits_with_their_graph_are_means_over_draws_too(digits):
    module = nn.Sequential(Jitter(), digits.module)
    for samples in (1, 4):
        attack = FABT(steps=3, targets=1)
        found = success(module, digits, attack, count=20, eot_samples=samples)
        under = found.records[found.records["under_attack"]]
        assert (under["backward"] % samples == 0).all()
        assert under["backward"].max() == 3 * samples


def test_means_over_draws_do_not_depend_on_the_batch(digits):
    module = nn.Sequential(Broken(), Jitter(), digits.module)
    settings = {"epsilons": [0.05, 0.1], "search": "bracket", "eot_samples": 3}
    attack = PGD(steps=4)
    whole = success(module, digits, attack, batch_size=64, **settings)
    x, y = digits.images[:40], digits.labels[:40]
    turned = torch.arange(40).flip(0)
    other = evaluate(
        module, x[turned], y[turned], attack, indices=turned, batch_size=16, **settings
    )
    assert whole.records.equals(other.records[::-1].reset_index(drop=True))


def test_a_query_budget_counts_every_draw(digits):
    module = nn.Sequential(Jitter(), digits.module)
    found = success(module, digits, PGD(steps=50), epsilon=1e-6, query_budget=25)
    under = found.records[found.records["under_attack"]]
    assert (under["queries"] == 25).all()


def test_eot_samples_must_be_a_number_of_draws(linear):
    with pytest.raises(BadParameter, match="eot_samples must be an integer of at least 1, not 0"):
        evaluate(linear.module, linear.images, linear.labels, eot_samples=0)


def test_a_stochastic_network_lends_the_same_gradients_every_time(digits):
    lender = nn.Sequential(Jitter(), digits.module)
    spec = {"name": "pgd", "steps": 3, "gradient": {"name": "network", "network": "n"}}
    made = []
    for seed, size in ((0, 64), (1, 16)):
        torch.manual_seed(seed)
        found = success(
            digits.module, digits, spec, attacker_networks={"n": lender}, batch_size=size
        )
        made.append(found.adversarials(0.15))
    assert torch.equal(*made)


# ------------------------------------------------------------------------------------ suites


@pytest.fixture
def plan(write_suite):
    def make(**changes):
        path = write_suite(**{"defenses": DEFENSES, "attacks": ATTACKS} | changes)
        suite, _, folder = read_suite(str(path))
        return make_plan(suite, path.name, folder)

    return make


def met(made):
    return {
        one.title: [made.defended_models[number].defense_title for number in sorted(one.meets)]
        for one in made.tasks
    }


def test_naive_attacks_stand_beside_those_that_need_help(plan):
    every, strange = ["none", "bit-depth", "random-resize-pad"], ["bit-depth", "random-resize-pad"]
    own = '[[attacks]]\nname = "pgd-eot"\n[[attacks]]\nname = "pgd-nes"\n'
    made = plan(attacks=ATTACKS + own, eot_samples="7")
    assert list(met(made)) == [
        "pgd",
        "pgd (naive)",
        "square",
        "pgd-eot",
        "pgd-eot (naive)",
        "pgd-nes",
    ]
    assert met(made) == {
        "pgd": every,
        "pgd (naive)": strange,
        "square": every,
        "pgd-eot": every,
        "pgd-eot (naive)": ["bit-depth"],
        "pgd-nes": every,
    }
    approaches = {one.title: one.settings.adaptation for one in made.tasks}
    assert approaches["pgd"] == Adaptation(samples=7)
    assert approaches["pgd (naive)"] == naive(ModelTraits())
    assert approaches["square"] == Adaptation()
    one = plan(attacks='[[attacks]]\nname = "pgd"\neot_samples = 3\n').tasks[0]
    assert one.settings.adaptation == Adaptation(samples=3)


def test_ordinary_models_meet_nothing_naive(plan):
    defenses = '[[defenses]]\nname = "none"\n'
    assert list(met(plan(defenses=defenses))) == ["pgd", "square"]


def test_the_transfer_matrix_meets_all_but_the_lender(plan):
    made = plan(transfer="true")
    lent = {one.source: one.meets for one in made.tasks if one.source is not None}
    assert lent == {0: {1, 2}, 1: {0, 2}, 2: {0, 1}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"attacks": '[[attacks]]\nname = "pgd"\nlabel = "my (naive)"\n'}, "tables use that name"),
        ({"eot_samples": "0"}, "eot_samples: input should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(plan, changes, said):
    with pytest.raises(BadSuite, match=said):
        plan(**changes)


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory):
    """A run with an ordinary, a flat and a random defended model."""
    from quintain.bench import cli

    folder = tmp_path_factory.mktemp("adaptive")
    models = '[[models]]\nname = "resnet"\ndepth = 8\nwidth = 0.25\n'
    top = (
        f'dataset = "digits"\nn_examples = 40\nepsilons = {json.dumps(EPSILONS)}\neot_samples = 4\n'
    )
    (folder / "suite.toml").write_text(top + models + DEFENSES + ATTACKS)
    with pytest.raises(SystemExit) as ending:
        cli.main(["run", str(folder / "suite.toml"), "--out", str(folder / "out")])
    assert ending.value.code == 0
    return folder


def test_the_table_shows_both_numbers_and_the_adaptive_one_is_lower(finished):
    table = pd.read_csv(finished / "out" / "tradeoff.csv", keep_default_na=False)
    at = table[table["epsilon"] == 0.1].set_index(["defense", "attack"])
    naive, adaptive = (
        at.loc["bit-depth", one]["robust_accuracy"] for one in ("pgd (naive)", "pgd")
    )
    assert naive > adaptive + 0.3
    random = at.loc["random-resize-pad"]["robust_accuracy"]
    assert random["pgd"] <= random["pgd (naive)"] + 0.1
    assert at.loc["none"].index.tolist() == ["pgd", "square", WORST_CASE]
    assert at.loc["bit-depth"].index.tolist() == ["pgd", "pgd (naive)", "square", WORST_CASE]
    for defense in ("bit-depth", "random-resize-pad"):
        rows = at.loc[defense]["robust_accuracy"]
        assert rows[WORST_CASE] <= rows.min()
    flags = at.loc["bit-depth"]["flags"]
    assert flags["pgd (naive)"] == "vanishing-gradients:100%"
    assert flags["pgd"] == ""
    assert "vanishing" not in flags[WORST_CASE]
    assert (table["backward_mean"][table["attack"] == "square"] == 0).all()


def test_a_finished_run_is_not_run_again_and_lost_cells_are(finished, quintain, snapshot):
    command = ("run", finished / "suite.toml", "--out", finished / "out")
    before = snapshot(finished / "out" / "records")
    again = quintain(*command)
    assert "8 of 8 cells done (8 were there already)" in again.out
    assert snapshot(finished / "out" / "records") == before
    manifest = json.loads((finished / "out" / "manifest.json").read_text())
    (lost,) = [
        one for one in manifest["cells"]
        if (one["defense"], one["attack"]) == ("bit-depth", "pgd (naive)")
    ]  # fmt: skip
    (finished / "out" / lost["file"]).unlink()
    assert "8 of 8 cells done (7 were there already)" in quintain(*command).out
    after = json.loads((finished / "out" / "manifest.json").read_text())
    keys = {(one["defense"], one["attack"]): one["key"] for one in manifest["cells"]}
    assert keys == {(one["defense"], one["attack"]): one["key"] for one in after["cells"]}
    assert len(set(keys.values())) == 8


def test_other_draws_are_other_cells_of_white_box_attacks_alone(plan):
    keys = []
    for samples in ("4", "5"):
        made = Keys(plan(eot_samples=samples), torch.device("cpu"))
        named = {attack: made.cell((2, attack)) for attack in made.plan.tasks_on(2)}
        keys.append({made.plan.tasks[one].title: key for one, key in named.items()})
    assert {name for name in keys[0] if keys[0][name] != keys[1][name]} == {"pgd"}


# ------------------------------------------------------------------------------- checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """Write a checkpoint of a small network that a defense wraps."""
    spec = {"name": "resnet", "depth": 8, "width": 0.25}
    data = registry.build("datasets", "digits").load("train")

    def write(defense, name="theirs"):
        plain = open_ready(None, spec, data)
        module = registry.build("defenses", defense).wrap(plain)
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(path, module, {"model": spec, "defense_spec": defense})
        return path, spec, data, module

    return write


def ready(*names):
    return "".join(
        '[[models]]\nname = "resnet"\ndepth = 8\nwidth = 0.25\n'
        f'label = "{one}"\ncheckpoint = "{one}.safetensors"\n'
        for one in names
    )


def test_a_checkpoint_is_wrapped_by_the_defense_that_it_names(checkpoint, plan):
    defense = {"name": "bit-depth", "bits": 1, "base": {"name": "random-resize-pad"}}
    path, spec, data, module = checkpoint(defense)
    opened = open_ready(path, spec, data)
    assert [name for name, _ in opened.named_modules()] == [
        name for name, _ in module.named_modules()
    ]
    made = plan(models=ready("theirs"), defenses="")
    assert made.defended_models[0].traits == ModelTraits(differentiable=False, stochastic=True)
    assert list(met(made)) == ["pgd", "pgd (naive)", "square"]


def test_the_same_weights_behind_another_layer_are_another_network(checkpoint, plan):
    for name, bits in (("one", 1), ("two", 2)):
        checkpoint({"name": "bit-depth", "bits": bits}, name)
    keys = Keys(plan(models=ready("one", "two"), defenses=""), torch.device("cpu"))
    one, two = ({keys.cell((at, n)) for n in keys.plan.tasks_on(at)} for at in (0, 1))
    assert not one & two
    assert keys.networks[0] != keys.networks[1]


def test_a_checkpoint_of_a_defense_that_is_not_there_is_refused(checkpoint, plan):
    path, spec, _, module = checkpoint({"name": "bit-depth"})
    save_checkpoint(path, module, {"model": spec, "defense_spec": {"name": "bit-dept"}})
    with pytest.raises(BadSuite, match=r"models\[1\]: checkpoint .* unknown defense 'bit-dept'"):
        plan(models=ready("theirs"), defenses="")
