import pytest
import torch
from builders import linear
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from quintain.defenses.none import Undefended
from quintain.defenses.training.loop.ema import Average


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.tied = self.layer.weight
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("constant", torch.tensor([0.1, 1.0 / 3.0]))


def jolt(model):
    with torch.no_grad():
        for one in (*model.parameters(), model.norm.running_mean):
            one.add_(torch.randn(one.shape))
        model.norm.num_batches_tracked += 1


def test_it_is_the_formula_for_weights_and_statistics_and_counters_are_copied():
    torch.manual_seed(0)
    model = Small()
    average = Average(model, decay=0.25)
    weight = model.layer.weight.detach().double().clone()
    mean = model.norm.running_mean.double().clone()
    for n in range(6):
        jolt(model)
        average.update()
        decay = min(0.25, (1 + n) / (10 + n))
        weight = decay * weight + (1 - decay) * model.layer.weight.detach().double()
        mean = decay * mean + (1 - decay) * model.norm.running_mean.double()
    torch.testing.assert_close(average.model.layer.weight.double(), weight, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(average.model.norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    assert average.model.norm.num_batches_tracked == 6
    assert torch.equal(average.model.constant, model.constant)
    assert not any(one.requires_grad for one in average.model.parameters())


def test_it_is_torchs_where_the_decay_is_no_longer_rising():
    torch.manual_seed(0)
    model = Small()
    average = Average(model, decay=0.5)
    average.updates = 1000
    theirs = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=False)
    theirs.update_parameters(model)  # the first is a copy
    for _ in range(5):
        jolt(model)
        average.update()
        theirs.update_parameters(model)
    for one, other in zip(average.model.parameters(), theirs.module.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_the_average_is_what_is_validated_and_kept(training, stripes):
    def fit(**named):
        model = linear(inputs=36)
        seen = {"epochs": 3, "batch_size": 20, "augmentation": "none", "schedule": "constant"}
        return Undefended(**seen, **named).fit(model, training(*stripes))

    slow, own = fit(ema=0.999, validation_share=0.0), fit(validation_share=0.0)
    assert not torch.equal(slow.model[1].weight, own.model[1].weight)
    assert [one["loss"] for one in slow.history] == [one["loss"] for one in own.history]
    # with a decay that forgets at once the average is the weights themselves
    quick = fit(ema=1e-9, validation_share=0.0)
    torch.testing.assert_close(quick.model[1].weight, own.model[1].weight)
    validated = fit(ema=0.999)
    held = validated.history[validated.epoch - 1]["validation_loss"]
    assert held != pytest.approx(fit().history[validated.epoch - 1]["validation_loss"], rel=1e-3)
    assert all(one.requires_grad for one in validated.model.parameters())
