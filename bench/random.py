"""Random numbers that belong to the example, not to the batch.

Every number is a function of (seed, example, restart, step, stream, element) alone, so that the
batch size, the order of the examples, a resumed run or the number of workers cannot change it.

Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox4x32-10.
"""

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10

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
    """

    seed: int
    example: Tensor
    restart: Tensor
    step: Tensor

    def words(self, count: int, stream: str) -> Tensor:
        """(B, count) int64: uniform over 0 to 2**32 - 1."""
        blocks = -(-count // 4)
        device = self.example.device
        element = torch.arange(blocks, device=device)[None, :]
        purpose = torch.tensor(zlib.crc32(stream.encode()), device=device)
        seed = torch.tensor(self.seed & _MASK, device=device)
        out = philox(
            (element, self.step[:, None], self.restart[:, None], purpose),
            (seed, self.example[:, None] & _MASK),
        )
        return torch.stack(torch.broadcast_tensors(*out), dim=-1).flatten(1)[:, :count]

    def uniform(self, shape: Sequence[int], stream: str) -> Tensor:
        """(B, *shape) float32: uniform over [0, 1), in multiples of 2**-24."""
        words = self.words(math.prod(shape), stream)
        return ((words >> 8).float() * 2.0**-24).reshape(-1, *shape)

    def normal(self, shape: Sequence[int], stream: str) -> Tensor:
        """(B, *shape) float32: standard normal, by Box and Muller's transform in float64."""
        count = math.prod(shape)
        half = -(-count // 2)
        unit = (self.words(2 * half, stream).double() + 0.5) * 2.0**-32
        radius = (-2.0 * unit[:, :half].log()).sqrt()
        angle = 2.0 * math.pi * unit[:, half:]
        both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
        return both[:, :count].float().reshape(-1, *shape)

    def permutation(self, count: int, stream: str) -> Tensor:
        """(B, count) int64: a random order of 0 to count - 1 for each example."""
        return self.words(count, stream).argsort(dim=1, stable=True)
