"""A tokenizer's profile is coefficients that turn what a text is made of into an estimate of its tokens (docs/tokens.md).

Some terms are parts of others: a part's coefficient is what its characters cost more, or less, than the whole's. Terms that were
split off later are parts. The whole keeps its meaning, so a profile that does not know the part counts as it did, to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS, count_texts, estimate_tokens

Floats = npt.NDArray[np.float64]
DIGITS = 4  # of a coefficient that is kept

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


def terms_apart(terms: Floats) -> Floats:
    """Return a copy of (rows, terms or more) in which every character counts once: wholes are without their parts."""
    apart = terms.copy()
    for part, whole in PLACES.items():
        apart[:, whole] -= terms[:, part]
    return apart


def coefficients_apart(coefficients: Floats) -> Floats:
    """Return the coefficients (terms or more,) that `terms_apart` takes: a part's is all that its characters cost."""
    apart = coefficients.copy()
    apart[_PARTS] += coefficients[_WHOLES]
    return apart


def coefficients_beside(apart: Floats) -> Floats:
    """Return the coefficients (terms or more,) of a profile, from those that `terms_apart` takes."""
    beside = apart.copy()
    beside[_PARTS] -= apart[_WHOLES]
    return beside


@dataclass(frozen=True, kw_only=True)
class TokenProfile:
    """A `TokenProfile` estimates one tokenizer: tokens = coefficients @ terms + per_request, rounded, at least 1 for a text.

        >>> profile = shipped_profile("o200k_base")
        >>> int(profile.tokens(["What is 17 * 23?"])[0])
        9

    Attributes:
        name: of the tokenizer. source: what the coefficients were fitted to.
        coefficients: (terms,) in the order of `TERMS`, >= 0. A part's (`PARTS`) is added to its whole's, and may be as far
            below 0 as that is above.
        per_request: tokens that every request has besides its texts: the chat template's, >= 0.
    """

    name: str
    source: str
    coefficients: tuple[float, ...] = field(repr=False)
    per_request: float = 0.0

    @classmethod
    def rounded(cls, name: str, source: str, coefficients: Floats, per_request: float = 0.0) -> TokenProfile:
        """Make a profile of fitted coefficients, to the digits that a file keeps."""
        kept = tuple(round(float(value), DIGITS) for value in coefficients)
        return cls(name=name, source=source, coefficients=kept, per_request=round(float(per_request), DIGITS))

    def estimate(self, terms: Floats) -> Floats:
        """Return (rows,) estimated tokens of requests.

        terms: (rows, terms) float64, the sum of `count_texts` over the texts of each.
        """
        return estimate_tokens(terms, np.array([self.coefficients]), np.array([self.per_request]))[:, 0]

    def tokens(self, texts: list[str]) -> Floats:
        """Return (texts,) estimated tokens of each text, as a request of its own."""
        return self.estimate(count_texts(texts))

    @cached_property
    def key(self) -> str:
        """Return the name, and 12 hex digits of a sha256 over the coefficients and `per_request`."""
        counts = {term: c for term, c in zip(TEXT_TERMS, self.coefficients, strict=True) if c}
        text = json.dumps([counts, self.per_request], sort_keys=True)
        return f"{self.name}:{sha256(text.encode()).hexdigest()[:12]}"

    def to_json(self) -> dict[str, Any]:
        """Return what `profile_of` reads: the coefficients by name, those of 0 left out."""
        return {
            "name": self.name,
            "source": self.source,
            "coefficients": {term: c for term, c in zip(TEXT_TERMS, self.coefficients, strict=True) if c},
            "per_request": self.per_request,
        }
