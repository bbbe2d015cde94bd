"""What a decision was made of besides a prompt's embedding and bill: what its request asks for, and what its caller gave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.request.limits import PLAIN, RequestLimits, RowLimits
from ipr_engine.request.moved_costs import Moved


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
