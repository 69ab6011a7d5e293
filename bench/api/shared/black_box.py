"""Examples that only black-box attacks break: evidence that white-box gradients mislead.

A gradient that points the right way does not lose to guesses: more than a few is a sign that the
white-box attacks are being misled (Carlini et al. 2019, arXiv:1902.06705, section 5). The same
threshold holds between the attacks on one model and between the stages of one cascade. No torch.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FLAG = "black-box-beats-white-box"


def beaten(white: NDArray[np.bool_], black: NDArray[np.bool_]) -> int:
    """How many examples only black-box attacks break, at the epsilon where they are most.

    white, black: (N, E) bool, what the attacks of either kind broke.
    """
    return int((black & ~white).sum(axis=0).max(initial=0))


def beaten_within(stages: NDArray[np.int8], accesses: Sequence[str]) -> int:
    """The same within a cascade: what its black-box stages broke after white-box ones had failed.

    stages: (N, E), which stage broke each example at each epsilon, -1 none. accesses: of the
    stages. What a black-box stage broke before any white-box one had its turn is no evidence.
    """
    white = [number for number, access in enumerate(accesses) if access == "white-box"]
    later = [
        number
        for number, access in enumerate(accesses)
        if access != "white-box" and white and number > white[0]
    ]
    broken: NDArray[np.bool_] = np.isin(stages, later)
    return beaten(np.zeros_like(broken), broken)
