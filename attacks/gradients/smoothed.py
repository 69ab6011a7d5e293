"""The gradient of the network with its corners rounded off, less and less as the attack goes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ...bench.api.attack import Access, Loss, Problem
from ..parts.parameters import at_least, positive, positive_up_to

_COLDEST = 1e-4  # below it a softplus in float32 is a ReLU


@dataclass(frozen=True)
class Smoothed:
    """The gradient through softplus instead of ReLU, and a soft maximum instead of max-pooling.

    Where many units are shut, a ReLU network is flat and its gradient tells nothing of what lies
    beyond; a softplus of temperature tau sees the units that are about tau from opening. The
    temperature falls with the steps, and the network becomes the real one. White-box. The real
    network is asked as well, one forward pass more each `check_every` steps: only what fools it
    counts.

    Smoothing and annealing are the continuation method of optimisation (Mobahi & Fisher 2015,
    arXiv:1601.04114) on the network's own non-linearities.

    temperature: tau at the first step, times the mean size of what the layer is given, so that the
        network's scale does not matter. decay: tau's factor each step. check_every: as above.

    Where the input of a ReLU is negative it has no gradient, unless it is smoothed:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> import torch
    >>> network = torch.nn.Sequential(model, torch.nn.Linear(2, 2), torch.nn.ReLU())
    >>> network[1].weight.data = torch.eye(2) * 4.0
    >>> network[1].bias.data = torch.full((2,), -0.5)
    >>> for gradient in ("autograd", "smoothed"):
    ...     attack = {"name": "pgd", "gradient": gradient, "loss": "margin", "random_start": False}
    ...     result = evaluate(network, images, labels, attack, epsilons=[0.15])
    ...     gradient, result.curve["robust_accuracy"].tolist()
    ('autograd', [0.5])
    ('smoothed', [0.0])
    """

    temperature: float = 1.0
    decay: float = 0.98
    check_every: int = 5

    def __post_init__(self) -> None:
        positive(temperature=self.temperature)
        positive_up_to(1.0, decay=self.decay)
        at_least(1, check_every=self.check_every)

    @property
    def access(self) -> Access:
        """White-box."""
        return "white-box"

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the smoothed network's gradient at x."""
        return self.valued(problem, x, loss)[0]

    def valued(self, problem: Problem, x: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) and (B,): the smoothed network's gradient at x, and its loss there."""
        looking = (problem.step % self.check_every == self.check_every - 1).nonzero().flatten()
        if len(looking):
            problem.victim.labels(x[looking], looking)
        answer = problem.victim.gradient(
            x,
            lambda logits: loss(logits, problem.y, targeted=problem.targeted),
            surrogate=Softened(),
            setting=(self.temperature * self.decay**problem.step).to(x.dtype),
        )
        return answer.gradient, answer.loss


@dataclass(frozen=True)
class Softened:
    """A surrogate gradient with ReLU and max-pooling rounded off, by a temperature a row."""

    @contextmanager
    def applied(self, module: nn.Module, setting: Tensor | None) -> Iterator[None]:
        """Replace the functions wherever the module calls them."""
        assert setting is not None
        with _SoftFunctions(setting):
            yield


class _SoftFunctions(TorchFunctionMode):
    """Calls soft forms of the functions that have corners."""

    def __init__(self, temperature: Tensor) -> None:
        super().__init__()
        self.temperature = temperature

    def __torch_function__(self, function: Any, _: Any, given: Any = (), named: Any = None) -> Any:
        named = named or {}
        if function in _RELUS:
            return self._softplus(given[0])
        if function is functional.max_pool2d:
            return self._soft_pool(*given, **named)
        return function(*given, **named)

    def _rows(self, x: Tensor) -> Tensor:
        """(N, 1, ...): the temperature of each row, in the units of this layer's inputs."""
        tau = self.temperature
        if len(x) != len(tau):  # the network has folded other axes into the batch
            tau = tau.repeat_interleave(len(x) // len(tau))
        size = x.detach().flatten(1).abs().mean(dim=1)
        return (tau * size).clamp(min=_COLDEST).reshape(-1, *[1] * (x.dim() - 1)).to(x.dtype)

    def _softplus(self, x: Tensor) -> Tensor:
        tau = self._rows(x)
        return tau * functional.softplus(x / tau)

    def _soft_pool(
        self,
        x: Tensor,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        return_indices: bool = False,
    ) -> Tensor:
        """Mean weighted by softmax(x / tau) over each window."""
        hard = functional.max_pool2d(x.detach(), kernel_size, stride, padding, dilation, ceil_mode)
        if ceil_mode or return_indices:  # windows that unfold does not make
            return functional.max_pool2d(x, kernel_size, stride, padding, dilation, ceil_mode)
        tau = self._rows(x)
        kernel = _pair(kernel_size)
        stride = _pair(stride if stride is not None else kernel_size)
        across, down = _pair(padding)
        padded = functional.pad(x, (down, down, across, across), value=-torch.inf)
        windows = _windows(padded, kernel, stride, _pair(dilation), hard.shape[-2:])
        weights = (windows / tau[..., None]).softmax(dim=-1)
        return (weights * windows.masked_fill(windows == -torch.inf, 0.0)).sum(dim=-1)


_RELUS = {functional.relu, functional.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def _windows(
    x: Tensor,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    shape: torch.Size,
) -> Tensor:
    """(N, C, H', W', kernel's size): what each window of a pooling layer sees."""
    parts = []
    for down in range(kernel[0]):
        for across in range(kernel[1]):
            top, left = down * dilation[0], across * dilation[1]
            bottom = top + stride[0] * (shape[0] - 1) + 1
            right = left + stride[1] * (shape[1] - 1) + 1
            parts.append(x[..., top : bottom : stride[0], left : right : stride[1]])
    return torch.stack(parts, dim=-1)
