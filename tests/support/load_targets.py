"""Targets of known latency meet a clock that only moves when told."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager

US, MS, S = 1_000, 1_000_000, 1_000_000_000


class MadeUpClock:
    """A `MadeUpClock` stands still but for waiting and for what targets spend."""

    def __init__(self):
        self.time = 1_000 * S

    def now(self):
        return self.time

    def wait_until(self, due_ns):
        self.time = max(self.time, due_ns)


class KnownTarget:
    """Call k of a `KnownTarget` takes `service(k)` ns of a made-up clock; `fails` maps calls to what they raise.

    The first calls of a session count apart.
    """

    def __init__(self, clock, service, *, fails=None, stages=(), rejections=()):
        self.name, self.stages, self.rejections = "known", stages, rejections
        # a run makes three uncounted calls first (loads.FIRST_CALLS): call 0 is the first that counts
        self.clock, self.service, self.fails, self.calls = clock, service, fails or {}, -3

    @contextmanager
    def session(self):
        yield self.call

    def call(self, prompt):
        index, self.calls = self.calls, self.calls + 1
        if index in self.fails:
            raise self.fails[index]
        spent = self.service(max(index, 0))
        self.clock.time += sum(spent) if isinstance(spent, tuple) else spent
        return spent if isinstance(spent, tuple) else None

    def choose(self, prompt):
        return "known"


class AsyncKnownTarget:
    """An `AsyncKnownTarget` answers on the real clock after awaiting `wait()`."""

    def __init__(self, wait, *, rejections=(), fails=()):
        self.name, self.stages, self.rejections = "known async", (), rejections
        self.wait, self.fails, self.calls = wait, fails, 0

    @asynccontextmanager
    async def async_session(self):
        async def call(prompt):
            self.calls += 1
            if self.calls in self.fails:
                raise self.fails[self.calls]
            await self.wait()

        yield call

    def choose(self, prompt):
        return "known async"
