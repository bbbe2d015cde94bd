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

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import blake2b
from typing import overload

import numpy as np
import numpy.typing as npt

from ipr_engine.data.outcomes import MIN_KEY, normalised
from ipr_engine.data.progress import Progress
from ipr_engine.data.shingles import Shingler, UInt64, batches, mix
from ipr_engine.errors import InvalidInputError

THRESHOLD = 0.8
LEAST_THRESHOLD = 0.7  # below it MinHash would overlook too many pairs
BANDS, ROWS = 25, 5
REPRESENTATIVES = 16  # kept per bucket: bounds the work where one template fills a bucket
AHEAD = 1024  # texts whose shingles are made together
MOST_KEPT = 1 << 23  # codes of shingles held, to save making them again: 64 MB
MOST_APART = 1 << 21  # pairs held that are not similar: 160 MB
ESTIMATE_MARGIN = 0.2  # 5 standard deviations of a similarity estimated from 125 hashes at 0.8
SEED = 20240612  # of the hash functions; part of the method, so that groups are the same everywhere


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
        for begin, some in batches(texts):
            signatures[begin : begin + len(some)] = _minima(*shingles.of(some))
            progress.advance(len(some))
    joiner = _Joiner(texts, rows, signatures, forest, threshold, shingles)
    for band in range(BANDS):
        shared = _shared_buckets(signatures[:, band * ROWS : (band + 1) * ROWS])
        representatives: defaultdict[int, list[int]] = defaultdict(list)
        for begin in range(0, len(shared), AHEAD):
            part = shared[begin : begin + AHEAD]
            joiner.look_ahead([(i, representatives[bucket]) for i, bucket in part])
            for i, bucket in part:
                # Texts whose hashes agree in the whole band; those that joined a representative need not stand for themselves.
                mine = representatives[bucket]
                if not joiner.joins_one(i, mine) and len(mine) < REPRESENTATIVES:
                    mine.append(i)
                    joiner.stands(i)


def _shared_buckets(band: npt.NDArray[np.uint32]) -> list[tuple[int, int]]:
    """Return text and bucket number of the texts that share all hashes of a band (texts, ROWS) with another, by rising text."""
    key = np.zeros(len(band), dtype=np.uint64)
    for place in range(ROWS):
        key = mix(key ^ band[:, place])
    order = np.argsort(key, kind="stable")
    follows = np.append(False, key[order][1:] == key[order][:-1])  # whether it is of the bucket of the one before
    bucket = np.cumsum(~follows)
    shared = order[follows | np.append(follows[1:], False)]
    of_text = np.empty(len(band), dtype=np.int64)
    of_text[order] = bucket
    shared.sort()
    return list(zip(shared.tolist(), of_text[shared].tolist(), strict=True))


@dataclass(eq=False)
class _Joiner:
    """A `_Joiner` compares a text with the representatives of its bucket.

    Attributes:
        kept: text -> its shingles, `held` codes together.
        ahead, near: of the texts that come next: their shingles, and which representatives may be similar.
        apart: pairs that were compared and are not similar, as `_pair` numbers them: they meet in several bands.
    """

    texts: Sequence[str]
    rows: list[int]
    signatures: npt.NDArray[np.uint32]
    forest: _Forest
    threshold: float
    shingles: Shingler
    kept: dict[int, UInt64] = field(default_factory=dict)
    ahead: dict[int, UInt64] = field(default_factory=dict)
    near: dict[int, list[bool]] = field(default_factory=dict)
    apart: set[int] = field(default_factory=set)
    held: int = 0

    def joins_one(self, i: int, representatives: list[int]) -> bool:
        """Join text i with the first of these that it is similar to, and return whether there is one."""
        root, rows = self.forest.root, self.rows
        for place, j in enumerate(representatives):
            if root(rows[i]) == root(rows[j]):
                return True
            if not self._close(i, representatives)[place] or self._pair(j, i) in self.apart:
                continue
            if _jaccard(self._shingles(i), self._shingles(j)) >= self.threshold:
                self.forest.join(rows[j], rows[i])
                return True
            if len(self.apart) >= MOST_APART:
                self.apart.clear()
            self.apart.add(self._pair(j, i))
        return False

    def stands(self, i: int) -> None:
        """Keep the shingles of a text that has become a representative."""
        if i in self.ahead:
            self._keep(i, self.ahead[i])

    def look_ahead(self, coming: list[tuple[int, list[int]]]) -> None:
        """Make the shingles of those of these texts that their representatives so far are close to: many at once take less time."""
        self.near.clear()
        self.ahead.clear()
        wanted = [i for i, representatives in coming if self._needs_shingles(i, representatives)]
        made = 0
        for begin, some in batches([self.texts[i] for i in wanted]):
            codes, begins = self.shingles.of(some)
            self.ahead.update(zip(wanted[begin:], map(np.unique, np.split(codes, begins[1:])), strict=False))
            made += len(codes)
            if made > MOST_KEPT:
                break

    def _needs_shingles(self, i: int, representatives: list[int]) -> bool:
        """Return whether text i would be compared with one of these."""
        root, rows = self.forest.root, self.rows
        for place, j in enumerate(representatives):
            if root(rows[i]) == root(rows[j]):
                return False
            if self._close(i, representatives)[place] and self._pair(j, i) not in self.apart:
                return True
        return False

    def _pair(self, j: int, i: int) -> int:
        """Return the number of a pair of texts: a number takes half of what a tuple does."""
        return j * len(self.texts) + i

    def _close(self, i: int, representatives: list[int]) -> list[bool]:
        """Return whether each may be similar to text i, as the share of equal minima estimates it: (representatives,)."""
        close = self.near.setdefault(i, [])
        if len(close) < len(representatives):
            equal = self.signatures[representatives[len(close) :]] == self.signatures[i]
            close += (np.count_nonzero(equal, axis=1) >= (self.threshold - ESTIMATE_MARGIN) * BANDS * ROWS).tolist()
        return close

    def _shingles(self, i: int) -> UInt64:
        """Return the shingles of text i."""
        if i in self.ahead:
            return self.ahead[i]
        if i not in self.kept:
            self._keep(i, self.shingles(self.texts[i]))
        return self.kept[i]

    def _keep(self, i: int, shingles: UInt64) -> None:
        """Keep the shingles of text i; forget the others where they are many."""
        if self.held > MOST_KEPT:
            self.kept.clear()
            self.held = 0
        if i not in self.kept:  # a text stands in several bands
            self.kept[i] = shingles
            self.held += len(shingles)


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
