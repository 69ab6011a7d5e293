"""What a finding is held against: noise as large as a perturbation, networks of random weights."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .layers import calls


def matched_noise(delta: Tensor, seed: int = 0) -> Tensor:
    """The perturbation with its pixels permuted and its signs drawn again: all else is the same.

    delta: (B, C, H, W). A pixel moves with all its channels; each image has its own permutation.
    Every norm, and the distribution of absolute values, stays exactly as it was; structure and
    direction go. Where x + delta touches the box, x + noise may leave it: clip it there.

    >>> delta = torch.rand(2, 3, 4, 4)
    >>> noise = matched_noise(delta)
    >>> torch.equal(noise.abs().flatten(1).sort().values, delta.flatten(1).sort().values)
    True
    """
    generator = torch.Generator().manual_seed(seed)
    flat = delta.flatten(2)
    order = torch.rand(len(flat), flat.shape[2], generator=generator).argsort(dim=1)
    signs = 2.0 * torch.randint(2, flat.shape, generator=generator).to(delta) - 1.0
    moved = flat.gather(2, order.to(delta.device)[:, None].expand_as(flat))
    return (moved.abs() * signs).reshape(delta.shape)


def randomised_cascade(
    model: nn.Module, x: Tensor, seed: int = 0
) -> Iterator[tuple[str, nn.Module]]:
    """Networks whose layers are random from the top down to one layer: (that layer, network).

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps", arXiv:1810.03292, section 3.1:
    a map that does not change does not depend on what the network has learnt.

    x: (B, C, H, W), one batch that the network takes: layers are in the order in which they are
    called, and those that are not called are left out. One copy is made, and changed from step to
    step: use each network before asking for the next.

    Deviation: weights are drawn with the mean and spread of the trained ones of the same tensor,
    not as at initialisation, so that any layer can be redrawn and activations keep their scale.
    Statistics of batch normalisation stay.

    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    >>> [name for name, _ in randomised_cascade(model, torch.rand(1, 3, 8, 8))]
    ['2', '0']
    """
    names = dict.fromkeys(one.name.partition(":")[0] for one in reversed(calls(model, x[:1])))
    changed = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    for name in names:
        own = list(changed.get_submodule(name).parameters(recurse=False))
        if not own:
            continue
        with torch.no_grad():
            for weight in own:
                spread, mean = torch.std_mean(weight, correction=0)
                fresh = torch.randn(weight.shape, generator=generator)
                weight.copy_(mean + spread * fresh.to(weight))
        yield name, changed
