"""Every study runs on tiny networks, and writes what it says it writes."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from overlaps import overlapping
from PIL import Image

from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter
from quintain.bench.studies.run import StudyRequest, run_study

QUICK = ("model.width=0.25", "dataset.size=16", "dataset.n_train=64", "dataset.n_test=32")
TRAINING = ("defense.epochs=1", "defense.batch_size=32", 'defense.augmentation="none"')
ONE_EPOCH = 'study.training={name="none", epochs=1, batch_size=32, augmentation="none"}'
PAIR = ("study.seeds=1", "study.depth=8", "study.width=0.25", ONE_EPOCH)
TWO_STEPS = 'study.attack={name="pgd", steps=2}'
SMALLER = {
    "activations": [
        "study.depths=[1, 2]",
        "study.draws=1",
        "study.width=0.125",
        "study.trained_depths=[1]",
        "study.seeds=1",
        ONE_EPOCH,
        TWO_STEPS,
    ],
    "attention": ["study.rows=1", TWO_STEPS],
    "auxiliary": [
        "study.seeds=1",
        "study.width=0.0625",
        "study.gradient_epochs=[0, 1]",
        ONE_EPOCH,
        TWO_STEPS,
    ],
    "boundary": ["study.directions=1", TWO_STEPS],
    "degradation": [
        "study.depths=[8, 14]",
        "study.seeds=1",
        "study.gradient_epochs=[0, 1]",
        ONE_EPOCH,
        TWO_STEPS,
    ],
    "ensembles": [
        *PAIR,
        TWO_STEPS,
        "study.counts=[1]",
        "study.draws=1",
        "study.path_images=2",
        "study.path_draws=2",
    ],
    "filters": ["study.seeds=2", "study.width=0.0625"],
    "inception": [
        "study.modules=2",
        "study.seeds=1",
        "study.width=0.0625",
        ONE_EPOCH,
        TWO_STEPS,
    ],
    "inversion": [
        "study.iterations=3",
        "study.images=1",
        "study.depth=3",
        "study.patches=300",
        "study.components=2",
    ],
    "layers": ["study.iterations=3", "study.images=1", "study.train_images=48"],
    "localisation": [TWO_STEPS],
    "loss-surface": [
        *PAIR,
        "study.directions=2",
        "study.steps=2",
        "study.plane_steps=2",
        "study.iterations=2",
    ],
    "regularisers": [
        "study.seeds=2",
        "study.width=0.0625",
        'study.training={name="none", epochs=1, batch_size=32, shift=1, augmentation="shift-flip"}',
        TWO_STEPS,
    ],
    "redundancy": ["study.distances=4"],
    "stride": ["study.strides=[1, 2]", "study.late=[2]", "study.seeds=1", ONE_EPOCH, TWO_STEPS],
    "targets": [TWO_STEPS, 'study.epsilons=["8/255"]'],
    "visibility": [TWO_STEPS, 'study.epsilons=["8/255"]'],
}


def studied(name, out, *settings, **changes):
    options = {
        "model": "resnet",
        "dataset": "shapes",
        "defenses": ["none"],
        "n_examples": 16,
        "settings": ["model.depth=8", *QUICK, *TRAINING, *settings],
    }
    return run_study(StudyRequest(study=name, out=out, device="cpu", **{**options, **changes}))


def test_every_study_of_ours_is_tried():
    ours = {one.name for one in registry.plugins("studies") if one.source == "quintain"}
    assert ours == set(SMALLER)


@pytest.fixture(scope="module", params=sorted(SMALLER))
def done(request, tmp_path_factory):
    """A study that was run, and its folder."""
    out = tmp_path_factory.mktemp(request.param) / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QUINTAIN_CACHE", str(tmp_path_factory.getbasetemp() / "studied"))
        return studied(request.param, out, *SMALLER[request.param]), out


def test_a_study_writes_tables_figures_and_a_manifest(done):
    result, out = done
    about = json.loads((out / "manifest.json").read_text())
    assert about["notes"] == list(result.notes)
    assert result.notes
    for table in about["tables"]:
        assert len(pd.read_csv(out / table))
    assert len(about["figures"]) == 2 * len(result.figures) > 0
    for figure in about["figures"]:
        file = out / figure
        if file.suffix == ".png":
            with Image.open(file) as image:
                low, high = image.convert("L").getextrema()
                assert (low, high) != (255, 255)


def test_no_text_of_a_figure_lies_on_another(done):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    result, _ = done
    for title, figure in result.figures.items():
        FigureCanvasAgg(figure).draw()
        assert overlapping(figure) == [], title


def test_texts_that_overlap_are_noticed():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    figure.text(0.5, 0.5, "one text")
    figure.text(0.51, 0.5, "another")
    FigureCanvasAgg(figure).draw()
    assert overlapping(figure)


def test_the_same_study_gives_the_same_files(tmp_path):
    for out in ("one", "two"):
        studied("attention", tmp_path / out, *SMALLER["attention"])
    for name in ("summary.csv", "examples.csv", "panels.svg"):
        one, two = (tmp_path / out / name for out in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_an_epsilon_may_be_a_number_as_in_a_suite(tmp_path):
    settings = [*SMALLER["localisation"], "study.epsilon=0.03"]
    assert studied("localisation", tmp_path / "out", *settings).notes


@pytest.mark.parametrize(
    ("name", "settings", "changes", "said"),
    [
        ("attention", ["study.layer='stag1'"], {}, "stage1"),
        ("inversion", ['study.priors=["TV"]'], {}, "no prior 'TV'"),
        ("localisation", [], {"dataset": "digits"}, "says not where its objects are"),
        ("attention", ["study.rows=0"], {}, "rows = 0 must be at least 1"),
        ("attention", [], {"norm": "L3"}, "L3"),
        ("attention", ["study.colour=1"], {}, "colour"),
    ],
)
def test_what_cannot_be_studied_is_said_in_a_line(name, settings, changes, said, tmp_path):
    if "dataset" in changes:
        changes = {**changes, "settings": ["model.depth=8", *TRAINING]}
    with pytest.raises(Exception, match=said) as caught:
        studied(name, tmp_path / "out", *settings, **changes)
    assert "\n" not in str(caught.value)


def test_the_study_of_ones_own_on_the_page_runs(tmp_path, quintain):
    page = (Path(__file__).parents[3] / "docs" / "studies.md").read_text("utf-8")
    [code] = [one for one in page.split("```python\n") if one.startswith("# brightness.py")]
    code = code.partition("```")[0]
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    (tmp_path / "brightness.py").write_text(code)
    settings = [part for one in ("model.depth=8", *QUICK, *TRAINING) for part in ("--set", one)]
    with registry.temporary():
        answer = quintain(
            "study", "brightness", "--plugin", tmp_path / "brightness.py", "--model", "resnet",
            "--defense", "none", "--set", "study.steps=2", *settings, "--out", tmp_path / "out",
        )  # fmt: skip
    assert answer.code == 0, answer.err
    assert "darker is harder" in answer.out
    table = pd.read_csv(tmp_path / "out" / "brightness.csv")
    assert table["factor"].tolist() == [1.0, 0.5]


def test_checkpoints_are_studied_side_by_side(tmp_path):
    from quintain.bench.api.defense import InputSpec
    from quintain.bench.store.checkpoints import save_checkpoint
    from quintain.bench.training.networks import build_network

    spec = {"name": "resnet", "depth": 8, "width": 0.25}
    inputs = InputSpec((3, 16, 16), 8, (0.5,) * 3, (0.25,) * 3)
    for seed in range(2):
        network = build_network(spec, inputs, seed)
        save_checkpoint(tmp_path / f"net{seed}.safetensors", network, {"model": spec})
    paths = [tmp_path / f"net{seed}.safetensors" for seed in range(2)]
    settings = [*QUICK[1:], "study.distances=3"]
    result = studied(
        "redundancy", tmp_path / "out", checkpoints=paths, defenses=[], settings=settings
    )
    assert list(dict.fromkeys(result.tables["redundancy"]["network"])) == ["net0", "net1"]


def test_a_model_that_brings_its_weights_is_studied_as_it_is(tmp_path):
    file = tmp_path / "net.py"
    file.write_text(
        """
import torch
from quintain.bench.api import registry
from quintain.bench.api.errors import BadParameter
from quintain.models.resnet import resnet

@registry.model("mine")
def mine(inputs):
    torch.manual_seed(5)
    return resnet(inputs, depth=8, width=0.25)

mine.brings_weights = lambda given: True
"""
    )
    changes = {"model": "mine", "defenses": [], "plugins": [file]}
    with registry.temporary():
        request = StudyRequest(
            study="redundancy", out=tmp_path / "out", device="cpu", n_examples=16,
            settings=[*QUICK[1:], "study.distances=3"], dataset="shapes", **changes,
        )  # fmt: skip
        result = run_study(request)
        assert list(dict.fromkeys(result.tables["redundancy"]["network"])) == ["mine"]
        with pytest.raises(BadParameter, match="mine brings its weights"):
            run_study(replace(request, defenses=["none"]))
