"""Names of a plan's networks and cells: hashes of everything that can change a number."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from . import local, registry
from .checkpoints import weights_hash
from .datasets.memory import fingerprint, tensor_hash
from .engine import isolated
from .files import check_regular
from .manifest import software
from .plan import Plan, open_ready
from .protocols import configuration
from .settings import Certification, single
from .sorties import Sortie, Subject
from .training import Order, architecture, digest

RECORDS_VERSION = 5


class Keys:
    """The names for one plan on one kind of device. What many cells share is hashed once."""

    def __init__(self, plan: Plan, device: torch.device) -> None:
        self.plan = plan
        self.device = device
        self._train_hash = fingerprint(plan.train)
        self.data_hash = fingerprint(plan.test) + self._train_hash
        self._shared = digest(
            {
                "records": RECORDS_VERSION,
                "data": self.data_hash,
                "indices": tensor_hash(plan.indices),
                "device": device.type,
                "dtype": "float32",
                "software": software(),
            }
        )
        self._made_of: dict[tuple[int, str], str] = {}
        self._attacks = [digest(self._attack(one)) for one in plan.attacks]

    def order(self, subject: Subject) -> Order:
        """What to train for a subject that has no weights yet."""
        assert subject.defense is not None
        suite = self.plan.suite
        return Order(
            subject.model.spec,
            subject.defense,
            self.plan.train,
            suite.seed,
            self.device,
            suite.norm,
            suite.headline.value,
            self._train_hash,
        )

    def network(self, subject: Subject) -> str:
        """Name a network by what it is made of, before it is made.

        Raises: OSError when its checkpoint cannot be read; QuintainError when a user's own factory
        fails.
        """
        path, spec = self.plan.checkpoint(subject.model), subject.model.spec
        if subject.defense is not None:
            return self.order(subject).key()
        if path is not None:
            weights = _file_hash(path)
        elif local.reference(subject.model.name):  # its code may read any file
            weights = weights_hash(open_ready(None, spec, self.plan.train))
        else:
            weights = ""  # the library's, named by the spec and the library's version
        return digest(
            {
                **architecture(spec),
                "checkpoint": weights,
                "data": self._train_hash,  # networks normalise by its statistics
                "torch": torch.__version__,
            }
        )

    def cells(self, number: int, weights: Mapping[int, str]) -> dict[int, str]:
        """Name a subject's cells: attack -> key, of those whose networks' weights are known.

        weights: subject -> the hash of its weights, its own among them.
        """
        keys: dict[int, str] = {}
        for attack in self.plan.attacks_on(number):
            source = self.plan.attacks[attack].source
            if source is None or source in weights:
                keys[attack] = self.cell((number, attack), weights)
        return keys

    def cell(self, place: tuple[int, int], weights: Mapping[int, str]) -> str:
        """Name the cell of a subject and an attack, of which all networks' weights are known."""
        number, attack = place
        named = [self._shared, self._made(number, weights[number]), self._attacks[attack]]
        source = self.plan.attacks[attack].source
        if source is not None:
            named.append(self._made(source, weights[source]))
        return digest(named)

    def _made(self, number: int, weights: str) -> str:
        """Name a subject by its weights' hash."""
        if (number, weights) not in self._made_of:
            subject = self.plan.subjects[number]
            defense = configuration(subject.defense or subject.wrapper)
            self._made_of[number, weights] = digest(
                {
                    "weights": weights,
                    "defense": defense,
                    "sources": registry.local_sources(defense),
                    **architecture(subject.model.spec),
                }
            )
        return self._made_of[number, weights]

    def _attack(self, sortie: Sortie) -> dict[str, Any]:
        attack, member = sortie.entry, sortie.member
        settings = self.plan.settings(sortie)
        if isinstance(member, Certification):  # what certifies is the network, which has its name
            return {
                "configuration": configuration(member),
                "norm": settings.norm,
                "grid": configuration(settings.grid),
                "seed": settings.seed,
            }
        return {
            "local_sources": registry.local_sources(attack.spec),
            "attack": attack.spec,
            "attack_source": registry.find("attacks", attack.name).digest,
            "configuration": configuration(member.attack),
            "restarts": member.restarts,
            "settings": configuration(settings),
            **({} if sortie.targets is None else {"targets": sortie.targets}),
            **({"epsilons": "each alone"} if isolated(single([member]), settings) else {}),
        }


def _file_hash(path: Path) -> str:
    check_regular(path)
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
