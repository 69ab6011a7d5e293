"""How attacks look at a model without useful gradients, with random ones, or that may reject."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import nn

from ..api.defense import rejects


@dataclass(frozen=True)
class Nature:
    """Whether a model can be differentiated, uses random numbers, and may reject an input.

    Modules, defenses and model factories say so by attributes of these names; without them they are
    ordinary.
    """

    differentiable: bool = True
    stochastic: bool = False
    rejects: bool = False

    @classmethod
    def of(cls, *declared: object) -> "Nature":
        """That of a whole, from what its parts declare."""
        return cls(
            all(getattr(one, "differentiable", True) for one in declared),
            any(getattr(one, "stochastic", False) for one in declared),
            any(rejects(one) for one in declared),
        )

    @classmethod
    def of_module(cls, module: nn.Module) -> "Nature":
        """That of a network, from what its layers declare; whether it rejects it says itself."""
        return replace(cls.of(*module.modules()), rejects=rejects(module))

    @property
    def ordinary(self) -> bool:
        """Whether plain gradients tell everything."""
        return self == Nature()

    @property
    def needs(self) -> frozenset[str]:
        """What gradients must adapt to, in the words of the class attribute `adapts`."""
        missing = set() if self.differentiable else {"differentiable"}
        return frozenset(missing | ({"stochastic"} if self.stochastic else set()))


@dataclass(frozen=True)
class Approach:
    """How attacks look at a model that is not ordinary; others they see as it is.

    surrogates: through the stand-ins of layers without a gradient (BPDA, arXiv:1802.00420).
    samples: draws of a stochastic model that each gradient is the mean of (EOT, arXiv:1707.07397).
    oblivious: at the classifier alone of a model that may reject; what fools it is put to the whole
        model afterwards.
    """

    surrogates: bool = True
    samples: int = 10
    oblivious: bool = False


def naive(nature: Nature) -> Approach:
    """The approach of an attack that does not know of a defense that makes a model so."""
    return Approach(surrogates=False, samples=1, oblivious=nature.rejects)


def adapts(part: Any) -> frozenset[str]:
    """What an attack adapts to by itself: what it or a part of it declares in `adapts`."""
    own = frozenset(getattr(part, "adapts", ()))
    if is_dataclass(part) and not isinstance(part, type):
        return own.union(*(adapts(getattr(part, one.name)) for one in fields(part)))
    return own


def misses(attacks: Iterable[Any], nature: Nature) -> bool:
    """Whether one of these attacks needs help against a model of this nature.

    Of a rejection no attack knows; gradients are the affair of white-box ones.
    """
    return nature.rejects or any(
        one.access == "white-box" and nature.needs - adapts(one) for one in attacks
    )
