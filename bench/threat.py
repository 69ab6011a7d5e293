"""An old path to what is in `quintain.bench.api`, kept for one release."""

import warnings

from .api.epsilon import *  # noqa: F403
from .api.threat import *  # noqa: F403

warnings.warn(
    "quintain.bench.threat has moved and goes away with the next release: "
    "import from quintain.bench.api (epsilon, threat)",
    DeprecationWarning,
    stacklevel=2,
)
