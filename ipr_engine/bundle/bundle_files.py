"""This file reads the files of a bundle: it checks paths, sizes and hashes, and the tensors in them (docs/formats.md).

Each file is read once: the bytes that are parsed are the bytes that were hashed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ipr_engine._files import file_sha256, sha256_hex
from ipr_engine._read_only import read_only
from ipr_engine.bundle.fields import REWRITE, Field, fail, is_hex64
from ipr_engine.bundle.head_rows import FOREST
from ipr_engine.errors import (
    BundleError,
    BundleFormatError,
    BundleHashError,
    BundleNotFoundError,
    BundlePathError,
    BundleShapeError,
    BundleValueError,
)

Float32 = NDArray[np.float32]
_RESTORE = "restore the folder from its source, or write the bundle again with write_bundle"
_MISSING = f"{_RESTORE}; where the bundle beside it holds the file, copy both"


# Tensor -> its dimensions. hidden is the width of the trunk, rank that of the adapters; leaves is 2^depth, nodes one less.
_HEADS = {
    "skip": ("models", "dim"),
    "bias": ("models",),
    "trunk": ("hidden", "dim"),
    "identity": ("models", "hidden"),
    "up": ("models", "hidden", "rank"),
    "down": ("models", "rank", "dim"),
    "out": ("models", "hidden"),
    "tree_column": ("trees", "nodes"),
    "tree_threshold": ("trees", "nodes"),
    "tree_leaf": ("trees", "leaves", "models"),
    "len_skip": ("models", "dim"),
    "len_bias": ("models",),
    "len_cap": ("models",),
}
_SUPPORT = {"centroids": ("k", "dim"), "distances": ("percentiles",)}
# safetensors' names of dtypes, as numpy reads the bytes: little-endian.
_NUMPY = {"F32": "<f4", "F16": "<f2", "U8": "u1", "U32": "<u4", "I32": "<i4"}
_INTEGERS, _MAY_BE_INFINITE = "tree_column", "tree_threshold"
FOREST_VERSION = 8  # the first schema_version whose heads may have a forest
MOST_TREES, DEEPEST = 1024, 10
PERCENTILES = 101  # the 0th to the 100th


@contextmanager
def reading(where: str) -> Iterator[None]:
    """Turn what the file system says into a bundle error that names the file and the field."""
    try:
        yield
    except BundleError:
        raise  # BundleNotFoundError is a FileNotFoundError too, and already says it all
    except FileNotFoundError:
        fail(BundleNotFoundError, where, "a file", "nothing there", _MISSING)
    except OSError as error:
        fail(BundleFormatError, where, "a readable file", error.strerror or str(error), _RESTORE)


def read_regular(path: Path, where: str) -> bytes:
    """Return the bytes of a regular file; `where` names it in errors."""
    with reading(where):
        _require_regular(path, where)
        return path.read_bytes()


def sha256_of(path: Path, where: str) -> tuple[str, int]:
    """Return (hex digest, bytes) of a regular file, in one pass and without holding it."""
    with reading(where):
        _require_regular(path, where)
        return file_sha256(path)


def _require_regular(path: Path, where: str) -> None:
    """Raise BundleFormatError for a folder, a pipe or a device."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        fail(BundleFormatError, where, "a regular file", "a folder or a special file", _RESTORE)


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """A `FileEntry` holds what bundle.json says of one file (FILE in docs/formats.md), with its resolved path."""

    relative: str
    path: Path
    sha256: str
    size: int
    where: str

    @property
    def holder(self) -> Path:
        """The folder of the bundle that holds the file: the bundle's own, or one beside it."""
        return self.path.parents[self.relative.count("/")]

    def verify(self) -> Path:
        """Check the file's size, then its hash, and return its path."""
        with reading(self.where):
            _require_regular(self.path, self.where)
            # The size is asked first: a cut or grown file is found out without hashing it.
            size = os.stat(self.path).st_size
        self._require_size(size)
        digest, size = sha256_of(self.path, self.where)
        self._require_size(size)
        self._require_digest(digest)
        return self.path

    def read(self) -> bytes:
        """Return the file's bytes, the very ones that were hashed."""
        with reading(self.where):
            _require_regular(self.path, self.where)
            self._require_size(os.stat(self.path).st_size)
            data = self.path.read_bytes()
        # Again: the file may have grown between the two questions.
        self._require_size(len(data))
        self._require_digest(sha256_hex(data))
        return data

    def _require_size(self, size: int) -> None:
        """Raise BundleHashError for another size than bundle.json states."""
        if size != self.size:
            fail(BundleHashError, self.where, f"{self.size} bytes", f"{size} bytes", _RESTORE)

    def _require_digest(self, digest: str) -> None:
        """Raise BundleHashError for another sha256 than bundle.json states."""
        if digest != self.sha256:
            fail(BundleHashError, self.where, f"sha256 {self.sha256}", digest, _RESTORE)


def file_entry(field: Field, folder: Path) -> FileEntry:
    """Return the FILE of a field of bundle.json; the file itself is not read yet."""
    keys = field.object(("path", "sha256", "bytes"))
    relative = keys["path"].text()
    digest, size = keys["sha256"].sha256(), keys["bytes"].integer(at_least=0)
    path = _inside(folder, relative, keys["path"])
    with reading(f"{path} ({field.where})"):
        if not os.path.lexists(path):
            path = in_neighbour(folder, relative, digest, size) or path
    return FileEntry(relative=relative, path=path, sha256=digest, size=size, where=f"{path} ({field.where})")


def in_neighbour(folder: Path, relative: str, digest: str, size: int) -> Path | None:
    """Return the file of these bytes at the same relative path of another bundle of the root; None where there is none.

    So bundles of one encoder take its table's room once where hard links do not last: in a checkout, in a wheel. A copy,
    which is not named by its hash, has no neighbours; a link to a bundle has those of the bundle. A neighbour's file that is a
    link out of it is not followed.

    Args:
        folder: of the bundle that lacks the file. digest: its sha256. size: in bytes.
    """
    meant = Path(os.path.realpath(folder))
    roots = dict.fromkeys(place.parent for place in (folder, meant) if is_hex64(place.name))
    for beside in (path for root in roots for path in sorted(root.iterdir())):
        file = beside / relative
        # The size first: a file of another encoder is told apart without being read.
        if beside not in (folder, meant) and is_hex64(beside.name) and file.is_file() and file.stat().st_size == size:
            real = Path(os.path.realpath(file))
            if real.is_relative_to(os.path.realpath(beside)) and file_sha256(real)[0] == digest:
                return file
    return None


def is_plain_relative(text: str) -> bool:
    """Return whether a text is a relative path in its one plain form, without "..", backslashes or line ends."""
    # One form a path: "a//b" and "./a" would be second names of a file.
    pure = PurePosixPath(text)
    plain = str(pure) == text and not any(character in text for character in "\\\0\n")
    return plain and text != "." and not pure.is_absolute() and ".." not in pure.parts


def _inside(folder: Path, relative: str, field: Field) -> Path:
    """Return folder/relative, once it is certain that it stays inside folder, links included."""
    if not is_plain_relative(relative):
        field.fail("a plain relative path without '..'", BundlePathError)
    path = folder / relative
    with reading(f"{path} ({field.where})"):
        real = os.path.realpath(path)  # not Path.resolve: it raises RuntimeError for links in a circle
        if not Path(real).is_relative_to(os.path.realpath(folder)):
            fail(BundlePathError, f"{path} ({field.where})", "a file inside the folder", f"a link to {real}")
    return path


def heads_tensors(
    data: bytes, where: str, *, models: int, dim: int, outputs: Sequence[str], version: int
) -> Mapping[str, NDArray[Any]]:
    """Return the tensors of one head, in one of the packed forms of docs/decide.md. version: the bundle's schema_version."""
    # A linear head is skip and bias; a deep one has trunk or adapters (up, down), and out over them.
    tensors = read_tensors(data, where, {**dict.fromkeys(_HEADS, "F32"), _INTEGERS: "I32"}, infinite=_MAY_BE_INFINITE)
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
    if trees := [name for name in FOREST if name in tensors]:
        required |= dict.fromkeys(FOREST, f"with {trees[0]}")
        if version < FOREST_VERSION:
            fail(
                BundleFormatError,
                f"{where}: {trees[0]}",
                f"no such tensor before schema_version {FOREST_VERSION}",
                "one",
                REWRITE,
            )
    for name, why in required.items():
        if name not in tensors:
            fail(BundleFormatError, f"{where}: {name}", f"this tensor ({why})", "nothing (it is missing)")
    if not {"skip", "trunk", "down"} & set(tensors):
        fail(BundleFormatError, f"{where}: skip", "one of skip, trunk or down: quality depends on x", "none of them")
    # Beside a forest the matrices may be narrower than x: then the first of them says how wide they are.
    require_shapes(tensors, where, _HEADS, {"models": models} if trees else {"models": models, "dim": dim})
    if "len_cap" in tensors and not (tensors["len_cap"] > 0).all():
        fail(BundleValueError, f"{where}: len_cap", "values > 0", f"{tensors['len_cap'].min()}")
    if trees:
        widest = next(tensors[name].shape[-1] for name in ("skip", "trunk", "down") if name in tensors)
        if widest > dim:
            fail(BundleShapeError, f"{where}: skip", f"at most {dim} columns, as the encoder has", f"{widest}")
        _require_forest(tensors, where, dim)
    return read_only(tensors)


def _require_forest(tensors: Mapping[str, NDArray[Any]], where: str, dim: int) -> None:
    """Check what the shapes of a forest's tensors leave open: how many trees, how deep, and which columns they split on."""
    (count, leaves), column = tensors["tree_leaf"].shape[:2], tensors["tree_column"]
    if not 1 <= count <= MOST_TREES:
        fail(BundleShapeError, f"{where}: tree_leaf", f"1 to {MOST_TREES} trees", f"{count}")
    if leaves not in [1 << depth for depth in range(1, DEEPEST + 1)] or column.shape[1] != leaves - 1:
        expected = f"2^depth leaves and 2^depth - 1 nodes a tree, depth 1 to {DEEPEST}"
        fail(BundleShapeError, f"{where}: tree_leaf", expected, f"{leaves} leaves and {column.shape[1]} nodes")
    if column.min() < 0 or column.max() >= dim:
        got = f"{column.min()} to {column.max()}"
        fail(BundleValueError, f"{where}: tree_column", f"columns of x, 0 to {dim - 1}", got)


def support_tensors(data: bytes, where: str, *, dim: int) -> tuple[Float32, Float32]:
    """Return the centroids, (k, dim), and the percentiles of distances, (101,)."""
    tensors = _float32_tensors(data, where, _SUPPORT)
    for name in _SUPPORT:
        if name not in tensors:
            fail(BundleFormatError, f"{where}: {name}", "this tensor", "nothing (it is missing)")
    require_shapes(tensors, where, _SUPPORT, {"dim": dim, "percentiles": PERCENTILES})
    distances = tensors["distances"]
    # NaN would pass both tests; `read_tensors` has refused it.
    if distances[0] < 0 or (np.diff(distances) < 0).any():
        fail(BundleValueError, f"{where}: distances", "values >= 0 that never decrease", "others")
    return tensors["centroids"], distances


def read_tensors(
    data: bytes, where: str, dtypes: Mapping[str, str], *, infinite: str | None = None
) -> dict[str, NDArray[Any]]:
    """Return the tensors of safetensors bytes, read-only.

    dtypes: name -> dtype, of all tensors that may be there. Floats must be finite; those of the tensor `infinite` may be infinite.
    """
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
        if name == infinite and np.isnan(tensor).any():
            fail(BundleValueError, f"{where}: {name}", "numbers or infinity", "NaN")
        if tensor.dtype.kind == "f" and name != infinite:
            require_finite(tensor, f"{where}: {name}")
        # The array looks into `data`, which may be shared: nobody writes to it.
        tensor.flags.writeable = False
        tensors[name] = tensor
    return tensors


def _float32_tensors(data: bytes, where: str, known: Mapping[str, Any]) -> dict[str, Float32]:
    """Return the tensors of safetensors bytes, which may have these names alone and are float32."""
    return read_tensors(data, where, dict.fromkeys(known, "F32"))


def require_shapes(
    tensors: Mapping[str, NDArray[Any]], where: str, layout: Mapping[str, tuple[str, ...]], sizes: Mapping[str, int]
) -> None:
    """Check that each tensor has the shape that `layout` says.

    A dimension that `sizes` leaves open is set by the first tensor that has it.
    """
    # dimension -> its size, and who set it, for the message
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
    """Raise BundleValueError for NaN and infinity. Their exponent bits are all ones: two integer maxima find them without a copy."""
    # As signed integers positive floats order by size: those from `inf` on are infinite or NaN. Negative ones are found
    # as unsigned integers, where the sign is the highest bit.
    signed, unsigned, inf = {2: ("<i2", "<u2", 0x7C00), 4: ("<i4", "<u4", 0x7F800000)}[values.dtype.itemsize]
    if values.size and (
        values.view(signed).max() >= inf or values.view(unsigned).max() >= inf | 1 << (8 * values.dtype.itemsize - 1)
    ):
        flat = int(np.flatnonzero(~np.isfinite(values.ravel()))[0])
        index = tuple(int(i) for i in np.unravel_index(flat, values.shape))
        shown = [index[0] + first_row, *index[1:]] if index else []
        fail(BundleValueError, f"{where}{shown}", "finite values", f"{values[index]}")


def tensor_bytes(tensors: Mapping[str, NDArray[Any]], where: str) -> bytes:
    """Return tensors as safetensors bytes without metadata; the library orders them by dtype and name.

    All are float32, but `tree_column` of heads, which is int32.
    """
    from safetensors.numpy import save

    for name, tensor in tensors.items():
        dtype = np.dtype(np.int32 if name == _INTEGERS else np.float32)
        if not isinstance(tensor, np.ndarray) or tensor.dtype != dtype:
            got = tensor.dtype if isinstance(tensor, np.ndarray) else type(tensor).__name__
            article = "an" if name == _INTEGERS else "a"
            fail(BundleShapeError, f"{where}: {name}", f"{article} {dtype} array", str(got), "convert it")
    return save({name: np.asarray(tensor, order="C") for name, tensor in sorted(tensors.items())})


def hash_bytes(hashes: Mapping[str, NDArray[np.uint64]], where: str) -> bytes:
    """Return the file of the fitting prompts' hashes, each (n,) uint64."""
    from safetensors.numpy import save

    for name, values in hashes.items():
        if values.dtype != np.uint64 or values.ndim != 1:
            fail(
                BundleShapeError,
                f"{where}: {name}",
                "a (n,) uint64 array",
                f"{values.dtype} {values.shape}",
                "convert it",
            )
    return save({name: np.asarray(values, order="C") for name, values in sorted(hashes.items())})
