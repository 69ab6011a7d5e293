import pytest

from quintain.defenses.training.loop.catastrophic_overfitting import catastrophic_overfitting


def history(*pairs):
    """Epochs of validation accuracy (under FGSM, under PGD), or None where not validated."""
    out = []
    for epoch, pair in enumerate(pairs, start=1):
        names = ("fgsm_validation_accuracy", "robust_validation_accuracy")
        out.append({"epoch": epoch} | (dict(zip(names, pair, strict=True)) if pair else {}))
    return out


def validate(*pairs, n_classes=10):
    return catastrophic_overfitting(history(*pairs), n_classes=n_classes)


def test_a_collapse_under_pgd_alone_is_seen_in_its_epoch():
    line = validate((0.3, 0.28), (0.4, 0.38), (0.45, 0.40), (0.85, 0.02))
    assert line == (
        "catastrophic overfitting in epoch 4: validation accuracy 0.85 under FGSM, 0.02 under PGD"
    )


def test_a_network_that_was_never_robust_is_seen_too():
    assert validate((0.95, 0.05)) is not None
    assert validate(None, (0.95, 0.05)) is not None


@pytest.mark.parametrize(
    "pairs",
    [
        [(0.3, 0.28), (0.4, 0.38), (0.45, 0.40)],  # all is well
        [(0.45, 0.40), (0.10, 0.05)],  # divergence: fails on both
        [(0.45, 0.40), (0.95, 0.30)],  # gentle overfitting
        [(0.88, 0.88), (0.45, 0.43)],  # a bad moment: both attacks see it
        [(0.25, 0.20), (0.15, 0.08)],  # both falling
        [(0.09, 0.12), (0.07, 0.01)],  # nothing learnt yet
        [None, None],  # warming up, not validated
        [(0.45, 0.40), (0.85, 0.02), None],  # the last epoch was not validated
        [],
    ],
)
def test_what_is_not_catastrophic(pairs):
    assert validate(*pairs) is None


def test_robust_by_guessing_one_of_two_classes_is_not_a_height_to_fall_from():
    assert validate((0.5, 0.5), (0.5, 0.2), n_classes=2) is None
    assert validate((0.8, 0.8), (0.8, 0.2), n_classes=2) is not None
