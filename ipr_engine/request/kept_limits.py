"""`KeptLimits` says what single requests ask of one bundle's candidates, without asking each candidate each time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from ipr_engine.bundle import BundleSpec
from ipr_engine.prompts.parsed import Needs
from ipr_engine.request.row_inputs import NONE, RowLimits, request_limits

MOST_KEPT = 256  # sets of features: requests that are parsed need a few of them, made ones could name any


class _Lacking(NamedTuple):
    """A `_Lacking` holds who lacks one of a set of features.

    Attributes:
        excluded: candidate -> what it lacks. allowed: (models,) as bytes, the others; None: nobody lacks any.
        most: output tokens that each of the others can give; infinity where none of them has a bound.
    """

    excluded: Mapping[str, str]
    allowed: bytes | None
    most: float


class KeptLimits:
    """A `KeptLimits` answers as `request_limits` does of one request, and keeps who lacks which features. Safe to share between threads."""

    __slots__ = ("_bundle", "_kept")

    def __init__(self, bundle: BundleSpec) -> None:
        self._bundle = bundle
        self._kept: dict[tuple[tuple[str, str], ...], _Lacking] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, needs: Needs) -> tuple[RowLimits, bytes | None]:
        """Return what one request asks for, and (models,) as bytes, who may be chosen for it; None: everyone."""
        features = tuple(needs.features.items())  # with the parts that need them, which reasons name
        lacking = self._kept.get(features)
        if lacking is None:
            lacking = self._look(needs)
            if len(self._kept) < MOST_KEPT:
                self._kept[features] = lacking
        stated = needs.max_output_tokens
        if stated is None or stated <= lacking.most:
            return RowLimits(lacking.excluded, stated, needs.answers), lacking.allowed
        return self._ask(needs)

    def _look(self, needs: Needs) -> _Lacking:
        limits, allowed = self._ask(Needs(needs.features))
        others = [candidate for candidate in self._bundle.candidates if candidate.name not in limits.excluded]
        bounds = [candidate.max_output_tokens for candidate in others if candidate.max_output_tokens is not None]
        return _Lacking(limits.excluded, allowed, min(bounds, default=math.inf))

    def _ask(self, needs: Needs) -> tuple[RowLimits, bytes | None]:
        limits = request_limits(self._bundle, [needs], None, 1)
        if limits is None:
            return RowLimits(NONE), None
        return limits.rows[0], None if limits.allowed is None else limits.allowed.tobytes()
