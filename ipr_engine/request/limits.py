"""This module tells what keeps a candidate from a single request: its context window, its most output tokens, a feature that it lacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import BundleSpec, Candidate
from ipr_engine.prompts.needs import Needs

NONE: Mapping[str, str] = {}


class RowLimits(NamedTuple):
    """A `RowLimits` says what one request asks for.

    Attributes:
        excluded: candidate -> why it may not be chosen for this request, its context window apart.
        max_tokens: most output tokens of one answer that the request states, where the caller gives no tokens_out; else None.
        answers: how many answers are billed.
    """

    excluded: Mapping[str, str] = NONE
    max_tokens: int | None = None
    answers: int = 1


PLAIN = RowLimits()


def of_rows(values: npt.NDArray[Any] | None, rows: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return (models,) values as they are, (batch, models) at these rows."""
    return values if values is None or values.ndim == 1 else np.ascontiguousarray(values[rows])


@dataclass(frozen=True, eq=False)
class RequestLimits:
    """A `RequestLimits` says what the requests of a batch ask for, as the router takes it.

    Attributes:
        rows: what each asks for, and why it keeps out whom.
        allowed: (batch, models), who may be chosen for a row; None: everyone.
        max_tokens: (batch,) int64, -1 where nothing is stated; None: nowhere.
        answers: (batch,) int64, how many are billed; None: one of every row.
    """

    rows: tuple[RowLimits, ...]
    allowed: npt.NDArray[np.bool_] | None = None
    max_tokens: npt.NDArray[np.int64] | None = None
    answers: npt.NDArray[np.int64] | None = None

    def at(self, rows: npt.NDArray[Any]) -> RequestLimits:
        """Return the same for these rows."""
        return RequestLimits(
            tuple(self.rows[row] for row in rows.tolist()),
            None if self.allowed is None else np.ascontiguousarray(self.allowed[rows]),
            None if self.max_tokens is None else np.ascontiguousarray(self.max_tokens[rows]),
            None if self.answers is None else np.ascontiguousarray(self.answers[rows]),
        )


def request_limits(
    bundle: BundleSpec, needs: Sequence[Needs | None] | None, tokens_out: npt.NDArray[np.float32] | None, batch: int
) -> RequestLimits | None:
    """Return what keeps candidates from these requests; None where they ask for nothing.

    Args:
        needs: one a request, or None: nothing is known of them.
        tokens_out: (models,) or (batch, models), output tokens that the caller expects.
    """
    if tokens_out is None and (needs is None or not any(needs)):
        return None
    asked = [None] * batch if needs is None else list(needs)
    expected = None if tokens_out is None else np.broadcast_to(tokens_out, (batch, len(bundle.candidates)))
    bounded = expected is not None and any(candidate.max_output_tokens is not None for candidate in bundle.candidates)
    rows = []
    for row, need in enumerate(asked):
        if need is None and not bounded:
            rows.append(PLAIN)
            continue
        stated = None if need is None or expected is not None else need.max_output_tokens
        outputs = (
            [None if stated is None else float(stated)] * len(bundle.candidates) if expected is None else expected[row]
        )
        found = {
            candidate.name: reason
            for candidate, output in zip(bundle.candidates, outputs, strict=True)
            if (reason := _why_not(candidate, need, output)) is not None
        }
        rows.append(RowLimits(found or NONE, stated, 1 if need is None else need.answers))
    allowed = max_tokens = answers = None
    if any(row.excluded for row in rows):
        allowed = np.array([[name not in row.excluded for name in bundle.names] for row in rows], np.bool_)
    if any(row.max_tokens is not None for row in rows):
        max_tokens = np.array([-1 if row.max_tokens is None else row.max_tokens for row in rows], np.int64)
    if any(row.answers > 1 for row in rows):
        answers = np.array([row.answers for row in rows], np.int64)
    return RequestLimits(tuple(rows), allowed, max_tokens, answers)


def lacking(candidate: Candidate, needs: Needs) -> list[str]:
    """Return the features that a request needs and the candidate lacks."""
    return sorted(feature for feature in needs.features if feature not in candidate.features)


def _why_not(candidate: Candidate, needs: Needs | None, output: float | None) -> str | None:
    missing = [] if needs is None else lacking(candidate, needs)
    if needs is not None and missing:
        return f"lacks {' and '.join(f'{feature}, needed by {needs.features[feature]!r}' for feature in missing)}"
    most = candidate.max_output_tokens
    if output is not None and most is not None and output > most:
        return f"asked for {output:g} output tokens, over its most of {most}"
    return None
