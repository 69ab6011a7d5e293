"""What black-box attacks alone break tells against gradients, within a cascade as between cells."""

import numpy as np
import pytest
from masked_models import Negated, OneHotNegated

from quintain.attacks.black_box.hop_skip_jump import HopSkipJump
from quintain.attacks.black_box.rays import RayS
from quintain.attacks.black_box.square import Square
from quintain.attacks.cascades.strongest import strongest
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.attack import Alternatives, Cascade
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.flags import combined, raised
from quintain.bench.api.shared.black_box import beaten, beaten_within
from quintain.bench.engine.config import AttackStage, flatten_cascade
from quintain.bench.report.tables import worst_case
from quintain.bench.store.cell import Cell

WHITE, SCORE = "white-box", "score"
LABELS = Alternatives((RayS(steps=150), HopSkipJump(steps=8, first_samples=50)))
NAME = "black-box-beats-white-box"


def test_only_what_the_others_leave_counts_where_it_is_most():
    white = np.array([[0, 1], [0, 0], [0, 0]], dtype=bool)
    black = np.array([[1, 1], [1, 1], [0, 1]], dtype=bool)
    assert beaten(white, black) == 2
    assert beaten(white, white) == 0


def test_what_was_broken_before_any_gradient_was_followed_is_no_evidence():
    stages = np.array([[0], [1], [2], [2], [-1]], dtype=np.int8)
    assert beaten_within(stages, [WHITE, WHITE, SCORE]) == 2
    assert beaten_within(stages, [SCORE, WHITE, SCORE]) == 2
    assert beaten_within(stages, [SCORE, SCORE, SCORE]) == 0
    assert beaten_within(stages, [SCORE, SCORE, WHITE]) == 0


def test_a_few_are_no_flag():
    assert raised(NAME, count=5, of=100) == ()
    assert raised(NAME, count=6, of=100) == (f"{NAME}:6",)


def test_of_several_counts_the_largest_stays():
    found = combined([(["a", f"{NAME}:9"], False), ([f"{NAME}:31"], False)], [f"{NAME}:10"])
    assert found == ("a", f"{NAME}:31")


def counted(flags):
    return [one.count for one in flags if one.name == NAME]


def test_a_cascade_tells_what_its_black_box_stage_broke(digits):
    attack = Cascade((PGD(steps=5), Square(steps=150)))
    images, labels = digits.images[:30], digits.labels[:30]
    result = evaluate(Negated(digits.module), images, labels, attack, epsilons=[0.1, 0.2])
    stages = np.array(result.records["stage"].tolist())
    assert counted(result.flags) == [(stages == 1).sum(0).max()]
    assert counted(result.flags)[0] > 10
    plain = evaluate(digits.module, images, labels, attack, epsilons=[0.1, 0.2])
    assert plain.flags == ()


@pytest.mark.parametrize(("norm", "epsilon"), [("Linf", 0.2), ("L2", 1.0)])
def test_labels_alone_break_what_scores_and_gradients_hide(digits, norm, epsilon):
    attack = Cascade((PGD(steps=5), LABELS))
    images, labels = digits.images[:20], digits.labels[:20]
    masked = OneHotNegated(digits.module)
    result = evaluate(masked, images, labels, attack, norm=norm, epsilons=[epsilon])
    blind = evaluate(masked, images, labels, PGD(steps=5), norm=norm, epsilons=[epsilon])
    assert counted(result.flags)[0] > 5
    gap = blind.curve["robust_accuracy"] - result.curve["robust_accuracy"]
    assert gap.item() > 0.25
    assert result.stages == ("PGD", "RayS" if norm == "Linf" else "HopSkipJump")


def test_strongest_ends_with_an_attack_on_labels_in_every_norm_and_towards_targets():
    def last(norm, **more):
        return type(flatten_cascade([AttackStage(strongest())], norm, **more)[-1].attack)

    assert last("Linf") is RayS
    assert last("L2") is HopSkipJump
    assert last("Linf", targeted=True) is HopSkipJump
    assert strongest().access == WHITE


def test_where_no_alternative_works_the_first_says_so(digits):
    with pytest.raises(BadParameter, match="RayS works in Linf, not in L1"):
        evaluate(digits.module, digits.images[:2], digits.labels[:2], LABELS, norm="L1")


def test_the_worst_case_has_one_flag_and_a_naive_cascade_none(digits):
    images, labels = digits.images[:20], digits.labels[:20]
    attack = Cascade((PGD(steps=2), Square(steps=20)))
    records = evaluate(digits.module, images, labels, attack, epsilons=[0.1]).records

    def cell(name, flags, **more):
        about = {"attack": name, "access": WHITE, "flags": flags, "seconds": 1.0, "report": {}}
        return Cell(about | more, records)

    both = [cell("first", [f"{NAME}:9"]), cell("second", [f"{NAME}:11"])]
    assert worst_case(both).about["flags"] == [f"{NAME}:11"]
    naive = cell("first (naive)", [f"{NAME}:9", "misleading-gradients:50%"], naive=True)
    assert worst_case([naive]).about["flags"] == []
