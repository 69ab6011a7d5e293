"""Each transformation beside an independent one, and what all of them must be."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from builders import draws, linear, random_images
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.optimize import minimize
from torch import nn
from torch.nn import functional

from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.rng import Draws, ambient
from quintain.bench.victim.model import Network
from quintain.defenses.none import Undefended
from quintain.defenses.transformations.bit_depth import BitDepth, ReducedDepth
from quintain.defenses.transformations.jpeg import JPEG, Compressed
from quintain.defenses.transformations.median_filter import Median, MedianFilter
from quintain.defenses.transformations.random_resize_pad import (
    RandomResizePad,
    ResizedAndPadded,
    shrinking,
)
from quintain.defenses.transformations.total_variation import (
    LeastVariation,
    TotalVariation,
    least_variation,
)

CPU = torch.device("cpu")
DEFENSES = {
    "bit-depth": BitDepth(bits=2),
    "jpeg": JPEG(quality=30),
    "median-filter": MedianFilter(window=3),
    "random-resize-pad": RandomResizePad(smallest=0.6),
    "total-variation": TotalVariation(steps=20),
    "denoised": TotalVariation(weight=0.2, drop=0.0, steps=20),
}
FIXED = ("bit-depth", "jpeg", "median-filter", "denoised")


def seen(layer, x, first=0, seed=5):
    """What a layer makes of some images with the random numbers of examples from `first` on."""
    with ambient(draws(range(first, first + len(x)), seed)):
        return layer(x)


# ------------------------------------------------------------------------------ one by one


@pytest.mark.parametrize("bits", [1, 3, 8])
def test_bit_depth_keeps_the_levels_there_are(bits):
    x = random_images(2, 3, 9, 9)
    reduced = ReducedDepth(bits)(x)
    levels = np.linspace(0, 1, 2**bits)
    nearest = levels[np.abs(x.numpy()[..., None] - levels).argmin(-1)]
    assert np.allclose(reduced.numpy(), nearest, atol=1e-6)
    assert len(reduced.unique()) <= 2**bits


@pytest.mark.parametrize("window", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [(8, 11), (3, 2)])
def test_the_median_is_scipys(window, size):
    x = random_images(2, 3, *size)
    theirs = ndimage.median_filter(x.numpy(), size=(1, 1, window, window), mode="reflect")
    assert np.array_equal(Median(window)(x).numpy(), theirs)


@pytest.mark.parametrize("window", [2, 3])
def test_the_gradient_of_the_median_is_that_of_the_pixel_chosen(window):
    x = random_images(1, 2, 7, 6).double().requires_grad_()
    assert torch.autograd.gradcheck(Median(window), x)


@pytest.mark.parametrize("size", [(16, 16), (15, 22)])
def test_resizing_is_torchs_and_what_is_left_is_black(size):
    x, (height, width) = random_images(40, 2, *size), size
    layer = ResizedAndPadded(0.6)
    made = seen(layer, x)
    found = set()
    for one, image in zip(x, made, strict=True):
        inside = image.amax(dim=0) > 0
        rows, columns = (inside.any(dim=axis).nonzero().flatten() for axis in (1, 0))
        box = [int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1]
        shape = box[1] - box[0], box[3] - box[2]
        theirs = functional.interpolate(one[None], shape, mode="nearest")[0]
        assert torch.equal(image[:, box[0] : box[1], box[2] : box[3]], theirs)
        assert image.sum() == pytest.approx(theirs.sum().item(), rel=1e-5)
        assert shape[1] == round(shape[0] * width / height)
        found.add((shape[0], *box))
    heights = {one[0] for one in found}
    assert heights == set(range(round(0.6 * height), height + 1))
    assert len(found) > 30


def test_sizes_and_places_are_drawn_evenly():
    places = torch.rand(4000, generator=torch.Generator().manual_seed(0))
    made = shrinking(10, torch.full((4000,), 7), places)
    before = made.any(dim=2).float().argmax(dim=1)
    assert torch.bincount(before, minlength=4).tolist() == pytest.approx([1000] * 4, rel=0.1)


@pytest.mark.peers
@pytest.mark.parametrize("weight", [0.05, 0.3])
def test_denoising_finds_scikit_images_optimum(weight):
    from skimage import restoration

    x = random_images(2, 3, 16, 13)
    ours = least_variation(x, torch.ones_like(x), weight, 1000)
    for one, image in zip(x, ours, strict=True):
        for plane, made in zip(one, image, strict=True):
            theirs = restoration.denoise_tv_chambolle(
                plane.double().numpy(), weight=weight, eps=1e-12, max_num_iter=5000
            )
            assert np.abs(made.numpy() - theirs).max() < 2e-3
    few = least_variation(x, torch.ones_like(x), weight, TotalVariation().steps)
    assert (few - ours).abs().max() < 0.03


@pytest.mark.parametrize("drop", [0.0, 0.4])
def test_what_was_dropped_is_made_up_at_the_least_cost(drop):
    x = random_images(1, 1, 5, 4, seed=3)
    kept = (random_images(1, 1, 5, 4, seed=4) > drop).float()
    weight, tiny = 0.05, 1e-9
    mask, target = kept[0, 0].double().numpy(), x[0, 0].double().numpy()

    def cost(flat):
        u = flat.reshape(5, 4)
        down = np.diff(u, axis=0, append=u[-1:])
        across = np.diff(u, axis=1, append=u[:, -1:])
        variation = np.sqrt(down**2 + across**2 + tiny).sum()
        return (mask * (u - target) ** 2).sum() / 2 + weight * variation

    ours = least_variation(x, kept, weight, 3000)[0, 0].double().numpy()
    best = min(
        minimize(cost, start, method="L-BFGS-B", options={"maxiter": 5000}).fun
        for start in (target.flatten(), ours.flatten(), np.full(20, 0.5))
    )
    assert cost(ours.flatten()) == pytest.approx(best, rel=2e-3)
    assert cost(target.flatten()) > 1.1 * best


@pytest.mark.parametrize("drop", [0.0, 0.5])
def test_what_stands_in_for_the_minimum_is_near_it_and_drops_the_same(drop):
    layer, x = TotalVariation(weight=0.1, drop=drop).layer(), random_images(3, 1, 12, 12)
    with ambient(draws(3, seed=5)):
        least, near = layer(x), layer.surrogate(x)
    assert (near - least).abs().mean() < 0.25 * (x - least).abs().mean()
    black = torch.zeros(1, 1, 6, 6).requires_grad_()
    with ambient(draws(1, seed=5)):
        (gradient,) = torch.autograd.grad(layer.surrogate(black).sum(), black)
    assert gradient.isfinite().all()
    assert gradient.sum() == pytest.approx(36, rel=0.3)


# ------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", DEFENSES)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 9999), st.sampled_from([1, 3]), st.integers(2, 12), st.integers(2, 12))
def test_images_stay_images_and_do_not_see_each_other(name, seed, channels, height, width):
    layer = DEFENSES[name].layer()
    x = random_images(5, channels, height, width, seed=seed)
    whole = seen(layer, x)
    assert whole.shape == x.shape
    assert whole.dtype == x.dtype
    assert ((whole >= 0) & (whole <= 1)).all()
    parts = torch.cat([seen(layer, x[:2]), seen(layer, x[2:], first=2)])
    assert torch.allclose(whole, parts, atol=1e-5)
    assert torch.equal(whole, seen(layer, x))


@pytest.mark.parametrize("name", FIXED)
def test_a_flat_image_is_left_alone(name):
    x = torch.full((2, 1, 8, 8), 1.0)
    x[1] = 0.0
    assert torch.allclose(DEFENSES[name].layer()(x), x, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(0, 999))
def test_reducing_twice_is_reducing_once(bits, seed):
    layer = ReducedDepth(bits)
    once = layer(random_images(1, 1, 6, 6, seed=seed))
    assert torch.equal(layer(once), once)


@pytest.mark.parametrize("name", ["random-resize-pad", "total-variation"])
def test_draws_are_each_examples_own_and_new_with_the_seed(name):
    layer = DEFENSES[name].layer()
    x = random_images(1, 1, 16, 16).expand(6, -1, -1, -1)
    made = seen(layer, x)
    assert len({tuple(one.flatten().tolist()) for one in made}) == 6
    assert not torch.equal(made, seen(layer, x, seed=6))


@pytest.mark.parametrize("name", DEFENSES)
def test_the_network_behind_gets_a_gradient_or_zero_but_never_breaks(name, digits):
    defense = DEFENSES[name]
    module = defense.wrap(digits.module)
    x = digits.images[:20]
    rows = torch.arange(20)
    drawn = Draws(1, rows, 0 * rows, 0 * rows)
    plain = Network(module, CPU, 32)
    surrogate = registry.build("gradients", "bpda").surrogate
    helped = Network(module, CPU, 32, surrogates=surrogate)
    naive, adaptive = (
        one.gradient(x, lambda z: z[:, 0], noise=drawn).gradient.flatten(1).abs().amax(1)
        for one in (plain, helped)
    )
    assert (adaptive > 0).all()
    if name in ("bit-depth", "jpeg", "total-variation", "denoised"):
        assert (naive == 0).all()
    hooks = [one for layer in module.modules() for one in layer._forward_hooks]
    assert not hooks


def test_resizing_has_its_exact_gradient():
    layer, x = ResizedAndPadded(0.5), random_images(2, 1, 5, 5).double()
    assert torch.autograd.gradcheck(lambda z: seen(layer, z), x.requires_grad_())


# ---------------------------------------------------------------------------- as a defense


@pytest.mark.parametrize(
    ("defense", "differentiable", "stochastic"),
    [
        (BitDepth(), False, False),
        (MedianFilter(), True, False),
        (RandomResizePad(), True, True),
        (TotalVariation(), False, True),
        (TotalVariation(drop=0.0), False, False),
        (JPEG(base=RandomResizePad()), False, True),
        (RandomResizePad(base=BitDepth(base=RandomResizePad())), False, True),
    ],
)
def test_a_defense_declares_what_its_layers_are(defense, differentiable, stochastic):
    assert (defense.differentiable, defense.stochastic) == (differentiable, stochastic)
    network = Network(defense.wrap(nn.Flatten()), CPU, 16)
    traits = network.traits
    assert (traits.differentiable, traits.stochastic) == (differentiable, stochastic)


def test_the_base_trains_and_the_layer_stands_before_it(stripes, training):
    model = linear(inputs=36)
    before = model[1].weight.clone()
    base = Undefended(epochs=2, batch_size=50)
    defense = BitDepth(bits=1, base=MedianFilter(window=3, base=base))
    trained = defense.fit(model, training(*stripes))
    assert [type(one) for one in trained.model.modules()][1:4:2] == [ReducedDepth, Median]
    assert not torch.equal(model[1].weight, before)
    assert trained.history
    x = stripes[0][:10]
    with torch.no_grad():
        assert torch.equal(trained.model(x), model(Median(3)(ReducedDepth(1)(x))))


def test_wrapping_makes_the_module_that_training_makes(stripes, training):
    defense = JPEG(base=RandomResizePad(base=Undefended(epochs=1, batch_size=50)))
    model = linear(inputs=36)
    trained = defense.fit(model, training(*stripes)).model
    fresh = defense.wrap(linear(inputs=36))
    fresh.load_state_dict(trained.state_dict())
    x = stripes[0][:4]
    assert torch.equal(seen(fresh.eval(), x), seen(trained.eval(), x))


def test_the_base_is_shared(stripes, training):
    asked = []

    def obtain(defense, *, seed=None, model=None):
        asked.append(defense)
        return replace(trained, flags=("as it was",))

    from quintain.bench.api.defense import Trained

    trained = Trained(nn.Flatten())
    base = Undefended(epochs=3)
    given = replace(training(*stripes), obtain=obtain)
    got = MedianFilter(base=base).fit(nn.Flatten(), given)
    assert asked == [base]
    assert got.flags == ("as it was",)
    assert got.model.network is trained.model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: BitDepth(bits=0), "bits = 0 must be from 1 to 8"),
        (lambda: MedianFilter(window=1), "window = 1 must be 2 or more"),
        (lambda: RandomResizePad(smallest=1.0), "smallest = 1.0 must be above 0 and below 1"),
        (lambda: TotalVariation(weight=0.0), "weight = 0.0 must be positive"),
        (lambda: TotalVariation(drop=1.0), "drop = 1.0 must be at least 0 and below 1"),
        (lambda: TotalVariation(steps=0), "steps = 0 must be 1 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said):
    with pytest.raises(BadParameter, match=said):
        make()


def test_a_suite_can_nest_them():
    spec = {
        "name": "jpeg", "quality": 40,
        "base": {"name": "random-resize-pad", "base": {"name": "none", "epochs": 2}},
    }  # fmt: skip
    made = registry.build("defenses", spec)
    assert made == JPEG(quality=40, base=RandomResizePad(base=Undefended(epochs=2)))
    assert isinstance(made.layer(), Compressed)
    assert isinstance(registry.build("defenses", "total-variation").layer(), LeastVariation)
