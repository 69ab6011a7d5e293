"""Kept adversarial examples, and what is shown of them."""

import shutil

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from quintain.attacks.white_box.fgsm import fgsm
from quintain.attacks.white_box.pgd import PGD
from quintain.bench import evaluate
from quintain.bench.api.epsilon import Epsilon
from quintain.bench.api.errors import BadParameter, RunDirectoryError
from quintain.bench.datasets.in_memory import TensorImages
from quintain.bench.datasets.shapes import Shapes
from quintain.bench.engine.adversarials import FewExamples
from quintain.bench.engine.perturb import perturb
from quintain.bench.report.page.build import write_page
from quintain.bench.studies.explain_run import explain_run
from quintain.bench.suite.config import parse_suite
from quintain.bench.suite.runner import run_suite

SUITE = """
dataset = "digits"
n_examples = 32
epsilons = ["8/255", "64/255"]
leaderboard_epsilon = "64/255"
models = [{ name = "resnet", depth = 8, width = 0.25 }]
defenses = [{ name = "none", epochs = 3, batch_size = 32, augmentation = "none" }]
attacks = [{ name = "fgsm" }]
"""


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    """A finished run, and the cache that it was made with."""
    folder = tmp_path_factory.mktemp("explained")
    text = SUITE
    run_suite(
        parse_suite(text, "suite.toml", "suite"),
        text,
        "suite.toml",
        folder,
        folder / "run",
        torch.device("cpu"),
        folder / "cache",
    )
    return folder


@pytest.fixture(autouse=True)
def _cache(run_directory, monkeypatch):
    monkeypatch.setenv("QUINTAIN_CACHE", str(run_directory / "cache"))


def test_a_run_directory_is_explained_without_attacking(run_directory, tmp_path):
    files = explain_run(run_directory / "run", tmp_path / "out", "cpu")
    assert [one.suffix for one in files] == [".png", ".csv"]
    table = pd.read_csv(files[-1])
    assert set(table["kind"]) <= {"worst", "median"}
    worst = table[table["kind"] == "worst"]
    assert len(worst) == 4
    assert worst["distance"].is_monotonic_increasing
    assert (table["clean_prediction"] != table["adversarial_prediction"]).all()
    assert table["psnr"].between(5, 60).all()


def test_the_page_shows_maps_where_they_were_made(run_directory, tmp_path):
    run = shutil.copytree(run_directory / "run", tmp_path / "run")
    looked = 'alt="where the network looked before"'
    write_page([run], tmp_path / "before.html", print)
    assert looked not in (tmp_path / "before.html").read_text("utf-8")
    explain_run(run, run / "explain", "cpu")
    write_page([run], tmp_path / "after.html", print)
    html = (tmp_path / "after.html").read_text("utf-8")
    assert html.count(looked) == html.count("its adversarial example") == 8
    [maps] = (run / "explain").glob("*.maps.safetensors")
    maps.write_bytes(b"damaged")
    write_page([run], tmp_path / "damaged.html", print)
    assert looked not in (tmp_path / "damaged.html").read_text("utf-8")


def test_kept_examples_that_were_changed_are_refused(run_directory, tmp_path):
    [file] = (run_directory / "run" / "examples").glob("*.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    try:
        with pytest.raises(RunDirectoryError, match="was changed"):
            explain_run(run_directory / "run", tmp_path / "out", "cpu")
    finally:
        file.write_bytes(whole)


def test_few_examples_are_the_nearest_and_the_median_ones(tmp_path):
    source = torch.Generator().manual_seed(3)
    distances = torch.rand(300, generator=source).tolist()
    images = torch.rand(300, 1, 2, 2, generator=source)
    few = FewExamples(1, 300)
    for row in torch.randperm(300, generator=source).tolist():
        few.keep(row, 2, images[row], 0.0)  # beyond the epsilon
        few.keep(row, 1, images[row] / 2, distances[row] + 1.0)
        few.keep(row, 0, images[row], distances[row])
        few.keep(row, 1, images[row] / 3, distances[row] + 0.5)
    few.save(
        tmp_path / "few.safetensors", TensorImages(images), lambda x: (x[:, 0, 0, 0] > 0.5).long()
    )
    kept = load_file(tmp_path / "few.safetensors")
    assert torch.equal(kept["prediction"], (kept["x_adv"][:, 0, 0, 0] > 0.5).long())
    order = sorted(range(300), key=distances.__getitem__)
    assert kept["row"][kept["worst"]].tolist() == order[:8]
    assert torch.equal(kept["x_adv"], images[kept["row"]])
    middle = sorted(distances)[150]
    others = [distances[row] for row in kept["row"][~kept["worst"]].tolist()]
    assert len(others) == 8
    assert max(abs(one - middle) for one in others) < 0.1


def test_nothing_is_kept_where_nothing_is_broken():
    assert not FewExamples(0, 10).any


def small_network(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 3, padding=1),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(4),
            torch.nn.Flatten(),
            torch.nn.Linear(128, 8),
        ).eval()


def test_a_result_explains_itself():
    data = Shapes(size=16, n_test=12).load("test")
    x, model = data.images.read(torch.arange(12)), small_network()
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    result = evaluate(model, x, y, "pgd", epsilons=["4/255", "64/255"])
    found = result.explain("64/255")
    assert len(found.table) == int(sum(row[1] for row in result.records["broken"]))
    assert (found.table["clean_prediction"] != found.table["adversarial_prediction"]).all()
    assert found.table["rank_correlation"].dropna().between(-1, 1).all()
    assert len(found.figure.axes) == 5 * min(8, len(found.table))
    with pytest.raises(BadParameter, match="not on the grid"):
        result.explain("2/255")


def test_perturb_gives_the_full_budget_also_where_it_fails():
    data = Shapes(size=16, n_test=12).load("test")
    x, model = data.images.read(torch.arange(12)), small_network()
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    moved = perturb(model, PGD(steps=5), x, y, Epsilon.parse("1/255"), "Linf")
    assert (moved - x).abs().flatten(1).amax(dim=1).max() <= 1 / 255 + 1e-7
    assert bool((moved != x).flatten(1).any(dim=1).all())
    model.requires_grad_(requires_grad=True)
    one = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(one), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, one)
    expected = (x + gradient.sign() / 255).clamp(0, 1)
    single = perturb(model, fgsm(), x, y, Epsilon.parse("1/255"), "Linf")
    with torch.no_grad():
        assert torch.allclose(model(single), model(expected), atol=1e-4)


def test_perturb_reaches_a_target_that_is_near():
    data = Shapes(size=16, n_test=12).load("test")
    x, model = data.images.read(torch.arange(12)), small_network()
    with torch.no_grad():
        targets = model(x).topk(2, dim=1).indices[:, 1]
    moved = perturb(
        model, PGD(steps=10), x, targets, Epsilon.parse("64/255"), "Linf", targeted=True
    )
    with torch.no_grad():
        assert float((model(moved).argmax(dim=1) == targets).double().mean()) > 0.9
