"""What people hand to `evaluate`: arrays, lists, loaders, one-hot labels, other names."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.errors import BadData, BadParameter

SHORT = {"attack": {"name": "pgd", "steps": 2}, "epsilons": [0.02]}


@pytest.fixture
def call(linear):
    """Evaluate the linear model on 12 images, or on what is given instead."""
    x, y = linear.images[:12], linear.labels[:12]

    def made(images=x, labels=y, **settings):
        return evaluate(linear.module, images, labels, **{**SHORT, **settings})

    made.x, made.y, made.module = x, y, linear.module
    return made


def same(result, other):
    return result.records.equals(other.records)


def pairs(x, y):
    return [(x[:5], y[:5]), (x[5:], y[5:])]


class Lazy(Dataset):
    """A dataset that makes its examples when asked, labels as Python's integers."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if index >= len(self):
            raise RuntimeError("asked for more than there is")
        return self.x[index], int(self.y[index])


@pytest.mark.parametrize(
    "images",
    [
        lambda x: x.numpy(),
        lambda x: x.double().numpy(),
        lambda x: list(x),
        lambda x: list(x.numpy()),
        lambda x: x.tolist(),
        lambda x: x.numpy()[:, :, ::-1][:, :, ::-1].copy(order="F"),
    ],
)
def test_images_as_arrays_and_lists(call, images):
    assert same(call(images(call.x)), call())


def test_arrays_that_torch_cannot_share(call):
    locked = call.x.numpy().copy()
    locked.flags.writeable = False
    assert same(call(locked), call())
    assert same(call(call.x.numpy()[:, :, ::-1, ::-1]), call(call.x.flip(2, 3)))


@pytest.mark.parametrize(
    "labels",
    [
        lambda y: y.numpy(),
        lambda y: y.tolist(),
        lambda y: y.to(torch.uint8),
        lambda y: y.numpy().astype(np.int32),
        lambda y: y[:, None],
        lambda y: y.numpy()[:, None],
        lambda y: torch.nn.functional.one_hot(y, 2),
        lambda y: torch.nn.functional.one_hot(y, 2).double(),
        lambda y: np.eye(2)[y.numpy()],
        lambda y: torch.nn.functional.one_hot(y, 2).bool(),
    ],
)
def test_labels_of_other_types_and_shapes(call, labels):
    assert same(call(labels=labels(call.y)), call())


def test_soft_labels_are_refused_with_the_remedy(call):
    soft = torch.full((12, 2), 0.5)
    soft[:3] = torch.tensor([1.0, 0.0])
    with pytest.raises(BadData, match=r"one-hot.* index 3 is not.*labels\.argmax\(1\)"):
        call(labels=soft)
    with pytest.raises(BadData, match=r"index 0 is not"):
        call(labels=torch.ones(12, 2))


@pytest.mark.parametrize(
    "loader",
    [
        lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5),
        lambda x, y: DataLoader(Lazy(x, y), batch_size=5),
        lambda x, y: TensorDataset(x, y),
        lambda x, y: Lazy(x, y),
        pairs,
        lambda x, y: iter(pairs(x, y)),
        lambda x, y: [(one, label) for one, label in zip(x, y, strict=True)],
        lambda x, y: [(one.numpy(), int(label)) for one, label in zip(x, y, strict=True)],
        lambda x, y: DataLoader(TensorDataset(x, y[:, None]), batch_size=5),
        lambda x, y: DataLoader(TensorDataset(x, torch.nn.functional.one_hot(y, 2)), batch_size=5),
        lambda x, y: DataLoader(TensorDataset(x, y, torch.arange(12)), batch_size=5),
    ],
)
def test_a_loader_brings_images_and_labels(call, loader):
    assert same(call(loader(call.x, call.y), None), call())


def test_what_is_not_a_loader_of_pairs(call):
    loader = DataLoader(TensorDataset(call.x, call.y), batch_size=5)
    with pytest.raises(BadData, match="a DataLoader brings its own labels"):
        call(loader)
    with pytest.raises(BadData, match=r"come with the images.*attack='fgsm'"):
        call(loader, "fgsm")
    with pytest.raises(BadData, match=r"labels are missing: .*attack='fgsm'"):
        call(call.x, "fgsm")
    with pytest.raises(BadData, match="labels are missing: pass them, or a DataLoader"):
        call(call.x, None)
    with pytest.raises(BadData, match=r"batch 0 of the images is a Tensor: \(images, labels\)"):
        call(iter(call.x), None)
    with pytest.raises(BadData, match="the loader gave no batch"):
        call(iter([]), None)
    with pytest.raises(BadData, match="different shapes"):
        call([(call.x, call.y), (call.x[:, :, :2], call.y)], None)


@pytest.mark.parametrize("images", [None, "x.png", 3, [object()], [[0.1], [0.2, 0.3]]])
def test_what_is_no_image_at_all(call, images):
    with pytest.raises(BadData, match="images must "):
        call(images)


def test_bytes_are_to_be_divided_by_255(call):
    for images in (
        (call.x * 255).byte(),
        (call.x * 255).byte().numpy(),
        torch.zeros_like(call.x).byte(),
    ):
        with pytest.raises(BadData, match="divide by 255"):
            call(images)


def test_channels_last_are_noticed(call):
    for shape in ((12, 8, 8, 1), (12, 32, 24, 3), (12, 16, 16, 4)):
        with pytest.raises(BadData, match=r"channel-last.*images\.permute\(0, 3, 1, 2\)"):
            call(torch.rand(shape))


@pytest.mark.parametrize("shape", [(12, 3, 16, 3), (12, 1, 16, 1), (12, 4, 2, 2), (12, 16, 1, 1)])
def test_narrow_images_are_no_channels_last(shape):
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(2))
    model(torch.zeros(shape))
    evaluate(model, torch.rand(shape), torch.zeros(12, dtype=torch.long), "grey", epsilons=[0.1])


def test_numbers_of_other_libraries(call):
    expected = call(seed=3, batch_size=16, epsilons=["0.02"])
    given = call(seed=np.int64(3), batch_size=np.int32(16), epsilons=np.array([0.02]))
    assert same(given, expected)
    assert same(call(seed=torch.tensor(3), epsilons=[np.float64(0.02)]), expected)
    spec = {"name": "pgd", "steps": np.int64(2), "restarts": np.int64(1)}
    assert same(call(seed=3, attack=spec), expected)
    half = {"name": "pgd", "steps": torch.tensor(2), "step_size": np.float32(0.5)}
    assert same(call(attack=half), call(attack={"name": "pgd", "steps": 2, "step_size": 0.5}))
    with pytest.raises(BadParameter, match=r"steps = array\(\[2\]\) is not int"):
        call(attack={"name": "pgd", "steps": np.array([2])})
    assert same(call(indices=np.arange(12)), call())


@pytest.mark.parametrize("seed", [True, -1, 2**32, 1.0, "3", None, np.bool_(True)])
def test_what_is_no_seed(call, seed):
    with pytest.raises(BadParameter, match="seed must be an integer from 0 to 4294967295"):
        call(seed=seed)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("eps", "epsilons"), ("epsilon", "epsilons"), ("y_target", "targets"), ("bs", "batch_size"),
     ("p", "norm"), ("max_queries", "query_budget"), ("sead", "seed"), ("target", "targets")],
)  # fmt: skip
def test_other_names_of_parameters(call, given, meant):
    with pytest.raises(BadParameter, match=f"no parameter '{given}'; did you mean '{meant}'"):
        call(**{given: 1})


def test_a_parameter_that_resembles_none(call):
    with pytest.raises(BadParameter, match=r"no parameter 'zzz'; there are model, images, labels"):
        call(zzz=1)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("n_iter", "steps"), ("nb_iter", "steps"), ("iterations", "steps"), ("alpha", "step_size"),
     ("eps_iter", "step_size"), ("n_restarts", "restarts"), ("rand_init", "random_start")],
)  # fmt: skip
def test_other_names_of_an_attacks_parameters(call, given, meant):
    with pytest.raises(BadParameter, match=f"no parameter '{given}'; did you mean '{meant}'"):
        call(attack={"name": "pgd", given: 1})


@pytest.mark.parametrize(
    ("given", "meant"), [("eps", "epsilons"), ("epsilon", "epsilons"), ("epsilons", "epsilons"),
                         ("seed", "seed"), ("target_class", "targets")],
)  # fmt: skip
def test_what_stands_beside_the_attacks(call, given, meant):
    with pytest.raises(BadParameter, match=f"'{given}'; '{meant}' is set once for all attacks"):
        call(attack={"name": "pgd", given: 1})


@pytest.mark.parametrize(
    ("device", "meant"),
    [("gpu", "cuda"), ("gpu:1", "cuda:1"), ("GPU", "cuda"), ("cude", "cuda"), ("cuda0", "cuda"),
     ("CPU", "cpu"), ("Auto", "auto")],
)  # fmt: skip
def test_near_misses_of_devices(call, device, meant):
    with pytest.raises(
        BadParameter, match=f"device '{device}' cannot be used; did you mean '{meant}'"
    ):
        call(device=device)


def test_a_result_prints_in_ten_lines(call):
    grid = [0.001 * one for one in range(1, 41)]
    for result in (call(), call(epsilons=grid), call(attack=["fgsm", "pgd", "square"] * 20)):
        lines = repr(result).splitlines()
        assert len(lines) <= 10
        assert max(map(len, lines)) <= 300
    lines = repr(call(epsilons=grid)).splitlines()
    assert lines[0] == "Result of pgd"
    assert lines[1] == "12 examples, clean accuracy 1.000"
    assert lines[3].split()[0] == "0.001"
    assert lines[7].split()[0] == "0.04"
    assert lines[8].strip() == "35 more epsilons: see curve"
    assert lines[9] == "no flags"


def test_a_result_prints_its_curve_and_flags(call):
    result = call(epsilons=["2/255", 0.02], attack="square", query_budget=2)
    lines = repr(result).splitlines()
    for line, row in zip(lines[3:5], result.curve.to_dict("records"), strict=True):
        assert line.split()[:2] == [row["epsilon"], f"{row['robust_accuracy']:.3f}"]
    assert lines[0] == "Result of square"
    assert lines[-1] == "flags: " + "; ".join(result.flags)
    assert "query-budget-exhausted" in lines[-1]


def test_a_result_is_called_what_the_user_called_the_attack(call):
    for attack, title in (
        ("fgsm", "fgsm"),
        (PGD(steps=2), "PGD"),
        (["fgsm", PGD(2)], "fgsm + PGD"),
    ):
        assert repr(call(attack=attack)).splitlines()[0] == f"Result of {title}"
