"""make_unicode_tables.py writes unicode_tables.inc: what `tokenizers` does to every code point, asked of the library itself.

`tokenizers` mixes tables of several Unicode versions (one for NFD, one for categories, one for lower case), so no
single version would do: each property is probed through its public normalizers and pre-tokenizer. Run after raising
the pinned version:

    python csrc/tools/make_unicode_tables.py        # rewrites csrc/src/unicode_tables.inc; a second run gives the same bytes
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import tokenizers
from tokenizers import normalizers, pre_tokenizers

PINNED = "0.22.2"
BLOCK = 128
LAST = 0x10FFFF
HANGUL = range(0xAC00, 0xAC00 + 11172)  # decomposed by arithmetic, in wordpiece_run.h
LOWEST_MARK, HIGHEST_MARK = "\u0334", "\u0345"  # combining classes 1 and 240, the ends of the scale

# The bits of Record.flags; src/unicode.h names them alike.
WHITESPACE, CLEANED, CHINESE, PUNCTUATION, NONSPACING, HANGUL_SYLLABLE = (1 << bit for bit in range(6))

nfd = normalizers.NFD().normalize_str
lower = normalizers.Lowercase().normalize_str
split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str


def bert(step: str) -> normalizers.BertNormalizer:
    """Return the BertNormalizer that does one step only."""
    return normalizers.BertNormalizer(
        **{name: name == step for name in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase")}
    )


clean, chinese, strip = (bert(step).normalize_str for step in ("clean_text", "handle_chinese_chars", "strip_accents"))


def flags_of(char: str) -> int:
    flags = 0
    words = [word for word, _ in split(f"a{char}b")]
    if words == ["a", "b"]:
        flags |= WHITESPACE
    elif words == ["a", char, "b"]:
        flags |= PUNCTUATION
    elif words != [f"a{char}b"]:
        raise AssertionError(f"BertPreTokenizer splits U+{ord(char):04X} in a way unicode.h does not know: {words}")
    cleaned = clean(f"a{char}b")
    if cleaned == "ab":
        flags |= CLEANED
    elif cleaned != ("a b" if flags & WHITESPACE else f"a{char}b"):
        raise AssertionError(f"clean_text maps U+{ord(char):04X} in a way unicode.h does not know: {cleaned!r}")
    if chinese(char) == f" {char} ":
        flags |= CHINESE
    if nfd(char) == char and strip(f"a{char}") == "a":
        flags |= NONSPACING
    if ord(char) in HANGUL:
        flags |= HANGUL_SYLLABLE
    return flags


def order(first: str, second: str) -> int:
    """Return 1, 0 or -1: how NFD ranks the canonical combining classes of two marks."""
    if nfd(f"a{first}{second}") != f"a{first}{second}":
        return 1
    return -1 if nfd(f"a{second}{first}") != f"a{second}{first}" else 0


def mark_ranks(chars: Iterable[str]) -> dict[str, int]:
    """Rank (1, 2, ...) the combining class of every character that NFD may move; only their order matters."""
    classes: list[list[str]] = []
    for char in chars:
        if nfd(char) != char or (order(char, LOWEST_MARK) == 0 and order(char, HIGHEST_MARK) == 0):
            continue
        low, high = 0, len(classes)
        while low < high:
            middle = (low + high) // 2
            if order(classes[middle][0], char) < 0:
                low = middle + 1
            else:
                high = middle
        if low < len(classes) and order(classes[low][0], char) == 0:
            classes[low].append(char)
        else:
            classes.insert(low, [char])
    assert LOWEST_MARK in classes[0], "a mark sorts below U+0334"
    assert HIGHEST_MARK in classes[-1], "a mark sorts above U+0345"
    return {char: rank for rank, members in enumerate(classes, 1) for char in members}


def main() -> None:
    if tokenizers.__version__ != PINNED:
        raise SystemExit(f"make_unicode_tables.py: expected tokenizers {PINNED}, found {tokenizers.__version__}")
    chars = [chr(code) for code in range(LAST + 1) if not 0xD800 <= code <= 0xDFFF]
    ranks = mark_ranks(chars)

    pool: list[int] = [0]
    pooled: dict[str, int] = {"": 0}

    def put(text: str) -> int:
        if text not in pooled:
            pooled[text] = len(pool)
            pool.extend(map(ord, text))
        return pooled[text]

    records: dict[tuple[int, ...], int] = {(0, 0, 0, 0, 0, 0): 0}
    record_of = [0] * (LAST + 1)
    for char in chars:
        decomposed, lowered = nfd(char), lower(char)
        if decomposed == char or ord(char) in HANGUL:
            decomposed = ""
        if lowered == char:
            lowered = ""
        record = (
            flags_of(char), ranks.get(char, 0), len(decomposed), len(lowered), put(decomposed), put(lowered),
        )  # fmt: skip
        record_of[ord(char)] = records.setdefault(record, len(records))

    blocks: dict[tuple[int, ...], int] = {}
    stage1 = [
        blocks.setdefault(tuple(record_of[start : start + BLOCK]), len(blocks)) for start in range(0, LAST + 1, BLOCK)
    ]
    assert len(blocks) < 1 << 16
    assert len(records) < 1 << 16
    assert len(pool) < 1 << 16

    def array(declaration: str, values: Iterable[int]) -> str:
        lines, line = [], ""
        for value in values:
            item = f"{value},"
            if len(line) + len(item) > 118:
                lines.append(line)
                line = ""
            line += item
        return f"{declaration} = {{\n" + "\n".join([*lines, line]) + "\n};\n"

    rows = "\n".join("{" + ",".join(map(str, record)) + "}," for record in records)
    (Path(__file__).parents[1] / "src" / "unicode_tables.inc").write_text(
        f"// Written by make_unicode_tables.py from tokenizers {PINNED}. Do not edit.\n"
        f"constexpr uint32_t kBlockBits = {BLOCK.bit_length() - 1};\n"
        + array("constexpr uint16_t kStage1[]", stage1)
        + array("constexpr uint16_t kStage2[]", [record for block in blocks for record in block])
        + f"constexpr Record kRecords[] = {{\n{rows}\n}};\n"
        + array("constexpr uint32_t kPool[]", pool)
    )
    size = 2 * len(stage1) + 2 * BLOCK * len(blocks) + 8 * len(records) + 4 * len(pool)
    print(f"{len(blocks)} blocks, {len(records)} records, {len(set(ranks.values()))} mark ranks, {size} bytes")


if __name__ == "__main__":
    main()
