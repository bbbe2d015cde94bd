"""`Graphs` record work of fixed shape once and replay it: as CUDA graphs, or eagerly where there are none.

    graphs = open_graphs("cuda:0")                      # or "emulated": on the CPU, for tests
    recording = graphs.record("1 x 64", work)           # warms up, captures; `work` enqueues and does not wait
    with graphs.exclusive():                            # one caller at a time: recordings share memory
        recording.replay()
        recording.wait()

CudaGraphs has run on one H200 (docs/gpu.md).
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

from ipr_engine._extras import need
from ipr_engine.cuda import EMULATED
from ipr_engine.errors import (
    BackendUnavailableError,
    DeviceLostError,
    InvalidInputError,
    IprError,
    OutOfDeviceMemoryError,
)

PURPOSE = "the GPU path"  # the words of an error where torch or triton is missing

Work = Callable[[], None]


class Recording(Protocol):
    """A `Recording` is recorded work; it is called only within `Graphs.exclusive`."""

    def replay(self) -> None:
        """Enqueue the work behind all earlier replays."""

    def wait(self) -> None:
        """Wait until the last replay of this work, and all before it, are done."""


class Graphs(Protocol):
    """`Graphs` hold a device's recordings, replayed in one order; CudaGraphs and EagerGraphs are the two kinds.

    Attributes:
        device: the torch device its buffers are on, "cuda:0" or "cpu".
        kind: "CUDA graphs" or "eager".
    """

    device: str
    kind: str

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Make a zeroed torch tensor on the device; its address stays."""

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Make a zeroed torch tensor on the host, pinned where the device reads it."""

    def record(self, label: str, work: Work) -> Recording:
        """Run `work` to warm it up, then record it. The recording holds `work`, hence every tensor that it refers to: a
        graph reads and writes their addresses.

        Raises:
            BackendUnavailableError: the work cannot be captured, it waits for the device, say.
        """

    def for_owner(self) -> Graphs:
        """Return the same device, order and memory for recordings that are freed together, with a capture stream of their own.

        A library's workspace belongs to the stream it was captured in, and goes with the first graph that is freed:
        recordings of another owner must not point into it (pytorch#193402).
        """

    def planning(self, label: str) -> AbstractContextManager[None]:
        """Wrap the making of a bucket's buffers and recording.

        Raises:
            OutOfDeviceMemoryError: names `label` and the memory.
        """

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Admit one caller at a time; torch work inside is enqueued in the order of the replays.

        Raises:
            DeviceLostError: the device failed, now or before; there is no further work.
        """


WARM_UPS = 3  # runs before a capture: libraries choose their algorithms and allocate workspaces in the first ones


class _Failure:
    """A `_Failure` remembers a device's failure: a CUDA context does not recover from one."""

    def __init__(self, device: str, lock: threading.Lock | None = None) -> None:
        self._device, self._reason = device, ""
        self._lock = threading.Lock() if lock is None else lock

    @contextmanager
    def exclusive(self, order: Callable[[], Any]) -> Iterator[None]:
        """Admit one caller at a time, inside the context that `order` makes; a device that failed admits none."""
        with self._lock:
            if self._reason:
                raise DeviceLostError(
                    f"device: {self._device} failed before ({self._reason}); this engine does no further work, load "
                    "another one in a new process, or with fallback='cpu'"
                )
            try:
                with order():
                    yield
            except IprError:
                raise
            except RuntimeError as error:
                if not is_device_error(error) or _ran_out(error):
                    raise
                self._reason = str(error).partition("\n")[0]
                raise DeviceLostError(
                    f"device: {self._device} failed in flight: {self._reason}; this engine does no further work"
                ) from error


def _ran_out(error: BaseException) -> bool:
    """Return whether device memory ran out."""
    # Out of memory within a capture, torch ends the capture with an error of its own, whose context is the first one.
    kind = need("torch", PURPOSE, "gpu").OutOfMemoryError
    return isinstance(error, kind) or isinstance(error.__context__, kind)


def is_device_error(error: BaseException) -> bool:
    """Return whether an error of torch or Triton reports a failed device: each says CUDA."""
    kind = getattr(need("torch", PURPOSE, "gpu"), "AcceleratorError", ())  # torch 2.8 and later
    text = str(error)
    return isinstance(error, kind) or any(
        words in text for words in ("CUDA error", "CUDA driver", "Triton Error [CUDA]")
    )


class EagerGraphs:
    """`EagerGraphs` capture nothing: `replay` runs the work.

    Args:
        device: "cpu"; or a CUDA device, to measure what a graph saves, and for a profiler, which sees ranges there.
    """

    kind = "eager"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._torch = need("torch", PURPOSE, "gpu")
        self._on_cpu = self._torch.device(device).type == "cpu"
        self._failure = _Failure(device)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, device=self.device)

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, pin_memory=not self._on_cpu)

    def for_owner(self) -> Graphs:
        return self

    def planning(self, label: str) -> AbstractContextManager[None]:
        return nullcontext()

    def record(self, label: str, work: Work) -> Recording:
        with self.exclusive():
            work()
            recording = _EagerRecording(
                work, lambda: None if self._on_cpu else self._torch.cuda.synchronize(self.device)
            )
            recording.wait()
        return recording

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        order = nullcontext if self._on_cpu else lambda: self._torch.cuda.device(self.device)
        with self._failure.exclusive(order), self._torch.inference_mode():
            yield


class _EagerRecording:
    """An `_EagerRecording` is work that `replay` runs, and what waits for it."""

    def __init__(self, work: Work, wait: Work) -> None:
        self.replay, self.wait = work, wait


class CudaGraphs:
    """`CudaGraphs` are the CUDA graphs of one device that share one memory pool, replayed in one stream.

    Args:
        device: "cuda" or "cuda:N".
        memory_bytes: the most of the device's memory to hold beyond what was held before; None is no bound.
        lock: shared with other work on the same buffers; None is a lock of its own.
    Raises:
        BackendUnavailableError: no driver, no such device, or torch is missing or built without CUDA.
    """

    kind = "CUDA graphs"

    def __init__(
        self, device: str = "cuda", *, memory_bytes: int | None = None, lock: threading.Lock | None = None
    ) -> None:
        torch = self._torch = need("torch", PURPOSE, "gpu")
        if not torch.cuda.is_available():
            raise BackendUnavailableError(
                f"device: {device!r} was asked for and this torch ({torch.__version__}) finds no CUDA device or driver"
            )
        index = torch.device(device).index
        index = torch.cuda.current_device() if index is None else index
        if index >= torch.cuda.device_count():
            raise BackendUnavailableError(
                f"device: {device!r} was asked for, and there are {torch.cuda.device_count()}"
            )
        self.device = f"cuda:{index}"
        self._failure = _Failure(f"{self.device} ({torch.cuda.get_device_name(index)})", lock)
        self._held_before = torch.cuda.memory_reserved(self.device)
        self._memory_bytes = memory_bytes
        self._stream = torch.cuda.Stream(self.device)  # of replays
        self.side_stream = torch.cuda.Stream(self.device)  # of warm-ups and captures; an owner's own
        self._pool = torch.cuda.graph_pool_handle()

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, device=self.device)

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, pin_memory=True)

    def for_owner(self) -> Graphs:
        owner = copy.copy(self)  # the same lock, replay stream and pool
        owner.side_stream = self._torch.cuda.Stream(self.device)
        return owner

    def record(self, label: str, work: Work) -> Recording:
        torch = self._torch
        with self.exclusive():
            try:
                torch.cuda.synchronize(self.device)  # buffers were zeroed in another stream
                with torch.cuda.stream(self.side_stream):
                    for _ in range(WARM_UPS):
                        work()
                self.side_stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                # thread_local: other threads of the process may go on calling CUDA meanwhile
                with torch.cuda.graph(
                    graph, pool=self._pool, stream=self.side_stream, capture_error_mode="thread_local"
                ):
                    work()
                recording = _CudaRecording(torch, graph, self._stream, work)
                recording.replay()  # the first launch uploads the graph
                recording.wait()
            except RuntimeError as error:
                if _ran_out(error) or "captur" not in str(error):
                    raise
                raise BackendUnavailableError(f"bucket {label}: the work cannot be captured: {error}") from error
        return recording

    @contextmanager
    def planning(self, label: str) -> Iterator[None]:
        torch = self._torch
        free = torch.cuda.mem_get_info(self.device)[0]
        reason = ""
        try:
            yield
        except RuntimeError as error:
            if not _ran_out(error):
                raise
            reason = f"{free / 2**20:.0f} MiB were free"
        if not reason and self._memory_bytes is not None:
            held = torch.cuda.memory_reserved(self.device) - self._held_before
            if held > self._memory_bytes:
                reason = f"{held / 2**20:.0f} MiB are held, {self._memory_bytes / 2**20:.0f} MiB were allowed"
        if reason:
            raise OutOfDeviceMemoryError(
                f"bucket {label}: out of memory on {self.device} ({reason}); use smaller or fewer batches"
            )

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        stream = self._torch.cuda.stream
        with self._failure.exclusive(lambda: stream(self._stream)), self._torch.inference_mode():
            yield


class _CudaRecording:
    """A `_CudaRecording` holds a graph, the event behind its last replay, and the work it was captured from.

    The work is never run again: it holds the buffers whose addresses are in the graph. Freed, they would be given to
    others, and a replay would overwrite those.
    """

    def __init__(self, torch: Any, graph: Any, stream: Any, work: Work) -> None:
        self._graph, self._stream, self._done, self._work = graph, stream, torch.cuda.Event(), work
        self.wait = self._done.synchronize

    def replay(self) -> None:
        self._graph.replay()  # in the current stream: that of `exclusive`
        self._done.record(self._stream)


def open_graphs(device: str, *, memory_bytes: int | None = None) -> Graphs:
    """Open the Graphs of a device: "cuda", "cuda:N", or "emulated", which runs the work on the CPU.

    Raises:
        InvalidInputError: another name.
        BackendUnavailableError: as CudaGraphs.
    """
    if device == EMULATED:
        return EagerGraphs("cpu")
    if device.partition(":")[0] != "cuda":
        raise InvalidInputError(f"device: expected 'cuda', 'cuda:N' or '{EMULATED}', got {device!r}")
    return CudaGraphs(device, memory_bytes=memory_bytes)
