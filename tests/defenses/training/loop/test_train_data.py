import pytest
import torch
from builders import random_images

from quintain.bench.api.errors import BadData
from quintain.defenses.training.loop import train_data
from quintain.defenses.training.loop.train_data import Examples, split

CPU = torch.device("cpu")


def parts(data, share=0.25, seed=3):
    return split(data, share, torch.Generator().manual_seed(seed), CPU)


def everything(part):
    return part.read(torch.arange(len(part)))


def test_split_is_a_partition_that_follows_the_seed(image_data):
    x = torch.rand(40, 1, 4, 4)
    data = image_data(x, torch.arange(40), 40)
    training, held_out = parts(data)
    assert (len(training), len(held_out)) == (30, 10)
    labels = [everything(one)[1].tolist() for one in (training, held_out)]
    assert sorted(labels[0] + labels[1]) == list(range(40))
    assert everything(parts(data)[1])[1].tolist() == labels[1]
    assert everything(parts(data, seed=4)[1])[1].tolist() != labels[1]
    for one in (training, held_out):
        images, own = everything(one)
        assert torch.equal(images, x[own])


def test_nothing_is_held_out_for_a_share_of_nothing(image_data):
    training, held_out = parts(image_data(torch.rand(4, 1, 4, 4), torch.zeros(4).long()), 0.0)
    assert len(training) == 4
    assert held_out is None


def test_too_few_images_are_refused(image_data):
    data = image_data(torch.rand(1, 1, 4, 4), torch.zeros(1).long())
    with pytest.raises(BadData, match="1 images are too few"):
        parts(data, 0.1)


GREY = torch.arange(256).float().reshape(16, 1, 4, 4) / 255
FINE = random_images(16, 1, 4, 4)


@pytest.mark.parametrize("chunk", [4, 100])
@pytest.mark.parametrize("x", [GREY, FINE, torch.cat([GREY, FINE])], ids=["grey", "fine", "mixed"])
def test_what_is_read_back_is_exact_however_it_is_held(x, chunk, image_data, monkeypatch):
    monkeypatch.setattr(train_data, "CHUNK", chunk)
    data = image_data(x, torch.arange(len(x)), len(x))
    rows = torch.tensor([3, 1, 15, 3])
    for limit in (0, 300, 10**6):
        monkeypatch.setattr(train_data, "HELD_BYTES", limit)
        images, labels = Examples(data, torch.arange(len(x)).flip(0), CPU).read(rows)
        assert torch.equal(images, x.flip(0)[rows])
        assert torch.equal(labels, len(x) - 1 - rows)


def test_grey_levels_are_held_as_bytes_and_large_sets_not_at_all(image_data, monkeypatch):
    def held(x):
        data = image_data(x, torch.zeros(len(x)).long())
        return Examples(data, torch.arange(len(x)), CPU)._pixels

    assert held(GREY).dtype == torch.uint8
    assert held(FINE).dtype == torch.float32
    monkeypatch.setattr(train_data, "HELD_BYTES", 256)
    assert held(GREY).dtype == torch.uint8
    assert held(FINE) is None
    monkeypatch.setattr(train_data, "HELD_BYTES", 255)
    assert held(GREY) is None
