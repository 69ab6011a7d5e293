"""Random numbers that belong to the example, not to the batch.

Every number is a function of (seed, example, restart, step, stream, element) alone, so that the
batch size, the order of the examples, a resumed run or the number of workers cannot change it.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox4x32-10.
"""

import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_AT_ONCE = 1 << 14  # numbers whose intermediate results a processor's cache holds

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Philox4x32-10: four 32-bit words, held in int64 tensors, for each counter and key.

    The operands broadcast. A product of two 32-bit words wraps modulo 2**64, which leaves both its
    halves right.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            ((product1 >> 32) & _MASK) ^ c1 ^ k0,
            product1 & _MASK,
            ((product0 >> 32) & _MASK) ^ c3 ^ k1,
            product0 & _MASK,
        )
        k0 = (k0 + _WEYL[0]) & _MASK
        k1 = (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


@dataclass(frozen=True)
class Draws:
    """The random numbers of a batch of examples at one step of an attack.

    seed: 0 to 2**32 - 1.
    example, restart, step: (B,) int64, not negative.

    `stream` names what a draw is for: two draws of one step under the same name are equal.

    The numbers of an example do not depend on which other examples are in the batch:
    >>> import torch
    >>> from quintain.bench.api.rng import Draws
    >>> zeros = torch.zeros(3, dtype=torch.int64)
    >>> draws = Draws(seed=0, example=torch.tensor([7, 8, 9]), restart=zeros, step=zeros)
    >>> alone = Draws(0, torch.tensor([9]), zeros[:1], zeros[:1])
    >>> torch.equal(draws.normal((4,), "start")[2:], alone.normal((4,), "start"))
    True
    >>> torch.equal(draws.normal((4,), "start"), draws.normal((4,), "direction"))
    False
    """

    seed: int
    example: Tensor
    restart: Tensor
    step: Tensor

    def take(self, rows: Tensor) -> "Draws":
        """Those of some rows, (n,) int64."""
        return Draws(self.seed, self.example[rows], self.restart[rows], self.step[rows])

    def at_step(self, step: int) -> "Draws":
        """Those of another step, the same at every step that asks for them."""
        return Draws(self.seed, self.example, self.restart, torch.full_like(self.step, step))

    def words(self, count: int, stream: str) -> Tensor:
        """(B, count) int64: uniform over 0 to 2**32 - 1."""
        blocks = -(-count // 4)
        device = self.example.device
        purpose = torch.tensor(zlib.crc32(stream.encode()), device=device)
        seed = torch.tensor(self.seed & _MASK, device=device)
        out = torch.empty(len(self.example), blocks, 4, dtype=torch.int64, device=device)
        for piece in self._pieces(blocks):
            element = torch.arange(piece.start, piece.stop, device=device)[None, :]
            four = philox(
                (element, self.step[:, None], self.restart[:, None], purpose),
                (seed, self.example[:, None] & _MASK),
            )
            for word, values in enumerate(four):
                out[:, piece, word] = values
        return out.flatten(1)[:, :count]

    def _pieces(self, count: int) -> Iterator[slice]:
        """Parts of 0 to count - 1 to work on one after another: all of it at once on a GPU."""
        size = max(1, _AT_ONCE // max(1, len(self.example)))
        if self.example.device.type != "cpu":
            size = max(1, count)
        for begin in range(0, count, size):
            yield slice(begin, min(begin + size, count))

    def uniform(self, shape: Sequence[int], stream: str) -> Tensor:
        """(B, *shape) float32: uniform over [0, 1), in multiples of 2**-24."""
        words = self.words(math.prod(shape), stream)
        return ((words >> 8).float() * 2.0**-24).reshape(-1, *shape)

    def normal(self, shape: Sequence[int], stream: str) -> Tensor:
        """(B, *shape) float32: standard normal, by Box and Muller's transform in float64."""
        count = math.prod(shape)
        half = -(-count // 2)
        words = self.words(2 * half, stream)
        both = torch.empty(len(words), 2, half, device=words.device)
        for piece in self._pieces(half):
            first, second = (one[:, piece].double() for one in words.split(half, dim=1))
            radius = first.add_(0.5).mul_(2.0**-32).log_().mul_(-2.0).sqrt_()
            angle = second.add_(0.5).mul_(2.0**-32).mul_(2.0 * math.pi)
            both[:, 0, piece] = angle.cos().mul_(radius)
            both[:, 1, piece] = angle.sin_().mul_(radius)
        return both.flatten(1)[:, :count].reshape(-1, *shape)

    def signs(self, shape: Sequence[int], stream: str) -> Tensor:
        """(B, *shape) float32: -1 or 1, each with probability 1/2: the bits of words."""
        count = math.prod(shape)
        words = self.words(-(-count // 32), stream)
        bits = words[..., None] >> torch.arange(32, device=words.device) & 1
        return (2.0 * bits.float() - 1.0).flatten(1)[:, :count].reshape(-1, *shape)

    def permutation(self, count: int, stream: str) -> Tensor:
        """(B, count) int64: a random order of 0 to count - 1 for each example."""
        return self.words(count, stream).argsort(dim=1, stable=True)


_ambient: ContextVar[Draws | None] = ContextVar("ambient", default=None)


@contextmanager
def ambient(draws: Draws | None) -> Iterator[None]:
    """Within, `noise` gives these random numbers."""
    token = _ambient.set(draws)
    try:
        yield
    finally:
        _ambient.reset(token)


def noise(x: Tensor) -> Draws:
    """Random numbers for a stochastic layer that a batch x (N, ...) passes through, a row for each.

    A layer that uses them has an attribute `stochastic = True`. Under attack they belong to the
    example and are new for every input asked about; elsewhere they depend on torch's generator.

    >>> import torch
    >>> from quintain.bench.api.rng import noise
    >>> class Noisy(torch.nn.Module):
    ...     stochastic = True
    ...
    ...     def forward(self, x):
    ...         return x + 0.1 * noise(x).normal(x.shape[1:], "noise")
    >>> x = torch.zeros(2, 1, 4, 4)
    >>> torch.equal(Noisy()(x), Noisy()(x))
    False
    """
    draws = _ambient.get()
    if draws is not None:
        assert len(draws.example) == len(x), "a stochastic layer must keep the batch as it is"
        return draws
    seed = int(torch.randint(_MASK, (1,)))
    rows = torch.arange(len(x), device=x.device)
    return Draws(seed, rows, torch.zeros_like(rows), torch.zeros_like(rows))
