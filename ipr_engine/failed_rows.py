"""A batch in which some prompts are bad keeps the decisions of the others, in their places."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, decide_result
from ipr_engine.bundle import BundleSpec
from ipr_engine.decide.contract import CAUSE, STATUS
from ipr_engine.decision import FailedRow
from ipr_engine.decisions import Decisions
from ipr_engine.policy.policy import Policy
from ipr_engine.request.row_inputs import RowInputs, spread_rows

_FILL: Mapping[str, np.generic] = {
    "quality": np.float32("nan"),
    "tokens_out": np.float32("nan"),
    "cost_usd": np.float32("nan"),
    "threshold": np.float32("nan"),
    "gap": np.float32("nan"),
    "index": np.int32(-1),
    "status": np.uint8(STATUS.index("invalid_input")),
    "cause": np.uint8(CAUSE.index("failed")),
}
_PER_MODEL = ("quality", "tokens_out", "cost_usd")


def with_failures(made: Decisions, good: npt.NDArray[np.int64], errors: Mapping[int, str], batch: int) -> Decisions:
    """Return the decisions `made` of the rows `good`, and for every other row the status "invalid_input" with its error."""
    arrays = {name: spread_rows(getattr(made.result, name), good, batch, fill) for name, fill in _FILL.items()}
    nan = np.float32("nan")
    figures = (
        spread_rows(made.billed_tokens, good, batch, np.int64(0)),
        spread_rows(made.truncated, good, batch, np.False_),
        None if made.support is None else spread_rows(made.support, good, batch, nan),
        None if made.own_tokens is None else spread_rows(made.own_tokens, good, batch, nan),
    )
    escalated = spread_rows(made.escalated, good, batch, np.False_)
    inputs = made.inputs.spread(good, batch, errors)
    return Decisions(decide_result(**arrays), made.policy, made.bundle, figures, escalated, inputs)


def invalid_row(policy: Policy, bundle: BundleSpec, error: str) -> FailedRow:
    """Return the row of one bad prompt: status "invalid_input", with what is wrong with it."""
    support = None if bundle.support is None else np.nan
    row = FailedRow(unpredicted(len(bundle.names)), 0, policy, bundle, 0, False, support)
    row.inputs = RowInputs(error=error)
    return row


def unpredicted(models: int, **fields: int) -> DecideResult:
    """Return a result of one row for which nothing was predicted: of a bad prompt, unless `fields` say otherwise.

    fields: index, status and cause, in place of a bad prompt's.
    """
    arrays: dict[str, Any] = {}
    for name, fill in _FILL.items():
        shape = (1, models) if name in _PER_MODEL else (1,)
        arrays[name] = np.full(shape, fields.get(name, fill), fill.dtype)
    return decide_result(**arrays)
