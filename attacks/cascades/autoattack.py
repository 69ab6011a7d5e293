"""AutoAttack: the standard cascade of the literature, and its form for randomised models."""

from ...bench.api.attack import Cascade
from ..black_box.square import Square
from ..gradients.eot import EOT
from ..white_box.apgd import apgd_ce, apgd_dlr
from ..white_box.apgd_targeted import TargetedAPGD
from ..white_box.fab import FABT

_SCHEDULED_OVER = 10_000  # Square's sizes, however many queries it has


def autoattack(*, steps: int = 100, queries: int = 5000, targets: int = 9) -> Cascade:
    """AutoAttack's standard version: APGD-CE, targeted APGD-DLR, targeted FAB, Square, in a row.

    With the defaults it is what robust accuracies in the literature are measured with, parameter by
    parameter: Square keeps the schedule of sizes that is made for 10,000 candidates and the
    positions of the authors' program, FAB has no final search. Source: Croce & Hein 2020
    (arXiv:2003.01690), section 5. Unlike the authors' program, an example's random numbers are its
    own, and of few classes the targeted attacks try all. Checked against pyautoattack and
    torchattacks.

    steps: of each gradient attack. queries: candidates of Square, and one more for its start.
    targets: classes, for the targeted ones.

    Shortened, and with the attacks that it is made of:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "autoattack", "steps": 10, "queries": 20}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    >>> result.stages
    ('APGD', 'TargetedAPGD', 'FABT', 'Square')
    """
    return Cascade(
        (
            apgd_ce(steps=steps),
            TargetedAPGD(steps=steps, targets=targets),
            FABT(steps=steps, targets=targets, final_search=0),
            Square(steps=queries + 1, scheduled_over=_SCHEDULED_OVER, published=True),
        )
    )


def autoattack_rand(*, steps: int = 100, samples: int = 20) -> Cascade:
    """AutoAttack's version for randomised models: APGD-CE and APGD-DLR on expected losses.

    Source: Croce & Hein 2020 (arXiv:2003.01690), section 5, on randomised defenses. The loss that
    Auto-PGD goes by is the mean over the draws too; in the authors' program it is the last draw's.

    steps: of each attack. samples: draws for each gradient.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "autoattack-rand", "steps": 10, "samples": 2}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    expected = EOT(samples=samples)
    attacks = apgd_ce(steps=steps, gradient=expected), apgd_dlr(steps=steps, gradient=expected)
    return Cascade(attacks)
