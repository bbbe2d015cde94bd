"""A decision reads more than a prompt's embedding and bill: what its request asks for (`RowLimits`), and what its caller gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import BundleSpec, Candidate
from ipr_engine.bundle.task_names import AskedTask
from ipr_engine.prompts.parsed import Needs

NONE: Mapping[str, str] = {}


class RowLimits(NamedTuple):
    """A `RowLimits` says what one request asks for, and which candidates that keeps out.

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


class RequestLimits(NamedTuple):
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
        """Return the limits of these rows."""
        return RequestLimits(
            tuple(self.rows[row] for row in rows.tolist()),
            None if self.allowed is None else np.ascontiguousarray(self.allowed[rows]),
            None if self.max_tokens is None else np.ascontiguousarray(self.max_tokens[rows]),
            None if self.answers is None else np.ascontiguousarray(self.answers[rows]),
        )


def router_limits(
    limits: RequestLimits | None,
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
    """Return the last arguments of `Router.decide`: allowed, max_tokens and answers."""
    return (None, None, None) if limits is None else (limits.allowed, limits.max_tokens, limits.answers)


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
    # a request without needs is kept only from candidates whose max_output_tokens is below what the caller expects
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


Moved: TypeAlias = tuple[tuple[str, ...], ...]  # of each row, the arguments' names
_Float32s: TypeAlias = npt.NDArray[np.float32] | None


class RowInputs(NamedTuple):
    """A `RowInputs` holds what one row was decided on besides its embedding and bill.

    Attributes:
        limits: what the request asks for; None where it is text alone, and output tokens are predicted.
        extra_usd: (models,) float32, what was added to the costs; None for nothing.
        moved: which arguments of the caller moved its predicted costs.
        tokens_in_given: (models,) bool, whose input tokens the caller gave; None for nobody's.
        error: what is wrong with its prompt; None where nothing is.
        task: what the caller says it is for; None where nothing is said.
    """

    limits: RowLimits | None = None
    extra_usd: npt.NDArray[np.float32] | None = None
    moved: tuple[str, ...] = ()
    tokens_in_given: npt.NDArray[np.bool_] | None = None
    error: str | None = None
    task: AskedTask | None = None


PLAIN_ROW = RowInputs()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BatchInputs:
    """A `BatchInputs` holds the `RowInputs` of a batch, column by column; None where no row has any.

    Attributes:
        limits, moved: of each row. extra_usd: (models,) or (batch, models) float32. tokens_in_given: (batch, models) bool.
        errors: row -> what is wrong with its prompt.
        tasks: of each row.
    """

    limits: RequestLimits | None = None
    extra_usd: npt.NDArray[np.float32] | None = None
    moved: Moved | None = None
    tokens_in_given: npt.NDArray[np.bool_] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)
    tasks: tuple[AskedTask | None, ...] | None = None

    def row(self, row: int) -> RowInputs:
        """Return the inputs of one row."""
        extra = self.extra_usd
        return RowInputs(
            None if self.limits is None else self.limits.rows[row],
            extra if extra is None or extra.ndim == 1 else extra[row],
            () if self.moved is None else self.moved[row],
            None if self.tokens_in_given is None else self.tokens_in_given[row],
            self.errors.get(row),
            None if self.tasks is None else self.tasks[row],
        )

    def spread(self, good: npt.NDArray[np.int64], batch: int, errors: Mapping[int, str]) -> BatchInputs:
        """Return the inputs of a whole batch from these, of its rows `good`, without tasks; every other row has an error."""
        moved, limits, extra = self.moved, self.limits, self.extra_usd
        if moved is not None:
            by_row = dict(zip(good.tolist(), moved, strict=True))
            moved = tuple(by_row.get(row, ()) for row in range(batch))
        if limits is not None:
            rows = [PLAIN] * batch
            for at, row in enumerate(good.tolist()):
                rows[row] = limits.rows[at]  # the router's arrays are not needed any more: it has decided
            limits = RequestLimits(tuple(rows))
        if extra is not None and extra.ndim == 2:  # (models,) is of each row
            extra = spread_rows(extra, good, batch, np.float32("nan"))
        given = self.tokens_in_given
        return BatchInputs(
            limits=limits,
            extra_usd=extra,
            moved=moved,
            tokens_in_given=None if given is None else spread_rows(given, good, batch, np.False_),
            errors=errors,
        )


PLAIN_BATCH = BatchInputs()


def spread_rows(
    values: npt.NDArray[Any], rows: npt.NDArray[np.int64], batch: int, fill: np.generic
) -> npt.NDArray[Any]:
    """Return the values at these rows of a batch, `fill` everywhere else."""
    out = np.full((batch, *values.shape[1:]), fill, fill.dtype)
    out[rows] = values
    return out


def moved_by(
    batch: int,
    terms: npt.NDArray[np.float64] | None,
    tokens_out: _Float32s,
    extra_usd: _Float32s,
    with_cached: _Float32s,
    given_tokens: _Float32s = None,
) -> Moved | None:
    """Return the arguments that moved each row's costs; None where none moved any.

    Args:
        terms: (batch, terms) of `Encoded`: NaN where the bill was given and not counted; None where not known.
        tokens_out, extra_usd: (models,) or (batch, models), as the caller gave them.
        with_cached: extra_usd with what cached tokens save. A row that nothing is added to, or saved on, is not moved.
        given_tokens: (batch, models), what the function of that name returns. Where they are all of a row's, a given bill moves nothing.
    """
    # Of one row numpy takes longer to begin than to look: only what was given is looked at, and rows are told apart in lists.
    flags: dict[
        str, bool | list[bool]
    ] = {}  # argument -> whether it moved each row; one bool where it is the same of all
    estimated = None if given_tokens is None else np.isnan(given_tokens)  # (batch, models)
    if terms is not None:
        billed = [first != first for first in terms[:, 0].tolist()]  # NaN
        if estimated is not None and True in billed:
            billed = [a and b for a, b in zip(billed, np.logical_or.reduce(estimated, axis=-1).tolist(), strict=True)]
        flags["billed_tokens"] = billed
    if tokens_out is not None:
        flags["tokens_out"] = True
    if extra_usd is not None:
        flags["extra_usd"] = np.logical_or.reduce(extra_usd != 0, axis=-1).tolist()
    if with_cached is not None and with_cached is not extra_usd:
        before = np.float32(0) if extra_usd is None else extra_usd
        flags["cached_tokens"] = np.logical_or.reduce(with_cached != before, axis=-1).tolist()
    if estimated is not None:
        flags["tokens_in"] = np.logical_or.reduce(~estimated, axis=-1).tolist()
    known = {name: moved for name, moved in flags.items() if moved is True or (moved is not False and True in moved)}
    if not known:
        return None
    columns = [[True] * batch if moved is True else moved for moved in known.values()]
    return tuple([tuple(compress(known, row)) for row in zip(*columns, strict=True)])
