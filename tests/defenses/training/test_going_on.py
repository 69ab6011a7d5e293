"""A training that is interrupted goes on, and ends as an undisturbed one does, to the bit."""

import io

import pytest
import torch
from torch import nn

from quintain.bench.api.errors import CellError
from quintain.defenses.none import Undefended
from quintain.defenses.training.adversarial_training import AdversarialTraining
from quintain.defenses.training.loop.loop import train
from quintain.defenses.training.loop.objective import Objective, classification
from quintain.defenses.training.loop.training_config import Recipe

BATCHES = 6  # an epoch's: 180 examples in batches of 30


class Interrupted(Exception):
    """What a kill is, within a process."""


class Memory:
    """Keeps states as bytes; ends the run when so many steps are done."""

    def __init__(self, until=None):
        self.until, self.steps, self.content, self.where = until, 0, None, []

    def recall(self):
        if self.content is None:
            return None
        return torch.load(io.BytesIO(self.content), map_location="cpu", weights_only=True)

    def due(self):
        self.steps += 1
        return True

    def keep(self, state, where):
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.content = buffer.getvalue()
        self.where.append(where)
        if self.steps == self.until:
            raise Interrupted


class Rows:
    """Remembers what it is told of each epoch."""

    def __init__(self):
        self.rows = []

    def record(self, row):
        self.rows.append(dict(row))


class Drifting:
    """A method that remembers: it adds to every batch what it has learnt from the ones before."""

    warmup_epochs = 0

    def __init__(self):
        self.drift = torch.zeros(1, 6, 6)

    def objective(self, model, batch):
        self.drift = 0.9 * self.drift + 0.1 * batch.x.mean(dim=0)
        return Objective(*classification(model, batch.x + self.drift, batch.y))

    def adversarial(self, model, batch):
        return {}

    def alarm(self, history):
        return None

    def state_dict(self):
        return {"drift": self.drift}

    def load_state_dict(self, state):
        self.drift = state["drift"]


def network(channels=1):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
        nn.Dropout(0.3), nn.Linear(144, 2),
    ).to(memory_format=torch.channels_last)  # fmt: skip


def ended(trained):
    weights = {name: value.clone() for name, value in trained.model.state_dict().items()}
    return weights, trained.history, trained.flags, trained.epoch


def check_the_same(one, other):
    assert one[1:] == other[1:]
    assert all(torch.equal(value, other[0][name]) for name, value in one[0].items())


def go_on(fit, job, cuts):
    """The end of a run that is interrupted after each of these numbers of steps, and of one that is
    not.
    """
    expected = ended(fit(network(job.data.shape[0]), job))
    memory, rows = Memory(), Rows()
    object.__setattr__(job, "keeper", memory)
    object.__setattr__(job, "recorder", rows)
    for cut in [*cuts, None]:
        memory.until, memory.steps = cut, 0
        if cut is None:
            check_the_same(ended(fit(network(job.data.shape[0]), job)), expected)
        else:
            with pytest.raises(Interrupted):
                fit(network(job.data.shape[0]), job)
    assert rows.rows[-1] == expected[1][-1]
    return memory


COMMON = {"epochs": 4, "batch_size": 30, "learning_rate": 0.1}
RECIPES = {
    "one-cycle": {},
    "cosine": {"schedule": "cosine", "rate_warmup": 0.2},
    "step": {"schedule": "step", "milestones": (0.3, 0.6)},
    "plateau": {"schedule": "plateau", "patience": 1, "learning_rate": 1.0},
    "constant": {"schedule": "constant", "momentum": 0.0, "augmentation": "none"},
    "moving average": {"ema": 0.9},
    "bfloat16": {"precision": "bfloat16", "ema": 0.9, "gradient_clip": 0.5},
    "validation now and then": {"validate_every": 2},
    "no validation": {"validation_share": 0.0},
    "early stop": {"early_stop": 2, "epochs": 30},
}


@pytest.mark.parametrize("name", RECIPES)
def test_ordinary_training_goes_on(name, training, stripes):
    x, y = stripes
    noisy = torch.where(torch.rand(200, generator=torch.Generator().manual_seed(4)) < 0.3, 1 - y, y)
    defense = Undefended(**{**COMMON, **RECIPES[name]})
    # in the middle of an epoch, at its last step, after the first step of one, and again
    go_on(defense.fit, training(x, noisy), [4, 2, 1, 5, BATCHES])


@pytest.mark.parametrize(
    "named",
    [
        {"steps": 2},
        {"method": "fgsm", "norm": "L2", "warmup_epochs": 1},
        {"method": "fgsm", "precision": "bfloat16", "ema": 0.9},
    ],
)
def test_adversarial_training_goes_on_with_the_adversarys_random_numbers(named, training, stripes):
    defense = AdversarialTraining(**COMMON, epsilon=0.1, validation_steps=2, **named)
    go_on(defense.fit, training(*stripes), [8, 3])


def test_colours_and_mirrors_go_on(training, stripes):
    x, y = stripes
    tinted = torch.cat([x, 0.5 * x, 0.2 + 0.3 * x], dim=1)
    defense = Undefended(**COMMON, colour=0.5, augmentation="shift-flip")
    go_on(defense.fit, training(tinted, y), [8, 3])


def test_what_a_method_remembers_goes_on(training, stripes):
    recipe = Recipe(**COMMON)
    go_on(lambda model, job: train(model, job, recipe, Drifting()), training(*stripes), [8, 3])


PARTS = {
    "dropout's numbers": lambda state: state["global"].update(
        cpu=torch.Generator().manual_seed(99).get_state()
    ),
    "the adversary's numbers": lambda state: state.update(
        noise=torch.Generator().manual_seed(99).get_state()
    ),
    "the order": lambda state: state.update(random=torch.Generator().manual_seed(99).get_state()),
    "momentum": lambda state: state["parts"]["optimizer"].update(state={}),
    "the average": lambda state: state["parts"]["average"].update(updates=0),
    "the best": lambda state: state["parts"]["best"].update(score=(9.0, 0.0), epoch=1),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_part_of_the_state_matters(part, training, stripes):
    """The control: what is compared above does depend on each."""

    class Spoilt(Memory):
        def recall(self):
            state = super().recall()
            if state is not None:
                PARTS[part](state)
            return state

    defense = AdversarialTraining(**COMMON, method="fgsm", epsilon=0.1, validation_steps=2, ema=0.9)
    expected = ended(defense.fit(network(), training(*stripes)))
    memory = Spoilt(until=8)
    job = training(*stripes, keeper=memory)
    with pytest.raises(Interrupted):
        defense.fit(network(), job)
    memory.until = None
    with pytest.raises(AssertionError):
        check_the_same(ended(defense.fit(network(), job)), expected)


def test_the_keeper_is_told_how_far_it_is(training, stripes):
    memory = Memory()
    Undefended(**{**COMMON, "epochs": 2}).fit(network(), training(*stripes, keeper=memory))
    assert memory.where == ["epoch 1 of 2"] * BATCHES + ["epoch 2 of 2"] * BATCHES


def test_a_state_that_has_diverged_is_not_kept(training, stripes):
    class Diverging(Drifting):
        def objective(self, model, batch):
            loss, logits = classification(model, batch.x, batch.y)
            return Objective(loss * (float("nan") if batch.epoch >= 1 else 1.0), logits)

    memory = Memory()
    with pytest.raises(CellError, match="diverged: loss is nan in epoch 2"):
        train(network(), training(*stripes, keeper=memory), Recipe(**COMMON), Diverging())
    assert memory.steps == 2 * BATCHES
    assert len(memory.where) == BATCHES
    assert all(one.isfinite().all() for one in memory.recall()["model"].values())
