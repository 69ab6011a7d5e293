"""An old path to what is in `quintain.bench.api`, kept for one release."""

import warnings

from .api.errors import *  # noqa: F403

warnings.warn(
    "quintain.bench.errors has moved and goes away with the next release: "
    "import from quintain.bench.api (errors)",
    DeprecationWarning,
    stacklevel=2,
)
