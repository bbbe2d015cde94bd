"""Buckets: the fixed shapes an engine is built for, one optimisation profile each, and which rows go through which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipr_engine.errors import InvalidInputError

DEFAULT_BATCHES = (1, 8, 32)


@dataclass(frozen=True, order=True)
class Bucket:
    """A shape of input_ids: batch rows of `tokens` ids. str() is "8 x 64"."""

    tokens: int
    batch: int

    @property
    def shape(self) -> tuple[int, int]:
        return self.batch, self.tokens

    def __str__(self) -> str:
        return f"{self.batch} x {self.tokens}"


@dataclass(frozen=True)
class Pass:
    """Rows begin to end (exclusive) go through buckets[bucket] together; the rest of its rows is padding."""

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
    """Return which rows go together.

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
        below = max((size for size in sizes if size < tokens), default=0)
        run = next((i for i in range(begin, len(lengths)) if lengths[i] <= below), len(lengths)) - begin
        batch = next((size for size in batches if size >= run), batches[-1])
        end = min(begin + batch, len(lengths))
        passes.append(Pass(index[batch, tokens], begin, end))
        begin = end
    return passes
