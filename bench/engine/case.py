"""What is attacked and with what, and what comes out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor, nn

from ..api.attack import SurrogateGradient
from ..api.data import Images
from ..api.defense import Certificates
from ..api.epsilon import Epsilon
from ..api.errors import BadData
from ..api.flags import Flag
from ..datasets.in_memory import SelectedImages
from ..datasets.validation import check_labels
from ..victim.model import Network, automatic_batch_size
from .adversarials import InMemoryStore
from .preparation import Attackers

if TYPE_CHECKING:
    from ..victim.precision_selection import PrecisionChoice
    from .diagnostics.model_checks import Checked


@dataclass(frozen=True)
class Case:
    """What is attacked, and with what.

    images: N of them, read as they are needed. labels: (N,). indices: (N,) int64, what each
    example is called and seeds its randomness. targets: (N,) classes to reach, or None where
    the attack is untargeted, or the settings name a rule.
    attackers: what attacks that prepare themselves may use. certificates: what the module, which
    then is a Certifier, has proved of the images: adversarial examples that contradict it are
    counted. checked: flags of the module that are known from other attacks on it; new ones are
    added.
    """

    module: nn.Module
    device: torch.device
    images: Images
    labels: Tensor
    indices: Tensor
    targets: Tensor | None = None
    attackers: Attackers = Attackers()
    certificates: Certificates | None = None
    checked: "Checked" = field(default_factory=dict)

    def part(self, start: int, stop: int) -> "Case":
        """The case of some of its examples alone, from row `start` up to `stop`."""
        rows = torch.arange(start, stop)
        return replace(
            self,
            images=SelectedImages(self.images, rows),
            labels=self.labels[start:stop],
            indices=self.indices[start:stop],
            targets=None if self.targets is None else self.targets[start:stop],
        )


@dataclass(frozen=True, repr=False)
class CellResult:
    """What the attacks showed.

    records: one row for each example. flags: what makes the numbers doubtful. report: figures of
    the attacks' preparation, such as a proxy's fidelity. stages: the attacks, one by one, that the
    records' column `stage` counts. choice: what the search computed its
    gradients with; None when it followed none. certified: the records of the module's certificates,
    None where it has none. title: what the user called the attacks. model_dtype: what the model
    computes in, its predictions too.
    """

    records: pd.DataFrame
    grid: tuple[Epsilon, ...]
    flags: tuple[Flag, ...]
    report: Mapping[str, float]
    stages: tuple[str, ...]
    choice: "PrecisionChoice | None"
    _images: Images
    _adversarials: InMemoryStore | None
    _query_budget: int | None = None
    certified: pd.DataFrame | None = None
    title: str = ""
    model_dtype: str = "float32"
    _module: nn.Module | None = None

    @property
    def dtype(self) -> str:
        """What gradients were computed in: the model's own type, or that of a fast copy of it."""
        copied = self.choice is not None and self.choice.network is not None
        return self.choice.variant.dtype if self.choice and copied else self.model_dtype


@contextmanager
def fitting(images: Images) -> Iterator[None]:
    """Say of a module that breaks down over images that these do not fit. Raises: BadData."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        shape = tuple(images.read(torch.tensor([0])).shape[1:])
        raise BadData(f"the model cannot take images of shape {shape}: {reason}") from error


def opened(
    case: Case, batch_size: int | None, surrogate: SurrogateGradient | None = None
) -> Network:
    """A case's module as a network, with a batch that fits if none is given."""
    first = case.images.read(torch.tensor([0])).to(case.device)
    size = batch_size or automatic_batch_size(case.module, first, case.device, surrogate)
    return Network(case.module, case.device, size, surrogates=surrogate)


def check_classes(case: Case, n_classes: int) -> None:
    """Refuse labels and targets that a network of so many classes cannot give, and a lone class.

    Raises: BadData.
    """
    if n_classes < 2:
        raise BadData(
            f"the model returns {n_classes} logit for each image, and needs one for each of at "
            "least 2 classes: of a single output z make torch.cat([-z, z], dim=1)"
        )
    check_labels(case.labels, n_classes, len(case.images))
    if case.labels.dim() != 1:
        raise BadData("labels to attack must be classes (N,), not probabilities")
    if case.targets is not None:
        try:
            check_labels(case.targets, n_classes, len(case.images))
        except BadData as error:
            raise BadData(f"targets: {error}") from None
        if bool((case.targets == case.labels).any()):
            at = int((case.targets == case.labels).nonzero()[0])
            raise BadData(f"target {int(case.targets[at])} at index {at} is the label itself")
