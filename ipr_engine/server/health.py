"""A `Health` says whether a candidate's upstream is worth asking: it is passed over after failures, then tried by one request."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from time import monotonic

from ipr_engine.server.server_config import CoolDown

UP, COOLING, PROBING = 1.0, 0.0, 0.5


class Turn(Enum):
    """A `Turn` is how an upstream is asked: it is up, it is probed, or it cools and nobody else is left."""

    UP = "up"
    PROBE = "probe"
    LAST = "last"


class Health:
    """A `Health` is the state of one upstream in one worker.

    Up until so many failures in a row; then cooling; after that half open: one request at a time probes it. A probe that succeeds
    brings it up, one that fails doubles the time.
    """

    def __init__(self, cool_down: CoolDown, clock: Callable[[], float] = monotonic) -> None:
        self._cool_down = cool_down
        self._clock = clock
        self._failures = 0
        self._seconds = cool_down.seconds
        self._until: float | None = None  # None: up
        self._probing = False

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
        """Return how a request may ask it now; None where it is passed over. Who may says `succeeded`, `failed` or `left` of it."""
        if self._until is None:
            return Turn.UP
        if self._probing or self._clock() < self._until:
            return None
        self._probing = True
        return Turn.PROBE

    def succeeded(self) -> None:
        self._failures = 0
        self._seconds = self._cool_down.seconds
        self._until, self._probing = None, False

    def failed(self, turn: Turn, retry_after_s: float | None = None) -> None:
        """Count a failure. turn: how it was asked. retry_after_s: how long the upstream itself asks to be left alone."""
        self._failures += 1
        probe = turn is Turn.PROBE
        if probe:
            self._probing = False
            self._seconds = min(2 * self._seconds, self._cool_down.most_seconds)
        if self._failures < self._cool_down.failures and self._until is None and retry_after_s is None:
            return
        seconds = self._seconds if retry_after_s is None else max(self._seconds, retry_after_s)
        until = self._clock() + min(seconds, self._cool_down.most_seconds)
        self._until = until if self._until is None else max(until, self._until)

    def left(self, turn: Turn) -> None:
        """Say that nothing was learnt: the client left first."""
        if turn is Turn.PROBE:
            self._probing = False
