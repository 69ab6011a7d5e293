"""What makes a number doubtful: flags that the harness raises by itself."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from ...api.attack import Access
from ...api.data import Images
from ...api.flags import Flag, raised
from ...api.rng import Draws
from ...victim.model import Network
from ...victim.rejection import surplus
from ...victim.voting import verdict

_LOOKED_AT = 256


def doubts(
    network: Network,
    images: Images,
    labels: Tensor,
    rows: Tensor,
    access: set[Access],
    refuted: int,
    cut_short: int = 0,
    examples: Tensor | None = None,
) -> tuple[Flag, ...]:
    """Flags of a cell.

    images: N of them. labels: (N,). rows: (n,) int64, the examples under attack. refuted: how many
    examples had adversarial examples that did not hold when asked again. cut_short: how many were
    still robust somewhere when their query budget ended. examples: as for `predictions`.
    """
    backwards = rows.flip(0)
    again = predictions(network, images, backwards, examples)
    changed = int((again != labels[backwards]).sum())
    flags = (
        *raised("refuted-adversarials", count=refuted),
        *raised("budget-ended", count=cut_short),
        *raised("unstable-predictions", count=changed),
    )
    if len(rows) and "white-box" in access:
        dead = _vanishing(network, images, labels, rows, examples)
        flags += raised("vanishing-gradients", share=dead)
    return flags


def predictions(
    network: Network, images: Images, rows: Tensor, examples: Tensor | None = None
) -> Tensor:
    """(n,) int64: predicted classes of some images, rows (n,), on the CPU.

    examples: (N,) int64, what the votes of a stochastic model hang on; by default the positions.
    """
    return _told(network, images, rows, examples, lambda logits: logits.argmax(1))


def surpluses(network: Network, images: Images, examples: Tensor) -> Tensor:
    """(N,): how far a network that may reject is from rejecting each image, on the CPU."""
    return _told(network, images, torch.arange(len(images)), examples, surplus)


def clean_logits(network: Network, images: Images, examples: Tensor) -> Tensor:
    """(N, K), on the CPU: logits of clean images, of a stochastic network the shares of votes."""
    classes = network.n_classes
    every = torch.arange(len(images))
    return _told(network, images, every, examples, lambda logits: logits[:, :classes])


def _told(
    network: Network,
    images: Images,
    rows: Tensor,
    examples: Tensor | None,
    tell: Callable[[Tensor], Tensor],
) -> Tensor:
    """(n,), on the CPU: what `tell` makes of the verdicts on some images."""
    examples = torch.arange(len(images)) if examples is None else examples
    return torch.cat(
        [
            tell(verdict(network, images.read(part), examples[part]).whole).cpu()
            for part in rows.split(network.batch_size)
        ]
    )


def _vanishing(
    network: Network, images: Images, labels: Tensor, rows: Tensor, examples: Tensor | None
) -> float:
    """Share of examples at which the gradient of the cross-entropy is zero everywhere.

    It is the gradient that the attacks saw, through surrogates where they looked through those.
    Of many, a part that is spread evenly is looked at: it is a share that is wanted, not a count.
    """
    rows = rows[:: -(-len(rows) // _LOOKED_AT)]
    names = torch.arange(len(images)) if examples is None else examples
    dead = 0
    for part in rows.split(network.batch_size):
        y = labels[part].to(network.device)
        objective = partial(functional.cross_entropy, target=y, reduction="none")
        named = names[part].to(network.device)
        noise = Draws(0, named, 0 * named, 0 * named) if network.stochastic else None
        gradient = network.gradient(images.read(part), objective, noise=noise).gradient
        dead += int((gradient.flatten(1).abs().amax(1) == 0).sum())
    return dead / len(rows)
