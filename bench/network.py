"""The network under attack, run so that an example's numbers do not depend on its neighbours."""

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from .adaptive import Nature
from .errors import BadData, CellError
from .modules import evaluation_mode, needs_a_pass
from .protocols import Answer, Lens
from .random import Draws, ambient
from .rejection import rejects

# Matrix kernels for a handful of rows round differently from those for many: on the CPUs tried,
# every row was the same to the bit from 8 rows up. Smaller batches are filled up.
SMALLEST_BATCH = 16
_VOTES = (
    200  # draws of a stochastic module that are asked for at most, unless a layer says otherwise
)
_FORWARD_ONLY = 4  # times the rows on a GPU, since a pass without gradient keeps no activations
_NOT_FINITE = "the model returned logits that are not finite"
_NO_MEMORY = re.compile("not enough memory|can't allocate memory|out of memory|ALLOC_FAILED")

T = TypeVar("T")


class Network:
    """A module with its weights frozen, in evaluation mode, run in batches that fit in memory.

    batch_size: rows a pass with gradient, a multiple of them without. Halved, for good, when the
    device runs out of memory. tolerance: by how much logits may be off the true model's; not 0 for
    a copy that is faster than it is exact. stochastic: whether the module has layers that use
    random numbers; then its verdict (`verdicts`) is the class that most of some draws give, of up
    to `votes`: 200, or what such layers say (`votes = 500`). rejects: whether the logits have one
    more after those of the n_classes classes, for "rejected".
    surrogates: the lens that gradients are always seen through, of a module with layers that have
    none; without it such a module's gradient is zero.
    """

    def __init__(
        self,
        module: nn.Module,
        device: torch.device,
        batch_size: int,
        tolerance: float = 0.0,
        surrogates: Lens | None = None,
    ) -> None:
        self.module = module
        self.device = device
        self.batch_size = max(batch_size, SMALLEST_BATCH)
        self.tolerance = tolerance
        self.n_classes = 0
        self.nature = Nature.of_module(module)
        self.stochastic, self.rejects = self.nature.stochastic, self.nature.rejects
        layers = [one for one in module.modules() if getattr(one, "stochastic", False)]
        declared = [getattr(one, "votes", None) for one in layers]
        self.votes: int = max((one for one in declared if one is not None), default=_VOTES)
        self._surrogates = surrogates
        _refuse_hidden_rejection(module)
        self._forward_only = _FORWARD_ONLY if device.type == "cuda" else 1
        self._arithmetic = getattr(module, "arithmetic", nullcontext)
        self._finite: Tensor | None = None

    def logits(self, x: Tensor, noise: Draws | None = None) -> Tensor:
        """(N, C, H, W) -> (N, K), without gradient. noise: for a stochastic module."""
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
        """Wait for the device to tell whether all logits so far were finite.

        Raises: CellError when they were not.
        """
        if self._finite is not None and not self._finite:
            raise CellError(_NOT_FINITE)

    def gradient(
        self,
        x: Tensor,
        objective: Callable[[Tensor], Tensor],
        lens: Lens | None = None,
        setting: Tensor | None = None,
        noise: Draws | None = None,
    ) -> Answer:
        """Gradient at x, (B, C, H, W), of an objective (B, K) -> (B,) that treats rows apart.

        The objective sees all rows at once, so when the batch is run in parts its derivative is
        taken first, from logits without gradient, and each part is then pulled back on its own.
        lens, setting: to look through, as a victim's gradient. noise: for a stochastic module.
        """
        view = _View(lens, setting, noise)
        if len(x) <= self.batch_size:
            try:
                return self._pull_back(x, objective, view)
            except RuntimeError as error:
                self._halve(error, forward_only=False)
        with torch.no_grad():
            looks = self._in_parts(
                len(x), lambda rows: self._seen(x[rows], view.part(rows)), forward_only=True
            )
        self.check()
        logits = torch.cat(looks).requires_grad_()
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
        return Answer(torch.cat(parts), loss.detach(), logits.detach())

    def _seen(self, x: Tensor, view: "_View") -> Tensor:
        """The module's logits, through the surrogates and the lens if there are any."""
        x = x.to(self.device)
        with ExitStack() as lenses:
            if self._surrogates is not None and self._surrogates != view.lens:
                lenses.enter_context(self._surrogates.applied(self.module, None))
            if view.lens is not None:
                setting = None if view.setting is None else _filled(view.setting)
                lenses.enter_context(view.lens.applied(self.module, setting))
            logits = self._forward(x, view.noise)
        if not self.nature.differentiable and x.requires_grad and not logits.requires_grad:
            logits = logits + 0.0 * x.flatten(1).sum(dim=1, keepdim=True)  # no gradient is zero
        return logits

    def _pull_back(self, x: Tensor, objective: Callable[[Tensor], Tensor], view: "_View") -> Answer:
        x = x.to(self.device).detach().requires_grad_()
        with torch.enable_grad(), self._arithmetic():
            logits = self._seen(x, view)
            if not logits.requires_grad:
                raise CellError("the model cannot be differentiated: its logits carry no gradient")
            loss = objective(logits)
            (gradient,) = torch.autograd.grad(loss.sum(), x, allow_unused=True)
            if gradient is None:
                raise CellError("the model cannot be differentiated: no gradient reaches the image")
        return Answer(gradient, loss.detach(), logits.detach())

    def _forward(self, x: Tensor, noise: Draws | None = None) -> Tensor:
        if not len(x):
            return x.flatten(1)[:, :1].expand(-1, self.n_classes + self.rejects)
        missing = SMALLEST_BATCH - len(x)
        if missing > 0:
            given = torch.cat([x, x[:1].detach().expand(missing, *x.shape[1:])])
        else:
            given = x.clone()  # a model may write into its input
        if noise is None:
            logits = self.module(given)
        else:
            rows = (_filled(one) for one in (noise.example, noise.restart, noise.step))
            with ambient(Draws(noise.seed, *rows)):
                logits = self.module(given)
        if not isinstance(logits, Tensor) or logits.dim() != 2 or len(logits) != len(given):
            raise CellError(f"the model must return logits (B, K), not {_shape(logits)}")
        finite = logits.detach().isfinite().all()
        if not logits.is_cuda:
            if not finite:
                raise CellError(_NOT_FINITE)
        elif self._finite is None:
            self._finite = finite
        else:
            self._finite &= finite  # to be looked at by `check`: now it would wait for the device
        self.n_classes = logits.shape[1] - self.rejects
        return logits[: len(x)] if missing > 0 else logits

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
class _View:
    """How a gradient is looked at: the lens and its setting, the random numbers."""

    lens: Lens | None
    setting: Tensor | None
    noise: Draws | None

    def part(self, rows: slice) -> "_View":
        setting = None if self.setting is None else self.setting[rows]
        return _View(self.lens, setting, _some(self.noise, rows))


def _some(noise: Draws | None, rows: slice) -> Draws | None:
    """The random numbers of some rows."""
    if noise is None:
        return None
    return Draws(noise.seed, noise.example[rows], noise.restart[rows], noise.step[rows])


def _filled(rows: Tensor) -> Tensor:
    """(N,) -> at least SMALLEST_BATCH of them: the first repeated, as images are filled up."""
    missing = max(0, SMALLEST_BATCH - len(rows))
    return torch.cat([rows, rows[:1].expand(missing)]) if missing else rows


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


def _refuse_hidden_rejection(module: nn.Module) -> None:
    """Refuse a model around one that rejects which does not say whether it passes that on.

    Its last logit would be taken for a class. Raises: BadData.
    """
    if hasattr(module, "rejects"):
        return
    for name, inner in module.named_modules():
        if rejects(inner):
            raise BadData(
                f"layer '{name}' of the model may reject; give the model itself an attribute "
                "rejects, True if its last logit is the rejection's and False if not"
            )


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """Evaluation mode, no gradients for weights, full float32 arithmetic; put back at the end.

    Raises: CellError when the module does not allow it.
    """
    if needs_a_pass(module):
        raise CellError("the model has lazy layers without weights: run it on an image first")
    modes = [(one, one.training) for one in module.modules() if hasattr(one, "training")]
    wanted = [(one, one.requires_grad) for one in module.parameters() if not one.is_inference()]
    evaluation_mode(module)
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        ):
            yield module
    finally:
        torch.set_float32_matmul_precision(precision)
        for one, mode in modes:
            if one.training != mode:
                one.training = mode
        for parameter, before in wanted:
            parameter.requires_grad_(before)


def automatic_batch_size(
    module: nn.Module, example: Tensor, device: torch.device, surrogates: Lens | None = None
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
