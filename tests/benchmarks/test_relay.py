"""Relays: which way of a peer is compared, and what is shown of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.harness import GIB, Sample, Side
from benchmarks.load import Job
from benchmarks.relay import NEARLY, Trial, best, figures

SIDE = Side("nginx off", (1,), Job(80, "GET / HTTP/1.1\r\n\r\n", 1))


def sample(seconds: float, cpu: float) -> Sample:
    neighbours = {"store": 0.5, "PostgreSQL": 0.25, "Valkey": 0.125}
    return Sample(2 * GIB, 32, seconds, cpu, neighbours, median=seconds, p99=seconds)


def test_a_trial_is_the_best_of_its_runs() -> None:
    trial = Trial.of(SIDE, [sample(1.0, 0.6), sample(2.0, 0.4), sample(8.0, 3.0)])
    assert (trial.side, trial.rate, trial.cpu) == (SIDE, 2048, 0.2)


@pytest.mark.parametrize(
    ("rates", "costs", "expected"),
    [
        ([1000, 5000], [0.1, 0.2], 1),  # much faster, at whatever cost
        ([4900, 5000], [0.1, 0.2], 0),  # as good, for less
        ([4900, 5000, 4000], [0.3, 0.2, 0.1], 1),
    ],
)
def test_the_best_way_is_the_cheapest_of_the_fast_ones(rates: list[float], costs: list[float], expected: int) -> None:
    tried = [Trial(SIDE, rate, cost) for rate, cost in zip(rates, costs, strict=True)]
    assert best(tried) is tried[expected]


@given(st.lists(st.tuples(st.floats(1, 1e5), st.floats(0.01, 10)), min_size=1, max_size=10))
def test_no_way_is_much_faster_than_the_best_and_none_as_fast_is_cheaper(pairs: list[tuple[float, float]]) -> None:
    tried = [Trial(SIDE, *pair) for pair in pairs]
    chosen = best(tried)
    for trial in tried:
        assert trial.rate * NEARLY <= chosen.rate
        assert trial.rate < chosen.rate or trial.cpu >= chosen.cpu


def test_figures_are_those_of_a_gibibyte() -> None:
    shown = {figure.name.strip(): figure.of(sample(4.0, 1.0)) for figure in figures("https")}
    assert shown == {
        "MiB/s": 512,
        "CPU s per GiB": 0.5,
        "store's stand-in": 0.25,
        "PostgreSQL": 0.125,
        "Valkey": 0.0625,
        "server's core busy, %": 25,
    }
