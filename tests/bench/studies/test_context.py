"""What studies are given: examples drawn as a suite draws them, of every class."""

import torch

from quintain.bench.api.data import ImageData
from quintain.bench.api.epsilon import Epsilon
from quintain.bench.api.shared.progress_bars import Bar
from quintain.bench.datasets.in_memory import in_memory
from quintain.bench.studies.context import Context


class ClassesInTurn:
    """A dataset whose classes come in turn, so that every fourth image is of one of two."""

    def load(self, split: str) -> ImageData:
        count = {"train": 400, "test": 80}[split]
        labels = torch.arange(count) % 8
        images = torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        return in_memory(images, labels, tuple("abcdefgh"))


def context(n_examples, seed=0):
    return Context(
        ClassesInTurn(),
        "turns",
        n_examples,
        "Linf",
        Epsilon.parse("8/255"),
        seed,
        torch.device("cpu"),
        None,
        Bar("study"),
    )


def test_some_examples_of_a_split_are_drawn_from_all_classes():
    given = context(20)
    assert len(given.data("test")) == 20
    assert len(given.data("test", 5)) == 5
    assert len(given.data("test", 50)) == 20
    assert given.data("train", 100).labels.unique().tolist() == [*range(8)]
    assert len(given.data("train")) == 400


def test_the_seed_draws_the_examples():
    one, same, other = (context(20, seed).data("test").labels for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
