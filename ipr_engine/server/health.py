"""A `Health` says whether a candidate's upstream is worth asking: it is passed over after failures, then tried by one request."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ipr_engine.server.server_config import CoolDown

UP, COOLING, PROBING = 1.0, 0.0, 0.5


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

    def take(self) -> bool:
        """Return whether a request may ask it now. One that may has to say `succeeded`, `failed` or `left` of it."""
        if self._until is None:
            return True
        if self._probing or self._clock() < self._until:
            return False
        self._probing = True
        return True

    def succeeded(self) -> None:
        self._failures = 0
        self._seconds = self._cool_down.seconds
        self._until, self._probing = None, False

    def failed(self, retry_after_s: float | None = None) -> None:
        """Count a failure. retry_after_s: how long the upstream itself asks to be left alone."""
        self._failures += 1
        probe, self._probing = self._probing, False
        if self._failures < self._cool_down.failures and not probe and retry_after_s is None:
            return
        if probe:
            self._seconds = min(2 * self._seconds, self._cool_down.most_seconds)
        seconds = self._seconds if retry_after_s is None else max(self._seconds, retry_after_s)
        until = self._clock() + min(seconds, self._cool_down.most_seconds)
        self._until = until if self._until is None else max(until, self._until)

    def left(self) -> None:
        """Say that nothing was learnt: the client left first."""
        self._probing = False
