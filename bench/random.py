"""An old path to what is in `quintain.bench.api`, kept for one release."""

import warnings

from .api.rng import *  # noqa: F403

warnings.warn(
    "quintain.bench.random has moved and goes away with the next release: "
    "import from quintain.bench.api (rng)",
    DeprecationWarning,
    stacklevel=2,
)
