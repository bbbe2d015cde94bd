"""A clock that only moves when told, targets whose latency is known, recorded runs."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager

import numpy as np

US, MS, S = 1_000, 1_000_000, 1_000_000_000


class MadeUpClock:
    """Stands still but for waiting and for what targets spend."""

    def __init__(self):
        self.time = 1_000 * S

    def now(self):
        return self.time

    def wait_until(self, due_ns):
        self.time = max(self.time, due_ns)


class KnownTarget:
    """Call k takes `service(k)` ns of a made-up clock; `fails` maps calls to what they raise. The first calls of a session count apart."""

    def __init__(self, clock, service, *, fails=None, stages=(), rejections=()):
        self.name, self.stages, self.rejections = "known", stages, rejections
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
    """Answers on the real clock after awaiting `wait()`."""

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


def recorded(rng, *, p50_us=10.0, spread=0.02, parts=20, spin_us=100.0, machine="one machine", **case):
    """A run's document as `ipr bench load --record` writes it, as far as comparisons read it."""
    rows = [
        {
            "p50_us": p50_us * float(np.exp(spread * rng.standard_normal())),
            "p90_us": 2 * p50_us * float(np.exp(spread * rng.standard_normal())),
            "p99_us": 4 * p50_us * float(np.exp(spread * rng.standard_normal())),
            "throughput_rps": 1e6 / p50_us * float(np.exp(spread * rng.standard_normal())),
        }
        for _ in range(parts)
    ]
    shape = {"mode": "closed", "callers": 1, "mix": "64 tokens", "mix_sha256": "a", "seed": 0}
    return {
        "schema_version": 2,
        "kind": "load",
        "target": "engine",
        "settings": {"bundle": "b", "isa": "avx2"},
        "case": {**shape, **case},
        "subruns": rows,
        "noise": {"before": {"spin_us": spin_us}},
        "machine": machine,
        "date": "2026-11-24",
        "commit": "c",
    }
