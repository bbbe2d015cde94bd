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

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import Any, overload

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
BATCH = 1 << 14  # characters coded at once: their codes stay in the L2 cache

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
    texts = _NormalisedTexts(prompts)
    first = _first_equal(texts)
    forest.join_all(first)
    if keys is not None:
        long = np.flatnonzero([len(key) >= MIN_KEY for key in keys])
        asked = np.arange(len(keys))
        asked[long] = long[_first_equal([keys[row] for row in long.tolist()])]
        forest.join_all(asked)
    # At 1 only equal normalised texts are alike, and those are joined above.
    if threshold < 1 and len(prompts):
        distinct = np.flatnonzero(
            first == np.arange(len(prompts))
        )  # one row per normalised text; the others are its copies
        _join_similar(_NormalisedTexts(prompts, distinct), distinct.tolist(), forest, threshold, verbose)
    roots = [forest.root(row) for row in range(len(prompts))]
    number: dict[int, int] = {}
    return np.array([number.setdefault(root, len(number)) for root in roots], dtype=np.int64)


class _NormalisedTexts(Sequence[str]):
    """`_NormalisedTexts` are prompts as they are compared, each made when it is asked for: kept, they would weigh what the prompts do."""

    def __init__(self, prompts: Sequence[str], rows: npt.NDArray[np.int64] | None = None) -> None:
        """Take the prompts. rows: which of them; None takes all."""
        self._prompts, self._rows = prompts, rows

    def __len__(self) -> int:
        return len(self._prompts) if self._rows is None else len(self._rows)

    @overload
    def __getitem__(self, at: int) -> str: ...
    @overload
    def __getitem__(self, at: slice) -> list[str]: ...
    def __getitem__(self, at: int | slice) -> str | list[str]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        return normalised(self._prompts[at if self._rows is None else self._rows[at]])


def _first_equal(texts: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return (texts,) the place of the first text that is equal to each, by digests of 128 bits: two in 10^9 texts share one with 1e-21."""
    digests = b"".join(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest() for text in texts)
    halves = np.frombuffer(digests, dtype=np.uint64).reshape(-1, 2)
    order = np.lexsort(halves.T)  # stable: of equal ones the first comes first
    begins = np.append(True, (halves[order][1:] != halves[order][:-1]).any(axis=1))[: len(order)]
    first = np.empty(len(order), dtype=np.int64)
    first[order] = order[begins][np.cumsum(begins) - 1]
    return first


def _join_similar(texts: Sequence[str], rows: list[int], forest: _Forest, threshold: float, verbose: bool) -> None:
    """Join rows whose texts are similar; a text here is normalised and distinct, `rows` says whose it is."""
    signatures = np.empty((len(texts), BANDS * ROWS), dtype=np.uint32)
    with Progress("comparing prompts", 2 * len(texts), verbose=verbose) as progress:
        shingles = Shingler(texts, progress.advance)
        for begin, some in _batches(texts):
            signatures[begin : begin + len(some)] = _minima(*shingles.of(some))
            progress.advance(len(some))
    joiner = _Joiner(texts, rows, signatures, forest, threshold, shingles)
    for band in range(BANDS):
        representatives: dict[int, list[int]] = {}
        for i, bucket in _shared_buckets(signatures[:, band * ROWS : (band + 1) * ROWS]):
            # Texts whose hashes agree in the whole band; those that joined a representative need not stand for themselves.
            mine = representatives.setdefault(bucket, [])
            if not joiner.joins_one(i, mine) and len(mine) < REPRESENTATIVES:
                mine.append(i)
        joiner.end_band()


def _batches(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str]]]:
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


def _shared_buckets(band: npt.NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Yield text and bucket number of the texts that share all hashes of a band (texts, ROWS) with another, by rising text."""
    key = np.zeros(len(band), dtype=np.uint64)
    for place in range(ROWS):
        key = _mix(key ^ band[:, place])
    order = np.argsort(key, kind="stable")
    follows = np.append(False, key[order][1:] == key[order][:-1])  # whether it is of the bucket of the one before
    bucket = np.cumsum(~follows)
    shared = order[follows | np.append(follows[1:], False)]
    of_text = np.empty(len(band), dtype=np.int64)
    of_text[order] = bucket
    shared.sort()
    yield from zip(shared.tolist(), of_text[shared].tolist(), strict=True)


@dataclass(eq=False)
class _Joiner:
    """A `_Joiner` compares a text with the representatives of its bucket; `kept` holds the shingles of these."""

    texts: Sequence[str]
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


@cache
def _hash_functions() -> tuple[UInt64, UInt64]:
    """Return odd factors and offsets of multiply-add hashes modulo 2^64, each (BANDS * ROWS,)."""
    random = np.random.default_rng(SEED)
    factors = random.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return factors, random.integers(0, 1 << 63, BANDS * ROWS, dtype=np.uint64)


def _minima(codes: UInt64, begins: npt.NDArray[np.int64]) -> npt.NDArray[np.uint32]:
    """Return the least value of each hash function over the codes of each text, (texts, BANDS * ROWS); codes begin at `begins`."""
    factors, offsets = _hash_functions()
    low = np.empty((BANDS * ROWS, len(begins)), dtype=np.uint64)
    hashed = np.empty_like(codes)
    for least, factor, offset in zip(low, factors, offsets, strict=True):
        # multiply-add modulo 2^64; its high half is the well mixed one
        np.multiply(codes, factor, out=hashed)
        np.add(hashed, offset, out=hashed)
        np.minimum.reduceat(hashed, begins, out=least)
    return (low >> np.uint64(32)).astype(np.uint32).T


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

    def join_all(self, partners: npt.NDArray[np.int64]) -> None:
        """Join each row with the one that stands for it in `partners`, (rows,)."""
        for row in np.flatnonzero(partners != np.arange(len(partners))).tolist():
            self.join(int(partners[row]), row)


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
        for _, some in _batches(texts):
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
        codes = _mix(codes ^ points[place : place + len(codes)])
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
    return _mix(total[at + width] - total[at]), at


def _cell(codes: UInt64, bits: int) -> npt.NDArray[np.intp]:
    """Return the place of each code in a table of 2^bits cells."""
    return (codes >> np.uint64(64 - bits)).astype(np.intp)


def _mix(codes: UInt64) -> UInt64:
    """Run one round of splitmix64's finaliser on each code."""
    codes = (codes + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return codes ^ (codes >> np.uint64(29))
