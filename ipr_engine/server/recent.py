"""A `Recent` keeps the last decisions of one worker for the page, apart for each tenant: figures alone, no text of a prompt."""

from __future__ import annotations

import contextlib
import math
import os
from collections import Counter, deque
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from threading import Lock, Thread
from time import monotonic, sleep, time
from typing import Any, NamedTuple

import orjson

from ipr_engine.decision.decision import Decision
from ipr_engine.server.decided import Decided
from ipr_engine.server.server_engine import ServerEngine
from ipr_engine.server.server_metrics import SHARED

KEPT = 512
"""Decisions kept of each tenant."""
READ_AT_ONCE = (
    32  # decisions whose frontier one look computes; each takes milliseconds, in a thread beside those that serve
)

LEAVES_S = 5.0
"""So long decisions of a bundle that left are read, and hold it in memory."""
PAUSE_S = 0.05


class Seen(NamedTuple):
    """A `Seen` is a decision that nobody has looked at yet; its frontier is not computed. number: by which it came."""

    decision: Decision
    id: str
    at: float
    asked: str
    served: str | None
    saved_usd: float | None
    number: int


class Looked(NamedTuple):
    """A `Looked` is what one look finds: decisions as plain JSON types, the oldest first, and how many could not be read yet."""

    decisions: list[dict[str, Any]]
    unread: int


class Ring:
    """A `Ring` holds one tenant's decisions. It is added to in the event loop and read in threads.

    Attributes:
        routed: (candidate, cause) -> requests, since the start.
        unread: the fields of each `Seen`. add: appends to it.
    """

    __slots__ = ("_lock", "_read", "add", "routed", "unread")

    def __init__(self) -> None:
        self.routed: Counter[tuple[str, str]] = Counter()
        self.unread: deque[tuple[Any, ...]] = deque(maxlen=KEPT)  # plain tuples: every request makes one
        self.add = self.unread.append
        self._read: list[tuple[int, dict[str, Any]]] = []
        self._lock = Lock()

    def look(self) -> Looked:
        """Return the decisions, those read newly among them; the newest are read first."""
        with self._lock:
            for _ in range(READ_AT_ONCE):
                try:
                    seen = self.unread.pop()
                except IndexError:
                    break
                self._keep(Seen(*seen))
            self._forget()
            room = KEPT - len(self._read)
            waiting = len(self.unread) if room else 0
            return Looked([figures for _, figures in self._read], min(waiting, room))

    def taken(self) -> list[Seen]:
        """Return what waits to be read, and forget it."""
        found = []
        with contextlib.suppress(IndexError):
            while True:  # a look in a thread may take one, too
                found.append(Seen(*self.unread.pop()))
        return found

    def read(self, seen: Seen) -> None:
        """Read one that was taken."""
        with self._lock:
            self._keep(seen)

    def _keep(self, seen: Seen) -> None:
        self._read.append((seen.number, _figures(seen)))
        if len(self._read) >= 2 * KEPT:  # swaps add to it, though nobody may ever look
            self._forget()

    def _forget(self) -> None:
        """Keep the last, by number: a clock may be set back."""
        self._read = sorted(self._read, key=lambda found: found[0])[-KEPT:]


class Recent:
    """A `Recent` holds a ring for each tenant of one worker."""

    def __init__(self, engine: ServerEngine, tenants: Iterable[str]) -> None:
        """Make the rings. tenants: their names."""
        self._engine = engine
        self._bundle = engine.bundle
        self._rings = {name: Ring() for name in tenants}
        self._numbers = count()
        folder = os.environ.get(SHARED)
        self._folder = None if not folder else Path(folder)

    def add(self, decided: Decided, served: str | None, cause: str | None) -> None:
        """Keep a decision.

        Args:
            served: the candidate that answered, or was chosen where nobody is asked; None: everyone failed.
            cause: why that one; None where its answer is that the request is wrong, or there is none: it counts as no answer.
        """
        ring = self._rings[decided.question.tenant.name]
        if self._engine.bundle is not self._bundle:
            self._bundle = self._engine.bundle
            self._read_left()
        number = next(self._numbers)
        decision = decided.decision
        saved = decided.saved_usd(decision.index) if decided.explored else decided.saved
        ring.add((decision, decided.id, time(), decided.question.model, served, saved, number))
        if served is not None and cause is not None:
            ring.routed[served, cause] += 1

    def _read_left(self) -> None:
        """Read what nobody has looked at yet: a decision holds its bundle, and one that left must not stay in memory."""
        left = [(ring, seen) for ring in self._rings.values() for seen in ring.taken()]
        if left:
            left.sort(key=lambda one: one[1].number)
            Thread(target=_read_in_time, args=(left,), daemon=True).start()

    def look(self, tenant: str) -> Looked:
        """Return a tenant's decisions of this worker. It takes up to some hundred milliseconds: call it in a thread."""
        return self._rings[tenant].look()

    def share(self) -> None:
        """Leave this worker's counts for the other workers of its server."""
        if self._folder is not None:
            counts = {name: [[*key, n] for key, n in ring.routed.items()] for name, ring in self._rings.items()}
            made = self._folder / f".routed-{os.getpid()}"
            made.write_bytes(orjson.dumps(counts))
            made.replace(self._folder / f"routed-{os.getpid()}.json")

    def routed(self, tenant: str) -> Counter[tuple[str, str]]:
        """Return (candidate, cause) -> a tenant's requests since the start, of all workers, those that have ended included."""
        found = Counter(self._rings[tenant].routed)
        if self._folder is not None:
            for path in self._folder.glob("routed-*.json"):
                if path.name != f"routed-{os.getpid()}.json":
                    for candidate, cause, n in orjson.loads(path.read_bytes()).get(tenant, ()):
                        found[candidate, cause] += n
        return found


def _read_in_time(left: list[tuple[Ring, Seen]]) -> None:
    """Read decisions, the last of a list first; what is not read in time is forgotten."""
    end = monotonic() + LEAVES_S
    while left and (begun := monotonic()) < end:
        ring, seen = left.pop()
        ring.read(seen)
        sleep(min(monotonic() - begun, PAUSE_S))  # those that serve have as much of the processor meanwhile


def _figures(seen: Seen) -> dict[str, Any]:
    """Return a decision as the page reads it, with the taus at which its choice changes: all of who was chosen, whoever answered."""
    decision = seen.decision
    return {
        "id": seen.id,
        "at": seen.at,
        "asked": seen.asked,
        "chosen": decision.model,
        "served": seen.served,
        "cause": decision.cause,
        "tau": decision.policy.tau,
        "quality": _finite(decision.quality),
        "cost_usd": _finite(decision.cost_usd),
        "saved_usd": seen.saved_usd,
        "bundle": decision.bundle_hash,
        "steps": [list(step) for step in decision.frontier],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
