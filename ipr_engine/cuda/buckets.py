"""A `Bucket` is a fixed shape that work on a GPU is planned for; `Passes` sends rows through.

make_buckets, plan_passes     the shapes of an engine, and which rows pass together
Passes, fill_rows             rows through recordings: how many fly at once, when the host waits
PromptReader, StreamEncoder   what a transformer tier offers, so that its buckets can be recorded with the decision
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ipr_engine._C import WordPiece
from ipr_engine.cuda.block import Block, Fields
from ipr_engine.cuda.graphs import Graphs, Recording, Work
from ipr_engine.errors import InvalidInputError

DEFAULT_BATCHES = (1, 8, 32)
DOUBLED = 2  # slots of the largest batch: the host fills one while the other runs


@dataclass(frozen=True, order=True)
class Bucket:
    """A `Bucket` is a shape of input_ids: `batch` rows of `tokens` ids. str() is "8 x 64"."""

    tokens: int
    batch: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.tokens

    def __str__(self) -> str:
        return f"{self.batch} x {self.tokens}"


@dataclass(frozen=True)
class Pass:
    """A `Pass` takes the rows begin to end (exclusive) through buckets[bucket]; the bucket's other rows are padding."""

    bucket: int
    begin: int
    end: int


def make_buckets(max_tokens: int, batches: Sequence[int] = DEFAULT_BATCHES) -> tuple[Bucket, ...]:
    """Pair every batch with every length 16, 32, 64, ... below max_tokens, and max_tokens; ascending by tokens, then batch."""
    if not batches or any(type(batch) is not int or batch < 1 for batch in batches):
        raise InvalidInputError(f"batches: expected ints >= 1, got {list(batches)!r}")
    lengths = [max_tokens]
    tokens = 16
    while tokens < max_tokens:
        lengths.append(tokens)
        tokens *= 2
    return tuple(sorted(Bucket(tokens, batch) for tokens in lengths for batch in set(batches)))


def plan_passes(lengths: Sequence[int], buckets: Sequence[Bucket]) -> list[Pass]:
    """Return the passes that take all rows.

    The longest row left decides the tokens; the rows that need as many decide the batch: the smallest that holds them, else the
    largest. Shorter rows ride along where it has room.

    Args:
        lengths: ids per row, descending, each at most the largest bucket's tokens.
        buckets: ascending, as `make_buckets` gives them: a full grid.
    """
    sizes = sorted({bucket.tokens for bucket in buckets})
    batches = sorted({bucket.batch for bucket in buckets})
    index = {bucket.shape: i for i, bucket in enumerate(buckets)}
    passes: list[Pass] = []
    begin = 0
    while begin < len(lengths):
        tokens = next(size for size in sizes if size >= lengths[begin])
        # Rows as short as the next smaller length do not count towards the batch; they would fit a cheaper bucket.
        below = max((size for size in sizes if size < tokens), default=0)
        run = next((i for i in range(begin, len(lengths)) if lengths[i] <= below), len(lengths)) - begin
        batch = next((size for size in batches if size >= run), batches[-1])
        end = min(begin + batch, len(lengths))
        passes.append(Pass(index[batch, tokens], begin, end))
        begin = end
    return passes


class Slot(Protocol):
    """A `Slot` holds the buffers of one pass, and the recording that reads and writes them."""

    @property
    def recording(self) -> Recording: ...


SlotT = TypeVar("SlotT", bound=Slot)


class Passes(Generic[SlotT]):
    """`Passes` holds the slots of every bucket, made largest first so that the first recording sizes the memory that all share.

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
            try:
                begin()
                turn = dict.fromkeys(self.slots, 0)
                for step in steps:
                    slots = self.slots[step.bucket]
                    slot = slots[turn[step.bucket] % len(slots)]
                    turn[step.bucket] += 1
                    if any(slot is other for other, _ in flying):  # its results are not collected yet
                        land(slot)
                    fill(slot, step)
                    flying.append((slot, step))
                    slot.recording.replay()
                if flying:
                    land(flying[-1][0])
            except BaseException:
                # The next caller writes into these buffers, which a replay in flight would read, and answer by its number.
                with suppress(RuntimeError):  # of a lost device: the error that is raised tells it
                    self.graphs.settle()
                raise


def fill_rows(host: Mapping[str, NDArray[Any]], rows: Sequence[NDArray[np.int64]], pad_id: int) -> None:
    """Write rows into a pass's ids and lengths, and its mask where it has one; the rows left over see one token of padding."""
    ids, lengths, mask = host["ids"], host["lengths"], host.get("mask")
    ids.fill(pad_id)
    lengths.fill(1)  # a row without one token would be 0 / 0
    for at, own in enumerate(rows):
        ids[at, : len(own)] = own
        lengths[at] = len(own)
    if mask is not None:
        np.less(np.arange(ids.shape[1]), lengths[:, None], out=mask, casting="unsafe")


@runtime_checkable
class PromptReader(Protocol):
    """A `PromptReader` is the part of a transformer tier that runs before its transformer: prompts to ids.

    Attributes:
        dim: of an embedding. pad_id: the id that fills a row up.
        max_tokens: the most ids of a prompt, special ones included. special_ids: those before and after its own.
        wordpiece: makes the ids, in C++; None where a library does.
        pooling, normalize: how the tier makes x of token states, in the words of the kernel's KernelVariant.
    """

    dim: int
    max_tokens: int

    @property
    def wordpiece(self) -> WordPiece | None: ...
    @property
    def special_ids(self) -> tuple[list[int], list[int]]: ...

    @property
    def pooling(self) -> Any: ...
    @property
    def normalize(self) -> bool: ...
    @property
    def pad_id(self) -> int: ...

    def read(self, prompts: Sequence[str]) -> tuple[list[NDArray[np.int64]], NDArray[np.int64], NDArray[np.bool_]]:
        """Return ids (none of a prompt without a token), billed_tokens, truncated."""


@runtime_checkable
class StreamEncoder(PromptReader, Protocol):
    """A `StreamEncoder` is a transformer tier whose buckets run in the current stream on buffers of the caller's.

    Attributes:
        graphs: record its work. buckets: ascending, a full grid.
        copies_in: whether its first kernel copies all of a pass's Block to the device; else the caller does.
    """

    graphs: Graphs
    buckets: tuple[Bucket, ...]

    @property
    def copies_in(self) -> bool: ...

    def fields(self, bucket: Bucket) -> Fields:
        """Return what it reads of a pass besides its lengths: "ids", and "mask" of 1 for a token and 0 for padding, if it does."""

    def bind(self, bucket: Bucket, inputs: Block, x: Any) -> Work:
        """Return what enqueues the embedding of a pass into x (batch, dim) float32 on the device.

        Binding checks and allocates; what it returns never waits, and is held as long as it may run.
        inputs: "lengths" (batch,) int32 and `fields`.
        """


@runtime_checkable
class StateEncoder(StreamEncoder, Protocol):
    """A `StateEncoder` is a StreamEncoder that can also stop before pooling, so that the decide kernel pools.

    Attributes:
        norm: the LayerNorm that its states still have to pass (kernels.plan.StateNorm), or None.
        pdl: whether its last kernel lets the next one begin before it has ended.
    """

    @property
    def norm(self) -> Any: ...
    @property
    def pdl(self) -> bool: ...

    def bind_states(self, bucket: Bucket, inputs: Block) -> Callable[[], Any]:
        """Return what enqueues the transformer and returns (batch, tokens, dim) states on the device; as `bind`."""


@runtime_checkable
class OffersStream(Protocol):
    """An `OffersStream` is an encoder whose work can be recorded; one without this member embeds outside of recordings."""

    def on_stream(self, device: str) -> StreamEncoder:
        """Return the encoder as a StreamEncoder on a CUDA device, or on "emulated"."""


def stream_encoder(encoder: object, device: str) -> StreamEncoder | None:
    """Return the encoder as a StreamEncoder on a device; None where its work cannot be recorded."""
    return encoder.on_stream(device) if isinstance(encoder, OffersStream) else None
