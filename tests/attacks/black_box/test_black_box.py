"""What every black-box attack keeps to: the conformance kit's rules, and the query budget."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.tools.conformance import checks
from quintain.bench.tools.conformance.runs import Trial

SHORT = {
    "bandits": {"steps": 12},
    "boundary": {"steps": 30},
    "hop-skip-jump": {"steps": 2, "first_samples": 20},
    "pgd-rgf": {"steps": 3, "gradient": {"name": "rgf", "samples": 8}},
    "pgd-nes": {"steps": 3, "gradient": {"name": "nes", "samples": 8}},
    "pgd-spsa": {"steps": 3, "gradient": {"name": "spsa", "samples": 8}},
    "pgd-finite-differences": {
        "steps": 2,
        "gradient": {"name": "directional-differences", "directions": 4},
    },
    "rays": {"steps": 20},
    "simba": {"steps": 15, "basis": "cosines"},
    "square": {"steps": 20},
    "zoo": {"steps": 12, "searches": 3, "coordinates": 4},
}
STRENGTH = {"noise", "targeted"}  # what so few steps cannot show
RULES = [one for one in checks.CHECKS if one.__name__ not in STRENGTH]


def spec(name):
    return {"name": name, **SHORT[name]}


def test_all_that_need_many_queries_are_here():
    attacks = {one.name: registry.build("attacks", one.name) for one in registry.plugins("attacks")}
    black = {
        name
        for name, one in attacks.items()
        if one.access != "white-box" and not getattr(one, "baseline", False)
    }
    assert black - {"transfer", "transfer-strong"} == set(SHORT)


@pytest.mark.parametrize("name", SHORT)
def test_it_keeps_the_rules(name):
    trial = Trial(partial(registry.build, "attacks", spec(name)))
    for rule in RULES:
        rule(trial)


@pytest.fixture(scope="module")
def networks():
    """One that nothing breaks, so that every budget can be spent, and one that falls at times."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules = [nn.Sequential(nn.Flatten(), nn.Linear(16, 3)) for _ in range(2)]
    with torch.no_grad():
        modules[0][1].bias[0] = 1000.0
    return modules


@pytest.mark.parametrize("name", SHORT)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    budget=st.integers(1, 70),
    batch_size=st.integers(1, 9),
    examples=st.integers(1, 7),
    hard=st.booleans(),
    seed=st.integers(0, 3),
    owned=st.booleans(),
)
def test_not_one_query_over_the_budget(
    networks, name, budget, batch_size, examples, hard, seed, owned
):
    module = networks[0 if hard else 1]
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(examples, 1, 4, 4, generator=generator)
    labels = module(x).argmax(1)
    norm = "Linf" if name == "rays" else "L2"
    result = evaluate(
        module, x, labels, spec(name), norm=norm, epsilons=[0.05, 0.4], query_budget=budget,
        batch_size=batch_size, seed=seed, attacker_images=x.flip(0) if owned else None,
    )  # fmt: skip
    queries = result.records["queries"].to_numpy()
    assert (queries <= budget).all()
    solved = np.array(result.records["solved"].tolist())
    assert (solved <= queries[:, None]).all()
    assert ((solved > 0) == np.array(result.records["broken"].tolist())).all()
    if hard:
        assert not (solved > 0).any()
        assert (queries > 0).all()
