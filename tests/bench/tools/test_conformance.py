"""The conformance kit: it passes what is right, and tells each mistake by the right check."""

from dataclasses import dataclass, field
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from quintain.bench.api import registry
from quintain.bench.api.errors import BadPlugin, UnknownPlugin
from quintain.bench.cli import main
from quintain.bench.tools.conformance import check_attack, check_plugin
from quintain.bench.tools.conformance.checks import CHECKS
from quintain.bench.tools.conformance.fixture_model import fixture_model

SLOW = {
    "apgd-t", "autoattack", "autoattack-rand", "bandits", "boundary", "carlini-wagner", "ddn",
    "ead", "fab", "fab-t", "fmn", "hop-skip-jump", "pgd-eot", "pgd-nes", "pgd-rgf", "pgd-spsa",
    "rays", "simba", "square", "strongest", "transfer-strong", "vmi-fgsm", "zoo",
}  # fmt: skip
REGISTERED = [
    pytest.param(one.name, marks=[pytest.mark.slow] * (one.name in SLOW))
    for one in registry.plugins("attacks")
]


@pytest.mark.parametrize("name", REGISTERED)
def test_every_registered_attack_conforms(name):
    for report in check_plugin(name):  # of each member of a cascade
        assert report.passed, report.text()


@dataclass
class State:
    x_adv: Tensor


@dataclass(frozen=True)
class Honest:
    """Three steps along the gradient: what the mistakes below are made from."""

    access: ClassVar[str] = "white-box"
    norms: ClassVar[tuple[str, ...]] = ("Linf",)
    steps: int = 3

    def start(self, problem):
        return State(problem.initial(random_start=True))

    def gradient(self, problem, x):
        sign = -1.0 if problem.targeted else 1.0

        def objective(logits):
            return sign * cross_entropy(logits, problem.y, reduction="none")

        return problem.victim.gradient(x, objective).gradient

    def moved(self, problem, x):
        direction = problem.ball.steepest(self.gradient(problem, x), x)
        return x + 0.6 * problem.ball.radius * direction

    def step(self, problem, state):
        return State(problem.ball.project(self.moved(problem, state.x_adv)))


class EveryNorm(Honest):
    norms = ("Linf", "L2", "L1")


@dataclass(frozen=True)
class Whole:
    """An attack in one piece."""

    access: ClassVar[str] = "white-box"
    norms: ClassVar[tuple[str, ...]] = ("L2",)

    def run(self, problem):
        honest, state = Honest(), State(problem.x)
        for _ in range(5):
            state = honest.step(problem, state)
        return state.x_adv


class Attached(Whole):
    """One that differentiates the victim's logits itself, twice over."""

    def run(self, problem):
        x_adv = problem.x
        for _ in range(4):
            x = x_adv.clone().requires_grad_()
            logits = problem.victim.differentiable(x).nan_to_num()
            loss = cross_entropy(logits, problem.y, reduction="none")
            goal = -loss if problem.targeted else loss
            (one,) = torch.autograd.grad(goal.sum(), x, retain_graph=True)
            (two,) = torch.autograd.grad(goal.sum(), x)
            moved = x_adv + 0.5 * problem.ball.radius * problem.ball.steepest(one + two, x_adv)
            x_adv = problem.ball.project(moved)
        return x_adv


class StepsOutside(Honest):
    stays_in_ball = False

    def step(self, problem, state):
        x_adv = self.moved(problem, state.x_adv).clamp(0, 1)
        last = (problem.step == self.steps - 1).reshape(-1, 1, 1, 1)
        return State(torch.where(last, problem.ball.project(x_adv), x_adv))


class CannotAim(Honest):
    targetable = False

    def step(self, problem, state):
        assert not problem.targeted
        return super().step(problem, state)


@pytest.mark.parametrize("attack", [EveryNorm, Whole, Attached, StepsOutside, CannotAim])
def test_what_is_right_passes(attack):
    report = check_attack(attack.__name__, attack)
    assert report.passed, report.text()


class OutsideBall(StepsOutside):
    stays_in_ball = True


class OutsideBox(Honest):
    def step(self, problem, state):
        x_adv = self.moved(problem, state.x_adv)
        radius = problem.ball.radius * 0.999
        return State(torch.maximum(torch.minimum(x_adv, problem.x + radius), problem.x - radius))


class FixedRadius(Honest):
    def step(self, problem, state):
        return State((problem.x + 0.3 * self.gradient(problem, problem.x).sign()).clamp(0, 1))


class FirstEpsilon(Honest):
    def moved(self, problem, x):
        step = problem.epsilon[0].float()
        return x + step * problem.ball.steepest(self.gradient(problem, x), x)


class SomeoneElse(Honest):
    """Returns an image of another class, which is adversarial all right."""

    def step(self, problem, state):
        return State(problem.x.roll(1, dims=0))


class ChangesImages(Honest):
    def step(self, problem, state):
        problem.x.mul_(0.99)
        return super().step(problem, state)


class ChangesState(Honest):
    def step(self, problem, state):
        state.x_adv.copy_(super().step(problem, state).x_adv)
        return State(state.x_adv)


class NotFinite(Honest):
    def step(self, problem, state):
        return State(state.x_adv + torch.nan)


class LosesAnAxis(Honest):
    def step(self, problem, state):
        return State(super().step(problem, state).x_adv[:, 0])


class StateIsNoDataclass(Honest):
    def start(self, problem):
        return {"x_adv": problem.x}


class MeanLoss(Honest):
    def gradient(self, problem, x):
        sign = -1.0 if problem.targeted else 1.0
        return problem.victim.gradient(x, lambda z: sign * cross_entropy(z, problem.y)).gradient


class TrainMode(Honest):
    def step(self, problem, state):
        problem.victim._network.module.train()
        return super().step(problem, state)


class ChangesWeights(Honest):
    def step(self, problem, state):
        with torch.no_grad():
            problem.victim._network.module[-1].bias.add_(0.01)
        return super().step(problem, state)


class BehindTheVictim(Honest):
    def step(self, problem, state):
        problem.victim._network.logits(state.x_adv)
        return super().step(problem, state)


class SaysItHasAsked(Honest):
    asks_iterates = True


class OwnRandomness(Honest):
    def moved(self, problem, x):
        return super().moved(problem, x) + 0.1 * (torch.rand_like(x) - 0.5)


class SeededRandomness(Honest):
    def moved(self, problem, x):
        torch.manual_seed(0)
        return super().moved(problem, x) + 0.1 * (torch.rand_like(x) - 0.5)


class MoreThanItStates(Honest):
    access = "score"


class ScoresWithoutAccess(Honest):
    access = "decision"

    def gradient(self, problem, x):
        return problem.victim.scores(x)


class DoesNothing(Honest):
    def step(self, problem, state):
        return State(problem.x)


class HalfOfEpsilon(Honest):
    def step(self, problem, state):
        x_adv = super().step(problem, state).x_adv
        return State(problem.ball.project(problem.x + (x_adv - problem.x) / 2))


@dataclass(frozen=True)
class OneStepOfTen(Honest):
    steps: int = 10

    def start(self, problem):
        return State(problem.initial(random_start=False))

    def moved(self, problem, x):
        direction = problem.ball.steepest(self.gradient(problem, x), x)
        return x + 0.25 * problem.ball.radius * direction

    def step(self, problem, state):
        moved = super().step(problem, state)
        first = (problem.step == 0).reshape(-1, 1, 1, 1)
        return State(torch.where(first, moved.x_adv, state.x_adv))


class OneStepOfTenFromAnywhere(OneStepOfTen):
    def start(self, problem):
        return State(problem.initial(random_start=True))


class LeaksGradMode(Honest):
    def step(self, problem, state):
        state = super().step(problem, state)
        torch.set_grad_enabled(False)
        return state


class LeaksDefaultDtype(Honest):
    def start(self, problem):
        torch.set_default_dtype(torch.float64)
        return super().start(problem)


class IgnoresTargets(Honest):
    def gradient(self, problem, x):
        def objective(logits):
            return cross_entropy(logits, problem.y, reduction="none")

        return problem.victim.gradient(x, objective).gradient


class NeedsAnswers(Honest):
    """Counts on a second answer in a step, even when there was but one query left."""

    def gradient(self, problem, x):
        found = super().gradient(problem, x)
        if (problem.victim.labels(x) < 0).any():
            raise ValueError("no label")
        return found


class AsksForEver(Honest):
    def step(self, problem, state):
        state = super().step(problem, state)
        while (problem.victim.labels(state.x_adv) < 0).all():
            pass
        return state


class Squeezes(Honest):
    """Goes wrong on an example alone, which the last in the engine always is."""

    def moved(self, problem, x):
        best = (x - problem.x).squeeze()
        return super().moved(problem, x) + 0.0 * best.reshape(len(best), *x.shape[1:])


class Crashes(Honest):
    def step(self, problem, state):
        raise KeyError("oh")


class Exits(Honest):
    def step(self, problem, state):
        raise SystemExit(3)


@dataclass
class NotFrozen:
    access: ClassVar[str] = "white-box"
    steps: int = 3
    start = Honest.start
    gradient = Honest.gradient
    moved = Honest.moved
    step = Honest.step


@dataclass(frozen=True)
class Unhashable(Honest):
    settings: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class ContainsAnAddress(Honest):
    helper: object = object()


@dataclass(frozen=True)
class DiffersEachTime(Honest):
    tag: object = field(default_factory=object)


@dataclass(frozen=True)
class NeedsAParameter(Honest):
    steps: int = 3
    size: float = field(kw_only=True)


class UnknownAccess(Honest):
    access = "grey-box"


@dataclass(frozen=True)
class NoSteps(Honest):
    steps: int = 0


class UnknownNorm(Honest):
    norms = ("L0",)


@pytest.mark.parametrize(
    ("attack", "failing"),
    [
        (OutsideBall, {"ball"}),
        (OutsideBox, {"box", "descent"}),
        (FixedRadius, {"ball", "noise", "descent", "targeted"}),
        (FirstEpsilon, {"batches"}),
        (SomeoneElse, {"ball", "batches", "single", "noise", "descent", "targeted"}),
        (ChangesImages, {"inputs", "runs"}),
        (ChangesState, {"inputs"}),
        (NotFinite, {"finite", "runs"}),
        (LosesAnAxis, {"shape", "runs"}),
        (StateIsNoDataclass, {"shape", "runs"}),
        (MeanLoss, {"shape"}),
        (TrainMode, {"model", "runs"}),
        (ChangesWeights, {"model", "runs"}),
        (BehindTheVictim, {"counts"}),
        (SaysItHasAsked, {"counts"}),
        (OwnRandomness, {"seed", "batches", "single"}),
        (SeededRandomness, {"batches", "single"}),
        (MoreThanItStates, {"access", "runs"}),
        (ScoresWithoutAccess, {"access", "runs"}),
        (DoesNothing, {"noise", "reach", "descent", "targeted"}),
        (HalfOfEpsilon, {"reach", "descent"}),
        (OneStepOfTen, {"reach", "descent"}),
        (OneStepOfTenFromAnywhere, {"descent"}),
        (LeaksGradMode, {"runs", "switches"}),
        (LeaksDefaultDtype, {"switches", "budget"}),
        (IgnoresTargets, {"targeted"}),
        (NeedsAnswers, {"budget"}),
        (AsksForEver, {"budget"}),
        (Squeezes, {"runs"}),
        (Crashes, {"runs"}),
        (Exits, {"runs"}),
        (NotFrozen, {"settings"}),
        (Unhashable, {"settings"}),
        (ContainsAnAddress, {"settings"}),
        (DiffersEachTime, {"settings"}),
        (NeedsAParameter, {"builds"}),
        (UnknownAccess, {"builds"}),
        (NoSteps, {"builds"}),
        (UnknownNorm, {"builds"}),
    ],
)
def test_each_mistake_fails_its_check(attack, failing):
    report = check_attack(attack.__name__, attack)
    assert set(report.failed()) == failing, report.text()
    assert not report.passed


def test_a_crash_is_told_with_its_line_and_the_rest_is_not_tried():
    report = check_attack("crashes", Crashes, __file__)
    seen = {one.name: one for one in report.outcomes}
    assert seen["runs"].seen.startswith("Linf: KeyError: 'oh' (line ")
    assert seen["ball"].outcome == seen["budget"].outcome == "skip"
    lines = report.text().splitlines()
    assert lines[-1].startswith("crashes: 2 of 21 checks passed, 18 not tried")
    assert sum("->" in line for line in lines) == 1


def test_a_failure_names_the_norm_example_epsilon_and_step():
    report = check_attack("outside", OutsideBall)
    (seen,) = (one.seen for one in report.outcomes if one.outcome == "FAIL")
    assert seen.startswith("Linf, example ")
    assert "after step 2: x_adv lies 0." in seen or "after step 1: x_adv lies 0." in seen


def test_every_check_says_what_it_demands_in_one_line():
    for check in CHECKS:
        demand = (check.__doc__ or "").partition("\n")[0]
        assert demand.endswith(".")
        assert len(demand) < 100


def test_the_ground_is_left_as_it_was():
    fixture = fixture_model()
    before = {name: value.clone() for name, value in fixture.network.state_dict().items()}
    images, drawn = fixture.images.clone(), torch.random.get_rng_state()
    for attack in (ChangesWeights, SeededRandomness):
        check_attack(attack.__name__, attack)
    assert not fixture.network.training
    assert torch.equal(fixture.images, images)
    assert torch.equal(torch.random.get_rng_state(), drawn)
    for name, value in fixture.network.state_dict().items():
        assert torch.equal(value, before[name])


FILE = """
from dataclasses import dataclass
from quintain.attacks.white_box.pgd import PGD
from quintain.bench.api import registry

@registry.attack("first")
@dataclass(frozen=True)
class First(PGD):
    steps: int = 3

@registry.attack("second")
@dataclass(frozen=True)
class Second(PGD):
    steps: int = 3
    def step(self, problem, state):
        raise RuntimeError("as always")

@registry.loss("third")
def third():
    return None
"""


def test_a_file_has_all_its_attacks_checked(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    with registry.temporary(), pytest.raises(SystemExit) as ended:
        main(["check", str(path)])
    assert ended.value.code == 1
    shown = capsys.readouterr()
    assert "first: 21 of 21 checks passed" in shown.out
    assert f"RuntimeError: as always (line 16 of {path})" in shown.out
    assert "Traceback" not in shown.out + shown.err


def test_check_exits_with_0_when_all_is_well(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["check", "fgsm"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.endswith("fgsm: 21 of 21 checks passed\n")


@pytest.mark.parametrize(
    ("plugin", "error", "said"),
    [
        ("pdg", UnknownPlugin, "did you mean 'pgd'.*give its file"),
        ("cosines", UnknownPlugin, "'cosines' is among the bases; .* attacks, models, "),
        ("missing.py", BadPlugin, "missing.py does not exist"),
        ("mine", UnknownPlugin, "give its file, mine.py"),
        ("mine.py", BadPlugin, "mine.py registers none of attacks, models, "),
        ("broken.py", BadPlugin, "broken.py: SyntaxError"),
    ],
)
def test_what_cannot_be_checked_is_refused(tmp_path, monkeypatch, plugin, error, said):
    monkeypatch.chdir(tmp_path)
    loss = "from quintain.bench.api import registry\n@registry.loss('one')\ndef one():\n    pass\n"
    (tmp_path / "mine.py").write_text(loss)
    (tmp_path / "broken.py").write_text("def f(:\n")
    with registry.temporary(), pytest.raises(error, match=said):
        check_plugin(plugin)
