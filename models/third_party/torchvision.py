"""Classifiers of torchvision, with fresh weights or its own."""

import importlib
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, ClassVar

from torch import nn

from ...bench.api.defense import InputSpec
from ...bench.api.errors import BadParameter, closest
from .wrapped import Wrapped, colours, loaded, telling


class Torchvision:
    """Classifiers of torchvision; `weights = "DEFAULT"` for pretrained ones."""

    package: ClassVar[str] = "torchvision"
    install: ClassVar[str] = "pip install torchvision"

    @property
    def release(self) -> str:
        """The installed version."""
        return metadata.version("torchvision")

    def names(self) -> Iterable[str]:
        """Its classifiers, not its detectors and the like."""
        library = importlib.import_module("torchvision.models")
        names: list[str] = library.list_models(module=library)
        return names

    def factory(self, name: str) -> Callable[..., nn.Module]:
        """Bind one architecture."""

        def build(
            inputs: InputSpec, *, weights: str | None = None, options: dict[str, Any] | None = None
        ) -> nn.Module:
            """Build it: with fresh weights for the data's classes, or with torchvision's.

            weights: a name such as "DEFAULT" or "IMAGENET1K_V1". Images are then normalised as
                those weights need it, but not resized: the dataset is to bring the right size.
            options: for torchvision's function.

            Raises: BadParameter.
            """
            return _build(name, inputs, weights, options or {})

        return telling(build, lambda given: given.get("weights") is not None)


def _build(name: str, inputs: InputSpec, weights: str | None, options: dict[str, Any]) -> nn.Module:
    library = importlib.import_module("torchvision.models")
    title = f"torchvision:{name}"
    make = library.get_model_builder(name)
    if weights is None:
        more = {"num_classes": inputs.n_classes, **options}
        return Wrapped(loaded(title, lambda: make(weights=None, **more)), *colours(inputs))
    known = library.get_model_weights(name)
    if weights not in known.__members__:
        there = ", ".join(known.__members__)
        near = closest(weights, known.__members__) or ";"
        raise BadParameter(f"{title} has no weights '{weights}'{near} there are {there}")
    chosen = known[weights]
    preparation = chosen.transforms()
    network = loaded(f"{title} with weights {weights}", lambda: make(weights=chosen, **options))
    return Wrapped(network, preparation.mean, preparation.std)
