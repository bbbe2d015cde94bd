"""A `Shingler` turns texts into sets of shingles, coded in 64 bits, that leave out what many texts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data.outcomes import FEWEST_SHARING, SHARE_SHARING, boilerplate_prompts

SHINGLE, STRETCH = 5, 40  # characters
COUNT_BITS = 22
MOST_BITS = 26  # of the table that counts stretches: 128 MB
CELLS_PER_STRETCH = 4
BATCH = 1 << 14  # characters coded at once: their codes stay in the L2 cache

UInt64 = npt.NDArray[np.uint64]


class Shingler:
    """A `Shingler` turns a normalised text into its shingles without boilerplate, as sorted 64-bit codes.

    It gives all of them where nothing else is left. Two kinds of boilerplate are left out. A shingle that 5 % of the prompts (at least
    20) have says little by itself. A stretch of 40 letters and digits does not recur by chance: where `boilerplate_prompts` different
    prompts have it, a template or a preamble of theirs, its inside is left out however rare each shingle is in a large source.
    """

    def __init__(self, texts: Sequence[str], advance: Callable[[int], None] = lambda texts: None) -> None:
        """Count the shingles and stretches of `texts`, distinct and normalised; call `advance` with how many are done."""
        wanted = CELLS_PER_STRETCH * sum(max(0, len(text) - STRETCH + 1) for text in texts)  # cells
        self._bits = min(MOST_BITS, max(16, wanted.bit_length()))
        # Every so many stretches are counted where the table could not hold all; picked by hash, so alike in every text.
        self._every = np.uint64(max(1, -(-wanted >> MOST_BITS)))
        common = np.zeros(1 << COUNT_BITS, dtype=np.int32)  # a cell per hash; a shared cell can only hide a shingle
        long = np.zeros(1 << self._bits, dtype=np.uint16)
        for _, some in batches(texts):
            codes, begins = _codes(some)
            _count(common, _cell(codes, COUNT_BITS), begins)
            stretches, at = _stretches(codes, begins)
            counted = self._counted(stretches)
            of_text = np.searchsorted(begins, at[counted], side="right")
            _count(long, _cell(stretches[counted], self._bits), np.searchsorted(of_text, np.arange(1, len(some) + 1)))
            advance(len(some))
        self._common = common >= max(FEWEST_SHARING, SHARE_SHARING * len(texts))
        self._long = long >= boilerplate_prompts(len(texts))

    def __call__(self, text: str) -> UInt64:
        """Return the sorted codes of one text, whether or not it was counted."""
        return np.unique(self.of([text])[0])

    def _counted(self, stretches: UInt64) -> npt.NDArray[np.bool_]:
        """Return whether each stretch is one of those that are counted."""
        return np.ones(len(stretches), np.bool_) if self._every == 1 else stretches % self._every == 0

    def of(self, texts: Sequence[str]) -> tuple[UInt64, npt.NDArray[np.int64]]:
        """Return the codes of some texts one after the other, not sorted, and where each text's begin."""
        codes, begins = _codes(texts)
        kept = ~self._common[_cell(codes, COUNT_BITS)]
        stretches, at = _stretches(codes, begins)
        shared = at[self._long[_cell(stretches, self._bits)] & self._counted(stretches)]
        if len(shared):
            # +1 where a shared stretch begins, -1 after its last shingle; all of a text end where it does
            edges = np.zeros(len(codes) + 1, dtype=np.int32)
            edges[shared] += 1
            edges[shared + STRETCH - SHINGLE + 1] -= 1
            # A shingle lies inside a shared stretch where more of them have begun than ended.
            kept &= np.cumsum(edges)[:-1] == 0
        left = np.add.reduceat(kept, begins, dtype=np.int64)
        sizes = np.diff(np.append(begins, len(codes)))
        kept |= np.repeat(left == 0, sizes)
        left = np.where(left == 0, sizes, left)
        return codes[kept], np.cumsum(left) - left


def _count(table: npt.NDArray[Any], cells: npt.NDArray[np.intp], begins: npt.NDArray[np.intp]) -> None:
    """Count cells of texts, which begin at `begins`, in a table: once a text, however often it has one; a full cell stays full."""
    of_text = np.zeros(len(cells), dtype=np.int64)
    np.add.at(of_text, begins[begins < len(cells)], 1)
    if not len(cells):
        return
    pairs = np.sort(np.cumsum(of_text) * len(table) + cells)
    once = np.sort(pairs[np.append(True, pairs[1:] != pairs[:-1])] & (len(table) - 1))  # a table has 2^bits cells
    first = np.flatnonzero(np.append(True, once[1:] != once[:-1]))
    found, times = once[first], np.diff(np.append(first, len(once)))
    table[found] = np.minimum(table[found] + times, np.iinfo(table.dtype).max)


def _codes(texts: Sequence[str]) -> tuple[UInt64, npt.NDArray[np.int64]]:
    """Return a 64-bit code of the 5-character window at every position of each text, one text after the other, and where each begins.

    A shorter text is one shingle, filled up with zeros.
    """
    joined = "".join(text if len(text) >= SHINGLE else text.ljust(SHINGLE, "\0") for text in texts)
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    codes = np.zeros(len(points) - SHINGLE + 1, dtype=np.uint64)
    for place in range(SHINGLE):
        codes = mix(codes ^ points[place : place + len(codes)])
    sizes = np.array([max(SHINGLE, len(text)) for text in texts], dtype=np.int64)
    inside = np.ones(len(points), dtype=np.bool_)  # windows that do not reach into the next text
    for place in range(1, SHINGLE):
        inside[np.cumsum(sizes) - place] = False
    windows = sizes - SHINGLE + 1
    return codes[inside[: len(codes)]], np.cumsum(windows) - windows


def _stretches(codes: UInt64, begins: npt.NDArray[np.int64]) -> tuple[UInt64, npt.NDArray[np.intp]]:
    """Return a code of the 40 characters from every position on, mixed from the sum of their shingles' codes, and the place of each.

    The codes are those of texts that begin at `begins`; a text shorter than 40 characters has no stretch.
    """
    width = STRETCH - SHINGLE + 1
    if len(codes) < width:
        return np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.intp)
    # Prefix sums give the sum of any window in one subtraction; uint64 wraps around, alike in every text.
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(codes)])
    ends = np.append(begins[1:], len(codes))
    left = np.repeat(ends, ends - begins) - np.arange(len(codes))  # codes from each on, to the end of its text
    at = np.flatnonzero(left >= width)
    return mix(total[at + width] - total[at]), at


def _cell(codes: UInt64, bits: int) -> npt.NDArray[np.intp]:
    """Return the place of each code in a table of 2^bits cells."""
    return (codes >> np.uint64(64 - bits)).astype(np.intp)


def mix(codes: UInt64) -> UInt64:
    """Run one round of splitmix64's finaliser on each code."""
    codes = (codes + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return codes ^ (codes >> np.uint64(29))


def batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield the place of the first of some texts, and these: together at most BATCH characters, or one text."""
    some: list[str] = []
    held = 0
    for i, text in enumerate(texts):
        if held and held + len(text) > BATCH:
            yield i - len(some), some
            some, held = [], 0
        some.append(text)
        held += max(SHINGLE, len(text))
    if some:
        yield len(texts) - len(some), some
