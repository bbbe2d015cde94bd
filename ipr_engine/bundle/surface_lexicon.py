"""This file reads the lexicon of surface features: categories of words, and those that are told of a text's first and last such word."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ipr_engine._C import SurfaceFeatures
from ipr_engine._read_only import read_only
from ipr_engine.bundle.fields import Field, parse_json
from ipr_engine.errors import BundleValueError, InvalidInputError

DEFAULT_LEXICON = Path(__file__).parent / "surface_lexicon.json"
PLAIN_COLUMNS = 92  # of the features that need no lexicon (encoders/surface_columns.py)
MOST_WORDS = 1024
MOST_CATEGORIES = 64


@dataclass(frozen=True)
class SurfaceLexicon:
    """A `SurfaceLexicon` maps categories to words; the `flags` are some of the categories.

    Attributes:
        categories: name -> words in lower case, no word twice.
        flags: categories that are told of the text's first word, and of its last word that is in one of them.
    """

    categories: Mapping[str, tuple[str, ...]]
    flags: tuple[str, ...]

    @property
    def dim(self) -> int:
        """Columns of the surface features with this lexicon: a count, a share a category, two flags each."""
        return PLAIN_COLUMNS + 2 * len(self.categories) + 2 * len(self.flags)


def parse_lexicon(data: bytes, where: str) -> SurfaceLexicon:
    """Read a lexicon from the bytes of its file.

    Raises:
        BundleFormatError, BundleValueError: it is no {"flags": [category, ...], "categories": {category: [word, ...]}}, a word
            stands twice or looks like another one, cannot be seen (it needs letters or digits of a script with spaces between words),
            or there are more than 64 categories or 1,024 words.
    """
    keys = parse_json(data, where).object(("flags", "categories"))
    categories: dict[str, tuple[str, ...]] = {}
    seen: dict[str, Field] = {}
    for name, words in keys["categories"].mapping().items():
        if not name.strip():
            words.fail("a category with a name", BundleValueError)
        categories[name] = tuple(_word(word, seen) for word in words.list(at_least=1))
    if len(categories) > MOST_CATEGORIES or len(seen) > MOST_WORDS:
        keys["categories"].fail(f"at most {MOST_CATEGORIES} categories and {MOST_WORDS} words", BundleValueError)
    if not _told_apart(list(seen)):
        _fail_word(seen)
    flags = tuple(flag.one_of(tuple(categories)) for flag in keys["flags"].list())
    if len(set(flags)) < len(flags):
        keys["flags"].fail("each category once", BundleValueError)
    return SurfaceLexicon(read_only(categories), flags)


def _word(field: Field, seen: dict[str, Field]) -> str:
    """Return a word in lower case, not seen before, and put it beside its field."""
    word = field.text()
    if word != word.lower() or word.split() != [word]:
        field.fail("one word in lower case", BundleValueError)
    if word in seen:
        field.fail("a word that no category has yet", BundleValueError)
    seen[word] = field
    return word


def _told_apart(words: list[str]) -> bool:
    """Return whether the features see each of these words, and no two of them as one."""
    try:
        SurfaceFeatures([words], [])
    except InvalidInputError:
        return False
    return True


def _fail_word(seen: Mapping[str, Field]) -> NoReturn:
    """Name the first word that the features cannot see, or take for one before it."""
    words = list(seen)
    at = bisect_left(range(len(words)), True, key=lambda last: not _told_apart(words[: last + 1]))
    word = words[at]
    other = next((other for other in words[:at] if not _told_apart([other, word])), None)
    expected = "a word of letters and digits, of a script with spaces between words"
    if other is not None and _told_apart([word]):
        expected = f"a word that does not look like {other!r} to the features"
    seen[word].fail(expected, BundleValueError)
