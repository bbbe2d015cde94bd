"""`RouteRows` holds the arguments of a request on a GPU besides its policy, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class AskedLimits(Protocol):
    """`AskedLimits` are the conditions that the requests of a batch state; `RequestLimits` (request/row_inputs.py) is one.

    Attributes: each has a row a request, and is None where no request states it.
        allowed: (rows, models), the candidates that may be chosen. max_tokens: (rows,), -1 where none is stated.
        answers: (rows,), how many answers each asks for.
    """

    @property
    def allowed(self) -> NDArray[np.bool_] | None: ...
    @property
    def max_tokens(self) -> NDArray[np.int64] | None: ...
    @property
    def answers(self) -> NDArray[np.int64] | None: ...

    def at(self, rows: NDArray[Any]) -> AskedLimits:
        """Return the limits of these rows."""


class Windows(Protocol):
    """A `Windows` knows the context windows of a bundle's candidates; `ContextWindows` (bundle/context_windows.py) is one.

    Attributes:
        ratios: (models,), each candidate's tokens for one of the bundle's.
    """

    @property
    def ratios(self) -> NDArray[np.float64]: ...

    def within(
        self,
        billed: NDArray[np.int64],
        tokens_out: NDArray[np.float32],
        max_tokens: NDArray[np.int64] | None,
        answers: NDArray[np.int64] | None = None,
        own: NDArray[np.float32] | None = None,
    ) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
        """Return whether each candidate's window holds each row, and the output tokens to decide with, both (rows, models)."""


@dataclass(frozen=True, kw_only=True)
class RouteRows:
    """`RouteRows` are the prompts of a request as ids, and its arguments besides the policy.

    Attributes:
        ids: (tokens,) int64 of each row, 1 to max_tokens. billed: (rows,) int64.
        tokens_out, extra_usd: (models,) or (rows, models) float32, or None.
        own_tokens: (rows, models) float32, input tokens by each candidate's own count; None: billed * token_ratio.
        limits: the conditions of the requests; None for none.
    """

    ids: list[NDArray[np.int64]]
    billed: NDArray[np.int64]
    tokens_out: NDArray[np.float32] | None = None
    extra_usd: NDArray[np.float32] | None = None
    own_tokens: NDArray[np.float32] | None = None
    limits: AskedLimits | None = None

    def at(self, rows: NDArray[Any]) -> RouteRows:
        """Return the arguments of these rows alone."""
        return RouteRows(
            ids=[self.ids[row] for row in rows.tolist()],
            billed=self.billed[rows],
            tokens_out=rows_of(self.tokens_out, rows),
            extra_usd=rows_of(self.extra_usd, rows),
            own_tokens=None if self.own_tokens is None else self.own_tokens[rows],
            limits=None if self.limits is None else self.limits.at(rows),
        )


def rows_of(values: NDArray[np.float32] | None, rows: NDArray[Any] | list[int]) -> NDArray[np.float32] | None:
    """Return (models,) as it is, and (batch, models) at these rows."""
    return values if values is None or values.ndim == 1 else values[rows]
