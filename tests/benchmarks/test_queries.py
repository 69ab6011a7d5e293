"""Queries: finite differences against a bare loop without gradients over as many images."""

from quintain.bench.tools.speed.contenders import BareForward, QuintainQueries

STEPS, COORDINATES, EXAMPLES = 2, 64, 32


def test_finite_differences(benchmark, timed, job, workload):
    benchmark.group = "queries"
    forward, _ = timed(
        QuintainQueries(COORDINATES), job(EXAMPLES, STEPS), [workload.epsilon / 2]
    ).passes
    assert forward >= 2 * COORDINATES * STEPS


def test_bare_loop(benchmark, timed, job):
    benchmark.group = "queries"
    images = EXAMPLES * (2 * COORDINATES * STEPS + 1)
    timed(BareForward(images, 128), job(EXAMPLES, STEPS), [])
