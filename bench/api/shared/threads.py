"""How many threads a network is run with on a CPU: one, where a second would mostly wait.

The number follows from the network alone, so that neither the load of the machine nor the number of
its cores changes how sums are rounded, and a small network takes as long beside other work as
without it. Threads that wait for one another also keep their cores busy while they do.
"""

from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn

from ..rng import Draws, ambient
from .module_state import evaluation_mode
from .multiply_adds import multiply_adds
from .torch_switches import number_of_threads

# multiply-adds of one image; docs/performance.md says what a second thread gains below it
ONE_THREAD_BELOW = 10e6


def threads_for(module: nn.Module, image: Tensor, device: torch.device) -> int:
    """How many threads a network gets: 1 if it is small and runs on a CPU, else as many as now.

    image: (1, C, H, W), such as the network takes. One whose work cannot be counted is not small.
    """
    now = torch.get_num_threads()
    if now == 1 or device.type != "cpu":
        return now
    nothing = torch.zeros(1, dtype=torch.int64)
    training = [(one, one.training) for one in module.modules() if hasattr(one, "training")]
    try:
        evaluation_mode(module)
        with torch.random.fork_rng(devices=[]), ambient(Draws(0, nothing, nothing, nothing)):
            small = multiply_adds(module, image.to(device)) < ONE_THREAD_BELOW
    except Exception:  # it steps into the model's own code; what is wrong there is said elsewhere
        return now
    finally:
        for one, before in training:
            if one.training != before:
                one.training = before
    return 1 if small else now


def suited_threads(
    module: nn.Module, image: Tensor, device: torch.device
) -> AbstractContextManager[None]:
    """Within, torch has as many threads as the network gets; afterwards as many as before."""
    return number_of_threads(threads_for(module, image, device))
