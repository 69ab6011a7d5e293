import pytest
import torch

from quintain.bench.api.errors import BadData, BadParameter
from quintain.bench.datasets.in_memory import fingerprint, select
from quintain.bench.datasets.shapes import Shapes

SMALL = Shapes(size=24, n_train=16, n_test=16)


def pixels(data):
    return data.images.read(torch.arange(len(data)))


def test_the_same_seed_draws_the_same_images():
    assert fingerprint(SMALL.load("train")) == fingerprint(SMALL.load("train"))
    other = Shapes(size=24, n_train=16, n_test=16, seed=1)
    assert not torch.equal(pixels(SMALL.load("train")), pixels(other.load("train")))


def test_the_splits_share_no_image():
    train, test = pixels(SMALL.load("train")), pixels(SMALL.load("test"))
    assert not (train[:, None] == test[None]).flatten(2).all(dim=2).any()


def test_a_longer_split_begins_with_a_shorter_one():
    longer = Shapes(size=24, n_train=24).load("train")
    assert torch.equal(pixels(longer)[:16], pixels(SMALL.load("train")))


def test_the_mask_is_where_a_shape_differs_from_its_background():
    """On a flat background every pixel off it belongs to the shape, or to its soft edge."""
    data = Shapes(size=32, n_test=32, clutter=0.0).load("test")
    images = pixels(data)
    corner = images[:, :, :1, :1].expand_as(images)  # no shape covers all four corners
    for other in (images[:, :, :1, -1:], images[:, :, -1:, :1], images[:, :, -1:, -1:]):
        corner = torch.where(
            (other == images[:, :, :1, :1]).all(dim=1, keepdim=True), corner, other
        )
    apart = (images - corner).abs().amax(dim=1) > 0.25
    agreement = (apart == data.masks).float().mean(dim=(1, 2))
    assert agreement.median() > 0.97
    share = data.masks.float().mean(dim=(1, 2))
    assert 0.005 < share.min() < share.max() < 0.6


def test_masks_follow_a_selection():
    data = SMALL.load("test")
    chosen = select(data, torch.tensor([5, 2]))
    assert torch.equal(chosen.masks, data.masks[[5, 2]])
    assert chosen.masks.shape == (2, 24, 24)


def test_classes_are_even_and_named():
    data = SMALL.load("train")
    assert data.class_names[:2] == ("circle", "square")
    assert data.labels.bincount().tolist() == [2] * 8


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 8},
        {"n_test": 0},
        {"smallest": 0.41},
        {"largest": 0.6},
        {"clutter": 2},
        {"seed": -1},
    ],
)
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(BadParameter, match="shapes: "):
        Shapes(**wrong)


def test_there_are_two_splits():
    with pytest.raises(BadData):
        SMALL.load("validation")
