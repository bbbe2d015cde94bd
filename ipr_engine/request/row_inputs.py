"""What a decision was made of besides a prompt's embedding and bill: what its request asks for, and what its caller gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ipr_engine.request.limits import PLAIN, RequestLimits, RowLimits

Moved: TypeAlias = tuple[tuple[str, ...], ...]  # of each row, the arguments' names
_Float32s: TypeAlias = npt.NDArray[np.float32] | None


class RowInputs(NamedTuple):
    """A `RowInputs` holds those of one row.

    Attributes:
        limits: what the request asks for; None where it is text alone, and output tokens are predicted.
        extra_usd: (models,) float32, what was added to the costs; None for nothing.
        moved: which arguments of the caller moved its predicted costs.
        tokens_in_given: (models,) bool, whose input tokens the caller gave; None for nobody's.
        error: what is wrong with its prompt; None where nothing is.
    """

    limits: RowLimits | None = None
    extra_usd: npt.NDArray[np.float32] | None = None
    moved: tuple[str, ...] = ()
    tokens_in_given: npt.NDArray[np.bool_] | None = None
    error: str | None = None


PLAIN_ROW = RowInputs()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class BatchInputs:
    """A `BatchInputs` holds those of every row of a batch; None where no row has any.

    Attributes:
        limits, moved: of each row. extra_usd: (models,) or (batch, models) float32. tokens_in_given: (batch, models) bool.
        errors: row -> what is wrong with its prompt.
    """

    limits: RequestLimits | None = None
    extra_usd: npt.NDArray[np.float32] | None = None
    moved: Moved | None = None
    tokens_in_given: npt.NDArray[np.bool_] | None = None
    errors: Mapping[int, str] = field(default_factory=dict)

    def row(self, row: int) -> RowInputs:
        """Return those of one row."""
        extra = self.extra_usd
        return RowInputs(
            None if self.limits is None else self.limits.rows[row],
            extra if extra is None or extra.ndim == 1 else extra[row],
            () if self.moved is None else self.moved[row],
            None if self.tokens_in_given is None else self.tokens_in_given[row],
            self.errors.get(row),
        )

    def spread(self, good: npt.NDArray[np.int64], batch: int, errors: Mapping[int, str]) -> BatchInputs:
        """Return these, of the rows `good`, for a batch in which every other row has an error."""
        moved, limits, extra = self.moved, self.limits, self.extra_usd
        if moved is not None:
            by_row = dict(zip(good.tolist(), moved, strict=True))
            moved = tuple(by_row.get(row, ()) for row in range(batch))
        if limits is not None:
            rows = [PLAIN] * batch
            for at, row in enumerate(good.tolist()):
                rows[row] = limits.rows[at]
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
    """The arguments that moved each row's costs; None where none moved any.

    Args:
        terms: as of `Encoded`: NaN where the bill was given and not counted; None where not known.
        tokens_out, extra_usd: (models,) or (batch, models), as the caller gave them.
        with_cached: extra_usd with what cached tokens save. A row that nothing is added to, or saved on, is not moved.
        given_tokens: (batch, models) as of the function of that name. Where they are all of a row's, a given bill moves nothing.
    """
    before = np.float32(0) if extra_usd is None else extra_usd
    estimated = np.ones((1, 1), np.bool_) if given_tokens is None else np.isnan(given_tokens)
    rows = {
        "billed_tokens": False if terms is None else np.isnan(terms[:, 0]) & estimated.any(axis=-1),
        "tokens_out": tokens_out is not None,
        "extra_usd": False if extra_usd is None else (extra_usd != 0).any(axis=-1),
        "cached_tokens": False if with_cached is extra_usd else (with_cached != before).any(axis=-1),  # type: ignore[union-attr]
        "tokens_in": ~estimated.all(axis=-1),
    }
    known = {name: np.broadcast_to(moved, (batch,)) for name, moved in rows.items() if np.any(moved)}
    if not known:
        return None
    return tuple(tuple(name for name, moved in known.items() if moved[row]) for row in range(batch))
