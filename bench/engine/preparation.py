"""What attacks may do before the first example: query the victim, train networks of their own."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..api import registry
from ..api.attack import Access, Preparation, SurrogateGradient
from ..api.data import ImageData
from ..api.errors import AccessDenied, BadParameter, closest
from ..api.rng import Draws
from ..api.shared.module_state import evaluation_mode
from ..datasets.in_memory import in_memory, select
from ..victim.model import Network
from ..victim.rejection import Classifier
from ..victim.traits import ModelTraits
from .config import AttackStage

Train = Callable[[Mapping[str, Any], ImageData, Mapping[str, Any]], nn.Module]


@dataclass(frozen=True)
class Attackers:
    """What attacks may use: images of their own, a way to train networks, and networks of others.

    networks: fetches one by its name. known: their names.
    """

    images: ImageData | None = None
    train: Train | None = None
    networks: Callable[[str], nn.Module] | None = None
    known: tuple[str, ...] = ()


def prepare(
    stages: Sequence[AttackStage], attackers: Attackers, network: Network, seed: int
) -> tuple[list[AttackStage], dict[str, float]]:
    """Let attacks and their parts prepare themselves; return them with their reports.

    The report counts the victim's answers as `setup_queries`. A victim with a reject option answers
    them by its classifier alone, and so do networks that attacks borrow.
    """
    report = {"setup_queries": 0.0}
    allowed: set[Access] = set()  # what the part that is preparing itself may ask for

    def ask(x: Tensor, access: Access) -> Tensor:
        if access not in allowed:
            raise AccessDenied(f"the attack asked for {access} answers when it may not")
        rows = torch.arange(len(x), device=network.device)
        zero = torch.zeros_like(rows)
        noise = Draws(seed, rows + int(report["setup_queries"]), zero, zero)
        report["setup_queries"] += len(x)
        logits = network.logits(x, noise).cpu()[:, : network.n_classes]
        return logits.argmax(1) if access == "decision" else logits

    def train(
        model: Mapping[str, Any], data: ImageData, parameters: Mapping[str, Any]
    ) -> nn.Module:
        if attackers.train is None:
            raise BadParameter("this attack needs a way to train networks of its own")
        return attackers.train(model, data, parameters)

    def borrow(name: str) -> nn.Module:
        if attackers.networks is None or name not in attackers.known:
            near = closest(name, attackers.known) or "."
            there = ", ".join(attackers.known) or "none: a suite has them for `transfer` only"
            raise BadParameter(f"the attacker has no network '{name}'{near} It has {there}")
        return attackers.networks(name)

    def open_network(module: nn.Module) -> Network:
        traits = ModelTraits.of_module(module)
        module = Classifier(module) if traits.rejects else module
        evaluation_mode(module.to(network.device)).requires_grad_(False)
        surrogate = surrogates(traits)
        owned = "the attacker's network"
        return Network(
            module, network.device, network.batch_size, surrogates=surrogate, owner=owned
        )

    preparation = Preparation(
        ask,
        attackers.images,
        network.n_classes,
        seed,
        train,
        open_network,
        select,
        in_memory,
        borrow,
    )
    prepared = []
    for stage in stages:
        declared = stage.attack.access
        allowed |= _below(declared)
        figures: dict[str, float] = {}
        attack = _prepare_parts(stage.attack, preparation, figures)
        allowed.clear()
        if attack.access != declared:
            raise AccessDenied(f"an attack of {declared} access prepared one of {attack.access}")
        prepared.append(replace(stage, attack=attack))
        report |= {name: value for name, value in figures.items() if name != "setup_queries"}
    return prepared, report


def _below(access: Access) -> set[Access]:
    """What an access level lets an attack ask for before the first example."""
    return {"decision"} if access == "decision" else {"decision", "score"}


def _prepare_parts(part: Any, preparation: Preparation, report: dict[str, float]) -> Any:
    """Replace an attack, and each plugin among its fields, by what its `prepare` returns."""
    if is_dataclass(part) and not isinstance(part, type):
        changed = {
            one.name: _prepare_parts(getattr(part, one.name), preparation, report)
            for one in fields(part)
            if is_dataclass(getattr(part, one.name))
        }
        part = replace(part, **changed) if changed else part
    if hasattr(part, "prepare"):
        part = part.prepare(preparation)
        report.update(getattr(part, "report", {}))
    return part


def surrogates(traits: ModelTraits) -> SurrogateGradient | None:
    """The surrogate gradient for a model that has layers without gradient."""
    if traits.differentiable:
        return None
    surrogate: SurrogateGradient = registry.build("gradients", "bpda").surrogate
    return surrogate
