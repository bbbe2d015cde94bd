"""`TextTable` lays rows out in a box of characters, and `Page` prints tables and lines on stdout as its terminal takes them."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

PIPED = 132  # columns of a page that no terminal shows
FEWEST_PROSE = 40  # columns; a narrower terminal wraps
EASY = 24  # columns that a column to cut keeps while another can be broken between words
FEWEST = 8  # columns that a cell is never narrowed below where that breaks a word

_STYLES = {"bold": "1", "dim": "2", "italic": "3", "yellow": "33"}  # SGR codes
_ASCII = str.maketrans("┏━┳┓┃┡╇┩│└─┴┘…", "+-++|+++|+-++~")


class Cell(NamedTuple):
    """A `Cell` is a text and its style: "", "bold", "dim", "italic" or "yellow"."""

    text: str
    style: str = ""


class TextTable:
    """A `TextTable` is rows of texts under headings.

    A table wider than its page narrows its widest columns first, and breaks their cells between words; words are broken where that is not
    enough. The column `cut` is narrowed before the others, to EASY, and again once they are; its cells end in an ellipsis instead.
    """

    def __init__(
        self, title: str, headings: Sequence[str], *, left: Sequence[int] = (0,), cut: int | None = None
    ) -> None:
        """title: may have lines. left: the columns that are not figures, and begin at the left."""
        self.title = title
        self.caption = ""
        self._headings = [Cell(heading, "bold") for heading in headings]
        self._left, self._cut = set(left), cut
        self._rows: list[list[Cell]] = []

    def add(self, *cells: str | Cell, style: str = "") -> None:
        """Add a row, a cell a column; `style` is that of the cells that are plain texts."""
        row = [cell if isinstance(cell, Cell) else Cell(cell, style) for cell in cells]
        if len(row) != len(self._headings):
            raise ValueError(f"cells: expected {len(self._headings)}, one a heading, got {len(row)}")
        self._rows.append(row)

    def lines(self, width: int, *, styled: bool = False) -> list[str]:
        """Return the table's lines, each at most `width` columns unless FEWEST a column needs more."""
        widths = self._widths(width)
        whole = sum(widths) + 3 * len(widths) + 1
        rule = ["━" * (one + 2) for one in widths]
        made = _wrapped(self.title, whole, "italic", styled=styled)
        made += [f"┏{'┳'.join(rule)}┓", *self._row(self._headings, widths, "┃", styled), f"┡{'╇'.join(rule)}┩"]
        for row in self._rows:
            made += self._row(row, widths, "│", styled)
        made.append(f"└{'┴'.join('─' * (one + 2) for one in widths)}┘")
        return made + _wrapped(self.caption, whole, "dim", styled=styled)

    def _widths(self, width: int) -> list[int]:
        widths = [max(map(_columns, (cell.text for cell in column))) for column in self._by_column()]
        over = sum(widths) + 3 * len(widths) + 1 - width
        words = [
            max(_columns(word) for cell in column for word in cell.text.split(" ")) for column in self._by_column()
        ]
        floors = [words, [FEWEST] * len(widths)]
        if self._cut is not None:
            easy = [*widths[: self._cut], EASY, *widths[self._cut + 1 :]]
            words[self._cut] = EASY
            floors = [easy, words, [*words[: self._cut], FEWEST, *words[self._cut + 1 :]], floors[-1]]
        for least in floors:
            while over > 0:
                wide = [one if one > floor else 0 for one, floor in zip(widths, least, strict=True)]
                if not any(wide):
                    break
                widths[wide.index(max(wide))] -= 1
                over -= 1
        return widths

    def _by_column(self) -> list[tuple[Cell, ...]]:
        return list(zip(self._headings, *self._rows, strict=True))

    def _row(self, row: list[Cell], widths: list[int], bar: str, styled: bool) -> list[str]:
        """Return the lines of one row, as many as its tallest cell has."""
        parts = [
            [_shortened(cell.text, width)] if column == self._cut else _broken(cell.text, width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines = []
        for line in range(max(map(len, parts))):
            shown = []
            for column, (cell, width, texts) in enumerate(zip(row, widths, parts, strict=True)):
                text = texts[line] if line < len(texts) else ""
                room = " " * (width - _columns(text))
                text = _style(text, cell.style, styled)
                shown.append(text + room if column in self._left else room + text)
            lines.append(f"{bar} {f' {bar} '.join(shown)} {bar}")
        return lines


class Page:
    """A `Page` prints on stdout: as wide as its terminal, in its styles; without a terminal, PIPED columns and no style.

    NO_COLOR (any value) and TERM=dumb turn the styles off. An encoding without box characters gets `+`, `-` and `|`.
    """

    def __init__(self, *, narrowest: int = 0) -> None:
        """narrowest: columns of a page whose tables a narrower terminal had better wrap."""
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED
        self.width = max(narrowest, columns)
        self._prose = max(FEWEST_PROSE, columns)
        self._styled = sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
        self._plain = not (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "").startswith("utf")

    def table(self, table: TextTable) -> None:
        """Print a table."""
        for line in table.lines(self.width, styled=self._styled):
            print(line.translate(_ASCII) if self._plain else line)

    def text(self, text: str, style: str = "") -> None:
        """Print lines, broken between words where the terminal ends, though its tables may be wider."""
        for line in _wrapped(text, self._prose, style, styled=self._styled):
            print(line)


def _wrapped(text: str, width: int, style: str, *, styled: bool) -> list[str]:
    """Return a text's lines, broken between words, each in its style."""
    return [_style(part, style, styled) for line in text.splitlines() for part in _prose(line, width)]


def _prose(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, break_on_hyphens=False, break_long_words=False) or [""]


def _style(text: str, style: str, styled: bool) -> str:
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if style and text and styled else text


def _columns(text: str) -> int:
    """Return the columns a terminal gives a text: two for a wide character, none for a mark on the one before."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(one) in ("Mn", "Me", "Cf") else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _head(text: str, width: int) -> str:
    """Return as much of a text as fits in `width` columns, at least a character."""
    used = 0
    for at, one in enumerate(text):
        used += _columns(one)
        if used > width:
            return text[: max(1, at)]
    return text


def _shortened(text: str, width: int) -> str:
    return text if _columns(text) <= width else f"{_head(text, width - 1)}…"


def _broken(text: str, width: int) -> list[str]:
    """Return a cell's lines of at most `width` columns, broken between words; a longer word is broken where it must be."""
    lines, line = [], ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if _columns(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while _columns(word) > width:
            lines.append(_head(word, width))
            word = word[len(lines[-1]) :]
        line = word
    return [*lines, line] if line or not lines else lines
