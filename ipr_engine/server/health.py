"""A `Health` says whether a candidate's upstream is worth asking: it is passed over after failures, then tried by one request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from time import monotonic

from ipr_engine.server.server_config import CoolDown

UP, COOLING, PROBING = 1.0, 0.0, 0.5


class Way(Enum):
    """A `Way` is how an upstream is asked: it is up, it is probed, or it cools and nobody else is left."""

    UP = "up"
    PROBE = "probe"
    LAST = "last"


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """A `Turn` is one attempt at an upstream.

    Attributes:
        way: how it is asked. cool_downs: how many had begun by then: what comes of the attempt says nothing of a later one.
        at: when it began, on the clock.
    """

    way: Way
    cool_downs: int
    at: float


class Health:
    """A `Health` is the state of one upstream in one worker.

    Up until so many failures in a row; then cooling; after that half open: one request at a time probes it. Once the head of an
    answer to the probe is there it is up, on probation until an answer is whole; a failure before then doubles the time, whoever's it is.
    Clients that give up before a byte came count together: once they waited in silence for as long as one attempt may, it is a failure.
    """

    def __init__(self, cool_down: CoolDown, clock: Callable[[], float] = monotonic) -> None:
        self._cool_down = cool_down
        self._clock = clock
        self._failures = 0
        self._seconds = cool_down.seconds
        self._until: float | None = None  # None: up
        self._cool_downs = 0
        self._probe: Turn | None = None
        self._probed_until = 0.0
        self._is_proven = True  # an answer was whole since the last cool-down
        self._heard_at = self._waited_to = float("-inf")
        self._silence = 0.0  # of what one attempt may wait

    @property
    def state(self) -> float:
        """Return 1 where it is up, 0 while it cools, 0.5 where the next request probes it."""
        if self._until is None:
            return UP
        return COOLING if self._clock() < self._until else PROBING

    @property
    def until(self) -> float:
        """Return when it may be asked again, on the clock; 0 where it is up."""
        return self._until or 0.0

    def take(self) -> Turn | None:
        """Return how a request may ask it now; None where it is passed over. Who may says what comes of it."""
        if self._until is None:
            return Turn(Way.UP, self._cool_downs, self._clock())
        now = self._clock()
        if now < self._until or (self._probe is not None and now < self._probed_until):
            return None
        # a probe that nothing is heard of does not keep it out for as long as an answer may take
        self._probed_until = now + self._cool_down.most_seconds
        self._probe = Turn(Way.PROBE, self._cool_downs, now)
        return self._probe

    def last(self) -> Turn:
        """Return the turn of a request that nobody else could answer."""
        return Turn(Way.LAST, self._cool_downs, self._clock())

    def answers(self, turn: Turn) -> None:
        """Say that the head of an answer is there: what cooled is up, and the next failure makes it cool again."""
        self.left(turn)  # also where it has cooled anew since: the next probe waits for that alone
        self._heard_at, self._silence = self._clock(), 0.0
        if self._until is not None and turn.cool_downs == self._cool_downs:
            self._failures = max(0, self._cool_down.failures - 1)
            self._until = self._probe = None

    def succeeded(self, turn: Turn) -> None:
        """Say that an answer is whole. An attempt from before the last cool-down does not end that one."""
        self.left(turn)
        if turn.cool_downs == self._cool_downs:
            self._failures, self._is_proven = 0, True
            self._seconds = self._cool_down.seconds
            self._until = self._probe = None

    def failed(self, turn: Turn, retry_after_s: float | None = None) -> None:
        """Count a failure. retry_after_s: how long the upstream itself asks to be left alone."""
        self.left(turn)
        if turn.cool_downs != self._cool_downs:  # it was asked before the last cool-down, which knows that
            until = self._clock() + min(retry_after_s or 0.0, self._cool_down.most_seconds)
            if retry_after_s and until > self.until:
                self._until = until
                self._cool_downs += 1
            return
        self._failures += 1
        again = turn.way is Way.PROBE or self._until is None
        if again and not self._is_proven:
            self._seconds = min(2 * self._seconds, self._cool_down.most_seconds)
        often = self._failures >= self._cool_down.failures or self._until is not None
        # its word alone, until it has failed so often that it does not hold
        seconds = max(self._seconds if often else 0.0, retry_after_s or 0.0)
        if seconds <= 0:
            return
        until = self._clock() + min(seconds, self._cool_down.most_seconds)
        self._until = max(until, self.until)
        self._cool_downs += 1
        self._is_proven = False

    def left(self, turn: Turn) -> None:
        """Say that nothing was learnt: the client left first, say."""
        if self._probe is turn:
            self._probe = None

    def gave_up(self, turn: Turn, within_s: float) -> None:
        """Say that the client left before a byte came. within_s: how long the attempt might have waited."""
        self.left(turn)
        if turn.at < self._heard_at:
            return
        now = self._clock()
        # requests that wait at the same time hear the same silence
        self._silence += (now - max(turn.at, self._waited_to)) / within_s
        self._waited_to = now
        if self._silence >= 1:
            self._silence = 0.0
            self.failed(turn)
