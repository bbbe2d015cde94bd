"""The encoders of a bundle: what their entries in bundle.json say, read and written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ipr_engine.bundle.fields import Field, parse_json, require_distinct
from ipr_engine.bundle.files import as_path, file_entry, read_regular
from ipr_engine.bundle.spec import canonical_json
from ipr_engine.bundle.tensors import check_table, config_normalize
from ipr_engine.errors import BundleValueError, EncoderMismatchError

KINDS = ("static", "transformer", "concatenated")  # all but the first need schema_version 3
STATIC_FILES = {"table": "model.safetensors", "tokenizer": "tokenizer.json", "config": "config.json"}
DTYPES = ("int8", "bfloat16")  # embeddings further from float32's than a cosine of 0.9999: part of the identity
_STATIC = ("id", "kind", "dim", "max_tokens", "pooling", "normalize", "files")
_TRANSFORMER = (*_STATIC, "dtype", "identity", "source")
_CONCATENATED = ("id", "kind", "parts")
_MANIFEST_ROLE = "manifest"  # the export's encoder.json, which names the others
MANIFEST = "encoder.json"


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """A frozen prompt encoder as a bundle holds it, and `identity`, the hash of everything that shapes its output.

    Attributes:
        kind: "static" (a model2vec table), "transformer" or "concatenated".
        pooling, normalize: None of a concatenated one, whose parts have their own.
        files: role -> verified path. static: table, tokenizer, config. transformer: manifest (encoder.json of an export) and
            what it names; none when the model is referenced, to be found at load by its identity.
        dtype: "int8" or "bfloat16" where the heads read embeddings of that arithmetic; else None.
        name, revision: of a transformer: a hub id and its revision, or what the export was called.
        parts: of a concatenated one: ids of this bundle's encoders, in the order of their columns.
    """

    id: str
    kind: str
    dim: int
    max_tokens: int
    pooling: str | None
    normalize: bool | None
    identity: str
    files: Mapping[str, Path]
    dtype: str | None = None
    name: str | None = None
    revision: str | None = None
    parts: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """A table to put into a bundle; dim is read from it, normalize from its config."""

    id: str
    table: Path
    tokenizer: Path
    config: Path
    max_tokens: int
    pooling: str = "mean"

    @classmethod
    def in_folder(
        cls, folder: str | os.PathLike[str], *, id: str, max_tokens: int, pooling: str = "mean"
    ) -> EncoderSource:
        """An encoder as model2vec saves it: model.safetensors, tokenizer.json and config.json in one folder."""
        base = as_path(folder, "folder")
        return cls(
            id=id,
            table=base / "model.safetensors",
            tokenizer=base / "tokenizer.json",
            config=base / "config.json",
            max_tokens=max_tokens,
            pooling=pooling,
        )


@dataclass(frozen=True, kw_only=True)
class TransformerSource:
    """A transformer to put into a bundle; `Export.bundle_source` makes it.

    files: role -> (path in the export, the file), with "manifest"; empty to reference the model instead of containing it.
    """

    id: str
    dim: int
    max_tokens: int
    pooling: str
    normalize: bool
    dtype: str | None
    identity: str
    name: str
    revision: str | None
    files: Mapping[str, tuple[str, Path]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class ConcatenatedSource:
    """Encoders of the same bundle, listed before it, side by side."""

    id: str
    parts: tuple[str, ...]


AnySource = EncoderSource | TransformerSource | ConcatenatedSource


def encoder_identity(
    *,
    kind: str,
    table: str,
    tokenizer: str,
    config: str,
    pooling: str,
    normalize: bool,
    max_tokens: int,
    dtype: str | None = None,
) -> str:
    """sha256 over all that shapes an encoder's output; table, tokenizer and config are the sha256 of those files.

    dtype: what a transformer computes in, where that moves its embeddings by more than a cosine of 0.9999; else None,
        and no part of the document.
    """
    document: dict[str, Any] = {
        "kind": kind,
        "files": {"table": table, "tokenizer": tokenizer, "config": config},
        "pooling": pooling,
        "normalize": normalize,
        "max_tokens": max_tokens,
    }
    if dtype is not None:
        document["dtype"] = dtype
    return hashlib.sha256(canonical_json(document, compact=True)).hexdigest()


def concatenated_identity(identities: Sequence[str]) -> str:
    """The identity of encoders side by side: sha256 over theirs, in order."""
    document = {"kind": "concatenated", "encoders": list(identities)}
    return hashlib.sha256(canonical_json(document, compact=True)).hexdigest()


def parse_encoders(entries: Field, folder: Path, version: int) -> tuple[EncoderSpec, ...]:
    """The entries of bundle.json, every file verified."""
    specs: list[EncoderSpec] = []
    for entry in entries.list(at_least=1):
        kind = entry.mapping().get("kind")
        known = KINDS if version >= 3 else KINDS[:1]
        named = "static" if kind is None else kind.one_of(known)  # a missing key is told by the parser below
        if named == "static":
            specs.append(_static(entry, folder))
        elif named == "transformer":
            specs.append(_transformer(entry, folder))
        else:
            specs.append(_concatenated(entry, specs))
    require_distinct([spec.id for spec in specs], entries.list())
    return tuple(specs)


def _static(entry: Field, folder: Path) -> EncoderSpec:
    keys = entry.object(_STATIC)
    dim, max_tokens = keys["dim"].integer(at_least=1), keys["max_tokens"].integer(at_least=1, at_most=2**31)
    pooling, normalize = keys["pooling"].one_of(("mean",)), keys["normalize"].boolean()
    files = {role: file_entry(file, folder) for role, file in keys["files"].object(tuple(STATIC_FILES)).items()}
    check_table(files["table"].verify(), files["table"].where, dim=dim)
    if config_normalize(files["config"].read(), files["config"].where) != normalize:
        keys["normalize"].fail(f"what {files['config'].path} says", BundleValueError)
    files["tokenizer"].verify()
    return EncoderSpec(
        id=keys["id"].id(),
        kind="static",
        dim=dim,
        max_tokens=max_tokens,
        pooling=pooling,
        normalize=normalize,
        files=MappingProxyType({role: file.path for role, file in files.items()}),
        identity=encoder_identity(
            kind="static",
            table=files["table"].sha256,
            tokenizer=files["tokenizer"].sha256,
            config=files["config"].sha256,
            pooling=pooling,
            normalize=normalize,
            max_tokens=max_tokens,
        ),
    )


def _transformer(entry: Field, folder: Path) -> EncoderSpec:
    keys = entry.object(_TRANSFORMER)
    source = keys["source"].object(("name", "revision"))
    files = {role: file_entry(file, folder) for role, file in keys["files"].mapping().items()}
    if files and _MANIFEST_ROLE not in files:
        keys["files"].fail(f"{_MANIFEST_ROLE!r} among them, or none at all")
    if files and files[_MANIFEST_ROLE].path.name != MANIFEST:  # the tiers read the file of that name in its folder
        keys["files"].mapping()[_MANIFEST_ROLE].fail(f"a file named {MANIFEST}")
    return EncoderSpec(
        id=keys["id"].id(),
        kind="transformer",
        dim=keys["dim"].integer(at_least=1),
        max_tokens=keys["max_tokens"].integer(at_least=1, at_most=2**31),
        pooling=keys["pooling"].one_of(("mean", "cls", "last")),
        normalize=keys["normalize"].boolean(),
        identity=keys["identity"].sha256(),
        files=MappingProxyType({role: file.verify() for role, file in files.items()}),
        dtype=None if keys["dtype"].value is None else keys["dtype"].one_of(DTYPES),
        name=source["name"].text(),
        revision=None if source["revision"].value is None else source["revision"].text(),
    )


def _concatenated(entry: Field, before: Sequence[EncoderSpec]) -> EncoderSpec:
    keys = entry.object(_CONCATENATED)
    known = {spec.id: spec for spec in before if spec.kind != "concatenated"}
    fields = keys["parts"].list(at_least=2)
    for part in fields:
        if part.text() not in known:
            part.fail(f"an encoder listed before it ({', '.join(known) or 'none is'})", EncoderMismatchError)
    parts = [known[part.text()] for part in fields]
    require_distinct([part.id for part in parts], fields)
    return EncoderSpec(
        id=keys["id"].id(),
        kind="concatenated",
        dim=sum(part.dim for part in parts),
        max_tokens=max(part.max_tokens for part in parts),
        pooling=None,
        normalize=None,
        identity=concatenated_identity([part.identity for part in parts]),
        files=MappingProxyType({}),
        parts=tuple(part.id for part in parts),
    )


def encoder_file_fields(entry: Field) -> list[Field]:
    """The FILEs of an entry, unverified."""
    found = entry.mapping()
    return list(found["files"].mapping().values()) if "files" in found else []


def encoder_json(add: Callable[[str, Path], dict[str, Any]], encoder: AnySource) -> dict[str, Any]:
    """The entry of bundle.json; `add` takes a file into the bundle, under a relative path, and gives its FILE."""
    if isinstance(encoder, ConcatenatedSource):
        return {"id": encoder.id, "kind": "concatenated", "parts": list(encoder.parts)}
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
    parse_json(read_regular(encoder.tokenizer, str(encoder.tokenizer)), str(encoder.tokenizer)).mapping()
    return {
        "id": encoder.id,
        "kind": "static",
        "dim": check_table(encoder.table, str(encoder.table)),
        "max_tokens": encoder.max_tokens,
        "pooling": encoder.pooling,
        "normalize": config_normalize(read_regular(encoder.config, str(encoder.config)), str(encoder.config)),
        "files": files,
    }
