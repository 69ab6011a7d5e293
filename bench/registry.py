"""An old path to what is in `quintain.bench.api`, kept for one release."""

import warnings

from .api.plugins.plugin import *  # noqa: F403
from .api.registry import *  # noqa: F403

warnings.warn(
    "quintain.bench.registry has moved and goes away with the next release: "
    "import from quintain.bench.api (plugins.plugin, registry)",
    DeprecationWarning,
    stacklevel=2,
)
