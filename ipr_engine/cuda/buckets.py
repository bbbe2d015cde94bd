"""Rows through buckets: which go together, how many passes fly at once, when the host waits."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ipr_engine.cuda.recording import Graphs, Recording
from ipr_engine.cuda.shapes import Bucket, Pass, plan_passes

DOUBLED = 2  # slots of the largest batch: the host fills one while the other runs


class Slot(Protocol):
    """Buffers of one pass and the recording that reads and writes them."""

    @property
    def recording(self) -> Recording: ...


SlotT = TypeVar("SlotT", bound=Slot)


class Passes(Generic[SlotT]):
    """The slots of every bucket, made largest first so that the first recording sizes the memory that all share.

    Args:
        buckets: ascending, a full grid (`make_buckets`).
        make_slot: (graphs, bucket) -> buffers and recording of one bucket, made with these graphs, which are the owner's
            (`Graphs.for_owner`). The largest batch of each length gets two of them.
    Attributes:
        slots: index in `buckets` -> the slots of that bucket.
    """

    def __init__(self, graphs: Graphs, buckets: Sequence[Bucket], make_slot: Callable[[Graphs, Bucket], SlotT]) -> None:
        self.graphs, self.buckets = graphs.for_owner(), tuple(buckets)
        largest = max(bucket.batch for bucket in buckets)
        self.slots: dict[int, list[SlotT]] = {}
        order = sorted(range(len(buckets)), key=lambda i: buckets[i].batch * buckets[i].tokens, reverse=True)
        for i in order:
            copies = DOUBLED if buckets[i].batch == largest > 1 else 1
            with self.graphs.planning(str(buckets[i])):
                self.slots[i] = [make_slot(self.graphs, buckets[i]) for _ in range(copies)]

    def run(
        self,
        lengths: Sequence[int],
        fill: Callable[[SlotT, Pass], None],
        collect: Callable[[SlotT, Pass], None],
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        """Send rows through; one wait at the end, and one whenever a bucket's slots are all in flight.

        Args:
            lengths: ids per row, descending, each at most the largest bucket's tokens.
            fill: writes a pass's rows into a slot's host buffers. collect: reads its results from there.
            begin: enqueues what goes before the first pass.
        Raises:
            DeviceLostError: the device failed.
        """
        flying: deque[tuple[SlotT, Pass]] = deque()

        def land(until: SlotT) -> None:
            until.recording.wait()  # all before it are done too
            while flying:
                slot, step = flying.popleft()
                collect(slot, step)
                if slot is until:
                    return

        steps = plan_passes(lengths, self.buckets)
        with self.graphs.exclusive():
            begin()
            turn = dict.fromkeys(self.slots, 0)
            for step in steps:
                slots = self.slots[step.bucket]
                slot = slots[turn[step.bucket] % len(slots)]
                turn[step.bucket] += 1
                if any(slot is other for other, _ in flying):
                    land(slot)
                fill(slot, step)
                slot.recording.replay()
                flying.append((slot, step))
            if flying:
                land(flying[-1][0])


def fill_rows(ids: NDArray[Any], mask: NDArray[Any], rows: Sequence[NDArray[np.int64]], pad_id: int) -> None:
    """Write rows into a bucket's (batch, tokens) ids and mask; what is left is padding of which one token is seen."""
    ids.fill(pad_id)
    mask.fill(0)
    for at, own in enumerate(rows):
        ids[at, : len(own)] = own
        mask[at, : len(own)] = 1
    mask[len(rows) :, 0] = 1  # a row without one token would be 0 / 0
