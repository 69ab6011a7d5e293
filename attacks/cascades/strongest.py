"""The cascade for robust accuracies that should hold."""

from ...bench.api.attack import Alternatives, Cascade
from ..black_box.hop_skip_jump import HopSkipJump
from ..black_box.rays import RayS
from ..black_box.square import Square
from ..gradients.smoothed import Smoothed
from ..parts.losses import Margin
from ..white_box.apgd import APGD, apgd_margin
from ..white_box.apgd_targeted import TargetedAPGD
from ..white_box.pgd import PGD


def strongest(*, queries: int = 1000, turns: int = 500) -> Cascade:
    """Strong in little time: white-box attacks in a row, and black-box ones against masked models.

    Ordered by examples broken per second, as measured in docs/measurements/attacks.md: a short PGD
    finds where each example stands, Auto-PGD on the margin breaks most of what can be broken,
    towards single classes most of the rest; the smoothed network sees past saturated units, and
    Square past gradients that point nowhere. What is left meets an attack that sees labels only,
    and so past scores that say nothing: RayS, or in L2 and towards targets HopSkipJump, shortened.

    Source: our own, of the parts named. queries: of Square. turns: of RayS; HopSkipJump takes an
    iteration for each 50, which costs about as much.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "strongest", "queries": 20, "turns": 10}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
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
            Alternatives(
                (
                    RayS(steps=turns),
                    HopSkipJump(steps=-(-turns // 50), first_samples=50),
                )
            ),
        )
    )
