"""This file is the definition of surface features: what a prompt's text looks like, as numbers in [0, 1]. The C++ gives the same bits.

    text -> symbols (surface_text.py) -> counts -> columns (surface_columns.py)

Every count is a whole number; counts above 2**24 are 2**24. A column is one float32 division of two of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.surface_lexicon import SurfaceLexicon
from ipr_engine.encoders.surface_columns import (
    CONTEXTS,
    ONE,
    PAIRS,
    PUNCTUATION,
    lexicon_columns,
    plain_columns,
)
from ipr_engine.encoders.surface_text import (
    LETTER,
    QUOTE,
    SCRIPTS,
    SPACE,
    SPACED,
    STOP,
    countable,
    symbols_of,
    without_fences,
    without_markers,
)

MOST = 1 << 24  # whole numbers up to it are float32 values
_TOKEN = re.compile(rb"[a-z0-9\x80-\xff]+")
_MULTIPLIER, _U64 = 0x9E3779B97F4A7C15, (1 << 64) - 1
_STOPPING = (ord("."), ord("!"), STOP)


def word_hash(word: bytes) -> int:
    """Return the hash of a word's symbols, which stands for the word: eight of them at a time, the rest padded with zeros."""
    value = 0
    for begin in range(0, len(word), 8):
        value = ((value ^ int.from_bytes(word[begin : begin + 8], "little")) * _MULTIPLIER) & _U64
        value ^= value >> 32
    return value


def surface_reference(text: str, lexicon: SurfaceLexicon) -> npt.NDArray[np.float32]:
    """Return the features of a text: (dim,) float32, each in [0, 1]; all 0 of a text without a character.

    Blind to case, width, kinds of white space and quotes, fences around the whole, and how a list's items are marked.
    """
    counts = surface_counts(text, lexicon)
    columns = (*plain_columns(), *lexicon_columns(tuple(lexicon.categories), lexicon.flags))
    known = {name: min(count, MOST) for name, count in counts.items()}
    above = np.array([known.get(c.count, 0) for c in columns], np.int32)
    below = np.array([c.own * known.get(c.count, 0) + c.half * known.get(c.of, 0) for c in columns], np.int32)
    # Both are rounded to float32 before they are divided.
    return np.divide(above.astype(np.float32), np.maximum(below, 1).astype(np.float32), dtype=np.float32)


def surface_counts(text: str, lexicon: SurfaceLexicon) -> Mapping[str, int]:
    """Return the counts of a text by name; one that is not there is 0."""
    symbols, letters = symbols_of(text)
    symbols, markers = without_markers(without_fences(symbols))
    counts = Counter[str]({ONE: 1})
    tokens = _TOKEN.findall(symbols)
    _count_tokens(counts, tokens, lexicon)
    _count_symbols(counts, symbols)
    counts.update(letters)
    counts["ascii"] = counts["token_characters"] - counts["digits"] - sum(letters[name] for name in SPACED)
    counts["letters"] = counts["ascii"] + sum(letters[name] for name in SCRIPTS)
    # Words of scripts without spaces are estimated: two ideographs or kana each, five letters of the others.
    counts["words"] = len(tokens) + (letters["kana"] + letters["han"] + 1) // 2 + (letters["southeast_asian"] + 4) // 5
    counts["characters"] = countable(symbols)
    counts["sentences"] = max(counts["stops"], 1) if counts["characters"] else 0
    counts["letter_markers"], counts["number_markers"] = markers.letters, markers.numbers
    counts["marker_gaps"] = max(markers.letters - 1, 0)
    counts["gap_characters"], counts["stem_characters"] = markers.last - markers.first, markers.first
    counts["numeric_markers"] = markers.numeric
    return counts


@lru_cache(maxsize=8)
def _categories(of: tuple[tuple[str, tuple[str, ...]], ...]) -> Mapping[int, str]:
    """Return hash -> category. The lowest byte of a hash is left out: the C++ keeps the category in its place."""
    return {word_hash(symbols_of(word)[0]) >> 8: name for name, words in of for word in words}


def _count_tokens(counts: Counter[str], tokens: list[bytes], lexicon: SurfaceLexicon) -> None:
    """Count words and numbers, runs of letters of spaced scripts and digits, and their categories."""
    category_of = _categories(tuple(lexicon.categories.items()))
    seen: set[int] = set()
    last = None
    for place, token in enumerate(tokens):
        size, hashed = len(token), word_hash(token)
        seen.add(hashed >> 56)
        category = category_of.get(hashed >> 8)
        counts["tokens"] += 1
        counts["token_characters"] += size
        counts["longest_word"] = max(counts["longest_word"], size)
        counts["long_words"] += size >= 8
        if token.isdigit():
            counts["numbers"] += 1
            counts["long_numbers"] += size >= 3
            counts["years"] += size == 4 and token[:1] in b"12"
            counts["most_digits"] = max(counts["most_digits"], size)
        elif any(chr(symbol).isdigit() for symbol in token if symbol < 0x80):
            counts["mixed_words"] += 1
        if category is not None:
            counts[f"of_{category}"] += 1
            if category in lexicon.flags:
                last = category
                counts[f"first_{category}"] += place == 0
    if last is not None:
        counts[f"last_{last}"] = 1
    counts["distinct_words"] = len(seen)  # words whose hashes share their highest byte are one
    counts["digits"] = sum(48 <= symbol < 58 for token in tokens for symbol in token)


def _kind(symbol: int, beside: int) -> str:
    """Return the kind of the symbol beside another, as `Context` names it."""
    if symbol == SPACE:
        return "s"
    if symbol == LETTER or symbol >= 0x80 or ord("a") <= symbol <= ord("z"):
        return "a"
    if ord("0") <= symbol <= ord("9"):
        return "d"
    return "=" if symbol == beside else "o"


def _count_symbols(counts: Counter[str], symbols: bytes) -> None:
    """Count punctuation, alone, in its context, and in pairs; and what the text begins and ends with."""
    named = {ord(symbol): name for name, symbol in PUNCTUATION.items()}
    padded = b" " + symbols + b" "
    for before, symbol, after in zip(padded, symbols, padded[2:], strict=False):
        if not _is_punctuation(symbol):
            continue
        counts["symbols"] += 1
        if symbol in named:
            counts[named[symbol]] += 1
        around = (_kind(before, symbol), _kind(after, symbol))
        for context in CONTEXTS:
            if chr(symbol) in context.symbols and around[0] in context.before and around[1] in context.after:
                counts[context.name] += 1
        for name, pairs in PAIRS.items():
            counts[name] += chr(symbol) + chr(after) in pairs
    counted = [symbol for symbol in symbols if symbol not in (SPACE, QUOTE)]
    if counted:
        counts["ends_asking"] = int(counted[-1] == ord("?"))
        counts["ends_open"] = int(counted[-1] == ord(":"))
        counts["ends_stopped"] = int(counted[-1] in _STOPPING)
        counts["starts_odd"] = int(_is_punctuation(counted[0]))


def _is_punctuation(symbol: int) -> bool:
    """Return whether a symbol is neither part of a word nor white space nor a quote."""
    return symbol not in (SPACE, QUOTE) and _kind(symbol, 0) not in "ad"
