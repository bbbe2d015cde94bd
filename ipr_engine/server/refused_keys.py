"""A `RefusedKeys` knows which candidates' upstreams refuse the server's own key, and says when that begins and when it is over."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from time import monotonic
from types import MappingProxyType

REFUSALS: Mapping[int, str] = MappingProxyType(
    {
        401: "it does not know the server's own key",
        402: "the account of the server's own key cannot pay",
        403: "the server's own key may not ask it, or not for what a prompt asks",
    }
)
"""Statuses by which an upstream refuses the server's own key, and what they say."""
BUSY = frozenset({408, 429})  # said before a key is looked at, by some
AGAIN_S = 60.0  # some refuse one request by such a status, and take the next: a line is not written again before

LOGGER = logging.getLogger(__name__)


class RefusedKeys:
    """A `RefusedKeys` is told every status of one worker's upstreams.

    Attributes:
        statuses: candidate -> the status by which its upstream refused the key last; of those that have not taken it since.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.statuses: dict[str, int] = {}
        self._clock = clock
        self._said: dict[str, tuple[int, float]] = {}

    def answered(self, candidate: str, status: int, place: str) -> None:
        """Say that an upstream answers by this status. place: where the config names its key."""
        if status in REFUSALS:
            if self.statuses.get(candidate) != status:
                self.statuses[candidate] = status
                self._warn(candidate, status, place)
        elif candidate in self.statuses and status < 500 and status not in BUSY:
            del self.statuses[candidate]
            LOGGER.info("the upstream of %s takes the server's own key again", candidate)

    def _warn(self, candidate: str, status: int, place: str) -> None:
        now = self._clock()
        said, at = self._said.get(candidate, (0, 0.0))
        if said != status or now - at >= AGAIN_S:
            self._said[candidate] = status, now
            LOGGER.warning("the upstream of %s answers %d: %s; see %s", candidate, status, REFUSALS[status], place)
