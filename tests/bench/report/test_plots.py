import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from overlaps import overlapping
from PIL import Image

from quintain.bench import evaluate
from quintain.bench.api.errors import BadParameter
from quintain.bench.api.examples import linear_example
from quintain.bench.report import plots

EPSILONS = ("2/255", "8/255", "16/255")


@pytest.fixture
def tradeoff():
    rows = [
        {"model": model, "defense": defense, "attack": attack, "norm": "Linf", "epsilon": epsilon,
         "clean_accuracy": 0.9, "robust_accuracy": 0.8 / (place + 1), "ci_low": 0.1, "ci_high": 0.9}
        for model in ("alexnet", "googlenet")
        for defense in ("none", "adversarial-training")
        for attack in ("pgd-finite-differences", "transfer", "worst-case")
        for place, epsilon in enumerate(EPSILONS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def queries():
    rows = [
        {"model": model, "defense": "none", "attack": attack, "epsilon": "8/255", "queries": count,
         "success_rate": count / 1000, "ci_low": 0.0, "ci_high": 1.0}
        for model in ("a", "b")
        for attack in ("square", "simba")
        for count in (1, 10, 100, 1000)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.fixture
def transfers():
    names = ("alexnet x none", "googlenet x none")
    rows = [
        {"source": one, "target": other, "epsilon": "8/255", "attack_success_rate": 0.25}
        for one in names
        for other in names
        if one != other
    ]
    return pd.DataFrame(rows)


def texts(figure):
    return {one.get_text() for axes in figure.axes for one in axes.texts}


def test_no_text_lies_on_another(tradeoff, queries, transfers):
    figures = {
        "curves": plots.curves_figure(tradeoff, "8/255"),
        "heatmap": plots.heatmap_figure(tradeoff, "8/255"),
        "queries": plots.queries_figure(queries, "8/255"),
        "transfer": plots.transfer_figure(transfers, "8/255"),
        "result": plots.result_figure(tradeoff[:3], "pgd"),
    }
    assert {*plots.MAKERS} == {*figures} - {"result"}
    for name, figure in figures.items():
        FigureCanvasAgg(figure).draw()
        assert overlapping(figure) == [], name


def test_curves_begin_at_clean_accuracy(tradeoff):
    figure = plots.curves_figure(tradeoff, "8/255")
    assert len([one for one in figure.axes if one.axison]) == 4
    line = figure.axes[0].lines[0]
    assert line.get_xdata()[0] == 0.0
    assert line.get_ydata().tolist() == pytest.approx([0.9, 0.8, 0.4, 0.8 / 3])


def test_heat_maps_show_their_numbers(tradeoff, transfers):
    assert texts(plots.heatmap_figure(tradeoff, "8/255")) == {"0.40"}
    assert texts(plots.transfer_figure(transfers, "8/255")) == {"0.25"}


def test_what_was_not_run_cannot_be_drawn(queries, transfers):
    with pytest.raises(BadParameter, match="transfer = true"):
        plots.transfer_figure(transfers, "4/255")
    with pytest.raises(BadParameter, match="black-box"):
        plots.queries_figure(queries[:0], "8/255")


@pytest.mark.parametrize("kind", ["tradeoff", "curves", "heatmap"])
def test_a_run_is_drawn(kind, quintain, write_suite, tmp_path):
    run, file = tmp_path / "run", tmp_path / f"{kind}.png"
    assert quintain("run", write_suite(), "--out", run).code == 0
    assert quintain("plot", run, "--kind", kind, "--output", file).code == 0
    with Image.open(file) as image:
        low, high = image.convert("L").getextrema()
        assert low < 100 < 200 < high
    mistake = quintain("plot", run, "--kind", "curve")
    assert mistake.code == 2
    assert "curves" in mistake.error


def test_a_result_is_drawn_and_shown_in_a_notebook():
    model, images, labels = linear_example()
    result = evaluate(model, images, labels, "pgd", epsilons=["5/255", "14/255"])
    line = result.plot().axes[0].lines[0]
    assert line.get_ydata().tolist() == [1.0, 0.9, 0.5]
    html = result._repr_html_()
    assert "<td>0.900</td>" in html
    assert "<svg" in html
    assert "no flags" in html
    hidden = torch.nn.Sequential(model, torch.nn.Softmax(dim=1))
    doubtful = evaluate(hidden, images, labels, "pgd", epsilons=["5/255"])
    assert "probability-outputs" in doubtful._repr_html_()
