"""`decide` turns embeddings into choices, in one fused call (docs/decide.md; arXiv 2509.06274, sec. 2.2).

    plan = DecidePlan(Heads(skip=skip, bias=bias, len_skip=len_skip, len_bias=len_bias))   # once per set of heads
    policy = DecidePolicy(plan, alpha_hi=0.7, alpha_lo=0.3, offset=0, worth=0,             # once per tolerance
                          in_rate=in_rate, out_rate=out_rate, fixed_usd=fixed_usd, allowed=allowed)
    result = plan.run(x, policy, billed_tokens=120)                                        # once per batch
    result.index_at(0), result.quality, result.cost_usd, CAUSE[result.cause_at(0)]

The three classes are compiled code, used as they are so that nothing stands between a caller and the kernel; types and
docstrings are in _C.pyi. The same in numpy float64, to read: ipr_engine/decide/reference.py.
"""

from __future__ import annotations

import copyreg
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecidePlan, DecidePolicy, DecideResult, available_isas, check_heads, decide_result

__all__ = ["CAUSE", "STATUS", "DecidePlan", "DecidePolicy", "DecideResult", "Heads", "available_isas"]

# Codes of DecideResult, in this order in csrc/include/ipr/decide_types.h and kernels/choose.py too.
STATUS = ("ok", "nonfinite_quality", "nonfinite_cost", "none_allowed", "invalid_input")  # the op never makes the last
CAUSE = (
    "failed",
    "only_allowed",
    "below_fixed_level",
    "best_quality",
    "within_tolerance",
    "unsupported",
)  # the op never makes the last

# The arrays of a DecideResult, in the order in which `decide_result` takes them.
PARTS = ("quality", "tokens_out", "cost_usd", "threshold", "gap", "index", "status", "cause")

# What a router says of one prompt: decided, billed_tokens, truncated, support (None without centroids), own tokens (models,)
# float32 as bytes, since one row makes no array (None where no candidate names its tokenizer).
OneRow = tuple[DecideResult, int, bool, float | None, bytes | None]
# The same of several, each (rows,), own tokens (rows, models) float32.
ManyRows = tuple[
    DecideResult,
    npt.NDArray[np.int64],
    npt.NDArray[np.bool_],
    npt.NDArray[np.float32] | None,
    npt.NDArray[np.float32] | None,
]

Floats = npt.NDArray[np.float32]


def result_of_parts(*parts: npt.NDArray[Any]) -> DecideResult:
    """Return a result of these arrays, copied; they are in the order of `PARTS`."""
    return decide_result(*parts)


def _reduced(result: DecideResult) -> tuple[Any, ...]:
    return result_of_parts, tuple(getattr(result, part) for part in PARTS)


copyreg.pickle(
    DecideResult, _reduced
)  # a compiled policy pickles itself (bind_decide.cpp); a plan is made where it runs


@dataclass(frozen=True, kw_only=True, eq=False)
class Heads:
    """`Heads` are trained heads of `models` candidates on a `dim`-wide embedding x, as float32 C-contiguous arrays; None = absent.

    quality = sigmoid(skip . x + out . act(trunk x + identity + up (down x)) + bias + forest)
    forest  = sum over trees t of tree_leaf[t, the leaf that x comes to]
    tokens  = min(exp(len_skip . x + len_bias), len_cap)

    Attributes:
        skip: (models, dim).
        bias: (models,).
        trunk: (hidden, dim), shared by all candidates.
        identity: (models, hidden), one learned vector per candidate.
        up, down: (models, hidden, rank) and (models, rank, dim), a low-rank adapter per candidate; both or neither.
        out: (models, hidden). Absent in a linear head, which then has none of trunk, identity, up, down.
        activation: "relu", "silu" or "gelu" (tanh form).
        tree_column, tree_threshold: (trees, 2^depth - 1), int32 in [0, dim) and float32, not NaN: the nodes of each tree in
            heap order. From node i x goes to 2 i + 2 where x[column] > threshold, else (a NaN too) to 2 i + 1; threshold
            +inf is "always left", for a branch that ends earlier. 1 to 1024 trees, depth 1 to 10.
        tree_leaf: (trees, 2^depth, models), what each leaf adds to the logits. All three arrays of a forest or none.
        len_skip, len_bias: (models, dim) and (models,), log of the output tokens; both or neither.
        len_cap: (models,), most output tokens.
        tie_rank: (models,) int32, distinct: lower wins when objective and quality are equal. By default the position.
        dim: columns of x; by default those of skip, trunk, down and len_skip. Beside a forest it may be more: these take
            the first columns of x, and trees may read all of them.

    Raises:
        InvalidInputError: a dtype, shape, combination or value differs from the above.
    """

    bias: Floats
    skip: Floats | None = None
    trunk: Floats | None = None
    identity: Floats | None = None
    up: Floats | None = None
    down: Floats | None = None
    out: Floats | None = None
    tree_column: npt.NDArray[np.int32] | None = None
    tree_threshold: Floats | None = None
    tree_leaf: Floats | None = None
    activation: Literal["relu", "silu", "gelu"] = "relu"
    len_skip: Floats | None = None
    len_bias: Floats | None = None
    len_cap: Floats | None = None
    tie_rank: npt.NDArray[np.int32] | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        check_heads(self)
