"""This file defines the text that surface features see: one symbol a character, without case, width, fences and list markers.

`symbols_of` turns a text into bytes. ASCII letters (lower case), digits and punctuation stand for themselves; other characters
become one of the codes below, and a letter of a script with spaces between words 0x80 | (its lower case & 0x7F). So what
follows reads one byte a character, whatever the script. csrc/src/surface_symbols.h does the same.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections import Counter
from dataclasses import dataclass

from ipr_engine.encoders.full_width import FULL_WIDTH, IDEOGRAPHIC_SPACE

SPACE, QUOTE = ord(" "), ord("'")  # a quote of any kind is seen, so that it parts words, and never counted
LETTER = 0x01  # of a script that puts no spaces between words
SYMBOL, CURRENCY, MATH, STOP = 0x02, 0x03, 0x04, 0x05  # STOP ends a sentence in a script of its own

# Scripts beyond ASCII; words of the first six are told by spaces.
SPACED = ("latin", "greek_cyrillic", "arabic_hebrew", "indic", "hangul", "other")
UNSPACED = ("southeast_asian", "kana", "han")
SCRIPTS = (*SPACED, *UNSPACED)
CLASSES = ("symbol", "space", "quote", "ignored", "currency", "math", "stop", "folded", *SCRIPTS)

# Characters that stand for others.
FOLDED = {
    **{
        code: chr(plain) for code, plain in FULL_WIDTH.items() if code != IDEOGRAPHIC_SPACE
    },  # which is white space here anyway
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-"),
    0xD7: "*",
    0xF7: "/",
    0x60C: ",",
    0x61B: ";",
    0x61F: "?",
    0x2026: "...",
    0x3001: ",",
    0xFF64: ",",
}

# Each class from its first character on to the next one's, beyond ASCII.
_BREAKS = """
80 symbol 85 space 86 symbol A0 space A1 symbol A2 currency A6 symbol AA latin AB quote AC math AD ignored AE symbol B1 math B4 symbol
B5 greek_cyrillic B6 symbol B9 math BA latin BB quote BC math BF symbol C0 latin D7 folded D8 latin F7 folded F8 latin
370 greek_cyrillic 530 other 590 arabic_hebrew 60C folded 60D arabic_hebrew 61B folded 61C arabic_hebrew 61F folded 620 arabic_hebrew
6D4 stop 6D5 arabic_hebrew 900 indic 964 stop 966 indic E00 southeast_asian F00 other 1000 southeast_asian 10A0 other 1100 hangul
1200 other 1680 space 1681 other 1780 southeast_asian 1800 other 1E00 latin 1F00 greek_cyrillic 2000 space 200B ignored 2010 folded
2016 symbol 2018 quote 2020 symbol 2026 folded 2027 symbol 2028 space 202A ignored 202F space 2030 symbol 2039 quote 203B symbol
205F space 2060 ignored 2070 math 20A0 currency 20D0 symbol 2100 math 2212 folded 2213 math 2300 symbol 27C0 math 2800 symbol
2900 math 2B00 symbol 2C00 other 2C60 latin 2C80 other 2E00 symbol 2E80 han 2FE0 symbol 3000 space 3001 folded 3002 stop 3003 symbol
3005 han 3008 symbol 300C quote 3010 symbol 3040 kana 30FB symbol 30FC kana 3100 han 3130 hangul 3190 han 31F0 kana 3200 symbol
3400 han 4DC0 symbol 4E00 han A000 other A640 greek_cyrillic A6A0 other A720 latin A800 other A8E0 indic A900 other A960 hangul
A980 other AB30 latin AB70 other AC00 hangul D800 symbol F900 han FB00 latin FB07 other FB1D arabic_hebrew FE00 ignored FE10 symbol
FE70 arabic_hebrew FEFF ignored FF00 symbol FF01 folded FF5F symbol FF61 stop FF62 quote FF64 folded FF65 symbol FF66 kana
FFA0 hangul FFE0 currency FFE7 symbol 10000 other 1D400 math 1D800 symbol 20000 han 40000 symbol E0000 ignored
"""
_fields = _BREAKS.split()
BREAKS = tuple((int(first, 16), CLASSES.index(name)) for first, name in zip(_fields[::2], _fields[1::2], strict=True))


def class_of(code: int) -> str:
    """Return the class of a character beyond ASCII."""
    return CLASSES[BREAKS[bisect(BREAKS, (code, len(CLASSES))) - 1][1]]


def lowered(code: int) -> int:
    """Return the lower case of a Latin, Greek or Cyrillic letter beyond ASCII, where it is one letter; others as they are."""
    if 0xC0 <= code <= 0xDE and code != 0xD7:
        return code + 32
    if 0x139 <= code <= 0x148 or 0x179 <= code <= 0x17E or 0x4C1 <= code <= 0x4CE:
        return code + code % 2
    if 0x100 <= code <= 0x177 and code not in (0x130, 0x131, 0x138):
        return code | 1
    if 0x1E00 <= code <= 0x1E95 or 0x1EA0 <= code <= 0x1EFF:
        return code | 1
    if 0x460 <= code <= 0x481 or 0x48A <= code <= 0x4BF or 0x4D0 <= code <= 0x52F:
        return code | 1
    if (0x391 <= code <= 0x3AB and code != 0x3A2) or 0x410 <= code <= 0x42F:
        return code + 32
    if 0x400 <= code <= 0x40F:
        return code + 80
    if 0x388 <= code <= 0x38A:
        return code + 37
    return {0x178: 0xFF, 0x386: 0x3AC, 0x38C: 0x3CC, 0x38E: 0x3CD, 0x38F: 0x3CE, 0x3C2: 0x3C3}.get(code, code)


def ascii_symbol(code: int) -> int:
    """Return the symbol of an ASCII character."""
    if 0x09 <= code <= 0x0D or 0x1C <= code <= 0x20:
        return SPACE
    if code < 0x20 or code == 0x7F:
        return SYMBOL
    return QUOTE if code == ord('"') else ord(chr(code).lower())


def symbols_of(text: str) -> tuple[bytes, Counter[str]]:
    """Return the symbols of a text, in order, and its letters by script beyond ASCII."""
    symbols, letters = bytearray(), Counter[str]()
    plain = {"symbol": SYMBOL, "space": SPACE, "quote": QUOTE, "currency": CURRENCY, "math": MATH, "stop": STOP}
    for char in text:
        code = ord(char)
        kind = "ascii" if code < 0x80 else class_of(code)
        if kind == "ascii":
            symbols.append(ascii_symbol(code))
        elif kind == "folded":
            symbols += bytes(ascii_symbol(ord(other)) for other in FOLDED[code])
        elif kind in plain:
            symbols.append(plain[kind])
        elif kind != "ignored":
            letters[kind] += 1
            symbols.append(LETTER if kind in UNSPACED else 0x80 | (lowered(code) & 0x7F))
    return bytes(symbols), letters


_FENCED = re.compile(rb" *(`{3,}|~{3,})[a-z0-9+#._-]*( (?:.* )?)\1 *", re.DOTALL)


def without_fences(symbols: bytes) -> bytes:
    """Take away the fence that opens and closes the text, with its language, as often as there is one.

    A fence is three or more ` or ~. White space tells it from what it holds, of whatever kind: a line is no more than that here.
    """
    while found := _FENCED.fullmatch(symbols):
        symbols = found[2]
    return symbols


@dataclass
class Markers:
    """`Markers` are the list markers of a text, each in its order: a), b), ... or 1., 2., ...

    Attributes:
        letters: how many are letters. numbers: how many are numbers.
        first, last: characters before the first and the last letter; quotes and white space are not counted.
        numeric: letters followed by a number, or by - or $ and one.
    """

    letters: int = 0
    numbers: int = 0
    first: int = 0
    last: int = 0
    numeric: int = 0


_MARKER = re.compile(rb"(?<![^ ])(?:\(([a-j]|[1-9][0-9]?)\)|([a-j])[.:)]|([1-9][0-9]?)[.)])(?![^ ])")
_NUMERIC = re.compile(rb"[ ']*[-$]?[0-9]")


def countable(symbols: bytes | bytearray) -> int:
    """Return how many symbols are characters that are counted: all but white space and quotes."""
    return len(symbols) - symbols.count(SPACE) - symbols.count(QUOTE)


def without_markers(symbols: bytes) -> tuple[bytes, Markers]:
    """Put spaces in the place of list markers: a letter or number between white space that begins a list, goes on with it, or was in it.

    `a)`, `(a)`, `a.` and `a:` are one marker, up to the letter j; `1.`, `1)` and `(1)` are another, up to 99.
    """
    rest, markers, due = bytearray(symbols), Markers(), {True: ord("a"), False: 1}
    open_at = len(rest)  # where the text of the letter before begins
    for found in _MARKER.finditer(symbols):
        said = next(group for group in found.groups() if group is not None)
        letter = said.isalpha()
        value = ord(said) if letter else int(said)
        if value > due[letter]:
            continue
        due[letter] = max(due[letter], value + 1)
        if letter:
            # Before this marker goes: what belongs to the letter before ends here.
            markers.numeric += _NUMERIC.match(rest, open_at) is not None
            open_at = found.end()
            markers.last = countable(rest[: found.start()])
            markers.first = markers.first if markers.letters else markers.last
            markers.letters += 1
        else:
            markers.numbers += 1
        rest[found.start() : found.end()] = b" " * len(found[0])
    markers.numeric += _NUMERIC.match(rest, open_at) is not None
    return bytes(rest), markers
