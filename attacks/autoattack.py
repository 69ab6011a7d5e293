"""AutoAttack: the standard cascade of the literature, and its form for randomised models."""

from ..bench.protocols import Cascade
from .apgd import apgd_ce, apgd_dlr
from .apgd_targeted import TargetedAPGD
from .fab import FABT
from .gradients.eot import EOT
from .square import Square


def autoattack(*, steps: int = 100, queries: int = 5000, targets: int = 9) -> Cascade:
    """AutoAttack's standard version: APGD-CE, targeted APGD-DLR, targeted FAB, Square, in a row.

    With the defaults it is what robust accuracies in the literature are measured with. Source:
    Croce & Hein 2020 (arXiv:2003.01690), section 5. Checked against torchattacks.

    steps: of each gradient attack. queries: of Square. targets: classes, for the targeted ones.
    """
    return Cascade(
        (
            apgd_ce(steps=steps),
            TargetedAPGD(steps=steps, targets=targets),
            FABT(steps=steps, targets=targets),
            Square(steps=queries),
        )
    )


def autoattack_rand(*, steps: int = 100, samples: int = 20) -> Cascade:
    """AutoAttack's version for randomised models: APGD-CE and APGD-DLR on expected losses.

    Source: Croce & Hein 2020 (arXiv:2003.01690), section 5, on randomised defenses.

    steps: of each attack. samples: draws for each gradient.
    """
    expected = EOT(samples=samples)
    attacks = apgd_ce(steps=steps, gradient=expected), apgd_dlr(steps=steps, gradient=expected)
    return Cascade(attacks)
