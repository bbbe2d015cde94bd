"""Prompts as sets of 5-character shingles, without what many prompts of the source share.

Two kinds of boilerplate are left out. A shingle that 5 % of the prompts (at least 20) have says little by itself. A stretch
of 40 letters and digits does not recur by chance: where `boilerplate_prompts` different prompts have it, a template or a
preamble of theirs, its inside is left out however rare each shingle is in a large source.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ipr_engine.data.questions import FEWEST_SHARING, SHARE_SHARING, boilerplate_prompts

SHINGLE, STRETCH = 5, 40  # characters
COUNT_BITS = 22
MOST_BITS = 26  # of the table that counts stretches: 128 MB
CELLS_PER_STRETCH = 4

UInt64 = npt.NDArray[np.uint64]


class Shingler:
    """Normalised text -> its shingles without boilerplate as sorted 64-bit codes; all of them where nothing else is left."""

    def __init__(self, texts: Sequence[str], advance: Callable[[], None] = lambda: None) -> None:
        """texts: distinct and normalised. advance: called after each."""
        stretches = sum(max(0, len(text) - STRETCH + 1) for text in texts)
        self._bits = min(MOST_BITS, max(16, (CELLS_PER_STRETCH * stretches).bit_length()))
        # Every so many stretches are counted where the table could not hold all; picked by hash, so alike in every text.
        self._every = np.uint64(max(1, -(-CELLS_PER_STRETCH * stretches >> MOST_BITS)))
        common = np.zeros(1 << COUNT_BITS, dtype=np.int32)  # a cell per hash; a shared cell can only hide a shingle
        long = np.zeros(1 << self._bits, dtype=np.uint16)
        for text in texts:
            codes = _codes(text)
            common[_cell(codes, COUNT_BITS)] += 1  # once a text, however often it has the shingle
            cells = _cell(self._counted(_stretches(codes)), self._bits)
            long[cells] += long[cells] < np.iinfo(np.uint16).max
            advance()
        self._common = common >= max(FEWEST_SHARING, SHARE_SHARING * len(texts))
        self._long = long >= boilerplate_prompts(len(texts))

    def __call__(self, text: str) -> UInt64:
        codes = _codes(text)
        kept = ~self._common[_cell(codes, COUNT_BITS)]
        stretches = _stretches(codes)
        shared = self._long[_cell(stretches, self._bits)] & (stretches % self._every == 0)
        if shared.any():
            edges = np.zeros(
                len(codes) + 1, dtype=np.int32
            )  # +1 where a shared stretch begins, -1 after its last shingle
            edges[: len(shared)] += shared
            edges[np.flatnonzero(shared) + STRETCH - SHINGLE + 1] -= 1
            kept &= np.cumsum(edges)[:-1] == 0
        return np.unique(codes[kept] if kept.any() else codes)

    def _counted(self, stretches: UInt64) -> UInt64:
        return stretches if self._every == 1 else stretches[stretches % self._every == 0]


def _codes(text: str) -> UInt64:
    """A 64-bit code of the 5-character window at every position; a shorter text is one shingle."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(points) < SHINGLE:
        points = np.concatenate([points, np.zeros(SHINGLE - len(points), dtype=np.uint64)])
    windows = np.lib.stride_tricks.sliding_window_view(points, SHINGLE)
    codes = np.zeros(len(windows), dtype=np.uint64)
    for place in range(SHINGLE):
        codes = _mix(codes ^ windows[:, place])
    return codes


def _stretches(codes: UInt64) -> UInt64:
    """A code of the 40 characters from every position on, the sum of their shingles', mixed; empty for a shorter text."""
    inside = STRETCH - SHINGLE + 1
    if len(codes) < inside:
        return np.zeros(0, dtype=np.uint64)
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(codes)])
    return _mix(total[inside:] - total[:-inside])


def _cell(codes: UInt64, bits: int) -> npt.NDArray[np.intp]:
    return (codes >> np.uint64(64 - bits)).astype(np.intp)


def _mix(codes: UInt64) -> UInt64:
    """One round of splitmix64's finaliser."""
    codes = (codes + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return codes ^ (codes >> np.uint64(29))
