"""`Needs`: what a request asks of whoever answers it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

NOTHING: Mapping[str, str] = MappingProxyType({})


class Needs(NamedTuple):
    """A `Needs` says what a request asks of whoever answers it, besides reading its text.

    Attributes:
        features: feature -> the first part of the request that needs it.
        max_output_tokens: most output tokens that the request allows; None where it does not say.
        answers: how many answers it asks for; each is billed.
        images: how many it holds.
    """

    features: Mapping[str, str] = NOTHING
    max_output_tokens: int | None = None
    answers: int = 1
    images: int = 0
