"""Terms that are parts of others: a part's coefficient is what its characters cost more, or less, than the whole's.

Terms that were split off later are parts. The whole keeps its meaning, so a profile that does not know the part counts as it
did, to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS

Array = npt.NDArray[np.float64]

PARTS: Mapping[str, str] = MappingProxyType(
    {
        "emoji": "other_4",
        "late_emoji": "other_4",
        "skin_tones": "other_4",
        "flag_letters": "other_4",
        "styled_letters": "other_4",
        "rare_han": "other_4",
        "pictographs": "other_3",
        "variation_selectors": "other_3",
        "long_punctuation": "punctuation",
        "long_letter_pairs": "letter_pairs",
        "long_controls": "controls",
    }
)
"""Part -> the term that counts the same characters too. Parts of one term have no character in common."""

PLACES: Mapping[int, int] = MappingProxyType(
    {TEXT_TERMS.index(part): TEXT_TERMS.index(whole) for part, whole in PARTS.items()}
)
"""The same by place in TEXT_TERMS."""

_PARTS, _WHOLES = list(PLACES.keys()), list(PLACES.values())


def terms_apart(terms: Array) -> Array:
    """Return a copy of (rows, terms or more) in which every character counts once: wholes are without their parts."""
    apart = terms.copy()
    for part, whole in PLACES.items():
        apart[:, whole] -= terms[:, part]
    return apart


def coefficients_apart(coefficients: Array) -> Array:
    """Return the coefficients (terms or more,) that `terms_apart` takes: a part's is all that its characters cost."""
    apart = coefficients.copy()
    apart[_PARTS] += coefficients[_WHOLES]
    return apart


def coefficients_beside(apart: Array) -> Array:
    """Return the coefficients (terms or more,) of a profile, from those that `terms_apart` takes."""
    beside = apart.copy()
    beside[_PARTS] -= apart[_WHOLES]
    return beside
