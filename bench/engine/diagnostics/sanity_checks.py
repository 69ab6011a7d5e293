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
from ...victim.rejection import rejection_margin
from ...victim.voting import prediction

_LOOKED_AT = 256


def sanity_flags(
    network: Network,
    images: Images,
    labels: Tensor,
    rows: Tensor,
    access: set[Access],
    not_reproduced: int,
    cut_short: int = 0,
    examples: Tensor | None = None,
) -> tuple[Flag, ...]:
    """Flags of a cell.

    images: N of them. labels: (N,). rows: (n,) int64, the examples under attack. not_reproduced:
    how many examples had adversarial examples that did not hold when asked again. cut_short: how
    many were still robust somewhere when their query budget ended. examples: as for `predictions`.
    """
    backwards = rows.flip(0)
    again = predictions(network, images, backwards, examples)
    changed = int((again != labels[backwards]).sum())
    flags = (
        *raised("not-reproduced", count=not_reproduced),
        *raised("query-budget-exhausted", count=cut_short),
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

    examples: (N,) int64, what the votes of a stochastic model depend on; by default the positions.
    """
    return _computed(network, images, rows, examples, lambda logits: logits.argmax(1))


def rejection_margins(network: Network, images: Images, examples: Tensor) -> Tensor:
    """(N,): how far a network with a reject option is from rejecting each image, on the CPU."""
    return _computed(network, images, torch.arange(len(images)), examples, rejection_margin)


def clean_logits(network: Network, images: Images, examples: Tensor) -> Tensor:
    """(N, K), on the CPU: logits of clean images, of a stochastic network the shares of votes."""
    classes = network.n_classes
    every = torch.arange(len(images))
    return _computed(network, images, every, examples, lambda logits: logits[:, :classes])


def _computed(
    network: Network,
    images: Images,
    rows: Tensor,
    examples: Tensor | None,
    read: Callable[[Tensor], Tensor],
) -> Tensor:
    """(n,), on the CPU: what `read` makes of the predictions on some images."""
    examples = torch.arange(len(images)) if examples is None else examples
    return torch.cat(
        [
            read(prediction(network, images.read(part), examples[part]).whole).cpu()
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
        noise = Draws(0, named, 0 * named, 0 * named)
        gradient = network.gradient(images.read(part), objective, noise=noise).gradient
        dead += int((gradient.flatten(1).abs().amax(1) == 0).sum())
    return dead / len(rows)
