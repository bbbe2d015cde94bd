"""A batch in which some prompts are bad keeps the decisions of the others, in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import decide_result
from ipr_engine.bundle import Bundle
from ipr_engine.decide.contract import CAUSE, STATUS
from ipr_engine.decision import Decisions, FailedRow
from ipr_engine.policy.policy import Policy
from ipr_engine.request.limits import PLAIN, RequestLimits

INVALID_INPUT = STATUS.index("invalid_input")
FAILED = CAUSE.index("failed")
_FILL: Mapping[str, tuple[type, Any]] = {
    "quality": (np.float32, np.nan),
    "tokens_out": (np.float32, np.nan),
    "cost_usd": (np.float32, np.nan),
    "threshold": (np.float32, np.nan),
    "gap": (np.float32, np.nan),
    "index": (np.int32, -1),
    "status": (np.uint8, INVALID_INPUT),
    "cause": (np.uint8, FAILED),
}


def with_failures(made: Decisions, good: npt.NDArray[np.int64], errors: Mapping[int, str], batch: int) -> Decisions:
    """Return the decisions `made` of the rows `good`, and for every other row the status "invalid_input" with its error."""
    result = made._result
    arrays = {}
    for name, (dtype, fill) in _FILL.items():
        values = getattr(result, name)
        arrays[name] = _scattered(values, good, batch, fill, dtype)
    moved = None
    if made.moved is not None:
        by_row = dict(zip(good.tolist(), made.moved, strict=True))
        moved = tuple(by_row.get(row, ()) for row in range(batch))
    limits = made.limits
    if limits is not None:
        rows = [PLAIN] * batch
        for at, row in enumerate(good.tolist()):
            rows[row] = limits.rows[at]
        limits = RequestLimits(tuple(rows))
    return Decisions(
        decide_result(**arrays),
        made.policy,
        made._bundle,
        _scattered(made.billed_tokens, good, batch, 0, np.int64),
        _scattered(made.truncated, good, batch, False, np.bool_),
        None if made.support is None else _scattered(made.support, good, batch, np.nan, np.float32),
        None if made.own_tokens is None else _scattered(made.own_tokens, good, batch, np.nan, np.float32),
        _scattered(made.escalated, good, batch, False, np.bool_),
        limits,
        errors,
        extra_usd=_scattered_usd(made.extra_usd, good, batch),
        moved=moved,
        tokens_in_given=None
        if made.tokens_in_given is None
        else _scattered(made.tokens_in_given, good, batch, False, np.bool_),
    )


def invalid_row(policy: Policy, bundle: Bundle, error: str) -> FailedRow:
    """Return the row of one bad prompt: status "invalid_input", with what is wrong with it."""
    shapes = {name: (1, len(bundle.names)) if name in ("quality", "tokens_out", "cost_usd") else 1 for name in _FILL}
    arrays: dict[str, Any] = {name: np.full(shapes[name], fill, dtype) for name, (dtype, fill) in _FILL.items()}
    row = FailedRow(decide_result(**arrays), 0, policy, bundle, 0, False, None if bundle.support is None else np.nan)
    row._error = error
    return row


def _scattered_usd(
    extra_usd: npt.NDArray[np.float32] | None, good: npt.NDArray[np.int64], batch: int
) -> npt.NDArray[np.float32] | None:
    """What was added to the costs, of every row of the batch: (models,) is of each."""
    if extra_usd is None or extra_usd.ndim == 1:
        return extra_usd
    made: npt.NDArray[np.float32] = _scattered(extra_usd, good, batch, np.nan, np.float32)
    return made


def _scattered(values: npt.NDArray[Any], rows: npt.NDArray[np.int64], batch: int, fill: Any, dtype: type) -> Any:
    """Return the values at these rows of a batch, `fill` everywhere else."""
    out = np.full((batch, *values.shape[1:]), fill, dtype)
    out[rows] = values
    return out
