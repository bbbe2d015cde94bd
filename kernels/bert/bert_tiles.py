"""`BertTiles` are the tiles of the encoder's kernels: data with a source (bert_tiles.json), by architecture and number of rows.

Neither Triton nor torch is needed to import this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ipr_engine.errors import InvalidInputError

BLOCK_TOKENS = 64  # queries and keys at once: one for all tiles, since it fixes the order in which keys are added up


@dataclass(frozen=True, kw_only=True)
class AttentionTile:
    """An `AttentionTile` is `depth`, the elements of dim at once, and Triton's warps and stages."""

    depth: int
    warps: int
    stages: int


@dataclass(frozen=True, kw_only=True)
class ProductTile:
    """A `ProductTile` is a tile of rows x cols of the result, depth elements of the sum at once; Triton's warps and stages.

    cols and depth are halved until they divide the matrix.
    """

    rows: int
    cols: int
    depth: int
    warps: int
    stages: int


@dataclass(frozen=True, kw_only=True)
class BertTiles:
    """`BertTiles` say how the kernels share out the work. Of them, the depths of `attention` and `expand` fix the order of a sum.

    Attributes:
        attention, project, expand: tiles of each kernel.
        pdl: a kernel begins its launch before the one before it is complete, where the device can (sm_90).
        rows, source: the entry of bert_tiles.json, and where its numbers come from.
    """

    attention: AttentionTile
    project: ProductTile
    expand: ProductTile
    pdl: bool
    rows: str = "given"
    source: str = "given by the caller"

    def __post_init__(self) -> None:
        bounds = {"rows": (16, 256), "cols": (16, 256), "depth": (16, 256), "warps": (1, 16), "stages": (1, 8)}
        for part in ("attention", "project", "expand"):
            for name, value in vars(getattr(self, part)).items():
                low, high = bounds[name]
                # Triton's tensors have sides of powers of two; stages are a mere count
                if not (low <= value <= high and (name == "stages" or value & (value - 1) == 0)):
                    kind = "a number" if name == "stages" else "a power of two"
                    raise InvalidInputError(f"{part}.{name}: expected {kind} from {low} to {high}, got {value}")


@cache
def _entries() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((files(__package__) / "bert_tiles.json").read_text("utf-8"))["entries"]
    return found


def bert_tiles(rows: int, arch: str | None = None, head: int = 32) -> BertTiles:
    """Return the tiles of bert_tiles.json for batch * tokens rows.

    Args:
        arch: "sm_90", or None for entries of any architecture. head: elements of a head.
    """
    for tiles, most in _fitting(arch, head):  # the first that fits is the one
        if most is None or rows <= most:
            return tiles
    raise InvalidInputError(f"rows: bert_tiles.json has no entry for {rows} rows on {arch}")


def bert_tables(arch: str | None = None, head: int = 32) -> dict[str, BertTiles]:
    """Return the tiles for "few", "some" and "many" rows."""
    found: dict[str, BertTiles] = {}
    for tiles, _ in _fitting(arch, head):
        found.setdefault(tiles.rows, tiles)
    return found


def _fitting(arch: str | None, head: int) -> Iterator[tuple[BertTiles, int | None]]:
    for entry in _entries():
        if (arch or "").startswith(entry["arch"] or "") and entry["head"] in (None, head):
            yield _read(entry), entry["rows_max"]


def _read(entry: dict[str, Any]) -> BertTiles:
    return BertTiles(
        attention=AttentionTile(**entry["attention"]),
        project=ProductTile(**entry["project"]),
        expand=ProductTile(**entry["expand"]),
        **{name: entry[name] for name in ("pdl", "rows", "source")},
    )


def dividing(most: int, size: int) -> int:
    """Return the largest power of two up to `most` that divides size."""
    while size % most:
        most //= 2
    return most
