"""`FULL_WIDTH` names full width forms: ASCII as wide as a Chinese character, which East Asian keyboards write.

A text means the same without them. csrc/src/full_width.h says the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

IDEOGRAPHIC_SPACE = 0x3000

# Each form as the ASCII character that it stands for; `str.translate` takes it.
FULL_WIDTH: Mapping[int, int] = MappingProxyType(
    {**{code: code - 0xFF01 + ord("!") for code in range(0xFF01, 0xFF5F)}, IDEOGRAPHIC_SPACE: ord(" ")}
)


def without_full_width(text: str) -> str:
    """Return the text, each full width form as what it stands for; as long as before, in characters."""
    return text if text.isascii() else text.translate(FULL_WIDTH)
