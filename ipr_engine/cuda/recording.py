"""Work of fixed shape that is recorded once and replayed: what records it, and what a recording does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

PURPOSE = "the GPU path"  # what an error says torch or triton is missing for

Work = Callable[[], None]


class Recording(Protocol):
    """Recorded work. Only within `Graphs.exclusive`."""

    def replay(self) -> None:
        """Enqueue it, behind what was replayed before."""

    def wait(self) -> None:
        """Wait until its last replay, and all before it, is done."""


class Graphs(Protocol):
    """Where work is recorded and replayed, in one order.

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
