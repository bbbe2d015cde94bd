"""Scores of a log, and labels of a table, become qualities in [0, 1] by a stated scale."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ipr_engine._validate import shown_safely
from ipr_engine.collection.sources.asked_row import UnaskableError
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.data.tables import shown_cell
from ipr_engine.prompts import kind_of


def to_quality(value: Any, scale: tuple[float, ...], what: str) -> float:
    """Return a score as a quality in [0, 1]. True and False are the ends of the scale.

    Raises:
        UnaskableError: it is no finite number, or outside the scale.
    """
    low, high = scale
    if isinstance(value, bool):
        return float(value)
    score = math.nan
    try:
        if isinstance(value, (int, float, str)):
            score = float(value)
    except (ValueError, OverflowError):
        pass
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    if not low <= score <= high:
        raise UnaskableError(
            f"{what}: expected a number from {low:g} to {high:g}, got {_told(value)}; state another range with scale"
        )
    return (score - low) / (high - low)


def _told(value: Any) -> str:
    return shown_safely(value) if isinstance(value, (int, float, str)) else kind_of(value)


class ScoreChoice:
    """A `ScoreChoice` takes the one score of each record that is its quality: the stated one, or else the only one there is."""

    def __init__(self, source: PromptSource) -> None:
        self._stated = source.score is not None
        self._name = source.score
        self._scale = source.scale

    def quality(self, scores: Mapping[str, Any]) -> float | None:
        """Return the quality that a record's scores state; None where it has none.

        scores: name -> its value, or the values that several gave, whose mean is taken.

        Raises:
            UnaskableError: nothing says which of several scores is the quality, or it is outside the scale.
        """
        given = {name: value for name, value in scores.items() if value not in (None, "", [])}
        if not self._stated and given:
            names = sorted({*given, *([] if self._name is None else [self._name])})
            if len(names) > 1:
                raise UnaskableError(
                    f"holds the scores {', '.join(map(shown_cell, names))}; say with score which one is the quality"
                )
            self._name = names[0]
        value = None if self._name is None else given.get(self._name)
        if value is None:
            return None
        values = value if isinstance(value, list) else [value]
        qualities = [to_quality(one, self._scale, f"score {shown_cell(self._name)}") for one in values]
        return sum(qualities) / len(qualities)
