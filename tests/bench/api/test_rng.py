import numpy as np
import pytest
import torch
from builders import draws
from scipy.stats import chisquare, kstest

from quintain.bench.api.rng import philox


# Random123 1.14, tests/kat_vectors: philox4x32 10
@pytest.mark.parametrize(
    ("counter", "key", "answer"),
    [
        ("00000000 " * 4, "00000000 " * 2, "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff " * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            "243f6a88 85a308d3 13198a2e 03707344",
            "a4093822 299f31d0",
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_published_answers(counter, key, answer):
    def words(text):
        return tuple(torch.tensor(int(one, 16)) for one in text.split())

    found = philox(words(counter), words(key))
    assert [f"{int(one):08x}" for one in found] == answer.split()


def test_uniform_is_uniform():
    drawn = draws(range(20), seed=7).uniform((1000,), "start").flatten().numpy()
    assert drawn.dtype == np.float32
    assert drawn.min() >= 0.0
    assert drawn.max() < 1.0
    assert kstest(drawn, "uniform").pvalue > 0.01


def test_normal_is_normal():
    drawn = draws(range(20), seed=7).normal((3, 333), "start")
    assert drawn.shape == (20, 3, 333)
    assert drawn.isfinite().all()
    assert kstest(drawn.flatten().numpy(), "norm").pvalue > 0.01


def test_neighbours_are_not_correlated():
    drawn = draws(range(40)).uniform((500,), "start").numpy()
    off_diagonal = np.corrcoef(drawn)[~np.eye(40, dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(500)


@pytest.mark.parametrize("draw", ["uniform", "normal", "permutation"])
def test_an_example_draws_the_same_in_any_batch(draw):
    def drawn(examples):
        count = 7 if draw == "permutation" else (7,)
        return getattr(draws(examples, seed=3, restart=2, step=5), draw)(count, "start")

    alone = drawn([9])[0]
    assert torch.equal(drawn([4, 9, 2])[1], alone)
    assert torch.equal(drawn(range(64))[9], alone)


def test_everything_that_names_a_draw_changes_it():
    reference = draws([5], 1, 2, 3).uniform((8,), "start")
    others = [
        draws([5], 0, 2, 3).uniform((8,), "start"),
        draws([6], 1, 2, 3).uniform((8,), "start"),
        draws([5], 1, 3, 3).uniform((8,), "start"),
        draws([5], 1, 2, 4).uniform((8,), "start"),
        draws([5], 1, 2, 3).uniform((8,), "axes"),
        draws([5], 1, 3, 2).uniform((8,), "start"),
    ]
    drawn = torch.cat([reference, *others])
    assert len(drawn.unique()) == drawn.numel()


def test_seeds_are_used_up_to_the_last_bit():
    assert not torch.equal(
        draws([0], seed=2**32 - 1).words(4, "start"), draws([0], seed=2**31 - 1).words(4, "start")
    )


def test_permutations_hold_everything_once_and_favour_nothing():
    orders = draws(range(2000)).permutation(6, "axes")
    assert torch.equal(orders.sort(dim=1).values, torch.arange(6).expand(2000, 6))
    first = torch.bincount(orders[:, 0], minlength=6)
    assert chisquare(first.numpy()).pvalue > 0.01
