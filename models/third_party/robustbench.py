"""Models of RobustBench (Croce et al. 2021, arXiv:2010.09670): always with their weights."""

import importlib
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import ClassVar

from torch import nn

from ...bench.api.defense import InputSpec
from ...bench.api.errors import BadParameter, closest
from .wrapped import loaded, telling


class RobustBench:
    """Robust models of RobustBench's zoo, by `dataset` and `threat_model`."""

    package: ClassVar[str] = "robustbench"
    install: ClassVar[str] = "pip install git+https://github.com/RobustBench/robustbench"

    @property
    def release(self) -> str:
        """The installed version."""
        return metadata.version("robustbench")

    def names(self) -> Iterable[str]:
        """Every model of the zoo, for whatever dataset and threat."""
        return {
            name
            for threats in importlib.import_module("robustbench.model_zoo").model_dicts.values()
            for models in threats.values()
            for name in models
        }

    def factory(self, name: str) -> Callable[..., nn.Module]:
        """Bind one model."""

        def build(
            inputs: InputSpec,
            *,
            dataset: str = "cifar10",
            threat_model: str = "Linf",
            folder: str = "models",
        ) -> nn.Module:
            """Fetch it. It takes images in [0, 1] and normalises inside.

            dataset, threat_model: which of the models of that name. folder: for what is downloaded.

            Raises: BadParameter.
            """
            _check(name, dataset, threat_model)
            utils = importlib.import_module("robustbench.utils")
            return loaded(
                f"robustbench:{name}",
                lambda: utils.load_model(
                    name, model_dir=folder, dataset=dataset, threat_model=threat_model
                ),
            )

        return telling(build, lambda given: True)


def _check(name: str, dataset: str, threat_model: str) -> None:
    zoo = importlib.import_module("robustbench.model_zoo").model_dicts
    places = {
        f"{_text(data)} {_text(threat)}"
        for data, threats in zoo.items()
        for threat, models in threats.items()
        if name in models
    }
    if f"{dataset} {threat_model}" not in places:
        raise BadParameter(
            f"robustbench:{name} is not for {dataset} {threat_model}"
            f"{closest(f'{dataset} {threat_model}', places)} It is there for "
            + ", ".join(sorted(places))
        )


def _text(one: object) -> str:
    return str(getattr(one, "value", one))  # an enumeration's member
