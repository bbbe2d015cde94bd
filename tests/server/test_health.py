"""What ends a cool-down is an answer to a request that was made after it began, and nothing makes it longer than was asked for."""

from __future__ import annotations

import pytest

from ipr_engine.server.health import COOLING, PROBING, UP, Health, Turn, Way
from ipr_engine.server.server_config import CoolDown

MOST_S = 30.0


class Clock:
    """A `Clock` stands still."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def health(clock: Clock) -> Health:
    return Health(CoolDown(failures=2, seconds=1, most_seconds=MOST_S), clock)


def taken(health: Health, way: Way = Way.UP) -> Turn:
    turn = health.take()
    assert turn is not None
    assert turn.way is way
    return turn


def cool(health: Health) -> None:
    for _ in range(2):
        health.failed(taken(health))
    assert health.state == COOLING


@pytest.mark.parametrize("retry_after_s", [20.0, None])
def test_an_older_success_does_not_end_a_cool_down(health: Health, clock: Clock, retry_after_s: float | None) -> None:
    slow = taken(health)
    health.failed(taken(health))
    health.failed(taken(health), retry_after_s)
    assert health.state == COOLING
    health.answers(slow)
    health.succeeded(slow)
    assert (health.state, health.until) == (COOLING, clock.now + (retry_after_s or 1.0))


def test_an_older_success_ends_no_probe(health: Health, clock: Clock) -> None:
    slow = taken(health)
    cool(health)
    clock.now += 1
    taken(health, Way.PROBE)
    health.succeeded(slow)
    assert (health.state, health.take()) == (PROBING, None)


def test_an_older_failure_says_nothing_new(health: Health, clock: Clock) -> None:
    slow = [taken(health) for _ in range(20)]
    cool(health)
    until = health.until
    clock.now += 0.5
    for turn in slow[:10]:
        health.failed(turn)
    assert health.until == until
    clock.now += 0.5
    health.succeeded(taken(health, Way.PROBE))
    for turn in slow[10:]:
        health.failed(turn)
    assert health.state == UP


def test_what_an_older_attempt_is_asked_to_keep_to_is_kept_to(health: Health, clock: Clock) -> None:
    slow = taken(health)
    cool(health)
    health.failed(slow, 20.0)
    assert health.until == clock.now + 20


def test_an_older_attempt_lengthens_a_cool_down_by_what_it_is_asked_alone(clock: Clock) -> None:
    health = Health(CoolDown(failures=2, seconds=MOST_S, most_seconds=MOST_S), clock)
    slow = [taken(health) for _ in range(2)]
    cool(health)
    clock.now += MOST_S - 0.5
    health.failed(slow[0], 1.0)
    assert health.until == clock.now + 1
    health.failed(slow[1], 0.5)
    assert health.until == clock.now + 1


def test_a_probe_that_is_answered_makes_room_though_others_failed_meanwhile(health: Health, clock: Clock) -> None:
    cool(health)
    clock.now += 1
    probe = taken(health, Way.PROBE)
    health.failed(health.last())
    health.answers(probe)
    health.succeeded(probe)
    assert health.state == COOLING
    clock.now = health.until
    taken(health, Way.PROBE)


def test_one_at_a_time_probes_until_the_head_of_an_answer_is_there(health: Health, clock: Clock) -> None:
    cool(health)
    clock.now += 1
    probe = taken(health, Way.PROBE)
    assert health.take() is None
    health.answers(probe)
    assert health.state == UP
    taken(health)


@pytest.mark.parametrize("way", [Way.PROBE, Way.LAST])
def test_an_answer_that_breaks_after_its_head_makes_it_cool_again(health: Health, clock: Clock, way: Way) -> None:
    cool(health)
    clock.now += 1
    turn = taken(health, Way.PROBE) if way is Way.PROBE else health.last()
    health.answers(turn)
    health.failed(turn)
    assert health.until == clock.now + 2
    assert health.state == COOLING


def test_the_time_grows_until_an_answer_is_whole_whoever_finds_out(health: Health, clock: Clock) -> None:
    cool(health)
    waits = []
    for _ in range(4):
        clock.now = health.until
        probe = taken(health, Way.PROBE)
        health.answers(probe)
        other = taken(health)  # asked meanwhile, and the first that breaks
        health.failed(other)
        health.failed(probe)
        waits.append(health.until - clock.now)
    assert waits == [2, 4, 8, 16]
    clock.now = health.until
    probe = taken(health, Way.PROBE)
    health.answers(probe)
    health.succeeded(probe)
    cool(health)
    assert health.until == clock.now + 1


def test_who_leaves_a_probes_stream_proves_nothing(health: Health, clock: Clock) -> None:
    cool(health)
    clock.now = health.until
    probe = taken(health, Way.PROBE)
    health.answers(probe)
    health.left(probe)
    assert health.state == UP
    health.failed(taken(health))
    assert health.until == clock.now + 2


def test_a_whole_answer_forgets_the_failures_before(health: Health, clock: Clock) -> None:
    cool(health)
    clock.now += 1
    probe = taken(health, Way.PROBE)
    health.answers(probe)
    health.succeeded(probe)
    health.failed(taken(health))
    assert health.state == UP


def test_a_probe_of_which_nothing_is_heard_keeps_it_out_for_the_longest_cool_down_at_most(
    health: Health, clock: Clock
) -> None:
    cool(health)
    clock.now += 1
    silent = taken(health, Way.PROBE)
    clock.now += MOST_S - 0.1
    assert health.take() is None
    clock.now += 0.1
    second = taken(health, Way.PROBE)
    health.left(silent)  # which holds nobody out any more
    assert health.take() is None
    health.left(second)
    taken(health, Way.PROBE)


def test_each_failed_probe_doubles_the_time_up_to_the_most(health: Health, clock: Clock) -> None:
    cool(health)
    waits = []
    for _ in range(7):
        clock.now = health.until
        health.failed(taken(health, Way.PROBE))
        waits.append(health.until - clock.now)
    assert waits == [2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(("said", "seconds"), [(0.25, 0.25), (20.0, 20.0), (3600.0, MOST_S)])
def test_a_first_failure_makes_it_cool_for_as_long_as_it_asks(
    health: Health, clock: Clock, said: float, seconds: float
) -> None:
    health.failed(taken(health), said)
    assert (health.state, health.until) == (COOLING, clock.now + seconds)


def test_who_asks_for_no_time_is_asked_again_at_once_until_that_is_seen_not_to_help(
    health: Health, clock: Clock
) -> None:
    health.failed(taken(health), 0.0)
    assert health.state == UP
    health.failed(taken(health), 0.0)
    assert health.until == clock.now + 1


def test_clients_that_give_up_count_together_as_one_that_waited_to_the_end(health: Health, clock: Clock) -> None:
    for _ in range(2):
        assert health.state == UP
        for _ in range(3):
            turn = taken(health)
            clock.now += 20.0
            health.gave_up(turn, 60.0)
    assert health.state == COOLING


def test_clients_that_wait_at_the_same_time_wait_in_the_same_silence(health: Health, clock: Clock) -> None:
    turns = [taken(health) for _ in range(500)]
    clock.now += 20.0
    for turn in turns:
        health.gave_up(turn, 60.0)
    health.failed(taken(health))
    assert health.state == UP


def test_an_upstream_that_answers_others_is_not_silent(health: Health, clock: Clock) -> None:
    for _ in range(10):
        patient, impatient = taken(health), taken(health)
        clock.now += 20.0
        health.answers(patient)
        health.gave_up(impatient, 60.0)
        turn = taken(health)
        clock.now += 20.0
        health.gave_up(turn, 60.0)
    assert health.state == UP


def test_probes_that_clients_give_up_end_in_a_longer_cool_down(health: Health, clock: Clock) -> None:
    cool(health)
    clock.now = health.until
    for _ in range(2):
        probe = taken(health, Way.PROBE)
        clock.now += 5.0
        health.gave_up(probe, 10.0)
    assert (health.state, health.until) == (COOLING, clock.now + 2)
