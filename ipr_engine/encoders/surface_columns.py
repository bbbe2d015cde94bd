"""This file lists what surface features count, and the columns made of the counts. csrc/src/surface_tables.inc is made from it.

A column is count / (count + half), or a share of another count. Every count is a whole number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ipr_engine.encoders.surface_text import CURRENCY, MATH, SCRIPTS, STOP, SYMBOL

# Counts of words, lists and ends; surface_reference.py says what each is.
WORDS = [
    "words",
    "tokens",
    "letters",
    "characters",
    "sentences",
    "token_characters",
    "longest_word",
    "long_words",
    "distinct_words",
    "numbers",
    "digits",
    "mixed_words",
    "long_numbers",
    "years",
    "most_digits",
    "symbols",
    "letter_markers",
    "number_markers",
    "marker_gaps",
    "gap_characters",
    "stem_characters",
    "numeric_markers",
    "ends_asking",
    "ends_open",
    "ends_stopped",
    "starts_odd",
]
SCRIPT_COUNTS = ("ascii", *SCRIPTS)

# Symbols that have a count of their own; of brackets the opening one.
PUNCTUATION = {
    "question_mark": "?",
    "exclamation_mark": "!",
    "full_stop": ".",
    "comma": ",",
    "semicolon": ";",
    "colon": ":",
    "equals": "=",
    "plus": "+",
    "minus": "-",
    "asterisk": "*",
    "slash": "/",
    "caret": "^",
    "less": "<",
    "greater": ">",
    "round_bracket": "(",
    "square_bracket": "[",
    "curly_bracket": "{",
    "underscore": "_",
    "dollar": "$",
    "percent": "%",
    "backslash": "\\",
    "backtick": "`",
    "hash": "#",
    "bar": "|",
    "ampersand": "&",
    "other_symbol": chr(SYMBOL),
    "currency": chr(CURRENCY),
    "math": chr(MATH),
}
ALONE_UNCOUNTED = ")]}@~" + chr(STOP)  # counted among `symbols`, in contexts and in pairs alone


@dataclass(frozen=True)
class Context:
    """A `Context` counts a symbol by what stands before and after it.

    before, after: the kinds that may stand there: s white space or an end of the text, a a letter, d a digit, = the same symbol,
        o any other one.
    """

    name: str
    symbols: str
    before: str
    after: str


ANY = "sad=o"
CONTEXTS = (
    Context("stops", ".", ANY, "s"),
    Context("stops", "?!", ANY, "sad"),
    Context("stops", chr(STOP), ANY, ANY),
    Context("decimals", ".", "d", "d"),
    Context("dotted_names", ".", "a", "a"),
    Context("ellipses", ".", "sado", "="),
    Context("grouped_digits", ",", "d", "d"),
    Context("hyphens", "-", "a", "a"),
    Context("signs", "-", "so", "d"),
    Context("dashes", "-", "s", "s"),
    Context("snake_names", "_", "ad", "ad"),
    Context("blanks", "_", "so", "="),
    Context("mails", "@", "ad", "ad"),
    Context("commands", "\\", ANY, "a"),
    Context("calls", "(", "a", ANY),
    Context("fractions", "/", "d", "d"),
    Context("labels", ":", "ad", "s"),
    Context("amounts", "$", "so", "d"),
    Context("percentages", "%", "d", ANY),
    Context("tags", "<", ANY, "a"),
)
PAIRS = {  # of symbols side by side
    "comparisons": ("==", "!=", "<=", ">="),
    "arrows": ("->", "=>"),
    "comments": ("//", "/*", "*/"),
    "scopes": ("::",),
    "empty_calls": ("()",),
    "operators": ("&&", "||", "+=", "-=", "++", "--"),
    "stars": ("**",),
    "closing_tags": ("</", "/>"),
    "urls": (":/",),
    "fences": ("``", "~~"),
}
UNUSED = ("unused", "unused_context", "unused_pair")  # where symbols go that nothing counts
ONE = "one"  # always 1
COUNTS = tuple(
    dict.fromkeys(
        (ONE, *UNUSED, *WORDS, *SCRIPT_COUNTS, *PUNCTUATION, *(c.name for c in CONTEXTS), *PAIRS),
    )
)


@dataclass(frozen=True)
class Column:
    """A `Column` is count / (own * count + half * of), 0 where that is 0 / 0: a saturating count, or a share.

    count, of: names of counts. own: 0 or 1.
    """

    name: str
    count: str
    half: int
    of: str = ONE
    own: int = 1


def _share(count: str, of: str) -> Column:
    return Column(f"{count}_share", count, 1, of, 0)


def plain_columns() -> tuple[Column, ...]:
    """Return the columns that need no lexicon."""
    return (
        Column("words", "words", 64),
        Column("letters", "letters", 256),
        Column("characters", "characters", 1024),
        Column("sentences", "sentences", 4),
        Column("mean_word", "token_characters", 4, "tokens"),
        Column("mean_sentence", "words", 16, "sentences"),
        Column("longest_word", "longest_word", 12),
        *(_share(name, "tokens") for name in ("long_words", "distinct_words")),
        *(_share(name, "letters") for name in SCRIPT_COUNTS),
        *(Column(name, name, 4) for name in ("numbers", "mixed_words", "long_numbers", "years", "most_digits")),
        Column("digits", "digits", 16),
        _share("numbers", "tokens"),
        _share("digits", "characters"),
        _share("symbols", "characters"),
        *(Column(name, name, 2) for name in PUNCTUATION),
        *(Column(name, name, 2) for name in dict.fromkeys(c.name for c in CONTEXTS) if name != "stops"),
        *(Column(name, name, 2) for name in PAIRS),
        Column("letter_markers", "letter_markers", 4),
        Column("number_markers", "number_markers", 4),
        Column("mean_option", "gap_characters", 24, "marker_gaps"),
        Column("stem", "stem_characters", 256),
        _share("numeric_markers", "letter_markers"),
        *(Column(name, name, 1, own=0) for name in ("ends_asking", "ends_open", "ends_stopped", "starts_odd")),
    )


def lexicon_columns(categories: Sequence[str], flags: Sequence[str]) -> tuple[Column, ...]:
    """Return the columns of a lexicon; counts are named as `category_counts` names them."""
    return (
        *(Column(f"of_{name}", f"of_{name}", 2) for name in categories),
        *(_share(f"of_{name}", "words") for name in categories),
        *(Column(f"first_{name}", f"first_{name}", 1, own=0) for name in flags),
        *(Column(f"last_{name}", f"last_{name}", 1, own=0) for name in flags),
    )
