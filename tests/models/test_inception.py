import torch
from builders import parameters
from torch import nn

from quintain.models.googlenet import TABLE
from quintain.models.inception import Filters, Inception, NaiveInception


def test_reductions_cut_the_cost_and_the_growth_of_a_module():
    filters = TABLE["4e"]
    naive = NaiveInception(528, filters)
    reduced = Inception(528, filters)
    x = torch.rand(1, 528, 7, 7)
    assert naive(x).shape == (1, 256 + 320 + 128 + 528, 7, 7)
    assert reduced(x).shape == (1, 832, 7, 7)
    assert parameters(reduced) < 0.3 * parameters(naive)


def test_naive_module_passes_its_pooled_input_on():
    naive = NaiveInception(3, Filters(1, 9, 1, 9, 1, 9))
    x = torch.rand(2, 3, 6, 6)
    assert torch.equal(naive(x)[:, 3:], nn.functional.max_pool2d(x, 3, stride=1, padding=1))
