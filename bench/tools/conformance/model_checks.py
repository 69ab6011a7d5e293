"""What a model must keep to. Each check is a function whose first line says what it demands."""

import copy
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ...api import registry
from ...api.defense import InputSpec
from ...api.errors import BadParameter
from ...api.shared.module_state import evaluation_mode
from ...store.checkpoints import load_checkpoint, save_checkpoint
from ...training.networks import build_network
from .report import Failed

SHAPES = ((3, 32, 32), (1, 16, 16), (1, 28, 28), (3, 64, 64), (3, 224, 224))
_CLASSES, _BATCH = 7, 6
_RTOL, _ATOL = 1e-3, 1e-4


@dataclass
class ModelTrial:
    """A model plugin and the first shape of images that it takes. file: where its code is."""

    name: str
    file: str

    @cached_property
    def inputs(self) -> InputSpec:
        """Of the first shape that it can be built for. Raises: BadParameter for none."""
        refused = ""
        for shape in SHAPES:
            inputs = InputSpec(shape, _CLASSES, (0.5,) * shape[0], (0.25,) * shape[0])
            try:
                network = build_network({"name": self.name}, inputs, 0)
                with torch.no_grad():
                    evaluation_mode(network)(torch.zeros(2, *shape))
            except BadParameter as error:
                refused = refused or str(error)
                continue
            return inputs
        raise BadParameter(f"it can be built for no shape of images that was tried: {refused}")

    def network(self, seed: int = 0) -> nn.Module:
        """A network with weights of its own, in evaluation mode."""
        return evaluation_mode(build_network({"name": self.name}, self.inputs, seed))

    def images(self, count: int = _BATCH, seed: int = 0) -> Tensor:
        """(count, C, H, W) in [0, 1]."""
        source = torch.Generator().manual_seed(seed)
        return torch.rand(count, *self.inputs.shape, generator=source)

    @property
    def stochastic(self) -> bool:
        """Whether a layer of it says that it uses random numbers."""
        return any(getattr(one, "stochastic", False) for one in self.network().modules())


@torch.no_grad()
def builds(trial: ModelTrial) -> None:
    """It is built for images of some common shape, and gives one logit for each class."""
    try:
        logits = trial.network()(trial.images())
    except BadParameter as error:
        raise Failed(str(error)) from error
    if not isinstance(logits, Tensor):
        raise Failed(f"in evaluation mode it returns {type(logits).__name__}, expected logits")
    expected = (_BATCH, _CLASSES + bool(getattr(trial.network(), "rejects", False)))
    if tuple(logits.shape) != expected:
        raise Failed(f"logits of shape {tuple(logits.shape)}, expected {expected}")
    if not logits.isfinite().all():
        raise Failed("some logits are not finite")


@torch.no_grad()
def repeatable(trial: ModelTrial) -> None:
    """In evaluation mode the same images get the same logits, unless a layer is `stochastic`."""
    network, x = trial.network(), trial.images()
    if not trial.stochastic and not torch.equal(network(x), network(x)):
        raise Failed("two passes over the same images differ, and no layer says `stochastic`")


@torch.no_grad()
def rows(trial: ModelTrial) -> None:
    """In evaluation mode an image's logits do not depend on what else is in its batch."""
    if trial.stochastic:
        return
    network, x = trial.network(), trial.images()
    together = network(x)
    alone = torch.cat([network(x[row : row + 1]) for row in range(len(x))])
    if not torch.allclose(together, alone, rtol=_RTOL, atol=_ATOL):
        far = float((together - alone).abs().max())
        raise Failed(f"alone and in a batch an image's logits differ by {far:.2g}")


@torch.no_grad()
def inputs(trial: ModelTrial) -> None:
    """A pass leaves its images, and torch's global random numbers, as they were."""
    network, x = trial.network(), trial.images()
    before, state = x.clone(), torch.get_rng_state()
    network(x)
    if not torch.equal(x, before):
        raise Failed("the images were changed in place")
    if not trial.stochastic and not torch.equal(torch.get_rng_state(), state):
        raise Failed("it drew from torch's global random numbers, and no layer says `stochastic`")


def seeds(trial: ModelTrial) -> None:
    """First weights come from torch's global generator: a seed gives the same, another others."""
    one, same, other = (trial.network(seed).state_dict() for seed in (0, 0, 1))
    changed = [name for name in one if not torch.equal(one[name], same[name])]
    if changed:
        raise Failed(f"built twice with one seed, {changed[0]} differs")
    if not registry.brings_weights({"name": trial.name}) and all(
        torch.equal(one[name], other[name]) for name in one
    ):
        raise Failed("built with two seeds, all weights are the same")


@torch.no_grad()
def checkpoints(trial: ModelTrial) -> None:
    """A checkpoint of it fills another network of the kind, which then gives the same logits."""
    one, other = trial.network(0), trial.network(1)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "one.safetensors"
        save_checkpoint(path, one, {})
        load_checkpoint(path, other)
    x = trial.images()
    if not trial.stochastic and not torch.allclose(one(x), other(x), rtol=_RTOL, atol=_ATOL):
        raise Failed("filled from its checkpoint, another network gives other logits")


def gradients(trial: ModelTrial) -> None:
    """The loss has a gradient by the images: finite, and not zero everywhere."""
    network = trial.network()
    if any(not getattr(one, "differentiable", True) for one in network.modules()):
        return
    x = trial.images().requires_grad_()
    loss = cross_entropy(network(x)[:, :_CLASSES], torch.arange(_BATCH) % _CLASSES)
    (gradient,) = torch.autograd.grad(loss, x, allow_unused=True)
    if gradient is None:
        raise Failed("the loss does not depend on the images, as far as autograd can see")
    if not gradient.isfinite().all():
        raise Failed("some of it is not finite")
    if not gradient.any():
        raise Failed(
            "it is zero everywhere: a layer without a useful gradient says `differentiable = False`"
        )


def trains(trial: ModelTrial) -> None:
    """In training mode it gives logits, or a tuple with auxiliary ones, and weights that learn."""
    if registry.brings_weights({"name": trial.name}):
        return
    network = build_network({"name": trial.name}, trial.inputs, 0).train()
    found = network(trial.images())
    outputs = found if isinstance(found, tuple) else (found,)
    if len(outputs) > 1 and not hasattr(network, "auxiliary_weight"):
        raise Failed("it returns auxiliary logits and has no attribute `auxiliary_weight`")
    shapes = {tuple(one.shape) for one in outputs}
    if shapes != {(_BATCH, _CLASSES)}:
        raise Failed(f"logits of shapes {sorted(shapes)}, expected {(_BATCH, _CLASSES)} alone")
    y = torch.arange(_BATCH) % _CLASSES
    torch.stack([cross_entropy(one, y) for one in outputs]).sum().backward()
    learning = [one for one in network.parameters() if one.grad is not None and one.grad.any()]
    if not learning:
        raise Failed("no parameter gets a gradient")


@torch.no_grad()
def copies(trial: ModelTrial) -> None:
    """It can be copied: the engine computes gradients on a copy of lower precision."""
    network, x = trial.network(), trial.images()
    other = copy.deepcopy(network)
    if not trial.stochastic and not torch.equal(network(x), other(x)):
        raise Failed("a deep copy of it gives other logits")


CHECKS = (builds, repeatable, rows, inputs, seeds, checkpoints, gradients, trains, copies)


def trial_of(name: str, source: str) -> ModelTrial:
    """What the checks look at."""
    return ModelTrial(name, source if Path(source).is_file() else "")
