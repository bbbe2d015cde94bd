"""Path rows on disk: the entry `path_rows` of bundle.json and the arrays of path.safetensors (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.bundle.bundle_files import file_entry, read_tensors, require_shapes
from ipr_engine.bundle.fields import REWRITE, Field, fail
from ipr_engine.bundle.spec import MOST_ROWS, MOST_TOKENS, TOKENS_UNIT, Float32, PathRows
from ipr_engine.errors import BundleShapeError, BundleValueError, PathMismatchError

PATH = "path.safetensors"
_REFIT = "fit the heads and their path anew with `ipr train`"
_KEYS = ("candidates", "heads", "arrays")
_SHAPES = {
    "quality": ("rows", "models"),
    "tokens_out": ("rows", "models"),
    "outcome": ("rows", "models"),
    "billed_tokens": ("rows",),
    "tokens_in": ("rows", "models"),
    "again_quality": ("rows", "models"),
    "again_tokens_out": ("rows", "models"),
}
_DTYPES = {
    "quality": "F16",
    "tokens_out": "F16",
    "outcome": "U8",
    "billed_tokens": "U32",
    "tokens_in": "F32",
    "again_quality": "F16",
    "again_tokens_out": "F16",
}
_AGAIN = ("again_quality", "again_tokens_out")
_OWN = "tokens_in"  # of schema_version 6, where a candidate names its tokenizer
_HELD = {"F16": np.float16, "F32": np.float32, "U8": np.uint8, "U32": np.uint32}


def path_rows_file(field: Field) -> Field | None:
    """The FILE that an entry `path_rows` lists; None where it is null."""
    return None if field.value is None else field.object(_KEYS)["arrays"]


def parse_path_rows(
    field: Field, folder: Path, names: Sequence[str], deciding: Sequence[str], *, own: bool
) -> PathRows | None:
    """The rows that an entry `path_rows` lists, checked; None where it is null.

    Args:
        names: of the bundle's candidates, in order.
        deciding: sha256 of the weights that decide, the first heads' and, in a bundle of two tiers, the second's.
        own: whether they may hold candidates' own input tokens, as from schema_version 6 on.
    """
    if field.value is None:
        return None
    keys = field.object(_KEYS)
    candidates = keys["candidates"].names(at_least=1, known=names)
    if list(candidates) != [name for name in names if name in candidates]:
        keys["candidates"].fail("them in the order of the bundle's candidates")
    heads = tuple(item.sha256() for item in keys["heads"].list(at_least=1))
    if heads not in (tuple(deciding[:1]), tuple(deciding)):
        known = " and ".join(digest[:12] for digest in deciding) or "none that cover every candidate"
        got = ", ".join(digest[:12] for digest in heads)
        fail(PathMismatchError, keys["heads"].where, f"the sha256 of the heads that decide ({known})", got, _REFIT)
    file = file_entry(keys["arrays"], folder)
    arrays = _arrays(file.read(), file.where, len(candidates), again=len(heads) > 1, own=own)
    return PathRows(candidates=candidates, heads=heads, **arrays)


def _arrays(data: bytes, where: str, models: int, *, again: bool, own: bool) -> dict[str, Any]:
    """The arrays in memory, read-only, output tokens in ones."""
    arrays = read_tensors(data, where, _DTYPES)
    if _OWN in arrays and not own:
        fail(BundleShapeError, f"{where}: {_OWN}", "no such tensor before schema_version 6", "one", REWRITE)
    expected = [name for name in _DTYPES if (again or name not in _AGAIN) and name != _OWN]
    for name in [name for name in _DTYPES if name != _OWN]:
        if (name in arrays) != (name in expected):
            tiers = "the sha256 of two heads are listed" if again else "the sha256 of one of the heads is listed"
            wanted = f"this tensor ({tiers})" if name in expected else f"no such tensor ({tiers})"
            fail(BundleShapeError, f"{where}: {name}", wanted, "none" if name in expected else "one", REWRITE)
    rows = len(arrays["quality"]) if arrays["quality"].ndim else 0
    if not 1 <= rows <= MOST_ROWS:
        fail(BundleShapeError, f"{where}: quality", f"1 to {MOST_ROWS} rows", f"{rows} rows")
    require_shapes(arrays, where, _SHAPES, {"rows": rows, "models": models})
    for name in ("quality", "again_quality", "tokens_out", "again_tokens_out", _OWN):
        if name in arrays:
            _require_range(arrays[name], f"{where}: {name}", 1 if name.endswith("quality") else None)
    for name in ("tokens_out", "again_tokens_out"):
        if name in arrays:
            arrays[name] = arrays[name].astype(np.float32) * TOKENS_UNIT
            arrays[name].flags.writeable = False
    return arrays


def _require_range(values: NDArray[Any], where: str, most: int | None) -> None:
    low, high = values.min(), values.max()
    if low < 0 or (most is not None and high > most):
        top = "" if most is None else f" and <= {most}"
        fail(BundleValueError, where, f"values >= 0{top}", f"{low} to {high}")


def rows_version(rows: PathRows | None) -> int:
    """The least schema_version that holds these rows."""
    return 1 if rows is None else 5 if rows.tokens_in is None else 6


def path_rows_json(add: Callable[[str, bytes], Mapping[str, Any]], rows: PathRows) -> dict[str, Any]:
    """What bundle.json says of these rows; `add` takes their file in."""
    return {"candidates": list(rows.candidates), "heads": list(rows.heads), "arrays": add(PATH, _bytes(rows))}


def _bytes(rows: PathRows) -> bytes:
    from safetensors.numpy import save

    arrays = {}
    for name, stored in _DTYPES.items():
        values = getattr(rows, name)
        if values is None:
            continue
        tokens = name.endswith("tokens_out")
        held = np.float32 if tokens else _HELD[stored]
        if not isinstance(values, np.ndarray) or values.dtype != held:
            got = values.dtype if isinstance(values, np.ndarray) else type(values).__name__
            fail(BundleShapeError, f"path_rows: {name}", f"a {np.dtype(held)} array", str(got), "convert it")
        arrays[name] = _in_64s(values, f"path_rows: {name}") if tokens else np.ascontiguousarray(values)
    return save(arrays)


def _in_64s(tokens: Float32, where: str) -> NDArray[np.float16]:
    if tokens.size and tokens.max() > MOST_TOKENS:
        fail(BundleValueError, where, f"at most {MOST_TOKENS} output tokens", f"{tokens.max():g}", "clip them")
    return np.ascontiguousarray((tokens / TOKENS_UNIT).astype(np.float16))


def path_of_edited(rows: PathRows | None, names: Sequence[str], heads: Sequence[str]) -> PathRows | None:
    """The rows with the columns of those of `names` that have one, tied to these heads; None where none is left.

    Args:
        heads: sha256 of the weights that decide after the edit: predictions of the candidates left must be what they were.
    """
    if rows is None:
        return None
    left = [name for name in names if name in rows.candidates]
    tiers = 1 if rows.again_quality is None else 2
    return replace(rows.of(left), heads=tuple(heads[:tiers])) if left else None
