"""Launch parameters: data with a source (launch.json), by architecture and shape class, never by batch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ipr_engine.errors import InvalidInputError


@dataclass(frozen=True, kw_only=True)
class LaunchParams:
    """What fixes tiling and the order of every sum.

    Attributes:
        one_program: all candidates in one program, which makes the choice; else programs of block_models candidates each,
            the last of a row block to arrive makes it.
        block_rows, block_models, block_hidden, block_dim: prompts, candidates, hidden units and elements of x in a tile;
            powers of two, block_dim at most 128, block_hidden at most 64.
        unroll: how many times the loop over x is unrolled: loads in flight.
        block_choice: candidates a pass of the last program takes at once.
        block_tokens: tokens that pooling adds at once.
        num_warps, num_stages: Triton's.
        shape_class, source: the entry of launch.json it came from, and whence its numbers are.
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
            power = name in ("num_stages", "unroll") or value & (value - 1) == 0
            if not (low <= value <= high and power):
                kind = "a number" if name in ("num_stages", "unroll") else "a power of two"
                raise InvalidInputError(f"{name}: expected {kind} from {low} to {high}, got {value}")


@cache
def _entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((files(__package__) / "launch.json").read_text("utf-8"))["entries"]
    return found


def launch_params(models: int, arch: str | None = None) -> LaunchParams:
    """Return the parameters of heads of so many candidates; arch: "sm_90", or None for what holds anywhere."""
    for entry in _entries():
        if entry["arch"] in (None, arch) and (entry["models_max"] is None or models <= entry["models_max"]):
            return LaunchParams(**entry["params"], shape_class=entry["shape_class"], source=entry["source"])
    raise InvalidInputError(f"models: launch.json has no entry for {models} candidates on {arch}")


def check_fits(params: LaunchParams, models: int) -> None:
    """Raise InvalidInputError unless heads of so many candidates can be launched with `params`."""
    if params.one_program and models > params.block_models:
        raise InvalidInputError(
            f"launch: one_program takes at most block_models = {params.block_models} candidates, got {models}"
        )
