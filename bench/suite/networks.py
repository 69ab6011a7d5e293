"""The networks that a process has in memory, and what their cells share."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..api.defense import Trained
from ..api.errors import CellError
from ..api.progress import Progress
from ..api.shared.module_state import dtype_of
from ..engine.case import Case
from ..engine.diagnostics.model_checks import Checked
from ..engine.precision import choose_precision
from ..engine.preparation import Attackers
from ..store.checkpoints import weights_hash
from ..training.load import open_ready
from ..training.networks import train_or_load, train_proxy
from ..victim.model import frozen
from ..victim.precision_selection import PrecisionChoice, recall
from .files_read import recorded

if TYPE_CHECKING:
    from .keys import Keys

_KEPT = 2  # networks in memory: that under attack, and one whose gradients are borrowed


@dataclass
class OpenNetwork:
    """A network, and what is known of it.

    number: of its defended model. files: that code of the user's read to make it. checked: flags
    of the network that its attacks share. precision: what their searches compute gradients with.
    """

    number: int
    trained: Trained
    weights: str
    files: set[str]
    checked: Checked = field(default_factory=dict)
    precision: PrecisionChoice | None = None

    @property
    def module(self) -> nn.Module:
        """The network itself."""
        return self.trained.model

    @property
    def predict(self) -> "Callable[[Tensor], Tensor] | None":
        """(n, C, H, W) in [0, 1] -> (n,) its classes; None where these depend on chance."""
        if any(getattr(one, "stochastic", False) for one in self.module.modules()):
            return None

        @torch.no_grad()
        def classes(x: Tensor) -> Tensor:
            device = next(self.module.parameters(), torch.empty(0)).device
            given = x.to(device, dtype_of(self.module))
            answer: Tensor = self.module(given).argmax(dim=1).cpu()
            return answer

        return classes

    @property
    def parameters(self) -> int:
        """How many weights it has."""
        return sum(one.numel() for one in self.module.parameters())


class Networks:
    """Makes the networks of a plan when they are asked for, and keeps the last ones."""

    def __init__(
        self, keys: "Keys", cache: Path | None, progress: Callable[[str], Progress]
    ) -> None:
        self._keys = keys
        self._plan = keys.plan
        self._device = keys.device
        self._cache = cache
        self._progress = progress
        self._open: OrderedDict[int, OpenNetwork] = OrderedDict()

    def get(self, number: int, weights: str | None = None) -> OpenNetwork:
        """The network of a defended model. weights: the hash that it must have, where one is known.

        Raises: CellError when it has others; whatever the user's code does.
        """
        found = self._open.pop(number, None)
        if found is None:
            while len(self._open) >= _KEPT:
                self._open.popitem(last=False)
            with recorded() as files:
                trained = self._made(number)
            found = OpenNetwork(number, trained, weights_hash(trained.model), files)
        self._open[number] = found
        if weights not in (None, found.weights):
            raise CellError("the model has other weights each time it is built: fix its seed")
        return found

    def _made(self, number: int) -> Trained:
        defended = self._plan.defended_models[number]
        if defended.defense is None:
            path = self._plan.checkpoint(defended.model)
            network = open_ready(path, defended.model.spec, self._plan.train)
            return Trained(network.to(self._device))
        bar = self._progress(f"train {defended.title}")
        return train_or_load(self._keys.training_request(defended), self._cache, bar)

    def case(self, network: OpenNetwork) -> Case:
        """The suite's images, on a network."""
        plan = self._plan
        return Case(
            module=network.module,
            device=self._device,
            images=plan.test.images,
            labels=plan.test.labels,
            indices=plan.indices,
            checked=network.checked,
        )

    def attackers(self, title: str, source: int | None, weights: str | None) -> Attackers:
        """What attacks may use; source: the defended model whose network they borrow."""
        seed = self._plan.suite.seed
        proxies = partial(
            train_proxy, seed, self._device, self._cache, self._progress(f"proxy {title}")
        )
        if source is None:
            return Attackers(self._plan.train, proxies)
        known = (self._plan.defended_models[source].title,)
        return Attackers(
            self._plan.train, proxies, lambda _: self.get(source, weights).module, known
        )

    def choose_precision(
        self, number: int, before: Mapping[str, Mapping[str, Any]]
    ) -> Mapping[str, Any] | None:
        """Decide what searches on a network compute their gradients with; describe it.

        before: the hash of a network's weights -> what they computed in; a run keeps to it.
        None where no attack has a use for it, or where it is left to each, which then fails.
        """
        network, suite = self.get(number), self._plan.suite
        described = before.get(network.weights)
        if suite.precision == "auto" and self.precision(network, described) is not None:
            return described
        if not any(self._plan.tasks[one].follows_gradients for one in self._plan.tasks_on(number)):
            return None
        try:
            network.precision = choose_precision(
                self.case(network), suite.precision, suite.batch_size
            )
        except Exception:  # a network that cannot be attacked: each of its cells says why
            return None
        return None if network.precision is None else network.precision.about()

    def precision(
        self, network: OpenNetwork, described: Mapping[str, Any] | None
    ) -> PrecisionChoice | None:
        """What searches on a network compute with, made again from its description."""
        if network.precision is None and described is not None:
            images = self._plan.test.images
            sample = images.read(torch.arange(min(16, len(images)))).to(self._device)
            with frozen(network.module):
                network.precision = recall(described, network.module, sample)
        return network.precision
