"""Other libraries' Linf PGD, called as their own documentation says. None of their code is here."""

import importlib
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from torch import Tensor, nn

from .contenders import Job, Perturb, Rerun


def installed() -> tuple[list[Rerun], list[str]]:
    """The peers that can be used here, and a line about each that cannot."""
    found, missing = [], []
    for peer, module in PEERS:
        fault = _fault(module)
        if fault is None:
            found.append(peer)
        else:
            missing.append(f"{peer.name} {fault}: {_REMEDY.get(peer.name, _EXTRA)}")
    return found, missing


def _fault(module: str) -> str | None:
    """Why a peer cannot be used."""
    if find_spec(module.partition(".")[0]) is None:
        return "is not installed"
    try:
        _load(module)
    except ImportError as error:  # of something that it needs itself
        return f"cannot be imported ({error})"
    return None


def _load(module: str) -> Any:
    """Import a peer. What it warns of meanwhile is between it and its dependencies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(module)


def foolbox(job: Job) -> Perturb:
    """Foolbox (Rauber et al. 2020): its call also judges what it has found, by one more pass."""
    library = _load("foolbox")
    model = library.PyTorchModel(job.module, bounds=(0, 1), device=job.x.device)
    attack = library.attacks.LinfPGD(rel_stepsize=job.step_size, steps=job.steps, random_start=True)

    def perturb(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        found: Tensor = attack(model, x, y, epsilons=epsilon)[1]
        return found

    return perturb


def torchattacks(job: Job) -> Perturb:
    """torchattacks (Kim 2020, arXiv:2010.01950)."""
    library = _load("torchattacks")

    def perturb(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        attack = library.PGD(
            job.module, eps=epsilon, alpha=job.step_size * epsilon, steps=job.steps
        )
        found: Tensor = attack(x, y)
        return found

    return perturb


def adversarial_robustness_toolbox(job: Job) -> Perturb:
    """Adversarial Robustness Toolbox (arXiv:1807.01069): NumPy in, NumPy out; judges at the end."""
    import torch

    estimators = _load("art.estimators.classification")
    attacks = _load("art.attacks.evasion")
    classifier = estimators.PyTorchClassifier(
        job.module,
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(job.x.shape[1:]),
        nb_classes=job.n_classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if job.x.is_cuda else "cpu",
    )

    def perturb(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        attack = attacks.ProjectedGradientDescentPyTorch(
            classifier,
            eps=epsilon,
            eps_step=job.step_size * epsilon,
            max_iter=job.steps,
            num_random_init=1,
            batch_size=len(x),
            verbose=False,
        )
        return torch.from_numpy(attack.generate(x.cpu().numpy(), y.cpu().numpy())).to(x.device)

    return perturb


def adv_lib(job: Job) -> Perturb:
    """adversarial-library (Rony & Ben Ayed): returns each example's last adversarial iterate."""
    attacks = _load("adv_lib.attacks")

    def perturb(x: Tensor, y: Tensor, epsilon: float) -> Tensor:
        found: Tensor = attacks.pgd_linf(
            job.module, x, y, epsilon, steps=job.steps, relative_step_size=job.step_size
        )
        return found

    return perturb


PEERS: Sequence[tuple[Rerun, str]] = (
    (Rerun("foolbox", "foolbox", foolbox), "foolbox"),
    (Rerun("torchattacks", "torchattacks", torchattacks), "torchattacks"),
    (
        Rerun("art", "adversarial-robustness-toolbox", adversarial_robustness_toolbox),
        "art.attacks.evasion",
    ),
    (Rerun("adv-lib", "adv-lib", adv_lib), "adv_lib.attacks"),
)

_EXTRA = 'pip install "quintain[peers]"'
_REMEDY = {
    "torchattacks": "pip install --no-deps torchattacks",  # it pins requests of 2021
    "adv-lib": "pip install --no-build-isolation visdom && pip install --no-deps adv-lib",
}
