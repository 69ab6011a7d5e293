"""Presets: names for combinations of an optimiser, a gradient source and a loss."""

from ..bench.api.attack import GradientSource, Loss
from .gradients.diversity import InputDiversity
from .gradients.finite_differences import FiniteDifferences
from .gradients.nes import NES
from .gradients.proxy import Proxy
from .gradients.rgf import RGF
from .gradients.spsa import SPSA
from .gradients.translation import TranslationInvariant
from .parts.losses import CrossEntropy, Margin
from .white_box.momentum import MomentumIterative
from .white_box.pgd import PGD


def pgd_finite_differences(
    *,
    steps: int = 20,
    step_size: float | None = None,
    random_start: bool = False,
    loss: Loss = Margin(),
    gradient: GradientSource = FiniteDifferences(),
) -> PGD:
    """PGD on finite-difference gradients of the victim's scores: the query-based attack.

    Source: Chen et al. 2017 (arXiv:1708.03999), with PGD instead of coordinate-wise Adam.

    Each step asks for two scores a pixel, and for no gradient:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd-finite-differences", "steps": 5}
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.025, 0.055])
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    >>> int(result.records["backward"].max())
    0
    """
    return PGD(steps, step_size, random_start, loss, gradient)


def transfer(
    *,
    steps: int = 40,
    step_size: float | None = None,
    random_start: bool = True,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = Proxy(),
) -> PGD:
    """PGD on a proxy network that was trained on the victim's answers: the transfer attack.

    The victim is asked once at each epsilon, whether the finished image is adversarial.

    Source: Papernot et al. 2017 (arXiv:1602.02697).

    With a network of the attacker's own in place of a trained proxy, here the victim's equal:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "transfer", "gradient": {"name": "network", "network": "mine"}}
    >>> networks = {"mine": model}
    >>> result = evaluate(
    ...     model, images, labels, attack, epsilons=[0.025, 0.055], attacker_networks=networks
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    >>> int(result.records["queries"].max())
    2
    """
    return PGD(steps, step_size, random_start, loss, gradient)


def transfer_strong(
    *,
    steps: int = 20,
    step_size: float | None = None,
    neighbours: int = 5,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = TranslationInvariant(gradient=InputDiversity(gradient=Proxy())),
) -> MomentumIterative:
    """The transfer attack with momentum, input diversity, smoothed gradients and variance tuning.

    Source: Wang & He 2021 (arXiv:2103.15571), section 4.4, which combines them; with a proxy that
    is trained on the victim's answers in place of networks trained on the same data, and fewer
    neighbours than its 20.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "transfer-strong", "gradient": {"name": "network", "network": "mine"}}
    >>> networks = {"mine": model}
    >>> result = evaluate(
    ...     model, images, labels, attack, epsilons=[0.025, 0.055], attacker_networks=networks
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return MomentumIterative(steps, step_size, neighbours=neighbours, loss=loss, gradient=gradient)


def pgd_nes(
    *,
    steps: int = 100,
    step_size: float | None = None,
    random_start: bool = False,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = NES(),
) -> PGD:
    """PGD on gradients that natural evolution strategies estimate from the victim's scores.

    Source: Ilyas et al. 2018 (arXiv:1804.08598), section 2.2, the query-limited setting, with a
    fixed number of steps and a fixed step size.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> for budget in (500, 5000):
    ...     result = evaluate(
    ...         model, images, labels, "pgd-nes", epsilons=[0.055], query_budget=budget
    ...     )
    ...     budget, result.curve["robust_accuracy"].tolist()
    (500, [1.0])
    (5000, [0.5])
    """
    return PGD(steps, step_size, random_start, loss, gradient)


def pgd_spsa(
    *,
    steps: int = 100,
    step_size: float | None = None,
    random_start: bool = False,
    loss: Loss = Margin(),
    gradient: GradientSource = SPSA(),
) -> PGD:
    """PGD on gradients that SPSA estimates from the victim's scores.

    Source: Uesato et al. 2018 (arXiv:1802.05666), section 3.3, with PGD's steps instead of Adam's.
    Checked against torchattacks.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> attack = {"name": "pgd-spsa", "gradient": {"name": "spsa", "samples": 32}}
    >>> result = evaluate(
    ...     model, images, labels, attack, epsilons=[0.025, 0.055], query_budget=3000
    ... )
    >>> result.curve["robust_accuracy"].tolist()
    [0.8, 0.5]
    """
    return PGD(steps, step_size, random_start, loss, gradient)


def pgd_rgf(
    *,
    steps: int = 100,
    step_size: float | None = None,
    random_start: bool = False,
    loss: Loss = CrossEntropy(),
    gradient: GradientSource = RGF(),
) -> PGD:
    """PGD on random gradient-free estimates from the victim's scores.

    Source: Cheng et al. 2019 (arXiv:1906.06919), the RGF method that theirs is compared with.

    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> for budget in (500, 5000):
    ...     result = evaluate(
    ...         model, images, labels, "pgd-rgf", epsilons=[0.055], query_budget=budget
    ...     )
    ...     budget, result.curve["robust_accuracy"].tolist()
    (500, [0.9])
    (5000, [0.5])
    """
    return PGD(steps, step_size, random_start, loss, gradient)
