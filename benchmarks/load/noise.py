"""`Noise` records what the machine did during a run: how steady it was before and after, who else took the processor."""

from __future__ import annotations

import os
import resource
import statistics
import time
from pathlib import Path
from typing import Any

PROBE_S = 0.25
CHUNK = 2_000  # turns of the spin's loop: some 50 us, shorter than a slice of the scheduler


def spin_probe() -> dict[str, float]:
    """Time the same bit of work over and over on this thread, for PROBE_S.

    Returns:
        spin_us: median time of the work, a measure of the processor's speed just now; spin_p99_ratio: its 99th
        percentile over its median, near 1 on a quiet machine; longest_us: the longest one, how long this thread can be kept
        from running.
    """
    clock = time.perf_counter_ns
    times: list[int] = []
    end = clock() + int(PROBE_S * 1e9)
    while clock() < end or len(times) < 100:
        start = clock()
        x = 0
        for step in range(CHUNK):
            x = (x * 31 + step) & 0xFFFF
        times.append(clock() - start)
    times.sort()
    return {
        "spin_us": round(statistics.median(times) / 1e3, 2),
        "spin_p99_ratio": round(times[int(0.99 * len(times))] / statistics.median(times), 3),
        "longest_us": round(times[-1] / 1e3, 1),
    }


class Noise:
    """A `Noise` holds probes before and after a block, and counters of the time between.

    with Noise() as noise: run
    noise.to_dict()
    """

    def __enter__(self) -> Noise:
        self.before = spin_probe()
        self._throttled = _throttled()
        self._usage, self._steal = resource.getrusage(resource.RUSAGE_SELF), _processor_ticks()
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self._start
        usage, steal = resource.getrusage(resource.RUSAGE_SELF), _processor_ticks()
        self.involuntary = usage.ru_nivcsw - self._usage.ru_nivcsw
        self.cpu_s = usage.ru_utime + usage.ru_stime - self._usage.ru_utime - self._usage.ru_stime
        spans = (
            None if steal is None or self._steal is None else [b - a for a, b in zip(self._steal, steal, strict=True)]
        )
        self.steal = None if spans is None or not spans[0] else spans[1] / spans[0]
        throttled = _throttled()
        self.throttled = None if throttled is None or self._throttled is None else throttled - self._throttled
        self.after = spin_probe()

    def to_dict(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "load_1m": round(os.getloadavg()[0], 2),
            "cores": len(os.sched_getaffinity(0)),
            "involuntary_switches_per_s": round(self.involuntary / self.wall_s, 2) if self.wall_s else None,
            "cpu_share": round(self.cpu_s / self.wall_s, 3) if self.wall_s else None,
            "throttled_periods": self.throttled,
            "steal_share": None if self.steal is None else round(self.steal, 5),
        }


def unsteady(noise: dict[str, Any]) -> list[str]:
    """Say in words why a run's figures are worth less; empty on a quiet machine.

    The bounds are where the disturbance begins to show in a p99: the probe's own 99th percentile half as long again as its
    median, one percent of the time stolen, a speed that changed by a tenth while measuring.
    """
    reasons = []
    worst = max(noise["before"]["spin_p99_ratio"], noise["after"]["spin_p99_ratio"])
    if worst > 1.5:
        reasons.append(f"the same work took up to {worst:.1f} times as long (p99 of the spin probe over its median)")
    change = noise["after"]["spin_us"] / noise["before"]["spin_us"]
    if not 0.9 <= change <= 1.1:
        reasons.append(f"the processor's speed changed by {change - 1:+.0%} from before to after")
    if noise["steal_share"] is not None and noise["steal_share"] > 0.01:
        reasons.append(f"{noise['steal_share']:.1%} of the time was stolen by other guests of the host")
    if noise["throttled_periods"]:
        reasons.append(f"this container's quota of processor time ran out {noise['throttled_periods']} time(s)")
    if noise["load_1m"] > noise["cores"] + 0.5:
        reasons.append(f"load average {noise['load_1m']:g} on {noise['cores']} cores: others were at work")
    return reasons


def _processor_ticks() -> tuple[int, int] | None:
    """Return (all, stolen) ticks of all processors since boot; None where the kernel does not tell."""
    try:
        fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return None
    return (sum(fields), fields[7]) if len(fields) == 8 else None


def _throttled() -> int | None:
    """Return how often the control group's quota has run out; None where there is none to be read."""
    for path in (Path("/sys/fs/cgroup/cpu.stat"), Path("/sys/fs/cgroup/cpu/cpu.stat")):
        try:
            pairs = dict(line.split() for line in path.read_text().splitlines())
            return int(pairs["nr_throttled"])
        except (OSError, ValueError, KeyError):
            continue
    return None
