"""Keys: hashes of what a network or a cell is made of, known before either is made.

A key holds recipes: specs, versions, the code of local plugins, the pixels that are attacked. What
came of a recipe, such as a network's weights, is not in the key but stored with the record.
"""

from functools import cached_property
from typing import Any

import torch

from ..api import registry
from ..api.plugins.source_digest import installed_digest
from ..api.shared.file_checks import check_regular
from ..engine.config import Certification, flatten_cascade, isolated
from ..store.environment import software
from ..store.hashing import configuration, hash_file, hash_json
from ..training.networks import TrainingRequest, architecture
from .matrix import CellTask, DefendedModel
from .plan import Plan

RECORDS_VERSION = 6
# the module that all code between key and record depends on
_HARNESS = f"{__package__.rpartition('.')[0]}.engine.cell"


class Keys:
    """The keys of one plan on one kind of device. What many cells share is hashed once."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        self.device = device
        self._attacks = [hash_json(self._attack(one)) for one in plan.attacks]

    def training_request(self, defended: DefendedModel) -> TrainingRequest:
        """What to train for a defended model that has no weights yet."""
        assert defended.defense is not None
        suite = self.plan.suite
        return TrainingRequest(
            defended.model.spec,
            defended.defense,
            self.plan.train,
            suite.seed,
            self.device,
            suite.norm,
            suite.headline.value,
            self.plan.train_hash,
        )

    @cached_property
    def networks(self) -> list[str]:
        """The key of each defended model's network; empty where its checkpoint cannot be read."""
        return [self._network(defended) for defended in self.plan.defended_models]

    @cached_property
    def data(self) -> str:
        """The key of the data: pixels and labels of the examples, and the training split."""
        return hash_json([self.plan.test_hash, self.plan.train_hash])

    def cell(self, place: tuple[int, int]) -> str:
        """The key of the cell of a defended model and an attack."""
        number, attack = place
        named = [self._shared, self._defended_models[number], self._attacks[attack]]
        source = self.plan.attacks[attack].source
        if source is not None:
            named.append(self._defended_models[source])
        return hash_json(named)

    def recipe(self, attack: int) -> str:
        """Name what an attack is, on any grid of epsilons and under any title.

        Empty for what not every model meets: naive twins, transfer, certificates; and for targeted
        attacks, which rank nothing.
        """
        task = self.plan.attacks[attack]
        stage, settings = task.stage, self.plan.settings(task)
        apart = task.naive or task.source is not None or task.targets is not None
        if isinstance(stage, Certification) or apart:
            return ""
        made_of = {
            "configuration": configuration(stage.attack),
            "restarts": stage.restarts,
            "search": settings.search,
            "query_budget": settings.query_budget,
            "samples": settings.adaptation.samples,
        }
        return hash_json(made_of)[:12]

    @cached_property
    def _shared(self) -> str:
        return hash_json(
            {
                "records": RECORDS_VERSION,
                "data": self.data,
                "indices": self.plan.indices.tolist(),
                "device": self.device.type,
                "dtype": "float32",
                "software": software(),
                "harness": installed_digest(_HARNESS),
            }
        )

    @cached_property
    def _defended_models(self) -> list[str]:
        """What is attacked: a network, within what its defense puts around it."""
        made = []
        for defended, network in zip(self.plan.defended_models, self.networks, strict=True):
            defense = configuration(defended.defense or defended.wrapper)
            code = registry.code_of(defense)
            made.append(hash_json({"network": network, "defense": defense, "code": code}))
        return made

    def _network(self, defended: DefendedModel) -> str:
        if defended.defense is not None:
            return self.training_request(defended).key()
        path = self.plan.checkpoint(defended.model)
        try:
            if path is not None:
                check_regular(path)
            checkpoint = "" if path is None else hash_file(path)
        except OSError:  # said when it is tried
            return ""
        return hash_json(
            {
                **architecture(defended.model.spec),
                "checkpoint": checkpoint,
                "data": self.plan.train_hash,  # networks normalise by its statistics
                "torch": torch.__version__,
            }
        )

    def _attack(self, task: CellTask) -> dict[str, Any]:
        attack, stage = task.entry, task.stage
        settings = self.plan.settings(task)
        if isinstance(stage, Certification):  # what certifies is the network, which has its key
            return {
                "configuration": configuration(stage),
                "norm": settings.norm,
                "grid": configuration(settings.grid),
                "seed": settings.seed,
            }
        described = configuration(stage.attack)
        code = {registry.find("attacks", attack.name).code, *registry.code_of(attack.spec)}
        return {
            "attack": attack.spec,
            "configuration": described,
            "code": sorted(code | {*registry.code_of(described)}),
            "restarts": stage.restarts,
            "settings": configuration(settings),
            **({} if task.targets is None else {"targets": task.targets}),
            **({"epsilons": "each alone"} if isolated(flatten_cascade([stage]), settings) else {}),
        }
