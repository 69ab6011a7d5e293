"""Validation between epochs: how a network does on what was held out, and which one did best."""

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from .amp import Arithmetic
from .inner_attack import as_used
from .objective import Batch, Method, classification, hard
from .train_data import Examples


@dataclass(frozen=True)
class Validation:
    """Accuracy and loss on the part held out, clean and under the method's adversary.

    The adversary's passes are made in training's precision; the predictions are float32's.

    seed: of the adversary's random starts, the same each time, to compare.
    """

    examples: Examples
    batch_size: int
    seed: int
    device: torch.device
    arithmetic: Arithmetic

    def of(self, model: nn.Module, method: Method, epoch: float) -> dict[str, float]:
        """Means over the part. epoch: epochs done."""
        noise = torch.Generator(self.device).manual_seed(self.seed)
        totals: dict[str, Tensor] = {}
        with as_used(model), torch.no_grad():
            rows = torch.arange(len(self.examples), device=self.examples.home)
            for part in rows.tensor_split(math.ceil(len(rows) / self.batch_size)):
                x, y = self.examples.read(part)
                batch = Batch(x, y, part, epoch, noise)
                for name, value in self._measure(model, method, batch).items():
                    totals[name] = totals.get(name, torch.zeros_like(value)) + value
        means = (torch.stack(list(totals.values())) / len(self.examples)).tolist()
        return dict(zip(totals, means, strict=True))

    def _measure(self, model: nn.Module, method: Method, batch: Batch) -> dict[str, Tensor]:
        """Sums over a validation batch. To withstand an attack is to be right before and after."""
        loss, logits = classification(model, batch.x, batch.y)
        right = logits.argmax(dim=1) == hard(batch.y)
        sums = {"validation_accuracy": right.sum(), "validation_loss": loss * len(batch.y)}
        with self.arithmetic.cast():
            found = method.adversarial(model, batch)
        for name, x_adv in found.items():
            loss, logits = classification(model, x_adv, batch.y)
            still = right & (logits.argmax(dim=1) == hard(batch.y))
            sums[f"{name}_validation_accuracy"] = still.sum()
            sums[f"{name}_validation_loss"] = loss * len(batch.y)
        return {name: value.double() for name, value in sums.items()}


@dataclass
class Best:
    """The best weights so far. Equal accuracies, common on small validation parts, go by loss."""

    score: tuple[float, float] = (-math.inf, -math.inf)
    epoch: int = 0
    waited: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, model: nn.Module, record: Mapping[str, float]) -> None:
        """Keep the weights when they validate better, under the adversary if there is one."""
        kind = "robust_validation" if "robust_validation_loss" in record else "validation"
        score = (record[f"{kind}_accuracy"], -record[f"{kind}_loss"])
        self.waited += 1
        if score > self.score:
            self.score, self.epoch, self.waited = score, int(record["epoch"]), 0
            self.weights = copy.deepcopy(dict(model.state_dict()))

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on needs of it."""
        return dict(vars(self))

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        vars(self).update(state)
