import pytest
import torch
from torch import nn
from torch.nn import functional

from quintain.bench.api.errors import CellError
from quintain.bench.victim.model import SMALLEST_BATCH, Network, automatic_batch_size, frozen

CPU = torch.device("cpu")


class Cramped(nn.Module):
    """Runs out of memory above some number of rows, and remembers the sizes it was given."""

    def __init__(self, inner, most, error=torch.OutOfMemoryError):
        super().__init__()
        self.inner = inner
        self.most = most
        self.error = error
        self.sizes = []

    def forward(self, x):
        self.sizes.append(len(x))
        if len(x) > self.most:
            raise self.error("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")
        return self.inner(x)


class Answering(nn.Module):
    """Returns what it is told to, whatever it is asked."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return self.answer(x)


@pytest.fixture
def module(digits):
    with frozen(digits.module) as module:
        yield module


def margin(y):
    return lambda logits: logits.logsumexp(1) - logits.gather(1, y[:, None])[:, 0]


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33, 64])
def test_an_example_gets_the_same_bits_in_any_batch(module, digits, count):
    network = Network(module, CPU, 64)
    whole = network.gradient(digits.images[:64], margin(digits.labels[:64]))
    part = network.gradient(digits.images[:count], margin(digits.labels[:count]))
    assert torch.equal(part.gradient, whole.gradient[:count])
    assert torch.equal(part.logits, whole.logits[:count])
    assert torch.equal(part.loss, whole.loss[:count])
    assert torch.equal(network.logits(digits.images[:count]), whole.logits[:count])


def test_the_gradient_is_autograds(module, digits):
    x = digits.images[:20].clone().requires_grad_()
    loss = functional.cross_entropy(module(x), digits.labels[:20], reduction="none")
    (expected,) = torch.autograd.grad(loss.sum(), x)
    answer = Network(module, CPU, 64).gradient(digits.images[:20], margin(digits.labels[:20]))
    assert torch.allclose(answer.gradient, expected, atol=1e-6)
    assert torch.allclose(answer.loss, loss, atol=1e-5)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, RuntimeError])
@pytest.mark.parametrize("most", [16, 20, 70, 128])
def test_short_of_memory_the_numbers_stay_the_same(module, digits, most, error):
    x, y = digits.images[:130], digits.labels[:130]
    expected = Network(module, CPU, 256).gradient(x, margin(y))
    cramped = Cramped(module, most, error)
    network = Network(cramped, CPU, 256)
    answer = network.gradient(x, margin(y))
    assert torch.equal(answer.gradient, expected.gradient)
    assert torch.equal(answer.logits, expected.logits)
    assert torch.equal(answer.loss, expected.loss)
    assert torch.equal(network.logits(x), expected.logits)
    cramped.sizes.clear()
    network.gradient(x, margin(y))
    network.logits(x)
    assert max(cramped.sizes) <= most  # it has learnt


def test_logits_alone_leave_the_batch_for_gradients_as_it_is(module, digits):
    network = Network(Cramped(module, 32), CPU, 32)
    network.logits(digits.images)
    assert network.batch_size == 32


def test_no_memory_for_the_smallest_batch_is_a_failed_cell(module, digits):
    network = Network(Cramped(module, SMALLEST_BATCH - 1), CPU, 64)
    with pytest.raises(CellError, match="out of memory even with 16 rows"):
        network.logits(digits.images)


def test_other_errors_are_not_taken_for_a_lack_of_memory(digits):
    def fail(x):
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        Network(Answering(fail), CPU, 64).logits(digits.images)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_fail_the_cell(digits, value):
    def answer(x):
        return x.flatten(1)[:, :3].index_fill(0, torch.tensor([7]), value)

    with pytest.raises(CellError, match="not finite"):
        Network(Answering(answer), CPU, 64).logits(digits.images[:32])


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (lambda x: x, r"\(16, 1, 8, 8\)"),
        (lambda x: x.flatten(1)[:3], r"\(3, 64\)"),
        (lambda x: (x.flatten(1), x), "tuple"),
    ],
)
def test_what_are_no_logits_fails_the_cell(digits, answer, shown):
    with pytest.raises(CellError, match=rf"must return logits \(B, K\), not {shown}"):
        Network(Answering(answer), CPU, 64).logits(digits.images[:16])


def test_a_model_without_derivative_fails_the_cell(digits):
    network = Network(Answering(lambda x: x.detach().flatten(1)), CPU, 64)
    with pytest.raises(CellError, match="cannot be differentiated"):
        network.gradient(digits.images[:4], lambda logits: logits[:, 0])


def test_nothing_asked_is_nothing_answered(module, digits):
    network = Network(module, CPU, 64)
    network.logits(digits.images[:1])
    assert network.logits(digits.images[:0]).shape == (0, 10)
    answer = network.gradient(digits.images[:0], lambda logits: logits[:, 0])
    assert answer.gradient.shape == (0, 1, 8, 8)


def test_the_module_is_put_back_as_it_was():
    module = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    module[0].weight.requires_grad_(False)
    module[1].eval()
    modes = [one.training for one in module.modules()]

    def interrupted():
        with frozen(module):
            assert not any(one.training for one in module.modules())
            assert not any(one.requires_grad for one in module.parameters())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [one.training for one in module.modules()] == modes == [True, True, False, True]
    wanted = {name: one.requires_grad for name, one in module.named_parameters()}
    assert wanted == {"0.weight": False, "0.bias": True, "2.weight": True, "2.bias": True}


def test_a_batch_for_the_cpu_depends_on_the_size_of_the_images(module):
    assert automatic_batch_size(module, torch.zeros(1, 3, 32, 32), CPU) == 128
    assert automatic_batch_size(module, torch.zeros(1, 3, 224, 224), CPU) == 32
