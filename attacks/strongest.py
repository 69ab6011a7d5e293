"""The cascade for robust accuracies that should hold."""

from ..bench.protocols import Cascade
from .apgd import APGD, apgd_margin
from .apgd_targeted import TargetedAPGD
from .gradients.smoothed import Smoothed
from .losses import Margin
from .pgd import PGD
from .square import Square


def strongest(*, queries: int = 1000) -> Cascade:
    """Strong in little time: white-box attacks in a row, and Square against hidden gradients.

    Ordered by examples broken per second, as measured in docs/attacks-measured.md: a short PGD
    finds where each example stands, Auto-PGD on the margin breaks most of what can be broken,
    towards single classes most of the rest; the smoothed network sees past saturated units, and
    Square past gradients that point nowhere.

    Source: our own, of the parts named. queries: of Square.
    """
    return Cascade(
        (
            PGD(steps=20, loss=Margin()),
            apgd_margin(),
            APGD(gradient=Smoothed(temperature=0.3)),
            TargetedAPGD(),
            PGD(
                steps=100,
                loss=Margin(),
                gradient=Smoothed(decay=0.94),
                schedule="linear",
            ),
            Square(steps=queries),
        )
    )
