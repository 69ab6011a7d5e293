"""The gradient of networks of the attacker's own, trained on the victim's answers."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from ...bench.api import registry
from ...bench.api.attack import Access, Loss, Preparation, Problem
from ...bench.api.data import ImageData
from ...bench.api.errors import BadParameter
from ..parts.parameters import at_least, positive_up_to
from .surrogate_networks import Combination, Ensemble, TrainedProxy

_AT_ONCE = 256  # images

Architecture = str | dict[str, Any]


@dataclass(frozen=True)
class Proxy:
    """Gradient of proxy networks trained on the victim's answers: the transfer attack.

    The attacker shows the victim images of its own, learns from the answers, and then needs the
    victim no more. Source: Papernot et al. 2017 (arXiv:1602.02697), Algorithm 1; with soft answers
    as in distillation.

    architecture: a model plugin's name or spec, or a list of them: then networks that are averaged.
    combination: what is averaged: "logits", "probabilities" or "losses".
    query_budget: images shown to the victim, those for the fidelity and made ones included.
    answers: "probabilities" (score access) or "labels" (decision access).
    seeds: whose images the attacker begins with: "same", the training split of the victim's data,
        or a dataset's spec, such as {"name": "imagefolder", "root": "photos"}, of the same shape.
    rounds: how often the images are doubled along the Jacobian and the networks trained again. The
        attacker then begins with as many as make the budget in the end. reach: how far a made
        image is from the one that it is made of, on the [0, 1] scale (lambda).
    held_out: share of the images on which fidelity, the agreement with the victim's predicted
        class, is measured; the proxy is not trained on them.
    training: hyper-parameters of the plain training, such as {"epochs": 20}.

    Deviation: made images are clipped to [0, 1]. Networks are trained from the same first weights
    in each round, instead of going on.

    Raises: BadParameter, UnknownPlugin for a value, or a part, that cannot be used.

    The attacker's own images are shown to the victim, and its answers are what the proxy learns:
    >>> from quintain.bench import evaluate
    >>> from quintain.bench.api.examples import linear_example
    >>> model, images, labels = linear_example()
    >>> architecture = {"name": "small-cnn", "width": 0.1}
    >>> proxy = {"name": "proxy", "architecture": architecture, "query_budget": 200}
    >>> proxy["training"] = {"epochs": 15, "augmentation": "none"}
    >>> attack = {"name": "transfer", "gradient": proxy}
    >>> _, own, _ = linear_example(200)
    >>> result = evaluate(model, images, labels, attack, epsilons=[0.105], attacker_images=own)
    >>> int(result.report["setup_queries"]), round(result.report["fidelity"], 2)
    (200, 1.0)
    """

    monotone: ClassVar[bool] = False

    architecture: Architecture | list[Architecture] = field(default="resnet", hash=False)
    combination: Combination = "logits"
    query_budget: int = 1000
    answers: Literal["probabilities", "labels"] = "probabilities"
    seeds: str | dict[str, Any] = field(default="same", hash=False)
    rounds: int = 0
    reach: float = 0.1
    held_out: float = 0.1
    training: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        at_least(2, query_budget=self.query_budget)
        if not 0.0 < self.held_out < 1.0:
            raise BadParameter(f"held_out must lie between 0 and 1, not {self.held_out}")
        if not 0 <= self.rounds <= 16:
            raise BadParameter(f"rounds must lie in 0 to 16, not {self.rounds}")
        positive_up_to(1.0, reach=self.reach)
        specs = self.architectures
        if not specs or any(one in specs[:place] for place, one in enumerate(specs)):
            raise BadParameter(
                "architecture must name at least one model, and each once: "
                "equal ones would be trained to equal weights"
            )
        self._check_parts()

    def _check_parts(self) -> None:
        """Refuse specs of plugins that cannot be built: before any work, not when they are used.

        Defaults are known to be right; what they name is not imported for that.
        """
        if self.architecture != "resnet":
            for spec in self.architectures:
                registry.bind("models", spec)
        if self.seeds != "same":
            registry.bind("datasets", self.seeds)
        if self.training:
            registry.build("defenses", {"name": "none", **self.training})

    @property
    def access(self) -> Access:
        """Score for probabilities, decision for labels."""
        return "score" if self.answers == "probabilities" else "decision"

    @property
    def architectures(self) -> Sequence[dict[str, Any]]:
        """The specs of the networks."""
        given = self.architecture if isinstance(self.architecture, list) else [self.architecture]
        return [{"name": one} if isinstance(one, str) else one for one in given]

    def prepare(self, preparation: Preparation) -> TrainedProxy:
        """Query the victim, train the proxies, measure their fidelity.

        Raises: BadParameter when the attacker has no images.
        """
        owned = self._owned(preparation)
        order = torch.randperm(
            len(owned), generator=torch.Generator().manual_seed(preparation.seed)
        )
        shown = order[: self.query_budget]
        tests = max(1, round(self.held_out * len(shown)))
        if len(shown) <= tests:
            raise BadParameter(f"{len(owned)} images are too few to train a proxy on")
        begin = max(1, (self.query_budget - tests) >> self.rounds)
        tested = self._asked(preparation, owned, shown[:tests])
        data = self._asked(preparation, owned, shown[tests : tests + begin])
        ensemble = self._trained(preparation, data)
        for _ in range(self.rounds):
            data = self._augmented(preparation, ensemble, data)
            ensemble = self._trained(preparation, data)
        fidelity = float(_agreement(ensemble, tested).double().mean())
        return TrainedProxy(self, ensemble, {"fidelity": fidelity, "fidelity_images": float(tests)})

    def _owned(self, preparation: Preparation) -> ImageData:
        """The images that the attacker begins with."""
        owned = preparation.images
        if owned is None:
            raise BadParameter(
                "the proxy needs images of the attacker's own to show to the victim: "
                "pass attacker_images to evaluate(), or use a dataset with a training split"
            )
        if self.seeds == "same":
            return owned
        other: ImageData = registry.build("datasets", self.seeds).load("train")
        if other.shape != owned.shape:
            raise BadParameter(
                f"seeds are images of shape {other.shape}, but the victim takes {owned.shape}"
            )
        return other

    def _asked(self, preparation: Preparation, owned: ImageData, rows: Tensor) -> ImageData:
        """Some of the images, with the victim's answers as labels."""
        chosen = preparation.select(owned, rows)
        parts = torch.arange(len(chosen)).split(_AT_ONCE)
        answers = [self._answers(preparation, chosen.images.read(part)) for part in parts]
        names = tuple(map(str, range(preparation.n_classes)))
        return replace(chosen, labels=torch.cat(answers), class_names=names)

    def _answers(self, preparation: Preparation, x: Tensor) -> Tensor:
        """(n,) classes or (n, K) probabilities."""
        answers = preparation.ask(x, self.access).cpu()
        return answers.softmax(dim=1) if self.access == "score" else answers

    def _trained(self, preparation: Preparation, data: ImageData) -> Ensemble:
        networks = (preparation.train(one, data, self.training) for one in self.architectures)
        return Ensemble(tuple(map(preparation.open, networks)), self.combination)

    def _augmented(
        self, preparation: Preparation, ensemble: Ensemble, data: ImageData
    ) -> ImageData:
        """Double the images: each is moved to where its class, as the proxy sees it, grows."""
        images, answers = [], [data.labels]
        for part in torch.arange(len(data)).split(_AT_ONCE):
            x = data.images.read(part).cpu()
            classes = _classes(data.labels[part])
            slope, _ = ensemble.gradient(
                x, lambda logits, y=classes: -functional.cross_entropy(  # type: ignore[misc]
                    logits, y.to(logits.device), reduction="none")
            )  # fmt: skip
            moved = (x + self.reach * slope.cpu().sign()).clamp(0, 1)
            answers.append(self._answers(preparation, moved))
            images += [x, moved]
        kept = torch.cat([*images[::2], *images[1::2]])
        return preparation.collect(kept, torch.cat(answers), data.class_names)

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """Refuse: there is no proxy before `prepare`."""
        raise BadParameter("the proxy must be prepared before it is asked for a gradient")


def _agreement(ensemble: Ensemble, data: ImageData) -> Tensor:
    """(n,) bool: whether the proxy sees the class that the victim answered."""
    parts = torch.arange(len(data)).split(_AT_ONCE)
    seen = [ensemble.logits(data.images.read(part)).argmax(dim=1).cpu() for part in parts]
    return torch.cat(seen) == _classes(data.labels)


def _classes(answers: Tensor) -> Tensor:
    return answers.argmax(dim=1) if answers.dim() == 2 else answers
