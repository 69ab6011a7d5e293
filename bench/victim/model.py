"""The network under attack, run so that an example's numbers do not depend on its neighbours."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..api.attack import Answer, SurrogateGradient
from ..api.defense import rejects
from ..api.errors import BadData, CellError
from ..api.rng import Draws, ambient
from ..api.shared.module_state import dtype_of, evaluation_mode, needs_a_pass
from ..api.shared.torch_switches import full_precision, torch_defaults
from .traits import ModelTraits

# Matrix kernels for a handful of rows round differently from those for many: on the CPUs tried,
# every row was the same to the bit from 8 rows up. Smaller batches are filled up.
SMALLEST_BATCH = 16
_VOTES = (
    200  # draws of a stochastic module that are asked for at most, unless a layer says otherwise
)
_FORWARD_ONLY = 4  # times the rows on a GPU, since a pass without gradient keeps no activations
_NO_POINT = "the attack asked about an image that is not finite"
_NO_MEMORY = re.compile("not enough memory|can't allocate memory|out of memory|ALLOC_FAILED")
T = TypeVar("T")


class Network:
    """A module with its weights frozen, in evaluation mode, run in batches that fit in memory.

    batch_size: rows a pass with gradient, a multiple of them without. Halved, for good, when the
    device runs out of memory. tolerance: by how much logits may be off the true model's; not 0 for
    a copy that is faster than it is exact. stochastic: whether the module has layers that use
    random numbers; then its prediction (`predictions`) is the class that most of some draws give,
    of up to `votes`: 200, or what such layers say (`votes = 500`). rejects: whether the logits have
    one more after those of the n_classes classes, for "rejected".
    surrogates: the surrogate gradient that gradients are always seen through, of a module with
    layers that have none; without it such a module's gradient is zero. owner: whose network it is,
    for messages.

    The module is given images in its own dtype. Logits come back in float32, in float64 of a module
    in float64. A logit may be -inf, as of a class that is masked; NaN and +inf fail.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        batch_size: int,
        tolerance: float = 0.0,
        surrogates: SurrogateGradient | None = None,
        owner: str = "the model",
    ) -> None:
        self.module = module
        self.owner = owner
        self.dtype = dtype_of(module)
        self.device = device
        self.batch_size = max(batch_size, SMALLEST_BATCH)
        self.tolerance = tolerance
        self.n_classes = 0
        self.traits = ModelTraits.of_module(module)
        self.stochastic, self.rejects = self.traits.stochastic, self.traits.rejects
        layers = [one for one in module.modules() if getattr(one, "stochastic", False)]
        declared = [getattr(one, "votes", None) for one in layers]
        self.votes: int = max((one for one in declared if one is not None), default=_VOTES)
        self._surrogates = surrogates
        _refuse_hidden_rejection(module)
        self._forward_only = _FORWARD_ONLY if device.type == "cuda" else 1
        self._arithmetic = getattr(module, "arithmetic", nullcontext)
        self._finite: Tensor | None = None

    def logits(self, x: Tensor, noise: Draws | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K), without gradient. noise: for a stochastic module, if it is."""
        x = x.to(self.device)
        with torch.no_grad():
            parts = self._in_parts(
                len(x), lambda rows: self._forward(x[rows], _some(noise, rows)), forward_only=True
            )
        self.check()
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def attached(self, x: Tensor, noise: Draws | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K), with the graph to x where that requires a gradient."""
        x = x.to(self.device)
        with torch.enable_grad():
            parts = [
                self._seen(x[rows], _View(None, None, _some(noise, rows)))
                for begin in range(0, max(len(x), 1), self.batch_size)
                for rows in [slice(begin, begin + self.batch_size)]
            ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def check(self) -> None:
        """Wait for the device to tell whether all logits so far could be used.

        Raises: CellError when they could not.
        """
        if self._finite is not None and not self._finite:
            raise CellError(self._not_finite)

    @property
    def _not_finite(self) -> str:
        return f"{self.owner} returned logits that are not finite"

    def gradient(
        self,
        x: Tensor,
        objective: Callable[[Tensor], Tensor],
        surrogate: SurrogateGradient | None = None,
        setting: Tensor | None = None,
        noise: Draws | None = None,
    ) -> "Pulled":
        """Gradient at x, (B, C, H, W), of an objective (B, K) -> (B,) that treats rows apart.

        The objective sees all rows at once, so when the batch is run in parts its derivative is
        taken first, from logits without gradient, and each part is then pulled back on its own.
        surrogate, setting: to look through, as a victim's gradient. noise: for a stochastic module.
        """
        view = _View(surrogate, setting, noise)
        if len(x) <= self.batch_size:
            try:
                return self._pull_back(x, objective, view)
            except RuntimeError as error:
                self._halve(error, forward_only=False)
        with torch.no_grad():
            parts_seen = self._in_parts(
                len(x), lambda rows: self._seen(x[rows], view.part(rows)), forward_only=True
            )
        self.check()
        logits = torch.cat(parts_seen).requires_grad_()
        loss = objective(logits)
        (slope,) = torch.autograd.grad(loss.sum(), logits)
        parts = self._in_parts(
            len(x),
            lambda rows: (
                self._pull_back(
                    x[rows], lambda z: (z * slope[rows]).sum(1), view.part(rows)
                ).gradient
            ),
            forward_only=False,
        )
        return Pulled(torch.cat(parts), loss.detach(), logits.detach(), slope)

    def _seen(self, x: Tensor, view: "_View") -> Tensor:
        """The module's logits, through its surrogates and the surrogate gradient asked for."""
        x = x.to(self.device)
        with ExitStack() as surrogates:
            if self._surrogates is not None and self._surrogates != view.surrogate:
                surrogates.enter_context(self._surrogates.applied(self.module, None))
            if view.surrogate is not None:
                setting = None if view.setting is None else filled(view.setting)
                surrogates.enter_context(view.surrogate.applied(self.module, setting))
            logits = self._forward(x, view.noise)
        if not self.traits.differentiable and x.requires_grad and not logits.requires_grad:
            logits = logits + 0.0 * x.flatten(1).sum(dim=1, keepdim=True)  # no gradient is zero
        return logits

    def _pull_back(
        self, x: Tensor, objective: Callable[[Tensor], Tensor], view: "_View"
    ) -> "Pulled":
        x = x.to(self.device).detach().requires_grad_()
        with torch.enable_grad(), self._arithmetic():
            logits = self._seen(x, view)
            if not logits.requires_grad:
                raise CellError(
                    f"{self.owner} cannot be differentiated: its logits carry no gradient"
                )
            loss = objective(logits)
            gradient, slope = torch.autograd.grad(loss.sum(), (x, logits), allow_unused=True)
            if gradient is None:
                raise CellError(
                    f"{self.owner} cannot be differentiated: no gradient reaches the image"
                )
        return Pulled(gradient, loss.detach(), logits.detach(), slope)

    def _forward(self, x: Tensor, noise: Draws | None = None) -> Tensor:
        if not len(x):
            return x.flatten(1)[:, :1].expand(-1, self.n_classes + self.rejects)
        missing = SMALLEST_BATCH - len(x)
        if missing > 0:
            given = torch.cat([x, x[:1].detach().expand(missing, *x.shape[1:])])
        else:
            given = x.clone()  # a model may write into its input
        if self.dtype != torch.float32:
            given = given.to(self.dtype)
        if noise is None or not self.stochastic:
            logits = self.module(given)
        else:
            rows = (filled(one) for one in (noise.example, noise.restart, noise.step))
            with ambient(Draws(noise.seed, *rows)):
                logits = self.module(given)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(given):
            raise CellError(f"{self.owner} must return logits (B, K), not {_shape(logits)}")
        self._count_classes(logits)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        self._check_logits(logits.detach(), given)
        return logits[: len(x)] if missing > 0 else logits

    def _count_classes(self, logits: Tensor) -> None:
        """Learn how many classes there are. Raises: CellError when they are not as many as before.

        What an attack knows of them, and the labels, would be of another model.
        """
        classes = logits.shape[1] - self.rejects
        if self.n_classes not in (0, classes):
            raise CellError(
                f"{self.owner} returned logits of {classes} classes, "
                f"and of {self.n_classes} when it was asked before"
            )
        self.n_classes = classes

    def _check_logits(self, logits: Tensor, given: Tensor) -> None:
        """Refuse NaN, +inf, and rows that are -inf throughout; on a GPU when `check` is called.

        Raises: CellError, which blames whoever asked where it was the input that was not finite.
        """
        usable = logits.amax(dim=1).isfinite().all()
        if logits.is_cuda:  # the answer would be waited for
            self._finite = usable if self._finite is None else self._finite & usable
        elif not usable:
            raise CellError(self._not_finite if given.isfinite().all() else _NO_POINT)

    def _in_parts(self, count: int, run: Callable[[slice], T], *, forward_only: bool) -> list[T]:
        parts: list[T] = []
        begin = 0
        while begin < count or not parts:
            size = self.batch_size * (self._forward_only if forward_only else 1)
            try:
                parts.append(run(slice(begin, begin + size)))
                begin += size
            except RuntimeError as error:
                self._halve(error, forward_only=forward_only)
        return parts

    def _halve(self, error: RuntimeError, *, forward_only: bool) -> None:
        """Go on with half the rows if memory was the trouble and there is anything to halve."""
        if not out_of_memory(error):
            raise error
        if forward_only and self._forward_only > 1:
            self._forward_only //= 2
        elif self.batch_size > SMALLEST_BATCH:
            self.batch_size = max(self.batch_size // 2, SMALLEST_BATCH)
        else:
            raise CellError(f"out of memory even with {SMALLEST_BATCH} rows a pass") from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


@dataclass(frozen=True)
class Pulled(Answer):
    """An answer, and the objective's own derivative by the logits: slope, (B, K).

    It tells whether a gradient that is not finite is the objective's fault or the network's.
    """

    slope: Tensor


@dataclass(frozen=True)
class _View:
    """How a gradient is looked at: the surrogate gradient and its setting, the random numbers."""

    surrogate: SurrogateGradient | None
    setting: Tensor | None
    noise: Draws | None

    def part(self, rows: slice) -> "_View":
        setting = None if self.setting is None else self.setting[rows]
        return _View(self.surrogate, setting, _some(self.noise, rows))


def _some(noise: Draws | None, rows: slice) -> Draws | None:
    """The random numbers of some rows."""
    if noise is None:
        return None
    return Draws(noise.seed, noise.example[rows], noise.restart[rows], noise.step[rows])


def filled(rows: Tensor) -> Tensor:
    """(N, ...) -> at least SMALLEST_BATCH of them: the first repeated.

    Smaller batches would be rounded otherwise.
    """
    missing = max(0, SMALLEST_BATCH - len(rows))
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows


def out_of_memory(error: RuntimeError) -> bool:
    """Whether it was memory that a device or the host lacked."""
    return isinstance(error, torch.OutOfMemoryError) or bool(_NO_MEMORY.search(str(error)))


def in_memory(ask: Callable[[int], T], size: int) -> tuple[T, int]:
    """What `ask` gives with at most `size` rows a pass, halved as long as memory lacks; the size.

    Raises: CellError when memory lacks for the smallest batch.
    """
    while True:
        try:
            with torch.no_grad():
                return ask(size), size
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size <= SMALLEST_BATCH:
                raise CellError(f"out of memory even with {size} rows a pass") from error
        size = max(size // 2, SMALLEST_BATCH)


def named_dtype(dtype: torch.dtype) -> str:
    """A dtype as records write it, such as float32."""
    return str(dtype).removeprefix("torch.")


def _refuse_hidden_rejection(module: nn.Module) -> None:
    """Refuse a model around one that rejects which does not say whether it passes that on.

    Its last logit would be taken for a class. Raises: BadData.
    """
    if hasattr(module, "rejects"):
        return
    for name, inner in module.named_modules():
        if rejects(inner):
            raise BadData(
                f"layer '{name}' of the model has a reject option; give the model itself "
                "an attribute rejects, True if its last logit is the rejection's and False if not"
            )


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, no gradients for weights, full float32 arithmetic; put back at the end.

    Torch's switches of the process, such as autocast, are as torch starts with them.

    Raises: CellError when the module does not allow it.
    """
    if needs_a_pass(module):
        raise CellError("the model has lazy layers without weights: run it on an image first")
    with torch_defaults(), full_precision():
        modes = [(one, one.training) for one in module.modules() if hasattr(one, "training")]
        wanted = [(one, one.requires_grad) for one in module.parameters() if not one.is_inference()]
        evaluation_mode(module)
        for parameter, _ in wanted:
            parameter.requires_grad_(False)
        try:
            yield module
        finally:
            for one, mode in modes:
                if one.training != mode:
                    one.training = mode
            for parameter, before in wanted:
                parameter.requires_grad_(before)


def automatic_batch_size(
    module: nn.Module,
    example: Tensor,
    device: torch.device,
    surrogates: SurrogateGradient | None = None,
) -> int:
    """Rows a pass: on a GPU by the memory that one example needs, on a CPU by the image's size.

    example: (1, C, H, W) on the device. surrogates: as a Network's.
    """
    if device.type != "cuda":
        return 128 if example[0, 0].numel() <= 64 * 64 else 32
    probe = example.expand(SMALLEST_BATCH, *example.shape[1:])
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    network = Network(module, device, SMALLEST_BATCH, surrogates=surrogates)
    zero = torch.zeros(SMALLEST_BATCH, dtype=torch.int64, device=device)
    noise = Draws(0, zero, zero, zero) if network.stochastic else None
    try:
        network.gradient(probe, lambda logits: logits[:, 0], noise=noise)
    except CellError:  # it may still answer: not every model can be differentiated
        network.logits(probe, noise)
    each = (torch.cuda.max_memory_allocated(device) - before) / SMALLEST_BATCH
    free, _ = torch.cuda.mem_get_info(device)
    fitting = int(0.5 * free / max(each, 1.0))
    return max(SMALLEST_BATCH, min(1024, 1 << max(fitting, 1).bit_length() - 1))


def _shape(value: object) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else type(value).__name__
