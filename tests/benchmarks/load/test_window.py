"""Answers and seconds of a stretch of a run: right for any number of callers of a target whose speed is known."""

import math

import numpy as np
import pytest

from benchmarks.load.window import counted, kept_up, rates
from tests.support.load_targets import MS, S


def closed_loop(callers, *, cost, most_in_batch, until):
    """(intended, ended) ns of callers of a target that takes all that wait, up to a batch, and `cost` ns for each of them."""
    waiting, now, requests = [0] * callers, 0, []
    while waiting:
        batch, waiting = waiting[:most_in_batch], waiting[most_in_batch:]
        now += cost * len(batch)
        requests += [(sent, now) for sent in batch]
        waiting += [now] * len(batch) if now < until else []
    intended, ended = np.array(sorted(requests)).T
    return intended, ended


@pytest.mark.parametrize("callers", [1, 8, 32, 128])
@pytest.mark.parametrize("most_in_batch", [1, 32])
def test_a_target_of_constant_speed_is_as_fast_with_many_callers_as_with_one(callers, most_in_batch):
    intended, ended = closed_loop(callers, cost=20 * MS, most_in_batch=most_in_batch, until=6 * S)
    answers, seconds = counted(intended, ended, 1 * S, 6 * S)
    assert answers / seconds == pytest.approx(50)
    assert seconds == pytest.approx(5, abs=0.7)


def test_where_nothing_is_answered_in_the_stretch_it_lasts_until_the_last_answer():
    intended, ended = closed_loop(8, cost=1 * S, most_in_batch=8, until=3 * S)
    answers, seconds = counted(intended, ended, 1 * S, 3 * S)
    assert (answers, seconds) == (8, 8.0)


def test_idle_time_counts():
    intended = np.array([0, 500, 1500, 2500]) * MS
    answers, seconds = counted(intended, intended + MS, 1 * S, 3 * S)
    assert (answers, seconds) == (2, 2.0)


def test_a_run_without_answers_has_none():
    nothing = np.empty(0, np.int64)
    assert counted(nothing, nothing, 0, S) == (0, 1.0)
    assert rates(nothing, nothing, 0, S, 4) == []


@pytest.mark.parametrize("callers", [1, 128])
def test_parts_of_a_run_are_as_fast_as_the_whole(callers):
    intended, ended = closed_loop(callers, cost=2 * MS, most_in_batch=1, until=6 * S)
    assert rates(intended, ended, 1 * S, 6 * S, 20) == pytest.approx([500] * 20)


@pytest.mark.parametrize("due", [100, 10_000])
def test_chance_alone_leaves_no_target_behind_and_three_percent_of_many_arrivals_do(due, rng):
    waits = rng.poisson(due, 200) - due  # of a target that keeps up on average
    assert np.mean([kept_up(due, due - wait, 0) for wait in waits]) > 0.95
    assert not kept_up(due, due - math.ceil(0.03 * due + 2 * math.sqrt(due)), 0)


def test_a_burst_at_the_end_is_chance():
    assert not kept_up(320, 320 - 64, 0)
    assert kept_up(320, 320 - 64, 0, burst=32)


def test_a_target_that_refuses_three_percent_does_not_keep_up_though_nothing_waits():
    assert kept_up(100, 98, 2)
    assert not kept_up(100, 97, 3)
