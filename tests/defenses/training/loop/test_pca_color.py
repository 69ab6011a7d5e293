import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from quintain.bench.api.errors import BadParameter
from quintain.defenses.none import Undefended
from quintain.defenses.training.loop.pca_color import PrincipalColours
from quintain.defenses.training.loop.train_data import Examples


@pytest.fixture
def coloured():
    """300 images, 3x4x5, whose pixels vary along a few mixed colours."""
    generator = torch.Generator().manual_seed(5)
    mixed = torch.tensor([[0.2, 0.05, 0.0], [0.15, -0.1, 0.02], [0.1, 0.0, -0.05]])
    noise = torch.randn(300, 3, 4, 5, generator=generator)
    return (0.5 + torch.einsum("ij,njhw->nihw", mixed, noise)).clamp(0.0, 1.0)


def principal(image_data, x, spread=0.1):
    data = image_data(x, torch.zeros(len(x), dtype=torch.int64))
    return PrincipalColours.of(Examples(data, torch.arange(len(x)), torch.device("cpu")), spread)


def test_the_axes_are_sklearns_principal_components_times_their_variances(
    image_data, coloured, monkeypatch
):
    monkeypatch.setattr("quintain.defenses.training.loop.pca_color.CHUNK", 70)
    axes = principal(image_data, coloured).axes.double().numpy()
    pixels = coloured.permute(0, 2, 3, 1).reshape(-1, 3).double().numpy()
    theirs = PCA().fit(pixels)
    variances = theirs.explained_variance_ * (len(pixels) - 1) / len(pixels)
    expected = (theirs.components_ * variances[:, None]).T[:, ::-1]
    signs = np.sign((axes * expected).sum(axis=0))  # an eigenvector's sign is nobody's
    np.testing.assert_allclose(axes * signs, expected, rtol=1e-4, atol=1e-8)


def test_an_image_moves_as_one_by_the_sum_of_its_multiples(image_data, coloured):
    colours = principal(image_data, coloured)
    x = torch.full((2, 3, 2, 2), 0.5)
    drawn = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    moved = colours(x, drawn)
    shift = sum(a * axis for a, axis in zip(drawn[0], colours.axes.T, strict=True))
    torch.testing.assert_close(moved[0], 0.5 + shift[:, None, None].expand(3, 2, 2))
    assert torch.equal(moved[1], x[1])
    assert colours(x, 1e6 * drawn).max() <= 1.0
    assert colours(x, 1e6 * drawn).min() >= 0.0


def test_multiples_are_normal_with_the_spread(image_data, coloured):
    drawn = principal(image_data, coloured, 0.1).draw(20000, torch.Generator().manual_seed(0))
    assert drawn.shape == (20000, 3)
    assert drawn.mean(0).abs().max() < 0.003
    assert drawn.std(0).tolist() == pytest.approx([0.1] * 3, rel=0.03)
    assert ((drawn.abs() < 0.1).float().mean() - 0.6827).abs() < 0.01


def test_each_use_of_an_image_draws_again(training, coloured):
    """A network that only looks: what it is shown differs from epoch to epoch."""

    class Looking(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(60, 2)
            self.means = []

        def forward(self, x):
            if self.training:
                self.means.append(x.mean(dim=(0, 2, 3)))
            return self.layer(x.flatten(1))

    y = torch.arange(300) % 2
    plain = {"epochs": 2, "batch_size": 300, "augmentation": "none", "validation_share": 0.0}

    def shown(**named):
        model = Looking()
        return Undefended(**plain, **named).fit(model, training(coloured, y)).model.means

    same, varied = shown(), shown(colour=1.0)
    torch.testing.assert_close(same[0], same[1])
    assert (varied[0] - varied[1]).abs().max() > 1e-5
    assert (varied[0] - same[0]).abs().max() > 1e-5


@pytest.mark.parametrize("channels", [1, 4])
def test_images_without_three_channels_are_refused(training, channels):
    x, y = torch.rand(40, channels, 4, 4), torch.arange(40) % 2
    with pytest.raises(BadParameter) as caught:
        Undefended(colour=0.1).fit(torch.nn.Flatten(), training(x, y))
    line = f"colour = 0.1 is for images of 3 channels; these have {channels}"
    assert str(caught.value) == line
