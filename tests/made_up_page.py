"""The content of a page about networks that there are not."""

import numpy as np
import pandas as pd

from quintain.bench.api.flags import Flag
from quintain.bench.report.page.content import Content, Group, Provenance, Row
from quintain.bench.report.page.pictures import Picture, _uri
from quintain.bench.report.statistics import interval

EPSILONS = ["2/255", "4/255", "8/255", "16/255"]
ATTACKS = ["pgd", "square", "worst-case"]


def made_up(count, names=None, pictures=0, maps=()):
    """Content of `count` defended models, with that many triples of pictures of 32x32 in colour.

    maps: two data URIs that stand beside each.
    """
    random = np.random.default_rng(0)
    names = names or [f"model-{number}" for number in range(count)]
    rows, curves = [], []
    for number, name in enumerate(names):
        clean = 0.99 - 0.3 * random.random()
        for attack in ATTACKS:
            worth = np.sort(random.random(4) * clean)[::-1]
            for epsilon, value in zip(EPSILONS, worth, strict=True):
                low, high = interval(round(1000 * value), 1000)
                curves.append(
                    {"dataset": "made up", "model": name, "defense": f"d{number}", "attack": attack,
                     "norm": "Linf", "epsilon": epsilon, "clean_accuracy": clean,
                     "robust_accuracy": value, "ci_low": low, "ci_high": high}
                )  # fmt: skip
        at = curves[-2]
        values = {
            "rank": number + 1, "model": name, "defense": f"d{number}", "parameters": 1000 * number,
            "curve_area": 0.1, "certified_accuracy": float("nan"), "attacks": "pgd;square",
            **{key: at[key] for key in ("clean_accuracy", "robust_accuracy", "ci_low", "ci_high")},
        }  # fmt: skip
        flags = (Flag("no-progress", count=3),) if number % 3 == 0 else ()
        cost = {"forward_mean": 10.0, "backward_mean": 5.0, "queries_mean": 0.0, "seconds": 2.0}
        rows.append(Row(number, f"{name} x d{number}", values, flags, cost))
    image = lambda: _uri(random.random((3, 32, 32)).astype(np.float32))  # noqa: E731
    shown = [
        Picture(i, "cat", "dog", "nearest", 0.01, 25.0, image(), image(), image(), *maps)
        for i in range(pictures)
    ]
    names_of = ["dataset", "norm", "epsilon", "model", "defense", "attack", "source", "target"]
    empty = pd.DataFrame(columns=names_of)
    group = Group(
        "made up", "Linf", "8/255", 1000, rows, pd.DataFrame(curves), empty, empty, empty,
        {f"{names[0]} x pgd": shown} if shown else {},
    )  # fmt: skip
    facts = [("suite", "made up"), ("to repeat it", "quintain run made-up.toml")]
    files = {"leaderboard.csv": pd.DataFrame({"model": names})}
    return Content("made up", [group], [Provenance("made up", facts)], [], files)
