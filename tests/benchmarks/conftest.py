"""What is timed, on the small network that `quintain bench` measures by default.

Run by `tox -e bench`. The default test run skips all of it before anything is trained.
"""

import pytest
import torch

from quintain.bench.tools.speed.benchmark import make_job
from quintain.bench.tools.speed.workloads import built_in


@pytest.fixture(scope="session")
def workload():
    """The small network, adversarially trained, from the user's cache or for it."""
    return built_in("cnn-adversarial", None, None).ready(torch.device("cpu"), 128)


@pytest.fixture
def job(workload):
    """Makes a job of so many examples, in one batch."""
    return lambda examples, steps: make_job(workload, examples, examples, steps)


@pytest.fixture
def timed(benchmark):
    """Times a contender: a warm-up, then three rounds; its passes go along."""

    def run(contender, job, epsilons):
        torch.manual_seed(0)
        outcome = benchmark.pedantic(
            contender.attack, (job, epsilons), rounds=3, iterations=1, warmup_rounds=1
        )
        benchmark.extra_info |= {"version": contender.version, "passes": outcome.passes}
        return outcome

    return run
