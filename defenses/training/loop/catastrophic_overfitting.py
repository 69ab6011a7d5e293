"""Catastrophic overfitting: when a network learns to blind the attack that it is trained on."""

from collections.abc import Mapping

from ....bench.api.flags import Flag
from .objective import History

_ABOVE_CHANCE = 1.5
_HALF = 0.5
_STAYS = 0.9
_FALL = 0.1
_BLIND = 0.2


def catastrophic_overfitting(history: History, *, n_classes: int) -> Flag | None:
    """Say so when accuracy under PGD collapses in the last epoch and that under FGSM does not.

    Wong et al. 2020 (arXiv:2001.03994, section 5.4) saw it in FGSM training: within an epoch,
    accuracy under PGD falls to nothing while accuracy under FGSM stays high. Taken here to have
    happened when accuracy under PGD is half of its best or less and lower by 0.1 or more, while
    accuracy under FGSM is 9/10 or more of what it was then and higher than PGD's by 0.1 or more;
    and, where no epoch was ever robust, when accuracy under FGSM is above 1/2 and PGD's below a
    fifth of it. The fractions are this project's own; the paper names none. A network that diverges
    fails on both attacks, one that overfits gently does not halve, and one whose best is below 1.5
    times guessing has nothing to lose yet.

    history: `robust_validation_accuracy` (under PGD) and `fgsm_validation_accuracy` of each epoch,
    by the same weights; epochs without them are passed over.
    """
    validated = [one for one in history if "robust_validation_accuracy" in one]
    if not validated or validated[-1] is not history[-1]:
        return None
    last = validated[-1]
    if not (_collapsed(validated[:-1], last, _ABOVE_CHANCE / n_classes) or _blind(last)):
        return None
    said = (
        f"catastrophic overfitting in epoch {last['epoch']:.0f}: validation accuracy "
        f"{last['fgsm_validation_accuracy']:.2f} under FGSM, "
        f"{last['robust_validation_accuracy']:.2f} under PGD"
    )
    return Flag("catastrophic-overfitting", about=said)


def _collapsed(before: History, last: Mapping[str, float], learnt: float) -> bool:
    """Accuracy under PGD fell to half of its best; accuracy under FGSM did not fall."""
    if not before:
        return False
    best = max(before, key=lambda one: one["robust_validation_accuracy"])
    robust, was = last["robust_validation_accuracy"], best["robust_validation_accuracy"]
    fgsm, fgsm_was = last["fgsm_validation_accuracy"], best["fgsm_validation_accuracy"]
    fell = robust <= _HALF * was and robust <= was - _FALL
    return fell and was >= learnt and fgsm >= max(robust + _FALL, _STAYS * fgsm_was)


def _blind(last: Mapping[str, float]) -> bool:
    """Good under FGSM and hardly robust."""
    fgsm = last["fgsm_validation_accuracy"]
    return fgsm > _HALF and last["robust_validation_accuracy"] < _BLIND * fgsm
