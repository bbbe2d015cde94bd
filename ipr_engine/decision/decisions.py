"""`Decisions` holds the decisions of a batch, as a sequence and as arrays; bad prompts leave the others in their places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias, cast, overload

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, decide_result
from ipr_engine.bundle import BundleSpec
from ipr_engine.bundle.origin import prior_of
from ipr_engine.bundle.task_names import AskedTask
from ipr_engine.decide.contract import CAUSE, STATUS
from ipr_engine.decision.decision import OK, Decision, FailedRow, Row
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import RowError
from ipr_engine.policy.policy import Policy
from ipr_engine.request.overrides import RequestOverrides
from ipr_engine.request.route_request import check_on_error
from ipr_engine.request.row_inputs import PLAIN_BATCH, BatchInputs, Moved, RequestLimits, RowInputs, spread_rows

# What a row without a decision has in each field of a result, and so the dtypes of `DecideResult`.
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
_PER_MODEL = ("quality", "tokens_out", "cost_usd")  # (batch, models); the others are (batch,)

# Figures of a batch's prompts by the first encoder and the router, in the order of `Router.route_many`: billed_tokens (batch,) int64,
# truncated (batch,) bool, support (batch,) float32 or None, own_tokens (batch, models) float32 or None. A named tuple costs 0.3 us more.
PromptFigures: TypeAlias = tuple[
    npt.NDArray[np.int64],
    npt.NDArray[np.bool_],
    npt.NDArray[np.float32] | None,
    npt.NDArray[np.float32] | None,
]


class MadeOn(NamedTuple):
    """A `MadeOn` holds what a batch was decided on, for a record of it.

    Attributes:
        encoded: by the first encoder. x: of each row the embedding that was decided on, the second encoder's where the row escalated.
        texts: what was encoded of each prompt, by each tier that may have decided, and its newest turn; None where embeddings were given.
        overrides: what the caller gave.
    """

    encoded: Encoded
    overrides: RequestOverrides
    texts: Sequence[tuple[str, ...]] | None
    x: list[npt.NDArray[np.float32]]


class Decisions:
    """A `Decisions` holds the answers for a batch: a sequence of Decision and FailedRow, and the same as arrays.

    Attributes:
        index: (batch,) int32, -1 where a row failed.
        qualities, costs_usd, costs, tokens_out: (batch, models) float32, every candidate, in bundle order; costs are what the policy
            trades against quality: costs_usd, or the weighted sums of its `cost_weights`, NaN of candidates whose terms are not known.
        cost_usd, cost: (batch,) float32, of the chosen candidates.
        extra_usd: (models,) or (batch, models) float32, what was added to the costs; None for nothing.
        threshold, gap: (batch,) float32.
        billed_tokens (batch,) int64, truncated and escalated (batch,) bool, support (batch,) float32 or None: see `Decision`.
        own_tokens: (batch, models) float32, input tokens by each candidate's own count; None where none was given and no candidate
            names its tokenizer. tokens_in_given: (batch, models) bool, which of them the caller gave; None for none.
        status, cause: (batch,) uint8 into `ipr_engine.decide.contract.STATUS` and `CAUSE`.
        errors: row -> what is wrong with its prompt, where the status is "invalid_input".
        limits: what the requests ask for; None where they are text alone and output tokens are predicted.
        moved: of each row, which arguments of the caller moved its predicted costs; None where none moved any.
        result, policy, bundle: the answers of the run, and those that decided. inputs: errors, limits, moved and the like, as one.
        made_on: the embeddings that were decided on, where somebody asked to keep them; else None.
    """

    __slots__ = (
        "_escalated",
        "billed_tokens",
        "bundle",
        "inputs",
        "made_on",
        "own_tokens",
        "policy",
        "result",
        "support",
        "truncated",
    )

    def __init__(
        self,
        result: DecideResult,
        policy: Policy,
        bundle: BundleSpec,
        figures: PromptFigures,
        escalated: npt.NDArray[np.bool_] | None = None,
        inputs: BatchInputs = PLAIN_BATCH,
    ) -> None:
        """Keep the rows of a result. figures: of the prompts, see `PromptFigures`. escalated: (batch,) bool; None for no row."""
        self.result = result
        self.policy = policy
        self.bundle = bundle
        self.billed_tokens, self.truncated, self.support, self.own_tokens = figures
        self._escalated = escalated
        self.inputs = inputs
        self.made_on: MadeOn | None = None

    def __getstate__(self) -> tuple[None, dict[str, Any]]:
        """Return all but `made_on`: text and embeddings of prompts do not leave the process with the answers."""
        slots = cast(tuple[None, dict[str, Any]], super().__getstate__())[1]
        return None, slots | {"made_on": None}

    def __len__(self) -> int:
        return len(self.result)

    @overload
    def __getitem__(self, row: int) -> Row: ...
    @overload
    def __getitem__(self, row: slice) -> list[Row]: ...
    def __getitem__(self, row: int | slice) -> Row | list[Row]:
        if isinstance(row, slice):
            return [self[r] for r in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} decisions")
        row %= len(self)  # negative ones count from the end
        kind = Decision if self.result.index_at(row) >= 0 else FailedRow
        made: Row = kind(
            self.result,
            row,
            self.policy,
            self.bundle,
            int(self.billed_tokens[row]),
            bool(self.truncated[row]),
            None if self.support is None else float(self.support[row]),
            None if self.own_tokens is None else self.own_tokens[row],  # (models,)
        )
        if self._escalated is not None:
            made.escalated = bool(self._escalated[row])
        if self.inputs is not PLAIN_BATCH:
            made.inputs = self.inputs.row(row)
        return made

    def __iter__(self) -> Iterator[Row]:
        return (self[row] for row in range(len(self)))

    @property
    def models(self) -> list[str | None]:
        """Return the names of the chosen candidates, None where a row failed."""
        names = self.bundle.names
        return [None if m < 0 else names[m] for m in self.result.index.tolist()]

    @property
    def priors(self) -> list[str | None]:
        """Return `Decision.prior` of every row."""
        bundle = self.bundle
        priors = {name: prior_of(bundle, name) for name in bundle.names}
        return [None if name is None else priors[name] for name in self.models]

    @property
    def all_ok(self) -> bool:
        """Return whether every row was decided."""
        return self.result.all_ok

    @property
    def escalated(self) -> npt.NDArray[np.bool_]:
        return np.zeros(len(self), np.bool_) if self._escalated is None else self._escalated

    @property
    def extra_usd(self) -> npt.NDArray[np.float32] | None:
        return self.inputs.extra_usd

    @property
    def tokens_in_given(self) -> npt.NDArray[np.bool_] | None:
        return self.inputs.tokens_in_given

    @property
    def errors(self) -> Mapping[int, str]:
        return self.inputs.errors

    @property
    def limits(self) -> RequestLimits | None:
        return self.inputs.limits

    @property
    def moved(self) -> Moved | None:
        return self.inputs.moved

    @property
    def index(self) -> npt.NDArray[np.int32]:
        return self.result.index

    @property
    def quality(self) -> npt.NDArray[np.float32]:
        """Return (batch,) float32 predicted quality of the chosen candidates, NaN where a row failed."""
        return self._chosen(self.result.quality)

    @property
    def cost_usd(self) -> npt.NDArray[np.float32]:
        """Return (batch,) float32 expected cost in USD of the chosen candidates, NaN where a row failed."""
        return self._chosen(self.costs_usd)

    @property
    def cost(self) -> npt.NDArray[np.float32]:
        return self._chosen(self.result.cost_usd)

    @property
    def qualities(self) -> npt.NDArray[np.float32]:
        return self.result.quality

    @property
    def costs_usd(self) -> npt.NDArray[np.float32]:
        if self.policy.weighing is None:
            return self.result.cost_usd
        return self.policy.usd(self.billed_tokens, self.own_tokens, self.result.tokens_out, self.extra_usd)

    @property
    def costs(self) -> npt.NDArray[np.float32]:
        costs = self.result.cost_usd
        return costs if self.policy.weighing is None else self.policy.weighing.known(costs)

    @property
    def tokens_out(self) -> npt.NDArray[np.float32]:
        return self.result.tokens_out

    @property
    def threshold(self) -> npt.NDArray[np.float32]:
        return self.result.threshold

    @property
    def gap(self) -> npt.NDArray[np.float32]:
        return self.result.gap

    @property
    def status(self) -> npt.NDArray[np.uint8]:
        return self.result.status

    @property
    def cause(self) -> npt.NDArray[np.uint8]:
        return self.result.cause

    @property
    def calibration(self) -> list[str]:
        """Return `Decision.calibration` of every row."""
        return [decision.calibration for decision in self]

    @property
    def bundle_hash(self) -> str:
        return self.bundle.hash

    def _chosen(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        index = self.result.index
        if values.shape[1] == 0 or len(index) == 0:
            return np.zeros(len(index), np.float32)
        # a failed row's -1 is read as 0, then replaced
        picked = np.take_along_axis(values, np.maximum(index, 0)[:, None].astype(np.int64), axis=1)[:, 0]
        return np.where(index >= 0, picked, np.float32("nan"))

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return `Decision.to_dict` of every row."""
        return [decision.to_dict() for decision in self]

    def __repr__(self) -> str:
        counts: dict[str, int] = {}
        for name in self.models:
            counts[name or "failed"] = counts.get(name or "failed", 0) + 1
        shown = ", ".join(f"{name}: {n}" for name, n in sorted(counts.items(), key=lambda item: -item[1]))
        return f"Decisions({len(self)} rows; {shown})"


def with_failures(
    made: Decisions,
    good: npt.NDArray[np.int64],
    errors: Mapping[int, str],
    batch: int,
    tasks: tuple[AskedTask | None, ...] | None = None,
) -> Decisions:
    """Return the decisions `made` of the rows `good`, and for every other row the status "invalid_input" with its error.

    tasks: what each of all rows is for; None where nothing is said of any.
    """
    arrays = {name: spread_rows(getattr(made.result, name), good, batch, fill) for name, fill in _FILL.items()}
    nan = np.float32("nan")
    figures = (
        spread_rows(made.billed_tokens, good, batch, np.int64(0)),
        spread_rows(made.truncated, good, batch, np.False_),
        None if made.support is None else spread_rows(made.support, good, batch, nan),
        None if made.own_tokens is None else spread_rows(made.own_tokens, good, batch, nan),
    )
    escalated = spread_rows(made.escalated, good, batch, np.False_)
    inputs = replace(made.inputs.spread(good, batch, errors), tasks=tasks)
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


def checked_rows(decisions: Decisions, on_error: object) -> Decisions:
    """Return the decisions; raise RowError for the failed rows when on_error is "raise"."""
    if not decisions.all_ok or on_error != "raise":
        check_rows(decisions, on_error)
    return decisions


def check_rows(result: DecideResult | Decisions, on_error: object) -> None:
    """Raise RowError for the failed rows when on_error is "raise"."""
    check_on_error(on_error)
    if on_error == "raise":
        failed = np.flatnonzero(result.status != OK)
        if len(failed):
            raise RowError(failed.tolist(), [STATUS[result.status[row]] for row in failed])
