import pytest
import torch
from builders import random_images
from torch import nn
from torch.nn import functional

from quintain.attacks.gradients.surrogate_networks import Ensemble
from quintain.bench.victim.model import Network


def nets(count):
    made = []
    for seed in range(count):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            module = nn.Sequential(
                nn.Flatten(), nn.Linear(16, 8), nn.Tanh(), nn.Linear(8, 5)
            ).requires_grad_(False)
        made.append(module)
    return made


def opened(modules, combination):
    cpu = torch.device("cpu")
    return Ensemble(tuple(Network(one, cpu, 64) for one in modules), combination)


def together(modules, x, combination):
    outputs = torch.stack([one(x) for one in modules])
    return {
        "logits": lambda: outputs.mean(0),
        "probabilities": lambda: outputs.softmax(2).mean(0).log(),
        "losses": lambda: outputs.log_softmax(2).mean(0),
    }[combination]()


@pytest.mark.parametrize("combination", ["logits", "probabilities", "losses"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_gradient_is_that_of_what_is_averaged(combination, count):
    modules = nets(count)
    ensemble = opened(modules, combination)
    x = random_images(20, 1, 4, 4, seed=1)
    y = torch.arange(20) % 5

    def objective(logits):
        return functional.cross_entropy(logits, y, reduction="none")

    at = x.clone().requires_grad_()
    if combination == "losses":
        loss = torch.stack([objective(one(at)) for one in modules]).mean(0)
    else:
        loss = objective(together(modules, at, combination))
    (wanted,) = torch.autograd.grad(loss.sum(), at)
    gradient, value = ensemble.gradient(x, objective)
    assert torch.allclose(gradient, wanted, atol=1e-6)
    assert torch.allclose(value, loss, atol=1e-6)
    predicted = together(modules, x, combination).argmax(1)
    assert torch.equal(ensemble.logits(x).argmax(1), predicted)


def test_a_row_does_not_depend_on_its_neighbours():
    ensemble = opened(nets(3), "probabilities")
    x = torch.rand(40, 1, 4, 4)
    whole, _ = ensemble.gradient(x, lambda logits: logits[:, 1])
    alone, _ = ensemble.gradient(x[5:6], lambda logits: logits[:, 1])
    assert torch.equal(whole[5:6], alone)
