"""Classifiers of timm, PyTorch Image Models (Wightman, doi:10.5281/zenodo.4414861)."""

import importlib
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, ClassVar

from torch import nn

from ...bench.api.defense import InputSpec
from .wrapped import Wrapped, colours, loaded, telling


class Timm:
    """Classifiers of timm; `pretrained = true` for its weights."""

    package: ClassVar[str] = "timm"
    install: ClassVar[str] = "pip install timm"

    @property
    def release(self) -> str:
        """The installed version."""
        return metadata.version("timm")

    def names(self) -> Iterable[str]:
        """Architectures, and each with a tag of its weights, such as `resnet50.a1_in1k`."""
        library = importlib.import_module("timm")
        return [*library.list_models(), *library.list_models(pretrained=True)]

    def factory(self, name: str) -> Callable[..., nn.Module]:
        """Bind one architecture."""

        def build(
            inputs: InputSpec, *, pretrained: bool = False, options: dict[str, Any] | None = None
        ) -> nn.Module:
            """Build it: with fresh weights for the data's classes, or with timm's.

            Pretrained, images are normalised as the weights need it, but not resized: the dataset
            is to bring the right size. options: for timm.create_model.

            Raises: BadParameter.
            """
            library = importlib.import_module("timm")
            more = {} if pretrained else {"num_classes": inputs.n_classes}
            network = loaded(
                f"timm:{name}",
                lambda: library.create_model(name, pretrained=pretrained, **more, **options or {}),
            )
            if not pretrained:
                return Wrapped(network, *colours(inputs))
            about: Any = network.pretrained_cfg
            return Wrapped(network, about["mean"], about["std"])

        return telling(build, lambda given: bool(given.get("pretrained")))
