"""How the networks are trained that studies look at where the user names none."""

from collections.abc import Mapping
from typing import Any

_SHARED = {
    "batch_size": 32,
    "augmentation": "none",
    "gradient_clip": 1.0,
    "validate_every": 10,
}
STANDARD: Mapping[str, Any] = {"name": "none", "epochs": 15, **_SHARED}
ROBUST: Mapping[str, Any] = {
    "name": "adversarial-training",
    "method": "fgsm",
    "epsilon": "4/255",
    "epochs": 18,
    "warmup_epochs": 13,  # with 5, or at 8/255, it learns nothing
    **_SHARED,
}
