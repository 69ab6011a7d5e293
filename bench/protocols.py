"""An old path to what is in `quintain.bench.api`, kept for one release."""

import warnings

from .api.attack import *  # noqa: F403
from .api.data import *  # noqa: F403
from .api.defense import *  # noqa: F403
from .api.plugins.third_party import *  # noqa: F403
from .api.progress import *  # noqa: F403

warnings.warn(
    "quintain.bench.protocols has moved and goes away with the next release: "
    "import from quintain.bench.api (attack, data, defense, progress, plugins.third_party)",
    DeprecationWarning,
    stacklevel=2,
)


def __getattr__(name: str) -> object:
    from .api import attack

    return getattr(attack, name)
