"""The gradient of a network of the attacker's own, trained on the victim's answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from ...bench.errors import BadParameter
from ...bench.protocols import (
    Access,
    Differentiable,
    ImageData,
    Images,
    Loss,
    Preparation,
    Problem,
)


@dataclass(frozen=True)
class Proxy:
    """Gradient of a proxy network trained on the victim's answers: the transfer attack.

    The attacker shows the victim images of its own, learns from the answers, and then needs the
    victim no more. Source: Papernot et al. 2017 (arXiv:1602.02697), without the augmentation along
    the Jacobian; with soft answers as in distillation.

    architecture: a model plugin's name or spec.
    query_budget: images shown to the victim, those for the fidelity included.
    answers: "probabilities" (score access) or "labels" (decision access).
    held_out: share of the images on which fidelity, the agreement with the victim's predicted
        class, is measured; the proxy is not trained on them.
    training: hyper-parameters of the plain training, such as {"epochs": 20}.
    """

    monotone: ClassVar[bool] = False

    architecture: str | dict[str, Any] = field(default="resnet", hash=False)
    query_budget: int = 1000
    answers: Literal["probabilities", "labels"] = "probabilities"
    held_out: float = 0.1
    training: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.query_budget < 2:
            raise BadParameter(f"query_budget must be at least 2, not {self.query_budget}")
        if not 0.0 < self.held_out < 1.0:
            raise BadParameter(f"held_out must lie between 0 and 1, not {self.held_out}")

    @property
    def access(self) -> Access:
        """Score for probabilities, decision for labels."""
        return "score" if self.answers == "probabilities" else "decision"

    def prepare(self, preparation: Preparation) -> "TrainedProxy":
        """Query the victim, train the proxy, measure its fidelity.

        Raises: BadParameter when the attacker has no images.
        """
        owned = preparation.images
        if owned is None:
            raise BadParameter(
                "the proxy needs images of the attacker's own to show to the victim: "
                "pass attacker_images to evaluate(), or use a dataset with a training split"
            )
        order = torch.randperm(
            len(owned), generator=torch.Generator().manual_seed(preparation.seed)
        )
        shown = order[: self.query_budget]
        tests = max(1, round(self.held_out * len(shown)))
        if len(shown) <= tests:
            raise BadParameter(f"{len(owned)} images are too few to train a proxy on")
        answers = self._answers(preparation, owned.images, shown)
        spec = self.architecture
        network = preparation.train(
            {"name": spec} if isinstance(spec, str) else spec,
            ImageData(
                _Chosen(owned.images, shown[tests:]),
                answers[tests:],
                tuple(map(str, range(preparation.n_classes))),
                owned.shape,
            ),
            self.training,
        )
        proxy = preparation.open(network)
        agree = [
            proxy.logits(owned.images.read(part)).argmax(1).cpu() == _classes(answer)
            for part, answer in zip(
                shown[:tests].split(256), answers[:tests].split(256), strict=True
            )
        ]
        fidelity = float(torch.cat(agree).double().mean())
        return TrainedProxy(self, proxy, {"fidelity": fidelity, "fidelity_images": float(tests)})

    def _answers(self, preparation: Preparation, images: Images, shown: Tensor) -> Tensor:
        """(n,) classes or (n, K) probabilities."""
        asked = [preparation.ask(images.read(part), self.access) for part in shown.split(256)]
        answers = torch.cat([one.cpu() for one in asked])
        return answers.softmax(dim=1) if self.access == "score" else answers

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """Refuse: there is no proxy before `prepare`."""
        raise BadParameter("the proxy must be prepared before it is asked for a gradient")


@dataclass(frozen=True)
class TrainedProxy:
    """A proxy network ready to give gradients; the victim is not asked.

    report: fidelity and the number of held-out images it was measured on.
    """

    monotone: ClassVar[bool] = False

    source: Proxy
    network: Differentiable = field(repr=False)
    report: Mapping[str, float]

    @property
    def access(self) -> Access:
        """What the proxy's training needed."""
        return self.source.access

    def __call__(self, problem: Problem, x: Tensor, loss: Loss) -> Tensor:
        """(B, C, H, W): the gradient of the loss of the proxy at x."""
        return self.network.gradient(
            x, lambda logits: loss(logits, problem.y, targeted=problem.targeted)
        ).gradient


@dataclass(frozen=True)
class _Chosen:
    """Some of the images, in an order of their own."""

    images: Images
    indices: Tensor

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, indices: Tensor) -> Tensor:
        return self.images.read(self.indices[indices])

    def fingerprint(self) -> str:
        return f"{self.images.fingerprint()}{self.indices.tolist()}"


def _classes(answers: Tensor) -> Tensor:
    return answers.argmax(dim=1) if answers.dim() == 2 else answers
