"""Several networks that answer as one."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec, Trained
from quintain.bench.api.errors import BadParameter
from quintain.bench.training.networks import build_network
from quintain.defenses.ensemble import Ensemble, Joined
from quintain.defenses.none import Undefended
from quintain.defenses.transformations.bit_depth import BitDepth
from quintain.defenses.transformations.random_resize_pad import RandomResizePad

INPUTS = InputSpec((1, 6, 6), 2, (0.5,), (0.2,))


class Fixed(nn.Module):
    """Logits that are the image's first pixels, times a factor."""

    def __init__(self, factor, classes=3):
        super().__init__()
        self.factor, self.classes = factor, classes

    def forward(self, x):
        return self.factor * x.flatten(1)[:, : self.classes]


def points(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def test_probabilities_are_averaged_and_their_logarithm_is_the_answer():
    x = points(7, 1, 2, 2)
    parts = [Fixed(2.0), Fixed(-1.0), Fixed(0.3)]
    mean = torch.stack([one(x).softmax(1) for one in parts]).mean(0)
    answer = Joined(parts, "probabilities")(x)
    assert torch.allclose(answer.exp(), mean, atol=1e-6)
    assert torch.allclose(answer.softmax(1), mean, atol=1e-6)


def test_logits_are_averaged():
    x = points(7, 1, 2, 2)
    assert torch.allclose(Joined([Fixed(2.0), Fixed(-1.0)], "logits")(x), Fixed(0.5)(x))


@pytest.mark.parametrize("combination", ["probabilities", "logits"])
def test_the_gradient_goes_through_every_member(combination):
    x = points(4, 1, 2, 2).double().requires_grad_()
    joined = Joined([Fixed(2.0), Fixed(-1.0)], combination)
    assert torch.autograd.gradcheck(joined, x)


def test_certain_members_still_have_a_gradient():
    x = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]]).requires_grad_()
    answer = Joined([Fixed(500.0), Fixed(700.0)], "probabilities")(x)
    assert answer.isfinite().all()
    (gradient,) = torch.autograd.grad(answer[0, 1], x)
    assert gradient.isfinite().all()
    assert gradient[0, 0, 0, 0] < -100


def obtaining(asked):
    def obtain(defense, *, seed=None, model=None):
        asked.append((defense, seed, model))
        return Trained(Fixed(float(len(asked))), ({"loss": 1.0},), (f"flag {len(asked)}",))

    return obtain


@pytest.mark.parametrize(
    ("named", "wanted"),
    [
        ({}, [(7, None), (8, None), (9, None)]),
        ({"size": 2}, [(7, None), (8, None)]),
        ({"members": ({"name": "resnet"}, {"name": "alexnet"})},
         [(7, {"name": "resnet"}), (7, {"name": "alexnet"})]),
        ({"members": ({"name": "resnet"},), "size": 2},
         [(7, {"name": "resnet"}), (8, {"name": "resnet"})]),
    ],
)  # fmt: skip
def test_members_are_obtained_by_seed_and_architecture(stripes, training, named, wanted):
    asked = []
    base = Undefended(epochs=2)
    given = replace(training(*stripes, seed=7), obtain=obtaining(asked))
    trained = Ensemble(base=base, **named).fit(nn.Flatten(), given)
    assert asked == [(base, seed, model) for seed, model in wanted]
    assert len(trained.model.networks) == len(wanted)
    rows = [{"member": number + 1, "loss": 1.0} for number in range(len(wanted))]
    assert list(trained.history) == rows
    assert trained.flags == tuple(f"flag {number + 1}" for number in range(len(wanted)))


def test_the_last_seed_is_followed_by_the_first(stripes, training):
    asked = []
    given = replace(training(*stripes, seed=2**32 - 1), obtain=obtaining(asked))
    Ensemble(size=2).fit(nn.Flatten(), given)
    assert [seed for _, seed, _ in asked] == [2**32 - 1, 0]


def test_without_other_networks_there_is_no_ensemble(stripes, training):
    with pytest.raises(BadParameter, match="needs more networks than the one at hand"):
        Ensemble().fit(nn.Flatten(), training(*stripes))


@pytest.mark.parametrize(
    "defense",
    [
        Ensemble(size=2, base=BitDepth()),
        Ensemble(
            members=({"name": "small-cnn", "width": 0.1}, {"name": "small-cnn", "width": 0.2})
        ),
        BitDepth(base=Ensemble(members=({"name": "small-cnn", "width": 0.1},), size=2)),
    ],
)
def test_wrapping_makes_the_module_that_training_makes(stripes, training, defense):
    spec = {"name": "small-cnn", "width": 0.05}

    def obtain(defense, *, seed=None, model=None):
        made = build_network(model or spec, INPUTS, 5 if seed is None else seed)
        return defense.fit(made, given) if hasattr(defense, "wrap") else Trained(made)

    given = replace(training(*stripes), obtain=obtain)
    model = build_network(spec, INPUTS, 0)
    trained = defense.fit(model, given).model.eval()
    before = torch.get_rng_state()
    fresh = defense.wrap(build_network(spec, INPUTS, 1)).eval()
    assert torch.equal(before, torch.get_rng_state())
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(stripes[0][:5]), trained(stripes[0][:5]))


def test_members_beside_a_model_of_unknown_input_cannot_be_built():
    with pytest.raises(BadParameter, match="model of unknown input"):
        Ensemble(members=({"name": "small-cnn"},)).wrap(nn.Flatten())


def test_its_nature_is_the_bases():
    assert (Ensemble().differentiable, Ensemble().stochastic) == (True, False)
    mixed = Ensemble(base=BitDepth(base=RandomResizePad()))
    assert (mixed.differentiable, mixed.stochastic) == (False, True)


def test_a_suite_names_members_and_base():
    made = registry.build(
        "defenses",
        {"name": "ensemble", "members": [{"name": "resnet", "depth": 8}], "size": 2,
         "base": {"name": "none", "epochs": 3}},
    )  # fmt: skip
    assert made == Ensemble(
        members=({"name": "resnet", "depth": 8},), size=2, base=Undefended(epochs=3)
    )


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"size": 0}, "size = 0 must be 1 or more"),
        ({"size": 1}, "an ensemble of one network is none"),
        ({"combination": "votes"}, "combination = 'votes' is not one of"),
        ({"members": ({"name": "resnet", "dept": 8},)}, "no parameter 'dept'"),
    ],
)
def test_what_makes_no_sense_is_refused(named, said):
    with pytest.raises(BadParameter, match=said):
        Ensemble(**named)
