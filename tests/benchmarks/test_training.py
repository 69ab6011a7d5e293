"""What the training loop costs beside a bare one: forward, backward, attack steps, nothing else.

The bare loop has its batches ready as tensors, in order, and its weights in one optimizer. The
training loop draws an order, reads and augments, keeps count and could keep its state; neither
validates. Both take turns in one process, and processor time is compared on a CPU, since what else
the machine does is no part of it. Run by `tox -e bench`.
"""

import time
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from quintain.bench.api import registry
from quintain.bench.api.defense import InputSpec, Training
from quintain.bench.api.progress import Silent
from quintain.bench.datasets.in_memory import in_memory
from quintain.bench.tools.speed.timing import Spread, clock_of, take_turns
from quintain.bench.training.networks import build_network
from quintain.defenses.training.loop.amp import Arithmetic

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
EPSILON, BATCH, EPOCHS, LIMIT = 8 / 255, 128, 3, 1.05


@dataclass(frozen=True)
class Network:
    """A network and the examples that an epoch has."""

    spec: dict
    shape: tuple
    examples: int

    def build(self):
        channels = self.shape[0]
        inputs = InputSpec(self.shape, 10, (0.5,) * channels, (0.25,) * channels)
        return build_network(self.spec, inputs, 0).to(DEVICE)


NETWORKS = {
    "small-cnn": Network({"name": "small-cnn"}, (1, 28, 28), 512),
    "resnet18": Network({"name": "resnet", "depth": 18, "width": 0.25}, (3, 32, 32), 256),
}
STEPS = {"standard": 0, "fast": 1, "pgd-7": 7}  # of the attack
ROUNDS = {"standard": 21, "fast": 9, "pgd-7": 5}  # more where one is soon over
REACH = {1: 1.25, 7: 2.5}  # epsilons that all steps could cover


def defense(steps, **named):
    common = {"epochs": EPOCHS, "batch_size": BATCH, "validation_share": 0.0, **named}
    if not steps:
        return registry.build("defenses", {"name": "none", **common})
    method = "fgsm" if steps == 1 else "pgd"
    spec = {"name": "adversarial-training", "epsilon": EPSILON, "method": method, **common}
    return registry.build("defenses", spec)


def attacked(model, x, y, steps):
    """Sign steps from a random start, the network in evaluation mode, as `Adversary` does."""
    low, high = (x - EPSILON).clamp(min=0.0), (x + EPSILON).clamp(max=1.0)
    x_adv = (x + EPSILON * (2.0 * torch.rand_like(x) - 1.0)).clamp(low, high)
    model.eval().requires_grad_(False)
    for _ in range(steps):
        x_adv.requires_grad_()
        loss = F.cross_entropy(model(x_adv), y, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, x_adv)
        step = REACH[steps] / steps * EPSILON * gradient.sign()
        x_adv = (x_adv.detach() + step).clamp(low, high)
    model.train().requires_grad_(True)
    return x_adv


def bare(model, batches, steps, precision):
    """Forward, backward, attack steps, and the step of the weights."""
    cast = Arithmetic(precision, DEVICE).cast
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    model.train()
    for _ in range(EPOCHS):
        for x, y in batches:
            with cast():
                loss = F.cross_entropy(model(attacked(model, x, y, steps) if steps else x), y)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()


@pytest.fixture
def job():
    """Both loops on one network: what each of them does is done once before the clock runs."""

    def make(network, steps, precision="float32", **named):
        one = NETWORKS[network]
        generator = torch.Generator().manual_seed(0)
        x = torch.randint(256, (one.examples, *one.shape), generator=generator) / 255
        y = torch.randint(10, (one.examples,), generator=generator)
        training = Training(in_memory(x, y, tuple("0123456789")), 0, DEVICE, Silent())
        batches = [*zip(x.to(DEVICE).split(BATCH), y.to(DEVICE).split(BATCH), strict=True)]
        loop = defense(steps, learning_rate=0.01, precision=precision, **named)
        model, other = one.build(), one.build()
        return {
            "bare": lambda: bare(other, batches, steps, precision),
            "quintain": lambda: loop.fit(model, training),
        }

    return make


@pytest.mark.parametrize("augmentation", ["none", "shift-flip"])
@pytest.mark.parametrize("kind", STEPS)
@pytest.mark.parametrize("network", NETWORKS)
def test_cost_of_the_loop(benchmark, job, network, kind, augmentation):
    runs = job(network, STEPS[kind], augmentation=augmentation)
    for run in runs.values():
        run()
    clock = time.process_time if DEVICE.type == "cpu" else clock_of(DEVICE)
    seconds = {}
    benchmark.group = f"training {network}, {kind}"
    benchmark.pedantic(lambda: seconds.update(take_turns(runs, ROUNDS[kind], clock)), rounds=1)
    ratio = Spread.of_ratios(seconds["quintain"], seconds["bare"])
    benchmark.extra_info |= {"ratio": ratio.median, "low": ratio.low, "high": ratio.high}
    print(
        f"\n{network} {kind} {augmentation}: {ratio.median:.3f} ({ratio.low:.3f}..{ratio.high:.3f})"
    )
    assert ratio.median <= LIMIT


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_cost_of_a_precision(benchmark, job, precision):
    """Fast adversarial training of the ResNet in each: the machine decides what is worth it."""
    runs = job("resnet18", 1, precision=precision)
    benchmark.group = "precision of training resnet18, fast"
    benchmark.pedantic(runs["quintain"], rounds=3, warmup_rounds=1)
