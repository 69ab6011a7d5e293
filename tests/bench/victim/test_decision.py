"""One rule for what a network's answers say: as they are read, and by logits or votes."""

import pytest
import torch
from torch import nn

from quintain.bench.api.rng import Draws, noise
from quintain.bench.victim.decision import decision_of
from quintain.bench.victim.model import Network
from quintain.bench.victim.voting import Votes


class Fixed(nn.Module):
    """The pixels are the logits; rejecting or not."""

    def __init__(self, *, rejects=False):
        super().__init__()
        self.rejects = rejects

    def forward(self, x):
        return x.flatten(1)


class Coin(nn.Module):
    """Class 1 with the probability that the first pixel says."""

    stochastic = True

    def __init__(self):
        super().__init__()
        self.rows = 0

    def forward(self, x):
        self.rows += len(x)
        heads = noise(x).uniform((1,), "coin") < x.flatten(1)[:, :1]
        score = torch.where(heads, 1.0, -1.0)
        return torch.cat([-score, score], dim=1)


def rule(module, **named):
    network = Network(module, torch.device("cpu"), 64)
    return decision_of(network, **{"targeted": False, **named})


def asked(decision, logits, y):
    """Whether one input with these logits is adversarial, and its margin."""
    x = torch.tensor(logits).reshape(1, 1, 1, -1)
    goal = torch.tensor([y])
    read = decision.read(decision.network.logits(x), goal)
    return bool(decision.adversarial(read, goal)), decision.margin(read, goal).item()


@pytest.mark.parametrize(
    ("named", "logits", "y", "wanted"),
    [
        ({}, [0.25, 0.75, 0.5], 0, (True, -0.5)),
        ({}, [0.75, 0.25, 0.5], 0, (False, 0.25)),
        ({"targeted": True}, [0.25, 0.75, 0.5], 1, (True, -0.25)),
        ({"targeted": True}, [0.25, 0.75, 0.5], 2, (False, 0.25)),
    ],
)
def test_of_an_ordinary_network_the_largest_logit_decides(named, logits, y, wanted):
    assert asked(rule(Fixed(), **named), logits, y) == wanted


@pytest.mark.parametrize(
    ("named", "logits", "y", "wanted"),
    [  # the last logit rejects
        ({}, [0.25, 0.5, 0.75], 0, (False, 0.25)),
        ({}, [0.25, 0.75, 0.5], 0, (True, -0.25)),
        ({"targeted": True}, [0.25, 0.5, 0.75], 1, (False, 0.25)),
        ({"detector_unaware": True}, [0.25, 0.5, 0.75], 0, (True, -0.25)),
    ],
)
def test_to_be_rejected_is_no_success_except_for_who_does_not_know(named, logits, y, wanted):
    decision = rule(Fixed(rejects=True), **named)
    assert asked(decision, logits, y) == wanted
    assert decision.overlooks_rejection == ("detector_unaware" in named)


def test_of_a_candidate_it_is_told_how_far_it_is_from_being_rejected():
    answers = torch.tensor([[0.25, 0.5, 0.75], [0.75, 0.5, 0.25], [0.25, 0.75, 0.5]])
    found = Votes(answers, answers[:, :2])
    y = torch.zeros(3, dtype=torch.int64)
    margins = rule(Fixed(rejects=True)).candidate_margin(found, y)
    assert margins[[0, 2]].tolist() == [0.25, -0.25]
    assert margins[1].isnan()  # it does not fool the classifier
    assert rule(Fixed()).candidate_margin(found, y).isnan().all()


def coins(*chances):
    x = torch.tensor(chances).reshape(-1, 1, 1, 1)
    every = torch.arange(len(x))
    return x, torch.zeros_like(every), Draws(0, every, 0 * every, 0 * every)


def test_a_stochastic_network_is_believed_by_its_votes_alone():
    decision = rule(Coin())
    x, y, draws = coins(*[0.1] * 20, *[0.9] * 20)
    assert decision.confirmed(x, y, draws).tolist() == [False] * 20 + [True] * 20
    votes, confirmed = decision.judged(x, y, draws)
    assert (
        decision.adversarial(votes, y).tolist() == confirmed.tolist() == [False] * 20 + [True] * 20
    )
    lucky = coins(*[0.5] * 400)
    assert 0.02 < decision.confirmed(*lucky).double().mean() < 0.35  # sure once, and ahead twice
    ordinary = rule(Fixed())
    assert ordinary.confirmed(x, y, None).all()


def test_votes_on_the_same_inputs_are_counted_once():
    module = Coin()
    x, y, draws = coins(0.9, 0.1, 0.8)
    confirm = rule(module).confirmation(y, draws)
    first = confirm(x, torch.tensor([0, 1]))
    rows = module.rows
    assert torch.equal(confirm(x, torch.tensor([1, 0])), first.flip(0))
    assert module.rows == rows
    confirm(x, torch.tensor([0, 2]))  # of one it is known
    assert module.rows > rows
    rows = module.rows
    confirm(x + 0.01, torch.tensor([0, 1]))
    assert module.rows > rows
