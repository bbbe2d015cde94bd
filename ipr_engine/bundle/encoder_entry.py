"""This file reads and writes the entries of encoders in bundle.json, and checks them against their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ipr_engine._read_only import read_only
from ipr_engine.bundle.bundle_files import file_entry, read_regular, reading, require_finite
from ipr_engine.bundle.encoder_source import (
    MANIFEST,
    AnySource,
    ConcatenatedSource,
    SurfaceSource,
    TaskSource,
    TransformerSource,
    concatenated_identity,
    encoder_identity,
    folded_width_identity,
    head_view_identity,
    surface_identity,
    task_identity,
)
from ipr_engine.bundle.fields import REWRITE, Field, fail, parse_json, require_distinct
from ipr_engine.bundle.spec import EncoderSpec
from ipr_engine.bundle.surface_lexicon import parse_lexicon
from ipr_engine.bundle.task_names import MOST_TASKS, task_problem
from ipr_engine.errors import (
    BundleFormatError,
    BundleNotFoundError,
    BundleShapeError,
    BundleValueError,
    EncoderMismatchError,
)

KINDS = {
    "static": 1,
    "transformer": 3,
    "concatenated": 3,
    "surface": 8,
    "task": 9,
}  # each with its first schema_version
STATIC_FILES = {"table": "model.safetensors", "tokenizer": "tokenizer.json", "config": "config.json"}
# Arithmetics whose embeddings are, or may be, further from float32's than a cosine of 0.9999: part of the identity.
DTYPES = ("int8", "bfloat16", "bfloat16-mixed")
# Keys of a table that does such a thing, and of no other; the first schema_version that has them.
TABLE_OPTIONS, TABLE_OPTIONS_VERSION = ("head_tokens", "fold_width"), 9
_STATIC = ("id", "kind", "dim", "max_tokens", "pooling", "normalize", "files")
_TRANSFORMER = (*_STATIC, "dtype", "identity", "source")
_CONCATENATED = ("id", "kind", "parts")
_SURFACE = ("id", "kind", "dim", "files")
_TASK = ("id", "kind", "names")
_BEHIND = ("task", "surface")  # kinds that count no tokens, in the order of their columns behind every embedding
_LEXICON = "surface_lexicon.json"
_MANIFEST_ROLE = "manifest"  # the export's encoder.json, which names the others
_RECIPES = "export it again with model2vec, embeddings as float32, float16 or int8 and weights as float32"


def parse_encoders(entries: Field, folder: Path, version: int) -> tuple[EncoderSpec, ...]:
    """Return the encoders of the entries of bundle.json, every file verified."""
    specs: list[EncoderSpec] = []
    for entry in entries.list(at_least=1):
        kind = entry.mapping().get("kind")
        known = tuple(name for name, first in KINDS.items() if version >= first)
        named = "static" if kind is None else kind.one_of(known)  # a missing key is told by the parser below
        if named == "static":
            specs.append(_static(entry, folder, version))
        elif named == "transformer":
            specs.append(_transformer(entry, folder))
        elif named == "surface":
            specs.append(_surface(entry, folder))
        elif named == "task":
            specs.append(_task(entry))
        else:
            specs.append(_concatenated(entry, specs))
    require_distinct([spec.id for spec in specs], entries.list())
    return tuple(specs)


def _static(entry: Field, folder: Path, version: int) -> EncoderSpec:
    """Return a table's encoder; its entry must say what the table and its config say. Its dim there is the table's."""
    told = [key for key in TABLE_OPTIONS if version >= TABLE_OPTIONS_VERSION and key in entry.mapping()]
    keys = entry.object((*_STATIC, *told))
    viewed, fold_width = "head_tokens" in told, "fold_width" in told
    head_tokens = keys["head_tokens"].integer(at_least=1, at_most=2**31 - 1) if viewed else 0
    if fold_width and not keys["fold_width"].boolean():
        keys["fold_width"].fail("true, or no such key", BundleValueError)
    dim, max_tokens = keys["dim"].integer(at_least=1), keys["max_tokens"].integer(at_least=1, at_most=2**31)
    pooling, normalize = keys["pooling"].one_of(("mean",)), keys["normalize"].boolean()
    files = {role: file_entry(file, folder) for role, file in keys["files"].object(tuple(STATIC_FILES)).items()}
    check_table(files["table"].verify(), files["table"].where, dim=dim)
    if config_normalize(files["config"].read(), files["config"].where) != normalize:
        keys["normalize"].fail(f"what {files['config'].path} says", BundleValueError)
    files["tokenizer"].verify()
    identity = encoder_identity(
        kind="static",
        table=files["table"].sha256,
        tokenizer=files["tokenizer"].sha256,
        config=files["config"].sha256,
        pooling=pooling,
        normalize=normalize,
        max_tokens=max_tokens,
    )
    return EncoderSpec(
        id=keys["id"].id(),
        kind="static",
        dim=2 * dim if viewed else dim,
        max_tokens=max_tokens,
        pooling=pooling,
        normalize=normalize,
        files=read_only({role: file.path for role, file in files.items()}),
        identity=head_view_identity(folded_width_identity(identity, fold_width), head_tokens),
        head_tokens=head_tokens,
        head_dim=dim if viewed else 0,
        fold_width=fold_width,
    )


def _transformer(entry: Field, folder: Path) -> EncoderSpec:
    """Return a transformer's encoder; without files the model is referenced, to be found by its identity when it is loaded."""
    keys = entry.object(_TRANSFORMER)
    source = keys["source"].object(("name", "revision"))
    files = {role: file_entry(file, folder) for role, file in keys["files"].mapping().items()}
    if files and _MANIFEST_ROLE not in files:
        keys["files"].fail(f"{_MANIFEST_ROLE!r} among them, or none at all")
    if files and files[_MANIFEST_ROLE].path.name != MANIFEST:  # the tiers read the file of that name in its folder
        keys["files"].mapping()[_MANIFEST_ROLE].fail(f"a file named {MANIFEST}")
    if len({file.holder for file in files.values()}) > 1:  # those of a neighbour too: the tiers read one folder
        todo = "copy those here that a bundle beside it holds"
        fail(
            BundleNotFoundError,
            keys["files"].where,
            "all files of the model in one bundle",
            "some of them in another",
            todo,
        )
    return EncoderSpec(
        id=keys["id"].id(),
        kind="transformer",
        dim=keys["dim"].integer(at_least=1),
        max_tokens=keys["max_tokens"].integer(at_least=1, at_most=2**31),
        pooling=keys["pooling"].one_of(("mean", "cls", "last")),
        normalize=keys["normalize"].boolean(),
        identity=keys["identity"].sha256(),
        files=read_only({role: file.verify() for role, file in files.items()}),
        dtype=None if keys["dtype"].value is None else keys["dtype"].one_of(DTYPES),
        name=source["name"].text(),
        revision=None if source["revision"].value is None else source["revision"].text(),
    )


def _surface(entry: Field, folder: Path) -> EncoderSpec:
    """Return surface features; the lexicon must give the columns that the entry states."""
    keys = entry.object(_SURFACE)
    lexicon = file_entry(keys["files"].object(("lexicon",))["lexicon"], folder)
    dim = parse_lexicon(lexicon.read(), lexicon.where).dim
    if keys["dim"].integer(at_least=1) != dim:
        keys["dim"].fail(f"{dim}, as {lexicon.path} gives", BundleShapeError)
    return EncoderSpec(
        id=keys["id"].id(),
        kind="surface",
        dim=dim,
        max_tokens=0,
        pooling=None,
        normalize=None,
        identity=surface_identity(lexicon.sha256),
        files=read_only({"lexicon": lexicon.path}),
    )


def _task(entry: Field) -> EncoderSpec:
    """Return task columns."""
    keys = entry.object(_TASK)
    fields = keys["names"].list(at_least=1)
    if len(fields) > MOST_TASKS:
        keys["names"].fail(f"at most {MOST_TASKS} tasks", BundleValueError)
    for name in fields:
        if (problem := task_problem(name.text())) is not None:
            name.fail(problem, BundleValueError)
    names = tuple(name.text() for name in fields)
    require_distinct(names, fields)
    return EncoderSpec(
        id=keys["id"].id(),
        kind="task",
        dim=len(names),
        max_tokens=0,
        pooling=None,
        normalize=None,
        identity=task_identity(names),
        files=read_only({}),
        tasks=names,
    )


def _concatenated(entry: Field, before: Sequence[EncoderSpec]) -> EncoderSpec:
    """Return an encoder made of ones listed before it."""
    keys = entry.object(_CONCATENATED)
    known = {spec.id: spec for spec in before if spec.kind != "concatenated"}
    fields = keys["parts"].list(at_least=2)
    for part in fields:
        if part.text() not in known:
            part.fail(f"an encoder listed before it ({', '.join(known) or 'none is'})", EncoderMismatchError)
    parts = [known[part.text()] for part in fields]
    require_distinct([part.id for part in parts], fields)
    # They count no tokens, and support measures the columns before them.
    places = [_BEHIND.index(spec.kind) + 1 if spec.kind in _BEHIND else 0 for spec in parts]
    if places[0] != 0:
        fields[0].fail("an embedding as the first part", EncoderMismatchError)
    for (place, after), part in zip(pairwise(places), fields[:-1], strict=True):
        if place != 0 and after <= place:
            part.fail(
                "embeddings first, then one part of tasks, then one of surface features, those that there are",
                EncoderMismatchError,
            )
    embeddings = [(spec, part) for spec, part in zip(parts, fields, strict=True) if spec.kind not in _BEHIND]
    for spec, part in embeddings[:-1]:
        if spec.head_dim:  # support measures the columns before it
            part.fail("a table with a head view as the last embedding alone", EncoderMismatchError)
    return EncoderSpec(
        id=keys["id"].id(),
        kind="concatenated",
        dim=sum(part.dim for part in parts),
        max_tokens=max(part.max_tokens for part in parts),
        pooling=None,
        normalize=None,
        identity=concatenated_identity([part.identity for part in parts]),
        files=read_only({}),
        parts=tuple(part.id for part in parts),
        surface_dim=parts[-1].dim if parts[-1].kind == "surface" else 0,
        tasks=next((part.tasks for part in parts if part.kind == "task"), ()),
        head_dim=embeddings[-1][0].head_dim,
    )


def encoder_file_fields(entry: Field) -> list[Field]:
    """Return the FILEs of an entry, unverified."""
    found = entry.mapping()
    return list(found["files"].mapping().values()) if "files" in found else []


def encoder_json(add: Callable[[str, Path], dict[str, Any]], encoder: AnySource) -> dict[str, Any]:
    """Return the entry of bundle.json; `add` takes a file into the bundle, under a relative path, and returns its FILE."""
    if isinstance(encoder, ConcatenatedSource):
        return {"id": encoder.id, "kind": "concatenated", "parts": list(encoder.parts)}
    if isinstance(encoder, TaskSource):
        return {"id": encoder.id, "kind": "task", "names": list(encoder.names)}
    if isinstance(encoder, SurfaceSource):
        lexicon = read_regular(encoder.lexicon, str(encoder.lexicon))
        return {
            "id": encoder.id,
            "kind": "surface",
            "dim": parse_lexicon(lexicon, str(encoder.lexicon)).dim,
            "files": {"lexicon": add(f"encoders/{encoder.id}/{_LEXICON}", encoder.lexicon)},
        }
    if isinstance(encoder, TransformerSource):
        files = {role: add(f"encoders/{encoder.id}/{path}", file) for role, (path, file) in encoder.files.items()}
        return {
            "id": encoder.id,
            "kind": "transformer",
            "dim": encoder.dim,
            "max_tokens": encoder.max_tokens,
            "pooling": encoder.pooling,
            "normalize": encoder.normalize,
            "dtype": encoder.dtype,
            "identity": encoder.identity,
            "source": {"name": encoder.name, "revision": encoder.revision},
            "files": files,
        }
    sources = {"table": encoder.table, "tokenizer": encoder.tokenizer, "config": encoder.config}
    files = {role: add(f"encoders/{encoder.id}/{STATIC_FILES[role]}", Path(sources[role])) for role in STATIC_FILES}
    # A tokenizer that is no JSON would only be found out when the bundle is loaded.
    parse_json(read_regular(encoder.tokenizer, str(encoder.tokenizer)), str(encoder.tokenizer)).mapping()
    return {
        "id": encoder.id,
        "kind": "static",
        "dim": check_table(encoder.table, str(encoder.table)),
        "max_tokens": encoder.max_tokens,
        "pooling": encoder.pooling,
        "normalize": config_normalize(read_regular(encoder.config, str(encoder.config)), str(encoder.config)),
        "files": files,
        # what is neither on nor off is written too, and refused where the entry is read
        **({} if encoder.head_tokens == 0 else {"head_tokens": encoder.head_tokens}),
        **({} if encoder.fold_width is False else {"fold_width": encoder.fold_width}),
    }


def check_table(path: Path, where: str, *, dim: int | None = None) -> int:
    """Check an encoder's table without keeping it, and return its dim."""
    from safetensors import SafetensorError, safe_open

    try:
        with reading(where), safe_open(str(path), "np") as file:
            return _check_table(file, where, dim)
    except SafetensorError as error:
        fail(BundleFormatError, where, "a safetensors file", f"one that is not ({error})")


def _check_table(file: Any, where: str, dim: int | None) -> int:
    """Check names, dtypes, shapes and values of a table's tensors, and return its dim."""
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
    # embeddings: (rows, dim); mapping: (vocab,) row of each token, absent where rows are the vocabulary;
    # weights: (vocab,) factor of each token
    rows = shape[0]
    lengths = {name: tuple(headers[name].get_shape()) for name in ("mapping", "weights") if name in headers}
    # The vocabulary is as long as the mapping, or, without one, as the embeddings.
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
        # Read in parts: a table of hundreds of MB never lies in memory whole.
        step = max(1, (1 << 20) // shape[1])  # about a million values at a time
        for start in range(0, rows, step):
            require_finite(headers["embeddings"][start : min(start + step, rows)], f"{where}: embeddings", start)
    return int(shape[1])


def config_normalize(data: bytes, where: str) -> bool:
    """Return `normalize` of a model2vec config.json; absent means false there too."""
    config = parse_json(data, where).mapping()
    return "normalize" in config and config["normalize"].boolean()
