"""Keys: hashes of what a network or a cell is made of, known before either is made.

A key holds recipes: specs, versions, the code of local plugins, the pixels that are attacked. What
came of a recipe, such as a network's weights, is not in the key but stored with the record.
"""

from functools import cached_property

import torch

from ..api import registry
from ..api.plugins.source_digest import installed_digest
from ..api.shared.file_checks import check_regular
from ..store.environment import software
from ..store.hashing import configuration, hash_file, hash_json
from ..training.networks import TrainingRequest, architecture
from .matrix import DefendedModel
from .plan import Place, Plan

RECORDS_VERSION = 6
# the module that all code between key and record depends on
_HARNESS = f"{__package__.rpartition('.')[0]}.engine.cell"


class Keys:
    """The keys of one plan on one kind of device. What many cells share is hashed once."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        self.device = device
        self._tasks = [hash_json(one.made_of()) for one in plan.tasks]

    def training_request(self, defended: DefendedModel) -> TrainingRequest:
        """What to train for a defended model that has no weights yet."""
        assert defended.defense is not None
        suite = self.plan.suite
        return TrainingRequest(
            defended.model.spec,
            defended.defense,
            self.plan.train,
            suite.seed if suite.training_seed is None else suite.training_seed,
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

    def cell(self, place: Place) -> str:
        """The key of a cell."""
        networks = [self._defended_models[number] for number in self.plan.networks(place)]
        return hash_json([self._shared, networks[0], self._tasks[place[1]], *networks[1:]])

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
