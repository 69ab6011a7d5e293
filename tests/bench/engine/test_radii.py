"""Epsilons that were meant for the scale of 0 to 255, wherever one can be given."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from quintain.bench import evaluate
from quintain.bench.api import registry
from quintain.bench.api.epsilon import Epsilon, check_radii, parse_grid
from quintain.bench.api.errors import BadParameter

DIGITS = (1, 8, 8)


@pytest.mark.parametrize(
    ("written", "norm", "shape", "near"),
    [
        ("8", "Linf", None, "'8/255'"),
        (8.0, "Linf", None, "'8/255'"),
        ("16/2", "Linf", None, "'8/255'"),
        ("2.5", "Linf", None, "'0.009804'"),
        ("1.001", "Linf", None, "'0.003925'"),
        ("127.5", "L2", DIGITS, "'0.5'"),
        ("128", "L2", DIGITS, "'128/255'"),
        ("8.01", "L2", DIGITS, "'0.03141'"),
        ("65", "L1", DIGITS, "'65/255'"),
    ],
)
def test_beyond_every_image(written, norm, shape, near):
    with pytest.raises(ValueError, match="is beyond every image") as caught:
        check_radii([Epsilon.parse("8/255"), Epsilon.parse(written)], norm, shape)
    assert str(caught.value).endswith(f"; did you mean {near}?")
    check_radii([Epsilon.parse(near.strip("'"))], norm, shape)


def test_what_is_too_large_on_either_scale_has_no_near_value():
    with pytest.raises(ValueError, match=r"farther apart than 1 in Linf$"):
        check_radii([Epsilon.parse("256")], "Linf")


@pytest.mark.parametrize(
    ("written", "norm", "shape"),
    [
        ("1", "Linf", DIGITS),
        ("255/255", "Linf", DIGITS),
        ("2", "L2", None),
        ("8", "L2", DIGITS),
        (math.sqrt(192), "L2", (3, 8, 8)),
        ("12", "L1", None),
        ("64", "L1", DIGITS),
    ],
)
def test_what_some_image_reaches_is_accepted(written, norm, shape):
    """The farthest images, all black and all white, are just that far apart."""
    check_radii([Epsilon.parse(written)], norm, shape)


@pytest.mark.parametrize(
    "written",
    [
        np.linspace(0.01, 0.03, 3),
        torch.tensor([0.01, 0.02, 0.03], dtype=torch.float64),
        [np.float64(0.01), torch.tensor(0.02, dtype=torch.float64), 0.03],
        (np.float32(0.01), np.float16(0.02), "0.03"),
        np.array(["0.01", "0.02", "0.03"]),
    ],
)
def test_numbers_of_numpy_and_torch_are_epsilons(written):
    grid = parse_grid(written)
    assert [one.value for one in grid] == pytest.approx([0.01, 0.02, 0.03], rel=1e-3)


def test_numpys_numbers_keep_the_digits_that_they_print():
    assert Epsilon.parse(np.float32(0.03)).text == "0.03"
    assert [one.text for one in parse_grid(np.array([0.1, 0.25]))] == ["0.1", "0.25"]


@pytest.mark.parametrize("written", ["8/255", 0.03, {"a": 1}, None, np.array(0.1)])
def test_a_grid_that_is_no_list_names_one(written):
    with pytest.raises(ValueError, match=r'must be a list, not .*: such as \["8/255"\]'):
        parse_grid(written)


def test_evaluate_refuses_it():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x, y = torch.rand(3, 1, 2, 2), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(BadParameter, match=r"epsilon 8 .* 1 in Linf; did you mean '8/255'\?"):
        evaluate(model, x, y, "fgsm", epsilons=[2 / 255, 8])
    with pytest.raises(BadParameter, match=r"epsilon 3 .* 2 in L2; did you mean '3/255'\?"):
        evaluate(model, x, y, "fgsm", norm="L2", epsilons=[1.5, 3])
    evaluate(model, x, y, "fgsm", norm="L2", epsilons=[2.0])


def test_a_suite_refuses_it_before_it_reads_data(quintain, write_suite, tmp_path):
    suite = write_suite(dataset='"nothing"', epsilons="[2, 4, 8]")
    answer = quintain("run", suite, "--out", tmp_path / "run")
    assert answer.code == 2
    assert "epsilon 2 is beyond every image" in answer.error
    assert "did you mean '2/255'?" in answer.error


def test_a_suite_refuses_it_in_l2_before_any_training(quintain, write_suite, tmp_path):
    suite = write_suite(norm='"L2"', epsilons="[0.5, 128]")
    answer = quintain("run", suite, "--out", tmp_path / "run")
    assert answer.code == 2
    assert "epsilons: epsilon 128 is beyond every image" in answer.error
    assert "did you mean '128/255'?" in answer.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("defense", ["adversarial-training", "free", "trades", "mart"])
@pytest.mark.parametrize(("norm", "epsilon"), [("", 9), ('norm = "L2"', 99)])
def test_a_suite_refuses_a_defenses_before_any_training(
    quintain, write_suite, tmp_path, defense, norm, epsilon
):
    defenses = f'\n[[defenses]]\nname = "{defense}"\nepsilon = {epsilon}\n{norm}\n'
    answer = quintain("run", write_suite(defenses=defenses), "--out", tmp_path / "run")
    assert answer.code == 2
    assert f"defenses[1]: epsilon {epsilon}.0 is beyond every image" in answer.error
    assert f"did you mean '{epsilon}/255'?" in answer.error


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "interval-bounds", "epsilon": 8},
        {"name": "adversarial-training", "norm": "Linf", "epsilon": 8},
        {"name": "jpeg", "base": {"name": "trades", "norm": "Linf", "epsilon": "8"}},
    ],
)
def test_a_defense_that_knows_its_norm_refuses_it_at_once(spec):
    with pytest.raises(BadParameter, match=r"epsilon 8(\.0)? is beyond.*'8/255'"):
        registry.build("defenses", spec)


def test_train_refuses_it(quintain, tmp_path):
    for arguments in (["--epsilon", "8"], ["--norm", "L2", "--epsilon", "120"]):
        answer = quintain(
            "train", "--model", "small-cnn", "--defense", "adversarial-training",
            "--out", tmp_path / "a.safetensors", *arguments,
        )  # fmt: skip
        assert answer.code == 2
        assert f"--epsilon: epsilon {arguments[-1]} is beyond every image" in answer.error
        assert f"'{arguments[-1]}/255'" in answer.error


def test_bench_refuses_it(quintain, tmp_path):
    answer = quintain("bench", "--epsilon", "8", "--out", tmp_path / "bench")
    assert answer.code == 2
    assert "--epsilon: epsilon 8 is beyond every image" in answer.error


MISSING = [
    ('name = "gaussian-noise"', "gaussian-noise needs a sigma"),
    ('name = "jpeg"\nbase = "gaussian-noise"', "gaussian-noise needs a sigma"),
    (
        'name = "ensemble"\nbase = { name = "bit-depth", base = "gaussian-noise" }',
        "gaussian-noise needs a sigma",
    ),
    (
        'name = "mahalanobis"\nbase = { name = "none", validation_share = 0.0 }',
        "needs a validation_share above 0",
    ),
    ('name = "knn-distance"\nbase = "ensemble"', "an ensemble cannot be the base"),
]


@pytest.mark.parametrize(("defense", "message"), MISSING)
def test_a_missing_hyper_parameter_is_found_before_any_work(
    quintain, write_suite, tmp_path, defense, message
):
    suite = write_suite(defenses=f'[[defenses]]\nname = "none"\n[[defenses]]\n{defense}\n')
    answer = quintain("run", suite, "--out", tmp_path / "run")
    assert answer.code == 2
    assert "defenses[2]: " in answer.error
    assert message in answer.error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ('architecture = "resnett"', "unknown model 'resnett'; did you mean 'resnet'"),
        (
            'architecture = { name = "resnet", deph = 8 }',
            "no parameter 'deph'; did you mean 'depth'",
        ),
        ("training = { epoch = 3 }", "no parameter 'epoch'; did you mean 'epochs'"),
        ('seeds = "digit"', "unknown dataset 'digit'; did you mean 'digits'"),
        ('seeds = "imagefolder"', "needs the parameter 'root'"),
    ],
)
def test_the_parts_of_a_proxy_are_looked_at_before_any_work(
    quintain, write_suite, tmp_path, part, message
):
    attack = f'[[attacks]]\nname = "transfer"\n[attacks.gradient]\nname = "proxy"\n{part}\n'
    answer = quintain("run", write_suite(attacks=attack), "--out", tmp_path / "run")
    assert answer.code == 2
    assert "attacks[1]: " in answer.error
    assert message in answer.error


@pytest.mark.parametrize("defense", ["adversarial-training", "trades", "interval-bounds"])
def test_train_finds_a_missing_epsilon_before_any_work(quintain, tmp_path, defense):
    path = tmp_path / "a.safetensors"
    answer = quintain("train", "--model", "small-cnn", "--defense", defense, "--out", path)
    assert answer.code == 2
    assert "needs an epsilon" in answer.error
    assert list(tmp_path.iterdir()) == []


def test_smoothing_lends_its_sigma():
    defense = registry.build("defenses", "randomised-smoothing")
    defense.check(None)  # the base has a sigma, so that nothing else is looked at


def test_defenses_of_models_that_bring_weights_are_not_asked(quintain, write_suite, tmp_path):
    """They are not used, so what they lack does not matter."""
    from quintain.bench.suite.config import read_suite
    from quintain.bench.suite.plan import make_plan

    path = write_suite(
        models='\n[[models]]\nname = "small-cnn"\ntrain = false\n',
        defenses='\n[[defenses]]\nname = "gaussian-noise"\n',
    )
    suite, _, folder = read_suite(str(path))
    assert make_plan(suite, str(path), folder).defended_models[0].defense is None
