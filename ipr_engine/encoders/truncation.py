"""Truncation: where a prompt that is too long is cut. The definition csrc/src/static_encoder.cpp implements, for tiers in Python."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cut_between_words(starts: NDArray[np.bool_], max_tokens: int) -> tuple[int, int]:
    """Return which tokens to keep: the head [0, head) and the tail [tail, tokens) (docs/decide.md).

    Half of max_tokens (the head rounded up) from each end, less what it takes to end the head and start the tail between
    words. A half that one word alone overfills is cut inside that word.

    Args:
        starts: (tokens,) whether each token is the first of its word; tokens > max_tokens >= 1.
    """
    room_head, room_tail = max_tokens - max_tokens // 2, max_tokens // 2
    ends = np.flatnonzero(starts[1 : room_head + 1])  # a start at k + 1 lets the head end there
    first = len(starts) - room_tail
    begins = np.flatnonzero(starts[first:])
    head = int(ends[-1]) + 1 if len(ends) else room_head
    tail = first + int(begins[0]) if len(begins) else first
    return head, tail
