"""A `ServerMetrics` counts what a server does, and writes it for Prometheus, summed over the workers of one server."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from time import sleep, time
from typing import Any, NamedTuple, TypeVar

import orjson

from ipr_engine._extras import need
from ipr_engine.serving import Counters, prometheus_text

SUPPORT_EDGES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
REQUEST_EDGES_S = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60, 120)
_CREATED = re.compile(rb"(?:# \w+ )?\w+_created[ {]")  # when each series began: known only where there is one worker
READINGS, READ_AGAIN_S = 50, 0.01
Read = TypeVar("Read")
SHARED = "PROMETHEUS_MULTIPROC_DIR"
"""The variable by which prometheus_client knows the folder that the workers of one server share; `ipr serve` sets it."""


class MetricSample(NamedTuple):
    """A `MetricSample` is one figure of a metric."""

    name: str
    labels: Mapping[str, str]
    value: float


class ServerMetrics:
    """A `ServerMetrics` holds the counters of one app in one worker.

    Labels are names of the config and of the bundle, and fixed words: no text of a request is one.

    Attributes:
        swaps_failed: in this worker alone.
    """

    def __init__(self) -> None:
        client = self._client = need("prometheus_client", "a server's metrics", "serve")
        registry = self._registry = client.CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Any:
            return _children(client.Counter(name, text, labels, registry=registry), labels)

        def histogram(name: str, text: str, edges: Iterable[float], *labels: str) -> Any:
            return _children(client.Histogram(name, text, labels, registry=registry, buckets=edges), labels)

        def gauge(name: str, text: str, mode: str, *labels: str) -> Any:
            return _children(client.Gauge(name, text, labels, registry=registry, multiprocess_mode=mode), labels)

        self.requests = counter(
            "ipr_requests_total", "Replies by path, tenant and HTTP status; 499: the client left first.",
            "path", "tenant", "status",
        )  # fmt: skip
        self.request_s = histogram(
            "ipr_request_seconds", "Time of a request, its upstream and its stream included.", REQUEST_EDGES_S, "path"
        )
        self.in_flight = gauge("ipr_in_flight", "Requests that are being answered, as of a second ago.", "livesum")
        self.support = histogram(
            "ipr_support", "How close prompts are to the fitting data; 0 is farther than all held out.", SUPPORT_EDGES
        )
        self.masked = counter(
            "ipr_masked_total", "Requests that a candidate was left out of, since its upstream cannot speak their format.",
            "candidate", "format",
        )  # fmt: skip
        self.served = counter(
            "ipr_served_total", "Answers of upstreams, by who answered and cause; fallback: not the one chosen.",
            "candidate", "cause",
        )  # fmt: skip
        self.explored = counter(
            "ipr_explored_total", "Requests that chance sent to another candidate than the policy's choice, by who was asked.",
            "candidate",
        )  # fmt: skip
        self.cost = counter(
            "ipr_cost_usd_total", "Predicted cost in USD of the candidates that answered, or were chosen where none is asked.",
            "candidate", "tenant",
        )  # fmt: skip
        self.saved = gauge(
            "ipr_saved_usd", "Predicted USD saved against the policy's best single candidate on the same requests.",
            "sum", "tenant",
        )  # fmt: skip
        self.attempts = counter(
            "ipr_upstream_attempts_total",
            "Attempts at upstreams by outcome: ok, a status, connect, timeout, broken, cut (after the first byte), left.",
            "candidate", "outcome",
        )  # fmt: skip
        self.first_byte_s = histogram(
            "ipr_upstream_first_byte_seconds", "Time to an upstream's first byte, of attempts that succeeded.",
            REQUEST_EDGES_S, "candidate",
        )  # fmt: skip
        self.up = gauge(
            "ipr_upstream_up", "1: asked; 0.5: the next request probes it; 0: passed over. The least over workers.",
            "livemin", "candidate",
        )  # fmt: skip
        self.cut = counter(
            "ipr_streams_cut_total",
            "Streams that ended with an error event, and other replies that broke off.",
            "candidate",
            "tenant",
        )
        self.shadow = counter(
            "ipr_shadow_total", "Decisions of the shadow bundle: same, other, failed, left_out.", "choice"
        )
        self.shadow_cost = gauge(
            "ipr_shadow_cost_usd",
            "Predicted USD that the shadow's choices would have cost more (or, below 0, less).",
            "sum",
        )
        self.shadow_quality = gauge(
            "ipr_shadow_quality", "Sum of predicted quality that the shadow's choices would have gained, by its own heads.",
            "sum",
        )  # fmt: skip
        self.assumed = counter("ipr_assumed_parts_total", "Parts billed by server.assumed_tokens.", "kind")
        self.log_dropped = counter(
            "ipr_log_lines_dropped_total",
            "Lines of the log that were lost, since nobody read it in time or it took no more.",
        )
        self._swap_failures = counter(
            "ipr_swap_failures_total", "Bundles of CURRENT that could not be served; each worker tries, and counts."
        )
        self.swaps_failed = 0
        self.started = gauge("ipr_start_time_seconds", "When the server started, in seconds since the epoch.", "min")
        self.started.set(time())

    def swap_failed(self) -> None:
        """Count a bundle that could not be put in place, or does not suit the config."""
        self.swaps_failed += 1
        self._swap_failures.inc()

    def text(self, counters: Iterable[Counters]) -> bytes:
        """Write everything, of all workers.

        counters: those of each worker's engine, summed: decisions, stages, the queue.
        """
        written_at_all: bytes = _read_again(lambda: self._client.generate_latest(self._of_all_workers()))
        lines = written_at_all.splitlines(keepends=True)
        written = b"".join(line for line in lines if not _CREATED.match(line))
        return written + prometheus_text(Counters.sum(counters), prefix="ipr").encode()

    def samples(self) -> list[MetricSample]:
        """Return every figure but the engine's, of all workers. It takes milliseconds."""
        metrics: list[Any] = _read_again(lambda: list(self._of_all_workers().collect()))
        found = (sample for metric in metrics for sample in metric.samples)
        return [MetricSample(sample.name, sample.labels, sample.value) for sample in found]

    def _of_all_workers(self) -> Any:
        if not os.environ.get(SHARED):
            return self._registry
        from prometheus_client import multiprocess

        for ended in _ended(Path(os.environ[SHARED])):
            with contextlib.suppress(FileNotFoundError):  # another look was faster
                multiprocess.mark_process_dead(ended)
        registry = self._client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)
        return registry


class WorkerCounters:
    """A `WorkerCounters` shares the counters of this worker's engine with the other workers of its server, through a folder."""

    def __init__(self) -> None:
        shared = os.environ.get(SHARED)
        self._folder = None if not shared else Path(shared)

    def write(self, counters: Counters) -> None:
        """Leave this worker's counters for the others."""
        if self._folder is not None:
            made = self._folder / f".engine-{os.getpid()}"
            made.write_bytes(orjson.dumps(counters.to_json()))
            made.replace(self._folder / f"engine-{os.getpid()}.json")

    def all(self, own: Counters) -> list[Counters]:
        """Return the counters of all workers, of this one as they are now. Of one that has ended the counts stay, without its depths."""
        if self._folder is None:
            return [own]
        mine = f"engine-{os.getpid()}.json"
        others = sorted(path for path in self._folder.glob("engine-*.json") if path.name != mine)
        found = [own]
        for path in others:
            counters = Counters.from_json(orjson.loads(path.read_bytes()))
            lives = Path(f"/proc/{path.stem.rpartition('-')[2]}").exists()
            found.append(counters if lives else counters.ended)
        return found


def _read_again(read: Callable[[], Read]) -> Read:
    """Return what is read of the files of all workers, once no file is in the middle of being made: prometheus_client fails there."""
    for _ in range(READINGS - 1):
        try:
            return read()
        except (struct.error, ValueError, RuntimeError, OSError):
            sleep(READ_AGAIN_S)
    return read()


def _children(metric: Any, labels: Sequence[str]) -> Any:
    """Return a function from label values to the child they name: looking it up costs prometheus_client a lock and a format."""
    return cache(metric.labels) if labels else metric


def _ended(shared: Path) -> set[int]:
    """Return the workers whose live figures stand in the shared folder, and which have ended."""
    found = {int(path.stem.rpartition("_")[2]) for path in shared.glob("gauge_live*.db")}
    return {pid for pid in found if not Path(f"/proc/{pid}").exists()}
