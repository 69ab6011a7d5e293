"""What a run was made with: versions and hardware."""

import os
import platform
from functools import cache
from importlib import metadata
from typing import Any

import torch

_PACKAGES = ("quintain", "torch", "torchvision", "numpy", "scipy", "scikit-learn")


@cache
def software() -> dict[str, str]:
    """Versions of everything that can change a number."""
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **versions, "torch": torch.__version__}


def hardware(device: torch.device) -> dict[str, Any]:
    """Describe this machine and its device, unless that is a GPU that only others have."""
    about: dict[str, Any] = {
        "machine": platform.machine(),
        "system": platform.system(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "vector_units": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda" and torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name(device)
        about["cuda"] = torch.version.cuda
    return about
