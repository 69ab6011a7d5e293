"""The captured loop does the bare loop's work on memory that stays where it is."""

from dataclasses import replace

import pytest
import torch

from quintain.bench.engine.cuda_graphs import repeat
from quintain.bench.tools.speed.captured import CapturedLoop
from quintain.bench.tools.speed.contenders import BARE

EPSILONS = (0.05, 0.2)


class Tape:
    """Captures as a GPU does: the step is seen once, and replayed on the memory that it saw."""

    def __init__(self):
        self.captured = self.replayed = 0

    def __call__(self, step):
        self.captured += 1

        def replay():
            self.replayed += 1
            step()

        return replay


def found(contender, job):
    torch.manual_seed(0)
    outcome = contender.attack(job, EPSILONS)
    return [outcome.x_adv(number) for number in range(len(EPSILONS))], outcome


@pytest.mark.parametrize("batch_size", [32, 20])
def test_it_finds_what_the_bare_loop_finds(job, batch_size):
    job = replace(job, batch_size=batch_size)  # 20: a last batch of 12
    ours, outcome = found(CapturedLoop("float32", repeat), job)
    bare, _ = found(BARE, job)
    for a, b in zip(ours, bare, strict=True):
        torch.testing.assert_close(a, b)
    assert outcome.passes == (job.steps * 2, job.steps * 2)
    assert outcome.precision == "float32"


def test_a_step_is_captured_once_for_each_shape_of_batch(job):
    tape = Tape()
    contender = CapturedLoop("float32", tape)
    job = replace(job, batch_size=20)
    first, _ = found(contender, job)
    again, _ = found(contender, job)
    assert tape.captured == 2
    assert tape.replayed == 2 * len(EPSILONS) * 2 * job.steps
    for a, b in zip(first, again, strict=True):
        assert torch.equal(a, b)


def test_in_bfloat16_it_steps_along_the_copy_that_the_harness_would_use(job):
    (_, largest), outcome = found(CapturedLoop("bfloat16", repeat), job)
    assert outcome.precision.startswith("bfloat16")
    assert (largest - job.x).abs().max() <= EPSILONS[1] + 1e-6
    assert job.module(largest).argmax(1).ne(job.y).any()
