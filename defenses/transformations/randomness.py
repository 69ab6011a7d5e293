"""Torch's global random numbers while a network is trained: its own, and they can be kept."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


def seed_from(generator: torch.Generator) -> int:
    """Draw a seed for another generator."""
    return int(torch.randint(2**62, (1,), generator=generator))


@contextmanager
def own_randomness(seed: int, device: torch.device) -> Iterator[None]:
    """Global random numbers (dropout's) from the seed for the while; repeatable convolutions."""
    index = _card(device)
    with (
        torch.random.fork_rng(devices=[] if index is None else [index]),
        torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True),
    ):
        torch.default_generator.manual_seed(seed)
        if index is not None:
            torch.cuda.default_generators[index].manual_seed(seed)
        yield


def global_state(device: torch.device) -> dict[str, Tensor]:
    """Where the global generators are."""
    index = _card(device)
    state = {"cpu": torch.default_generator.get_state()}
    if index is not None:
        state["cuda"] = torch.cuda.default_generators[index].get_state()
    return state


def restore_global(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the global generators where they were."""
    index = _card(device)
    torch.default_generator.set_state(state["cpu"])
    if index is not None:
        torch.cuda.default_generators[index].set_state(state["cuda"])


def _card(device: torch.device) -> int | None:
    """The number of a CUDA device; None for the others, whose numbers are the CPU's."""
    if device.type != "cuda":
        return None
    return torch.cuda.current_device() if device.index is None else device.index
