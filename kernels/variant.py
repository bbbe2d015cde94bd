"""A `decide` kernel is compiled for a variant and for launch parameters; launch, build and cubins share them.

    KernelVariant   the form of heads and requests: which parts there are, and their types
    LaunchParams    tiles, warps and stages: data with a source (launch.json), by architecture, dim and shape class, never by batch

Neither Triton nor torch is needed to import this.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from ipr_engine.errors import InvalidInputError

WeightType = Literal["float32", "float16", "bfloat16"]
Pooling = Literal["none", "mean", "cls", "last"]

TYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
POINTERS = (
    "x", "weights", "vectors", "policies", "policy_of_row", "billed_tokens", "given_tokens", "extra_usd", "row_allowed",
    "states", "lengths", "norm_scale", "norm_shift", "sequence",
    "quality", "tokens_out", "cost_usd", "threshold_to", "gap_to", "index_to", "status_to", "cause_to", "x_copy", "done",
    "adapters", "flags", "arrivals",
)  # fmt: skip
# Never specialised by Triton (decide.py says so too): one cubin serves every value.
INTEGERS = (
    "batch", "models", "policy_count", "billed_stride", "billed_step", "given_stride", "extra_stride", "allowed_stride",
    "tokens",
)  # fmt: skip
_INT32 = {"policy_of_row", "lengths", "sequence", "index_to", "done", "flags", "arrivals"}
_UINT8 = {"row_allowed", "status_to", "cause_to"}


@dataclass(frozen=True, kw_only=True)
class LaunchParams:
    """`LaunchParams` fix tiling and the order of every sum.

    Attributes:
        one_program: all candidates in one program, which makes the choice; else programs of block_models candidates each,
            the last of a row block to arrive makes it.
        block_rows, block_models, block_hidden, block_dim: prompts, candidates, hidden units and elements of x in a tile;
            powers of two, block_dim at most 128, block_hidden at most 64.
        unroll: how many times the loop over x is unrolled: loads in flight.
        block_choice: candidates a pass of the last program takes at once.
        block_tokens: the most tokens that pooling adds at once; from num_warps on its loop has no barrier.
        num_warps, num_stages: Triton's.
        shape_class, source: the entry of launch.json, and where its numbers come from.
    """

    one_program: bool
    block_rows: int
    block_models: int
    block_hidden: int
    block_dim: int
    unroll: int
    block_choice: int
    block_tokens: int
    num_warps: int
    num_stages: int
    shape_class: str = "given"
    source: str = "given by the caller"

    def __post_init__(self) -> None:
        bounds = {
            "block_rows": (1, 128), "block_models": (1, 1024), "block_hidden": (1, 64),
            "block_dim": (1, 128), "unroll": (1, 16), "block_choice": (1, 1024), "block_tokens": (1, 128),
            "num_warps": (1, 32), "num_stages": (1, 8),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            # Triton's tensors have sides of powers of two; stages and unrolling are mere counts.
            power = name in ("num_stages", "unroll") or value & (value - 1) == 0
            if not (low <= value <= high and power):
                kind = "a number" if name in ("num_stages", "unroll") else "a power of two"
                raise InvalidInputError(f"{name}: expected {kind} from {low} to {high}, got {value}")


@cache
def _entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((files(__package__) / "launch.json").read_text("utf-8"))["entries"]
    return found


def launch_params(models: int, dim: int, arch: str | None = None, *, adapters: bool = False) -> LaunchParams:
    """Return the parameters of launch.json for a number of candidates, a width of x, and heads with or without adapters.

    Args:
        arch: "sm_90", or None for entries of any architecture.
    """
    for entry in _entries():  # the first that fits is the one
        fits = entry["arch"] in (None, arch) and entry["adapters"] in (None, adapters)
        if fits and dim > entry["dim_above"] and (entry["models_max"] is None or models <= entry["models_max"]):
            return LaunchParams(**entry["params"], shape_class=entry["shape_class"], source=entry["source"])
    raise InvalidInputError(f"models: launch.json has no entry for {models} candidates of dim {dim} on {arch}")


def check_fits(params: LaunchParams, models: int) -> None:
    """Raise InvalidInputError where `params` cannot launch heads of that number of candidates."""
    if params.one_program and models > params.block_models:
        raise InvalidInputError(
            f"launch: one_program takes at most block_models = {params.block_models} candidates, got {models}"
        )


@dataclass(frozen=True, kw_only=True)
class KernelVariant:
    """A `KernelVariant` is a compiled variant of decide_kernel: the packed form, a request's optional inputs, the pooling before it.

    The number of candidates, the batch and the number of policies are arguments of the kernel: one variant serves all.

    Attributes:
        hidden, rank: 0 = absent. trees, depth: of the forest, 0 = none.
        width: the columns of x that the products take, beside a forest that reads more; 0 = all.
        given, extra, row_mask: whether tokens, extra_usd and a mask per row are read.
        pooling: "none" where x is given; else x is made of token states of type `states`, L2 normalised if `normalize`.
        state_eps: the epsilon of the LayerNorm that each token passes before it is pooled; 0 = none.
        x_copy: whether x is written to a second place. done: whether the host is told at the end.
        pdl: programmatic dependent launch: the kernel begins before the one before it has ended, and waits for it.
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
    state_eps: float = 0.0
    x_copy: bool = False
    done: bool = False
    pdl: bool = False
    trees: int = 0
    depth: int = 0
    width: int = 0

    def on(self, arch: str) -> KernelVariant:
        """Return this variant as an architecture takes it: without `pdl` before sm_90."""
        return replace(self, pdl=self.pdl and takes_pdl(arch))

    def launch_params(self, models: int, arch: str | None = None) -> LaunchParams:
        """Return the parameters of launch.json for this variant and a number of candidates."""
        return launch_params(models, self.dim, arch, adapters=self.rank > 0)

    def signature(self) -> dict[str, str]:
        """Return Triton's type of each argument, in order; "*" is a pointer, aligned to 16 bytes."""
        types = dict.fromkeys(POINTERS, "*fp32")
        types |= dict.fromkeys(_INT32, "*i32") | dict.fromkeys(_UINT8, "*u8")
        types |= {"weights": f"*{TYPES[self.weights]}", "states": f"*{TYPES[self.states]}"}
        return types | dict.fromkeys(INTEGERS, "i32")

    def constants(self, params: LaunchParams) -> dict[str, Any]:
        """Return the compile-time arguments of decide_kernel."""
        # Pooling (pool.py): a line is what the 32 lanes of a warp load at once, 16 bytes each. A block of tokens is as many as
        # 64 sums a thread hold, and at least one a warp.
        width = min(_power_of_two(self.dim), 32 * 16 // (4 if self.states == "float32" else 2))
        parts = _power_of_two(-(-self.dim // width))
        tokens = min(params.block_tokens, max(params.num_warps, 64 * 32 * params.num_warps // (parts * width)))
        return {
            "DIM": self.dim, "WIDTH": self.width or self.dim, "HIDDEN": self.hidden, "RANK": self.rank, "ACTIVATION": self.activation,
            "HAS_SKIP": self.skip, "HAS_TRUNK": self.trunk, "HAS_IDENTITY": self.identity, "HAS_LEN": self.tokens,
            "TREES": self.trees, "DEPTH": self.depth, "BLOCK_TREES": self._trees_at_once(params),
            "HAS_GIVEN": self.given, "HAS_EXTRA": self.extra, "HAS_ROW_MASK": self.row_mask,
            "POOLING": self.pooling, "NORMALIZE": self.normalize, "STATE_EPS": self.state_eps, "X_COPY": self.x_copy,
            "DONE": self.done, "PDL": self.pdl,
            "ONE_PROGRAM": params.one_program,
            "BLOCK_ROWS": params.block_rows, "BLOCK_MODELS": params.block_models, "BLOCK_HIDDEN": params.block_hidden,
            "BLOCK_DIM": params.block_dim, "UNROLL": params.unroll, "BLOCK_CHOICE": params.block_choice,
            "BLOCK_TOKENS": tokens, "POOL_PARTS": parts, "POOL_WIDTH": width,
        }  # fmt: skip

    def _trees_at_once(self, params: LaunchParams) -> int:
        """Return how many trees are walked side by side: a power of two, so that a thread adds at most 64 leaves at once."""
        room = 64 * 32 * params.num_warps // (params.block_rows * params.block_models)
        return max(1, min(_power_of_two(max(self.trees, 1)), 32, room))

    def name(self, params: LaunchParams) -> str:
        """Return a file name: shape class, dim, hidden and a hash of everything else but the source of the parameters."""
        form = asdict(self)
        if not self.trees:  # names from before there were forests stay
            del form["trees"], form["depth"], form["width"]
        text = json.dumps([form, {**asdict(params), "source": None}], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return f"decide_{params.shape_class}_{self.dim}x{self.hidden}_{self.weights}_{digest}"


def _power_of_two(number: int) -> int:
    """Return the least power of two that is not below."""
    return 1 << (number - 1).bit_length()


def takes_pdl(arch: str) -> bool:
    """Return whether an architecture, "sm_90" say, has programmatic dependent launch."""
    return int(arch.removeprefix("sm_")) >= 90


def options(params: LaunchParams, *, pdl: bool = False) -> dict[str, Any]:
    """Return Triton's options; the last says how it launches, and is no part of what it compiles."""
    # All the registers a program can have: left to itself ptxas spills, to fit more programs on a processor than there are.
    # 65,536 registers a processor, 255 a thread.
    most = min(255, (1 << 16) // (32 * params.num_warps))
    # No contraction: sums keep the written order of docs/decide.md; what is fused says tl.fma.
    return {
        "num_warps": params.num_warps, "num_stages": params.num_stages, "enable_fp_fusion": False, "maxnreg": most,
        "launch_pdl": pdl,
    }  # fmt: skip


def grid(params: LaunchParams, batch: int, models: int) -> tuple[int, int, int]:
    """Return the programs of a launch: (blocks of rows, blocks of candidates, 1)."""
    return (-(-batch // params.block_rows), 1 if params.one_program else -(-models // params.block_models), 1)
