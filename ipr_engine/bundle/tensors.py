"""What the tensors of a bundle must be: names, shapes, dtypes and values (docs/design.md, sections 3, 6 and 7)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine.bundle.fields import REWRITE, fail, parse_json
from ipr_engine.bundle.files import reading
from ipr_engine.bundle.spec import Float32
from ipr_engine.errors import BundleFormatError, BundleShapeError, BundleValueError

_RECIPES = "export it again with model2vec, embeddings as float32, float16 or int8 and weights as float32"
_HEADS = {
    "skip": ("models", "dim"),
    "bias": ("models",),
    "trunk": ("hidden", "dim"),
    "identity": ("models", "hidden"),
    "up": ("models", "hidden", "rank"),
    "down": ("models", "rank", "dim"),
    "out": ("models", "hidden"),
    "len_skip": ("models", "dim"),
    "len_bias": ("models",),
    "len_cap": ("models",),
}
_SUPPORT = {"centroids": ("k", "dim"), "distances": ("percentiles",)}
_NUMPY = {"F32": "<f4", "F16": "<f2", "U8": "u1", "U32": "<u4"}
PERCENTILES = 101  # the 0th to the 100th


def heads_tensors(data: bytes, where: str, *, models: int, dim: int, outputs: Sequence[str]) -> Mapping[str, Float32]:
    """The tensors of one head, in one of the packed forms of section 3."""
    tensors = _float32_tensors(data, where, _HEADS)
    required = {"bias": "always"}
    if "out" in tensors:
        if "up" in tensors or "down" in tensors:
            required |= {"up": "with down", "down": "with up"}
    else:
        required["skip"] = "in a linear head, one without out"
        if layers := [name for name in ("trunk", "identity", "up", "down") if name in tensors]:
            required["out"] = f"with {layers[0]}"
    if "tokens" in outputs:
        required |= dict.fromkeys(("len_skip", "len_bias"), "with the output tokens")
    elif lengths := [name for name in ("len_skip", "len_bias", "len_cap") if name in tensors]:
        fail(BundleFormatError, f"{where}: {lengths[0]}", "no such tensor without the output 'tokens'", "one")
    for name, why in required.items():
        if name not in tensors:
            fail(BundleFormatError, f"{where}: {name}", f"this tensor ({why})", "nothing (it is missing)")
    if not {"skip", "trunk", "down"} & set(tensors):
        fail(BundleFormatError, f"{where}: skip", "one of skip, trunk or down: quality depends on x", "none of them")
    require_shapes(tensors, where, _HEADS, {"models": models, "dim": dim})
    if "len_cap" in tensors and not (tensors["len_cap"] > 0).all():
        fail(BundleValueError, f"{where}: len_cap", "values > 0", f"{tensors['len_cap'].min()}")
    return MappingProxyType(tensors)


def support_tensors(data: bytes, where: str, *, dim: int) -> tuple[Float32, Float32]:
    """(centroids, distances)."""
    tensors = _float32_tensors(data, where, _SUPPORT)
    for name in _SUPPORT:
        if name not in tensors:
            fail(BundleFormatError, f"{where}: {name}", "this tensor", "nothing (it is missing)")
    require_shapes(tensors, where, _SUPPORT, {"dim": dim, "percentiles": PERCENTILES})
    distances = tensors["distances"]
    if distances[0] < 0 or (np.diff(distances) < 0).any():
        fail(BundleValueError, f"{where}: distances", "values >= 0 that never decrease", "others")
    return tensors["centroids"], distances


def read_tensors(data: bytes, where: str, dtypes: Mapping[str, str]) -> dict[str, NDArray[Any]]:
    """The tensors of safetensors bytes, read-only; of no other names than `dtypes`, of these dtypes, floats finite."""
    from safetensors import SafetensorError, deserialize

    try:
        entries: list[tuple[str, dict[str, Any]]] = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        fail(BundleFormatError, where, "a safetensors file", f"{len(data)} bytes that are not ({error})")
    tensors = {}
    for name, entry in sorted(entries):
        if name not in dtypes:
            fail(
                BundleFormatError, f"{where}: {name}", f"no tensor but {', '.join(dtypes)}", f"unknown tensor {name!r}"
            )
        if entry["dtype"] != dtypes[name]:
            fail(BundleShapeError, f"{where}: {name}", f"dtype {dtypes[name]}", entry["dtype"])
        tensor = np.frombuffer(entry["data"], dtype=_NUMPY[dtypes[name]]).reshape(entry["shape"])
        if tensor.dtype.kind == "f":
            require_finite(tensor, f"{where}: {name}")
        tensor.flags.writeable = False
        tensors[name] = tensor
    return tensors


def _float32_tensors(data: bytes, where: str, known: Mapping[str, Any]) -> dict[str, Float32]:
    return read_tensors(data, where, dict.fromkeys(known, "F32"))


def require_shapes(
    tensors: Mapping[str, NDArray[Any]], where: str, layout: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> None:
    """Each tensor as `layout` says; a dimension that `sizes` leaves open is set by the first tensor that has it."""
    known, owner = dict(sizes), dict.fromkeys(sizes, "the bundle")
    for name, dims in layout.items():
        if name not in tensors:
            continue
        shape = tensors[name].shape
        if len(shape) == len(dims):
            for dim, size in zip(dims, shape, strict=True):
                if size > 0 and known.setdefault(dim, size) == size:
                    owner.setdefault(dim, name)
        expected = tuple(known.get(dim, dim) for dim in dims)
        if shape != expected:
            meaning = ", ".join(f"{dim} from {owner[dim]}" for dim in dims if dim in owner)
            fail(BundleShapeError, f"{where}: {name}", f"shape {expected} = ({', '.join(dims)}; {meaning})", shape)


def require_finite(values: NDArray[Any], where: str, first_row: int = 0) -> None:
    """Refuse NaN and infinity: their exponent bits are all ones, so two integer maxima find them without a copy."""
    signed, unsigned, inf = {2: ("<i2", "<u2", 0x7C00), 4: ("<i4", "<u4", 0x7F800000)}[values.dtype.itemsize]
    if values.size and (
        values.view(signed).max() >= inf or values.view(unsigned).max() >= inf | 1 << (8 * values.dtype.itemsize - 1)
    ):
        flat = int(np.flatnonzero(~np.isfinite(values.ravel()))[0])
        index = tuple(int(i) for i in np.unravel_index(flat, values.shape))
        shown = [index[0] + first_row, *index[1:]] if index else []
        fail(BundleValueError, f"{where}{shown}", "finite values", f"{values[index]}")


def check_table(path: Path, where: str, *, dim: int | None = None) -> int:
    """Check an encoder's table without keeping it, and return its dim."""
    from safetensors import SafetensorError, safe_open

    try:
        with reading(where), safe_open(str(path), "np") as file:
            return _check_table(file, where, dim)
    except SafetensorError as error:
        fail(BundleFormatError, where, "a safetensors file", f"one that is not ({error})")


def _check_table(file: Any, where: str, dim: int | None) -> int:
    known = {"embeddings": ("F32", "F16", "I8"), "weights": ("F32",), "mapping": ("I32", "I64")}
    headers = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  safe_open is no dict
    for name in sorted(headers):
        if name not in known:
            fail(BundleFormatError, f"{where}: {name}", f"no tensor but {', '.join(known)}", f"unknown tensor {name!r}")
        if headers[name].get_dtype() not in known[name]:
            got = headers[name].get_dtype()
            fail(BundleShapeError, f"{where}: {name}", f"dtype {' or '.join(known[name])}", got, _RECIPES)
    if "embeddings" not in headers:
        fail(BundleFormatError, f"{where}: embeddings", "this tensor", "nothing (it is missing)", _RECIPES)
    shape = tuple(headers["embeddings"].get_shape())
    if len(shape) != 2 or 0 in shape or shape[1] != (dim or shape[1]):
        fail(BundleShapeError, f"{where}: embeddings", f"shape (rows, {dim or 'dim'})", shape)
    rows = shape[0]
    lengths = {name: tuple(headers[name].get_shape()) for name in ("mapping", "weights") if name in headers}
    vocab = next(iter(lengths.values()), (rows,)) if "mapping" in headers else (rows,)
    for name, length in lengths.items():
        if len(length) != 1 or length != vocab or length == (0,):
            source = "mapping" if "mapping" in headers else "embeddings"
            expected = "(vocab,)" if name == source else f"{vocab} (vocab from {source})"
            fail(BundleShapeError, f"{where}: {name}", f"shape {expected}", length)
    if "mapping" in headers:
        mapping = file.get_tensor("mapping")
        if mapping.min() < 0 or mapping.max() >= rows:
            span = f"{mapping.min()} to {mapping.max()}"
            fail(BundleValueError, f"{where}: mapping", f"rows of embeddings, 0 to {rows - 1}", span, REWRITE)
    if "weights" in headers:
        require_finite(file.get_tensor("weights"), f"{where}: weights")
    if headers["embeddings"].get_dtype() != "I8":
        step = max(1, (1 << 20) // shape[1])  # about a million values at a time
        for start in range(0, rows, step):
            require_finite(headers["embeddings"][start : min(start + step, rows)], f"{where}: embeddings", start)
    return int(shape[1])


def config_normalize(data: bytes, where: str) -> bool:
    """`normalize` of a model2vec config.json; absent means false there too."""
    config = parse_json(data, where).mapping()
    return "normalize" in config and config["normalize"].boolean()
