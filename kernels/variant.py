"""What a compiled `decide` is compiled for: shared by the launch, the build and the cubins, and free of Triton and torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from .launch import LaunchParams

WeightType = Literal["float32", "float16", "bfloat16"]
Pooling = Literal["none", "mean", "cls", "last"]

TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
POINTERS = (
    "x", "weights", "vectors", "policies", "policy_of_row", "billed_tokens", "given_tokens", "extra_usd", "row_allowed",
    "states", "token_mask",
    "quality", "tokens_out", "cost_usd", "threshold_to", "gap_to", "index_to", "status_to", "cause_to",
    "adapters", "flags", "arrivals",
)  # fmt: skip
INTEGERS = (
    "batch", "models", "policy_count", "billed_stride", "billed_step", "given_stride", "extra_stride", "allowed_stride",
    "tokens",
)  # fmt: skip
_INT32 = {"policy_of_row", "index_to", "flags", "arrivals"}
_UINT8 = {"row_allowed", "status_to", "cause_to"}


@dataclass(frozen=True, kw_only=True)
class KernelVariant:
    """One compiled variant of decide_kernel: the packed form, what a request brings, the pooling before it.

    The number of candidates, the batch and the number of policies are arguments of the kernel: one variant serves all.

    Attributes:
        hidden, rank: 0 = absent.
        given, extra, row_mask: whether tokens, extra_usd and a mask per row are read.
        pooling: "none" where x is given; else x is made of token states of type `states`, L2 normalised if `normalize`.
    """

    dim: int
    hidden: int = 0
    rank: int = 0
    activation: str = "relu"
    skip: bool = True
    trunk: bool = False
    identity: bool = False
    tokens: bool = True
    weights: WeightType = "float32"
    given: bool = False
    extra: bool = False
    row_mask: bool = False
    pooling: Pooling = "none"
    normalize: bool = False
    states: WeightType = "float32"

    def signature(self) -> dict[str, str]:
        """Return Triton's type of each argument, in order; "*" is a pointer, aligned to 16 bytes."""
        types = dict.fromkeys(POINTERS, "*fp32")
        types |= dict.fromkeys(_INT32, "*i32") | dict.fromkeys(_UINT8, "*u8")
        types |= {"token_mask": "*i64", "weights": f"*{TYPES[self.weights]}", "states": f"*{TYPES[self.states]}"}
        return types | dict.fromkeys(INTEGERS, "i32")

    def constants(self, params: LaunchParams) -> dict[str, Any]:
        """Return the compile-time arguments."""
        return {
            "DIM": self.dim, "HIDDEN": self.hidden, "RANK": self.rank, "ACTIVATION": self.activation,
            "HAS_SKIP": self.skip, "HAS_TRUNK": self.trunk, "HAS_IDENTITY": self.identity, "HAS_LEN": self.tokens,
            "HAS_GIVEN": self.given, "HAS_EXTRA": self.extra, "HAS_ROW_MASK": self.row_mask,
            "POOLING": self.pooling, "NORMALIZE": self.normalize,
            "ONE_PROGRAM": params.one_program,
            "BLOCK_ROWS": params.block_rows, "BLOCK_MODELS": params.block_models, "BLOCK_HIDDEN": params.block_hidden,
            "BLOCK_DIM": params.block_dim, "UNROLL": params.unroll, "BLOCK_CHOICE": params.block_choice,
            "BLOCK_TOKENS": params.block_tokens,
            "BLOCK_POOL": 1 << (self.dim - 1).bit_length(),
        }  # fmt: skip

    def name(self, params: LaunchParams) -> str:
        """Return a file name: shape class, dim, hidden and a hash of everything else but the source of the parameters."""
        text = json.dumps([asdict(self), {**asdict(params), "source": None}], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return f"decide_{params.shape_class}_{self.dim}x{self.hidden}_{self.weights}_{digest}"


def options(params: LaunchParams) -> dict[str, Any]:
    """Return Triton's compile options.

    No contraction: the written order of docs/decide.md; what is fused says tl.fma. maxnreg: all the registers
    that a program can have; left to itself ptxas spills to fit more programs on a processor than there are.
    """
    most = min(255, (1 << 16) // (32 * params.num_warps))
    return {
        "num_warps": params.num_warps, "num_stages": params.num_stages, "enable_fp_fusion": False, "maxnreg": most,
    }  # fmt: skip


def grid(params: LaunchParams, batch: int, models: int) -> tuple[int, int, int]:
    """Return the programs of a launch: row blocks by blocks of candidates."""
    return (-(-batch // params.block_rows), 1 if params.one_program else -(-models // params.block_models), 1)
