"""The bench's arithmetic: what a percentile is, and what belongs to a window."""

import pytest

from bursar.bench.figures import Flow, drain_rate, drift_mib, spread, weighted_spread, window


def test_percentiles_are_values_that_were_seen_by_nearest_rank() -> None:
    seen = spread([float(value) for value in range(100, 0, -1)])

    assert seen is not None
    assert (seen.count, seen.mean) == (100, 50.5)
    assert (seen.p50, seen.p95, seen.p99, seen.max) == (50.0, 95.0, 99.0, 100.0)


def test_one_slow_answer_among_ninety_nine_is_the_maximum_and_not_the_p99() -> None:
    seen = spread([1.0] * 99 + [1000.0])

    assert seen is not None
    assert (seen.p99, seen.max) == (1.0, 1000.0)


def test_two_slow_answers_among_ninety_eight_are_the_p99() -> None:
    seen = spread([1.0] * 98 + [1000.0] * 2)

    assert seen is not None
    assert seen.p99 == 1000.0


def test_a_weighted_spread_is_that_of_the_values_written_out() -> None:
    assert weighted_spread([(5.0, 3), (1.0, 10), (9.0, 1)]) == spread([5.0] * 3 + [1.0] * 10 + [9.0])


def test_of_nothing_there_is_no_spread() -> None:
    assert spread([]) is None
    assert weighted_spread([(5.0, 0)]) is None


FLOWS = [
    # accepted before the window and applied in it: its latency counts, its acceptance does not
    Flow(intake=1, accepted_s=9.9, drain=1, outcome_s=10.1, status="applied", commands=4),
    # within
    Flow(intake=2, accepted_s=10.2, drain=2, outcome_s=10.5, status="applied", commands=10),
    Flow(intake=3, accepted_s=10.3, drain=2, outcome_s=10.5, status="applied", commands=2),
    Flow(intake=3, accepted_s=10.3, drain=2, outcome_s=10.5, status="rejected", commands=1),
    # accepted in it and applied after it
    Flow(intake=4, accepted_s=11.9, drain=3, outcome_s=12.1, status="applied", commands=5),
    # never applied
    Flow(intake=5, accepted_s=11.95, drain=None, outcome_s=None, status=None, commands=7),
    # the window's end belongs to what follows
    Flow(intake=6, accepted_s=12.0, drain=4, outcome_s=12.2, status="applied", commands=100),
]


def test_a_window_counts_what_happened_in_it_and_nothing_else() -> None:
    seen = window(FLOWS, start_s=10.0, end_s=12.0)

    assert (seen.accepted, seen.applied, seen.refused) == (10 + 2 + 1 + 5 + 7, 4 + 10 + 2, 1)
    assert (seen.accepted_per_s, seen.applied_per_s) == (25 / 2, 16 / 2)
    assert (seen.backlog_start, seen.backlog_end) == (4, 5 + 7)
    assert seen.backlog_start + seen.accepted - seen.applied - seen.refused == seen.backlog_end


def test_what_went_through_counts_from_the_first_acceptance_to_the_last_outcome() -> None:
    applied = [flow for flow in FLOWS if flow.drain is not None]

    assert window(applied, start_s=10.0, end_s=12.0).through_per_s == pytest.approx(122 / (12.2 - 9.9))
    assert window(FLOWS, start_s=10.0, end_s=12.0).through_per_s is None  # something never came through


def test_a_window_measures_the_latency_of_what_got_its_outcome_in_it() -> None:
    latency = window(FLOWS, start_s=10.0, end_s=12.0).outcome_ms

    assert latency is not None
    assert latency.count == 4 + 10 + 3
    assert latency.p50 == pytest.approx(300)
    assert latency.max == pytest.approx(300)


def test_a_window_tells_batches_by_their_transactions() -> None:
    seen = window(FLOWS, start_s=10.0, end_s=12.0)

    assert seen.intake_batch is not None
    assert seen.drain_batch is not None
    assert (seen.intake_batch.count, seen.intake_batch.max) == (4, 10)
    assert (seen.drain_batch.count, seen.drain_batch.max) == (2, 13)


def test_a_window_without_length_is_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        window(FLOWS, start_s=10.0, end_s=10.0)


def test_the_rate_of_a_drain_leaves_out_how_long_the_worker_took_to_start() -> None:
    drains = [
        Flow(intake=1, accepted_s=0.0, drain=1, outcome_s=50.0, status="applied", commands=500),
        Flow(intake=1, accepted_s=0.0, drain=2, outcome_s=50.1, status="applied", commands=500),
        Flow(intake=2, accepted_s=0.1, drain=3, outcome_s=50.2, status="applied", commands=400),
    ]

    assert drain_rate(drains) == (pytest.approx(900 / 0.2), pytest.approx(0.2))
    with pytest.raises(ValueError, match="too few"):
        drain_rate(drains[:1])


def test_memory_drifts_from_when_it_was_warm_and_one_odd_sample_decides_nothing() -> None:
    growing_while_cold = [(number * 10, 50.0 + number) for number in range(10)]
    flat = [(100 + number * 10, 60.0) for number in range(10)]
    flat[-1] = (190, 300.0)

    assert drift_mib(growing_while_cold + flat, warm_after=100) == 0.0
    assert drift_mib([(number, float(number)) for number in range(20)], warm_after=0) == 17.0 - 2.0
    assert drift_mib(flat[:9], warm_after=0) is None
