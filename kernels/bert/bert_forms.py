"""`BertForms` say what each kernel of the encoder is compiled for: constants, options and types, for launches and for builds ahead.

Neither Triton nor torch is needed to import this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from .bert_tiles import BLOCK_TOKENS, BertTiles, ProductTile, dividing

COPIED = 128  # int32 that a program of `embed` copies at once
HALF, FLOAT, INTEGERS = "*fp16", "*fp32", "*i32"
# Triton's type of each argument, in order; "*" is a pointer. Numbers are never specialised: one kernel serves all batches.
SIGNATURES = {
    "embed": (INTEGERS, HALF, FLOAT, HALF, INTEGERS, INTEGERS, "i32", "i32", "i32"),
    "attend": (HALF, FLOAT, FLOAT, HALF, FLOAT, FLOAT, INTEGERS, HALF, HALF, "i32", "i32"),
    "project": (HALF, HALF, FLOAT, HALF, HALF, "i32"),
    "expand": (HALF, FLOAT, FLOAT, HALF, FLOAT, FLOAT, HALF, HALF, "i32"),
}
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion", "launch_pdl")  # Triton's, among what a form holds


@dataclass(frozen=True, kw_only=True)
class BertShape:
    """A `BertShape` is what the kernels' code depends on of a model."""

    dim: int
    head: int
    wide: int
    activation: str
    eps: float

    @property
    def heads(self) -> int:
        return self.dim // self.head


class BertForms:
    """`BertForms` give each kernel's constants and options as keywords of its launch.

    Args:
        pdl: whether the device can begin a launch early: sm_90 and later.
    """

    def __init__(self, shape: BertShape, tiles: BertTiles, *, pdl: bool) -> None:
        self.shape, self.tiles, self.pdl = shape, tiles, pdl and tiles.pdl

    def embed(self, *, copies: bool) -> dict[str, Any]:
        block = 1 << (self.shape.dim - 1).bit_length()
        return self._with(4, 1, DIM=self.shape.dim, BLOCK=block, BLOCK_COPY=COPIED, COPY=copies)

    def attend(self) -> dict[str, Any]:
        shape, tile = self.shape, self.tiles.attention
        return self._with(
            tile.warps, tile.stages, DIM=shape.dim, HEAD=shape.head, BLOCK_T=BLOCK_TOKENS,
            BLOCK_K=dividing(tile.depth, shape.dim), EPS=shape.eps,
        )  # fmt: skip

    def project(self, depth: int) -> dict[str, Any]:
        """Return the form of dim columns that are sums over `depth` elements."""
        return self._product(self.tiles.project, self.shape.dim, depth, K=depth)

    def expand(self) -> dict[str, Any]:
        shape = self.shape
        cols = math.gcd(shape.wide, shape.dim)  # the columns of x that a program also writes must end with dim
        return self._product(
            self.tiles.expand, cols, shape.dim, WIDE=shape.wide, ACTIVATION=shape.activation, EPS=shape.eps
        )

    def all(self) -> dict[str, tuple[str, dict[str, Any]]]:
        """Return name -> (kernel, form) of every kernel that a launch with a copy has."""
        return {
            "embed": ("embed", self.embed(copies=True)),
            "attend": ("attend", self.attend()),
            "project": ("project", self.project(self.shape.dim)),
            "project_wide": ("project", self.project(self.shape.wide)),
            "expand": ("expand", self.expand()),
        }

    def _product(self, tile: ProductTile, cols: int, depth: int, **constants: Any) -> dict[str, Any]:
        return self._with(
            tile.warps, tile.stages, DIM=self.shape.dim, BLOCK_M=tile.rows, BLOCK_N=dividing(tile.cols, cols),
            BLOCK_K=dividing(tile.depth, depth), **constants,
        )  # fmt: skip

    def _with(self, warps: int, stages: int, **constants: Any) -> dict[str, Any]:
        # Contraction to fma said, since versions of Triton differ in what they take unsaid.
        options = {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True}
        return {**constants, "PDL": self.pdl, **options, **({"launch_pdl": True} if self.pdl else {})}
