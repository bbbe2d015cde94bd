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
from dataclasses import dataclass
from typing import Any, Protocol, Self

from ipr_engine._extras import need
from ipr_engine.cuda import EMULATED
from ipr_engine.cuda.driver import GRAPH_CALLS, Driver
from ipr_engine.cuda.lost_device import PURPOSE, DeviceFailure, ran_out
from ipr_engine.errors import BackendUnavailableError, InvalidInputError, OutOfDeviceMemoryError

Work = Callable[[], None]


# what C++ replays: the address of a graph ready to launch (CUgraphExec), or the work itself where nothing was captured
NativeReplay = int | Work


class Recording(Protocol):
    """A `Recording` is recorded work; it is called only within `Graphs.exclusive`, or while `Graphs.turn` is held."""

    @property
    def native(self) -> NativeReplay | None:
        """What C++ replays; None where torch gives no graph's address."""

    def replay(self) -> None:
        """Enqueue the work behind all earlier replays.

        Raises:
            OutOfDeviceMemoryError: it was not launched; later work may be.
        """

    def wait(self) -> None:
        """Wait until the last replay of this work, and all before it, are done."""


@dataclass(frozen=True)
class NativeCalls:
    """`NativeCalls` are what C++ needs to replay a CUDA graph.

    Attributes:
        addresses: name of a function of the driver -> its address. context, stream: of the replays, as addresses.
    """

    addresses: dict[str, int]
    context: int
    stream: int


class Graphs(Protocol):
    """`Graphs` hold a device's recordings, replayed in one order; CudaGraphs and EagerGraphs are the two kinds.

    Attributes:
        device: the torch device its buffers are on, "cuda:0" or "cpu".
        kind: "CUDA graphs" or "eager".
    """

    device: str
    kind: str

    @property
    def turn(self) -> threading.Lock:
        """The lock of `exclusive`, for work that needs neither torch's stream nor its modes."""

    @property
    def failed(self) -> bool:
        """Whether the device failed; `exclusive` says how."""

    def lose(self, error: RuntimeError) -> None:
        """Remember the failure of the device that `error` reports, so that `exclusive` tells it; raise any other error."""

    def settle(self) -> None:
        """Wait until nothing of the replays is in flight; only within `exclusive`."""

    def native_calls(self) -> NativeCalls | None:
        """Return what C++ launches the recordings with; None where it calls them."""

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Make a zeroed torch tensor on the device; its address stays."""

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        """Make a zeroed torch tensor on the host, pinned where the device reads it."""

    def workspace(self, size: int) -> Any:
        """Return `size` bytes of the device's memory, uint8, that all recordings of this owner share, whatever they leave there.

        They never run at the same time: a recording writes what it reads of it, and keeps nothing there. Ask for the largest
        first; a larger one that is asked for later is another.
        """

    def record(self, label: str, work: Work) -> Recording:
        """Run `work` to warm it up, then record it. The recording holds `work`, hence every tensor that it refers to: a
        graph reads and writes their addresses.

        Raises:
            BackendUnavailableError: the work cannot be captured, it waits for the device, say.
        """

    def for_owner(self) -> Graphs:
        """Return the same device, order and memory for recordings that are freed together, with a capture stream and a workspace of
        their own.

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


class _InTurns:
    """Graphs that are `_InTurns` share a device's lock and its failure with all that are made for its owners, but no workspace."""

    _torch: Any
    _failure: DeviceFailure
    scratch: Any = None  # what `workspace` gave last

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        raise NotImplementedError

    def workspace(self, size: int) -> Any:
        if self.scratch is None or len(self.scratch) < size:
            self.scratch = self.buffer((size,), self._torch.uint8)
        return self.scratch[:size]

    def for_owner(self) -> Self:
        owner = copy.copy(self)  # the same lock; CudaGraphs: the same replay stream and pool
        owner.scratch = None
        return owner

    @property
    def turn(self) -> threading.Lock:
        return self._failure.turn

    @property
    def failed(self) -> bool:
        return self._failure.failed

    def lose(self, error: RuntimeError) -> None:
        self._failure.lose(error)


class EagerGraphs(_InTurns):
    """`EagerGraphs` capture nothing: `replay` runs the work.

    Args:
        device: "cpu"; or a CUDA device, to measure what a graph saves, and for a profiler, which sees ranges there.
    """

    kind = "eager"

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._torch = need("torch", PURPOSE, "gpu")
        self._on_cpu = self._torch.device(device).type == "cpu"
        self._failure = DeviceFailure(self._torch, device)

    def settle(self) -> None:
        if not self._on_cpu:
            self._torch.cuda.synchronize(self.device)

    def native_calls(self) -> None:
        return None

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, device=self.device)

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, pin_memory=not self._on_cpu)

    def planning(self, label: str) -> AbstractContextManager[None]:
        return nullcontext()

    def record(self, label: str, work: Work) -> Recording:
        with self.exclusive():
            work()
            recording = _EagerRecording(self._torch, work, self.settle)
            recording.wait()
        return recording

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        order = nullcontext if self._on_cpu else lambda: self._torch.cuda.device(self.device)
        with self._failure.exclusive(order), self._torch.inference_mode():
            yield


class _EagerRecording:
    """An `_EagerRecording` is work that `replay` runs, and what waits for it."""

    def __init__(self, torch: Any, work: Work, wait: Work) -> None:
        self._torch, self.replay, self.wait = torch, work, wait

    def native(self) -> None:
        """Run the work to its end."""
        with self._torch.inference_mode():
            self.replay()
            self.wait()


class CudaGraphs(_InTurns):
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
            built = torch.version.cuda is not None
            todo = "see that nvidia-smi lists a GPU" if built else "it is built for CPUs: install one for CUDA"
            raise BackendUnavailableError(
                f"device: {device!r} was asked for and this torch ({torch.__version__}) finds no CUDA device or driver; {todo}, or "
                "take device 'cpu'"
            )
        index = torch.device(device).index
        index = torch.cuda.current_device() if index is None else index
        if index >= torch.cuda.device_count():
            raise BackendUnavailableError(
                f"device: {device!r} was asked for, and there are {torch.cuda.device_count()}; they count from 'cuda:0'"
            )
        self.device = f"cuda:{index}"
        self._failure = DeviceFailure(torch, f"{self.device} ({torch.cuda.get_device_name(index)})", lock)
        self._held_before = torch.cuda.memory_reserved(self.device)
        self._memory_bytes = memory_bytes
        self._stream = torch.cuda.Stream(self.device)  # of replays
        self.side_stream = torch.cuda.Stream(self.device)  # of warm-ups and captures; an owner's own
        self._pool = torch.cuda.graph_pool_handle()

    def settle(self) -> None:
        self._stream.synchronize()

    def native_calls(self) -> NativeCalls:
        driver = Driver()
        with self._torch.cuda.device(self.device):
            self._torch.cuda.current_stream().synchronize()  # the device's primary context is current after a call of torch's
            context = driver.current_context()
        return NativeCalls(driver.addresses(GRAPH_CALLS), context, self._stream.cuda_stream)

    def buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, device=self.device)

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> Any:
        return self._torch.zeros(shape, dtype=dtype, pin_memory=True)

    def for_owner(self) -> Self:
        owner = super().for_owner()
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
                recording = _CudaRecording(torch, graph, self._stream, work, label)
                recording.replay()  # the first launch uploads the graph
                recording.wait()
            except RuntimeError as error:
                if ran_out(torch, error) or "captur" not in str(error):
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
        except (RuntimeError, OutOfDeviceMemoryError) as error:
            if not ran_out(torch, error):
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

    def __init__(self, torch: Any, graph: Any, stream: Any, work: Work, label: str) -> None:
        self._torch, self._label = torch, label
        self._graph, self._stream, self._done, self._work = graph, stream, torch.cuda.Event(), work
        self.wait = self._done.synchronize
        address = getattr(graph, "raw_cuda_graph_exec", None)  # torch 2.9 and later
        self.native: int | None = None if address is None else int(address())

    def replay(self) -> None:
        try:
            self._graph.replay()  # in the current stream: that of `exclusive`
        except RuntimeError as error:
            if not ran_out(self._torch, error):
                raise
            raise OutOfDeviceMemoryError(
                f"bucket {self._label}: out of memory on the device when its recording was launched; the engine goes on: free memory "
                "of the device, or use smaller or fewer batches"
            ) from error
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
