"""`duplicate_groups` finds groups of near-duplicate prompts, which must not be torn apart by a split.

Two prompts are near-duplicates when the Jaccard similarity of their sets of 5-character shingles is at least a threshold (0.8 by
default). Case, spaces and punctuation do not count; nor does boilerplate (`Shingler`): templates, preambles, few-shot examples and
answer instructions would make one giant group of a whole task.

Candidates come from MinHash with 25 bands of 5 hashes (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, ch. 3):
a pair of similarity s is looked at with probability 1 - (1 - s^5)^25: 0.990 at 0.7, 0.99995 at 0.8. The similarity
of a candidate pair is then computed, not estimated, so no pair below the threshold is joined directly; groups are closed under
chains of pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ipr_engine.data.outcomes import FEWEST_SHARING, MIN_KEY, SHARE_SHARING, boilerplate_prompts, normalised
from ipr_engine.data.progress import Progress
from ipr_engine.errors import InvalidInputError

THRESHOLD = 0.8
LEAST_THRESHOLD = 0.7  # below it MinHash would overlook too many pairs
BANDS, ROWS = 25, 5
REPRESENTATIVES = 16  # kept per bucket: bounds the work where one template fills a bucket
KEPT = 10_000  # sets of shingles held between bands, to save making them again
ESTIMATE_MARGIN = 0.2  # 5 standard deviations of a similarity estimated from 125 hashes at 0.8
SEED = 20240612  # of the hash functions; part of the method, so that groups are the same everywhere
SHINGLE, STRETCH = 5, 40  # characters
COUNT_BITS = 22
MOST_BITS = 26  # of the table that counts stretches: 128 MB
CELLS_PER_STRETCH = 4

UInt64 = npt.NDArray[np.uint64]


def duplicate_groups(
    prompts: Sequence[str],
    keys: Sequence[str] | None = None,
    *,
    threshold: float = THRESHOLD,
    verbose: bool = False,
) -> npt.NDArray[np.int64]:
    """Return the group number of every prompt, (rows,), numbered by first appearance.

    One group: equal normalised text, an equal question key of 30 characters or more, or similarity >= threshold,
    directly or through others. Time and memory are linear in the characters of all prompts.

    Raises:
        InvalidInputError: threshold outside [0.7, 1], or keys of another length than prompts.
    """
    if not LEAST_THRESHOLD <= threshold <= 1:
        raise InvalidInputError(f"threshold: expected a value in [{LEAST_THRESHOLD}, 1], got {threshold!r}")
    if keys is not None and len(keys) != len(prompts):
        raise InvalidInputError(f"keys: expected one for each of {len(prompts)} prompts, got {len(keys)}")
    forest = _Forest(len(prompts))
    texts = [normalised(prompt) for prompt in prompts]
    first: dict[str, int] = {}
    distinct = []  # one row per normalised text; the others are its copies
    for row, text in enumerate(texts):
        if (seen := first.setdefault(text, row)) == row:
            distinct.append(row)
        else:
            forest.join(seen, row)
    if keys is not None:
        asked: dict[str, int] = {}
        for row, key in enumerate(keys):
            if len(key) >= MIN_KEY:
                forest.join(asked.setdefault(key, row), row)
    # At 1 only equal normalised texts are alike, and those are joined above.
    if threshold < 1:
        _join_similar([texts[row] for row in distinct], distinct, forest, threshold, verbose)
    roots = [forest.root(row) for row in range(len(prompts))]
    number: dict[int, int] = {}
    return np.array([number.setdefault(root, len(number)) for root in roots], dtype=np.int64)


def _join_similar(texts: list[str], rows: list[int], forest: _Forest, threshold: float, verbose: bool) -> None:
    """Join rows whose texts are similar; a text here is normalised and distinct, `rows` says whose it is."""
    signatures = np.empty((len(texts), BANDS * ROWS), dtype=np.uint32)
    factors, offsets = _hash_functions()
    with Progress("comparing prompts", 2 * len(texts), verbose=verbose) as progress:
        shingles = Shingler(texts, progress.advance)
        for i, text in enumerate(texts):
            # multiply-add modulo 2^64; its high half is the well mixed one
            signatures[i] = _minima(shingles(text), factors, offsets) >> np.uint64(32)
            progress.advance()
    joiner = _Joiner(texts, rows, signatures, forest, threshold, shingles)
    for band in range(BANDS):
        part = np.ascontiguousarray(signatures[:, band * ROWS : (band + 1) * ROWS])
        buckets: dict[bytes, list[int]] = {}
        for i in range(len(texts)):
            # Texts whose hashes agree in the whole band; those that joined a representative need not stand for themselves.
            representatives = buckets.setdefault(part[i].tobytes(), [])
            if not joiner.joins_one(i, representatives) and len(representatives) < REPRESENTATIVES:
                representatives.append(i)
        joiner.end_band()


@dataclass(eq=False)
class _Joiner:
    """A `_Joiner` compares a text with the representatives of its bucket; `kept` holds the shingles of these."""

    texts: list[str]
    rows: list[int]
    signatures: npt.NDArray[np.uint32]
    forest: _Forest
    threshold: float
    shingles: Shingler
    kept: dict[int, UInt64] = field(default_factory=dict)

    def joins_one(self, i: int, representatives: list[int]) -> bool:
        """Join text i with the first of these that it is similar to, and return whether there is one."""
        rows, forest = self.rows, self.forest
        # Made once the first candidate is close enough.
        mine: UInt64 | None = None
        for j in representatives:
            if forest.root(rows[i]) == forest.root(rows[j]):
                return True
            # The share of equal minima estimates the similarity: far below the threshold it need not be computed.
            if (self.signatures[i] == self.signatures[j]).mean() < self.threshold - ESTIMATE_MARGIN:
                continue
            if mine is None:
                mine = self.shingles(self.texts[i])
            if j not in self.kept:
                self.kept[j] = self.shingles(self.texts[j])
            if _jaccard(mine, self.kept[j]) >= self.threshold:
                forest.join(rows[j], rows[i])
                return True
        return False

    def end_band(self) -> None:
        """Forget the kept shingles where they are many."""
        if len(self.kept) > KEPT:
            self.kept.clear()


def _hash_functions() -> tuple[UInt64, UInt64]:
    """Return odd factors and offsets of multiply-add hashes modulo 2^64, each (BANDS * ROWS,)."""
    random = np.random.default_rng(SEED)
    factors = random.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return factors, random.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def _minima(shingles: UInt64, factors: UInt64, offsets: UInt64) -> UInt64:
    """Return the least value of each hash function over the shingles, (BANDS * ROWS,)."""
    low = np.full(len(factors), np.iinfo(np.uint64).max, dtype=np.uint64)
    for begin in range(0, len(shingles), 512):  # 500 KiB at a time: stays in the L2 cache
        part = shingles[begin : begin + 512]
        hashed = part[None, :] * factors[:, None] + offsets[:, None]  # (hashes, shingles)
        low = np.minimum(low, hashed.min(axis=1))
    return low


def _jaccard(a: UInt64, b: UInt64) -> float:
    """Return the share of the shingles of either text that both have."""
    shared = len(np.intersect1d(a, b, assume_unique=True))
    return shared / (len(a) + len(b) - shared)


class _Forest:
    """A `_Forest` holds disjoint sets with path halving; the smaller index is the root, so that groups do not depend on the order."""

    def __init__(self, size: int) -> None:
        self._parent = list(range(size))

    def root(self, row: int) -> int:
        """Return the least row of the set that a row is in."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, a: int, b: int) -> None:
        """Make one set of the sets that two rows are in."""
        a, b = sorted((self.root(a), self.root(b)))
        self._parent[b] = a


class Shingler:
    """A `Shingler` turns a normalised text into its shingles without boilerplate, as sorted 64-bit codes.

    It gives all of them where nothing else is left. Two kinds of boilerplate are left out. A shingle that 5 % of the prompts (at least
    20) have says little by itself. A stretch of 40 letters and digits does not recur by chance: where `boilerplate_prompts` different
    prompts have it, a template or a preamble of theirs, its inside is left out however rare each shingle is in a large source.
    """

    def __init__(self, texts: Sequence[str], advance: Callable[[], None] = lambda: None) -> None:
        """Count the shingles and stretches of `texts`, distinct and normalised; call `advance` after each text."""
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
        """Return the sorted codes of one text, whether or not it was counted."""
        codes = _codes(text)
        kept = ~self._common[_cell(codes, COUNT_BITS)]
        stretches = _stretches(codes)
        shared = self._long[_cell(stretches, self._bits)] & (stretches % self._every == 0)
        if shared.any():
            # +1 where a shared stretch begins, -1 after its last shingle
            edges = np.zeros(len(codes) + 1, dtype=np.int32)
            edges[: len(shared)] += shared
            edges[np.flatnonzero(shared) + STRETCH - SHINGLE + 1] -= 1
            # A shingle lies inside a shared stretch where more of them have begun than ended.
            kept &= np.cumsum(edges)[:-1] == 0
        return np.unique(codes[kept] if kept.any() else codes)

    def _counted(self, stretches: UInt64) -> UInt64:
        return stretches if self._every == 1 else stretches[stretches % self._every == 0]


def _codes(text: str) -> UInt64:
    """Return a 64-bit code of the 5-character window at every position; a shorter text is one shingle."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    if len(points) < SHINGLE:
        points = np.concatenate([points, np.zeros(SHINGLE - len(points), dtype=np.uint64)])
    windows = np.lib.stride_tricks.sliding_window_view(points, SHINGLE)
    codes = np.zeros(len(windows), dtype=np.uint64)
    for place in range(SHINGLE):
        codes = _mix(codes ^ windows[:, place])
    return codes


def _stretches(codes: UInt64) -> UInt64:
    """Return a code of the 40 characters from every position on, mixed from the sum of their shingles' codes; none for a shorter text."""
    inside = STRETCH - SHINGLE + 1
    if len(codes) < inside:
        return np.zeros(0, dtype=np.uint64)
    # Prefix sums give the sum of any window in one subtraction; uint64 wraps around, alike in every text.
    total = np.concatenate([np.zeros(1, dtype=np.uint64), np.cumsum(codes)])
    return _mix(total[inside:] - total[:-inside])


def _cell(codes: UInt64, bits: int) -> npt.NDArray[np.intp]:
    """Return the place of each code in a table of 2^bits cells."""
    return (codes >> np.uint64(64 - bits)).astype(np.intp)


def _mix(codes: UInt64) -> UInt64:
    """Run one round of splitmix64's finaliser on each code."""
    codes = (codes + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return codes ^ (codes >> np.uint64(29))
