"""How attacks adapt to models without useful gradients, with random ones, or a reject option."""

from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from torch import nn

from ..api.defense import rejects


@dataclass(frozen=True)
class ModelTraits:
    """Whether a model can be differentiated, uses random numbers, and can reject an input.

    Modules, defenses and model factories say so by attributes of these names; without them they are
    ordinary.
    """

    differentiable: bool = True
    stochastic: bool = False
    rejects: bool = False

    @classmethod
    def of(cls, *declared: object) -> "ModelTraits":
        """That of a whole, from what its parts declare."""
        return cls(
            all(getattr(one, "differentiable", True) for one in declared),
            any(getattr(one, "stochastic", False) for one in declared),
            any(rejects(one) for one in declared),
        )

    @classmethod
    def of_module(cls, module: nn.Module) -> "ModelTraits":
        """That of a network, from what its layers declare; whether it rejects it says itself."""
        return replace(cls.of(*module.modules()), rejects=rejects(module))

    @property
    def ordinary(self) -> bool:
        """Whether plain gradients tell everything."""
        return self == ModelTraits()

    @property
    def needs(self) -> frozenset[str]:
        """What gradients must adapt to, in the words of the class attribute `adapts`."""
        missing = set() if self.differentiable else {"differentiable"}
        return frozenset(missing | ({"stochastic"} if self.stochastic else set()))


@dataclass(frozen=True)
class Adaptation:
    """How attacks look at a model that is not ordinary; others they see as it is.

    surrogates: through the stand-ins of layers without a gradient (BPDA, arXiv:1802.00420).
    samples: draws of a stochastic model that each gradient is the mean of (EOT, arXiv:1707.07397).
    detector_unaware: at the classifier alone of a model with a reject option; what fools it is put
        to the whole model afterwards.
    """

    surrogates: bool = True
    samples: int = 10
    detector_unaware: bool = False


def naive(traits: ModelTraits) -> Adaptation:
    """The approach of an attack that does not know of a defense that makes a model so."""
    return Adaptation(surrogates=False, samples=1, detector_unaware=traits.rejects)


def adapts(part: Any) -> frozenset[str]:
    """What an attack adapts to by itself: what it or a part of it declares in `adapts`."""
    own = frozenset(getattr(part, "adapts", ()))
    if is_dataclass(part) and not isinstance(part, type):
        return own.union(*(adapts(getattr(part, one.name)) for one in fields(part)))
    return own


def misses(attacks: Iterable[Any], traits: ModelTraits) -> bool:
    """Whether one of these attacks needs help against a model of this nature.

    Of a rejection no attack knows; gradients are the affair of white-box ones.
    """
    return traits.rejects or any(
        one.access == "white-box" and traits.needs - adapts(one) for one in attacks
    )
