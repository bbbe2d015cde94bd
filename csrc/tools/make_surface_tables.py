"""make_surface_tables.py writes surface_tables.inc: classes of characters, counts and columns of the surface features' definition.

python csrc/tools/make_surface_tables.py       # a second run gives the same bytes
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ipr_engine.encoders.surface_columns import (
    ALONE_UNCOUNTED,
    CONTEXTS,
    COUNTS,
    PAIRS,
    PUNCTUATION,
    UNUSED,
    Column,
    plain_columns,
)
from ipr_engine.encoders.surface_text import BREAKS, CLASSES, FOLDED, ascii_symbol

INC = Path(__file__).parents[1] / "src" / "surface_tables.inc"
KINDS = "sad=o"  # of neighbours, in the order of kKindOf's values
SYMBOLS = "".join(PUNCTUATION.values()) + ALONE_UNCOUNTED


def _name(text: str) -> str:
    text = "ascii_letters" if text == "ascii" else text
    return "k" + "".join(part.capitalize() for part in text.split("_"))


def _enum(name: str, of: str, values: Iterable[str]) -> str:
    lines = [f"  {_name(value)}," for value in values]
    return f"enum {name} : {of} {{\n" + "\n".join(lines) + "\n};\n"


def _array(declared: str, rows: Iterable[Iterable[object]]) -> str:
    lines = [f"    {', '.join(map(str, row))}," for row in rows]
    return f"constexpr {declared} = {{\n" + "\n".join(lines) + "\n};\n"


def _rows(values: Sequence[object], wide: int = 24) -> list[Sequence[object]]:
    return [values[begin : begin + wide] for begin in range(0, len(values), wide)]


def _place_of(name: str) -> int:
    return COUNTS.index(name)


def _contexts() -> list[int]:
    """Return the count of each symbol between two kinds of neighbours: (symbols, kinds before, kinds after), flat."""
    table = []
    for symbol in [*SYMBOLS, None]:
        for before in KINDS:
            for after in KINDS:
                own = [
                    c.name
                    for c in CONTEXTS
                    if symbol and symbol in c.symbols and before in c.before and after in c.after
                ] or [UNUSED[1]]
                if len(own) > 1:
                    raise SystemExit(f"contexts of {symbol!r} between {before} and {after}: {own}; one at most")
                table.append(_place_of(own[0]))
    return table


def _pairs() -> list[int]:
    """Return the count of each pair of symbols: (symbols, symbols), flat."""
    of = {pair: _place_of(name) for name, pairs in PAIRS.items() for pair in pairs}
    places = [*SYMBOLS, ""]
    return [of.get(a + b, _place_of(UNUSED[2])) for a in places for b in places]


def _column(column: Column) -> list[str]:
    return [f"{{{_name(column.count)}, {column.own}, {column.half}, {_name(column.of)}}}"]


def written() -> str:
    """Return the file."""
    alone = {symbol: _place_of(name) for name, symbol in PUNCTUATION.items()}
    fold = [(code, to) for code, to in sorted(FOLDED.items()) if not 0xFF01 <= code <= 0xFF5E]
    return "\n".join(
        [
            "// Written by make_surface_tables.py from ipr_engine/encoders/surface_text.py and surface_columns.py.",
            _enum("CharClass", "uint8_t", (f"class_{name}" for name in CLASSES)),
            "// Each class from its first character on to the next one's.",
            "struct Break {\n  uint32_t first;\n  uint8_t of;\n};",
            _array("Break kBreaks[]", _rows([f"{{0x{first:X}, {of}}}" for first, of in BREAKS], 8)),
            "// Characters that stand for ASCII ones; full width forms apart.",
            "struct Fold {\n  uint32_t code;\n  char to[4];\n};",
            _array("Fold kFolds[]", ([f'{{0x{code:X}, "{to}"}}'] for code, to in fold)),
            "// The symbol of each ASCII character.",
            _array("uint8_t kAscii[128]", _rows([ascii_symbol(code) for code in range(128)])),
            _enum("SurfaceCount", "uint8_t", COUNTS),
            f"constexpr size_t kCounts = {len(COUNTS)};\n",
            "// Symbols that are counted, alone or beside others; the place after them is that of every other symbol.",
            _array(f"uint8_t kPlaced[{len(SYMBOLS)}]", _rows([ord(symbol) for symbol in SYMBOLS])),
            f"constexpr size_t kSymbolCount = {len(SYMBOLS)};\n",
            _array(
                "uint8_t kAlone[kSymbolCount + 1]", _rows([alone.get(s, _place_of(UNUSED[0])) for s in [*SYMBOLS, ""]])
            ),
            "// By symbol and the kinds before and after it: white space, a letter, a digit, the same symbol, another one.",
            _array("uint8_t kContexts[(kSymbolCount + 1) * 25]", _rows(_contexts(), 25)),
            _array("uint8_t kPairs[(kSymbolCount + 1) * (kSymbolCount + 1)]", _rows(_pairs(), len(SYMBOLS) + 1)),
            "// count / (own * count + half * of).",
            "struct Column {\n  uint16_t count;\n  uint16_t own, half;\n  uint16_t of;\n};",
            _array("Column kColumns[]", map(_column, plain_columns())),
        ]
    )


if __name__ == "__main__":
    INC.write_text(written())
    print(f"{INC}: {len(COUNTS)} counts, {len(plain_columns())} columns")
