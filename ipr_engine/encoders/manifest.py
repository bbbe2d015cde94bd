"""An exported transformer is a folder with one frozen model for every tier, and encoder.json, which describes the model.

    encoder.json  {"schema_version": 1, "architecture", "dim", "pooling", "normalize", "max_tokens", "positions": int|null,
                   "pad_id", "special": {"before": [ids], "after": [ids]},
                   "source": {"name", "revision": null|text, "weights_sha256", "tokenizer_sha256", "config_sha256"},
                   "files": {role: {"path", "sha256", "bytes"}, ...}, "provenance": {...}}

Roles: `tokenizer` and `config`, both as the model came; `onnx`: float32 in standard operators, input_ids and attention_mask
(batch, tokens) int64 -> embedding (batch, dim) float32, pooled and normalised; and maybe `onnx_data` (its weights, where they
exceed one file), `onnx_cpu` (the same function of rows of one length, in ONNX Runtime's own operators: input_ids alone),
`onnx_int8` (the same in int8), and `weights` (float16 safetensors, with config.json a folder that transformers loads).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ipr_engine._files import as_path
from ipr_engine.bundle import TransformerSource
from ipr_engine.bundle.bundle_files import FileEntry, file_entry, read_regular, sha256_of
from ipr_engine.bundle.encoder_source import MANIFEST
from ipr_engine.bundle.fields import Field, canonical_json, fail, parse_json
from ipr_engine.encoders.transformer_files import POOLINGS, TransformerSpec
from ipr_engine.errors import BundleNotFoundError, BundleValueError, BundleVersionError

SCHEMA_VERSION = 1
REQUIRED_ROLES = ("tokenizer", "config")
ROLES = (*REQUIRED_ROLES, "onnx", "onnx_data", "onnx_cpu", "onnx_int8", "weights")
_KEYS = (
    "schema_version",
    "architecture",
    "dim",
    "pooling",
    "normalize",
    "max_tokens",
    "positions",
    "pad_id",
    "special",
    "source",
    "files",
    "provenance",
)


@dataclass(frozen=True)
class ModelOrigin:
    """A `ModelOrigin` names a hub's repository and the hub's commit, or a folder and None."""

    name: str
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Export:
    """An `Export` is an exported transformer whose files were verified.

    Attributes:
        folder: the folder that holds it. sha256: of its encoder.json.
        architecture: transformers' model_type, "bert" say. dim: of an embedding. max_tokens: the default of every tier.
        spec: the model, as all tiers need it.
        name, revision: the origin of the model.
        files: role -> verified path.
        hashes: role -> sha256.
        provenance: versions, and the cosines measured when it was made.
    """

    folder: Path
    sha256: str
    architecture: str
    dim: int
    max_tokens: int
    spec: TransformerSpec
    name: str
    revision: str | None
    files: Mapping[str, Path]
    hashes: Mapping[str, str]
    provenance: Mapping[str, Any]

    def arithmetic(self, dtype: str | None) -> str | None:
        """Return the arithmetic as the identity names it."""
        # int8 weights are rounded on prompts: two exports of one model may differ, so the hash of their file is in the name.
        return f"int8 {self.hashes['onnx_int8']}" if dtype == "int8" and self.file("onnx_int8") else dtype

    def identity(self, max_tokens: int, *, dtype: str | None = None) -> str:
        """Return the identity of the encoder that this export is on any tier, see `TransformerSpec.identity`."""
        return self.spec.identity(max_tokens, dtype=self.arithmetic(dtype))

    def bundle_source(
        self, id: str, *, max_tokens: int | None = None, dtype: str | None = None, contained: bool = True
    ) -> TransformerSource:
        """Return this model as `write_bundle` takes it, to be put into a bundle or only referenced.

        Args:
            max_tokens: None is the export's own.
            dtype: "int8", "bfloat16" or "bfloat16-mixed" for heads fitted on embeddings of that arithmetic.
        """
        limit = self.max_tokens if max_tokens is None else max_tokens
        files = {"manifest": (MANIFEST, self.folder / MANIFEST)} if contained else {}
        if contained:
            files |= {role: (path.relative_to(self.folder).as_posix(), path) for role, path in self.files.items()}
        return TransformerSource(
            id=id,
            dim=self.dim,
            max_tokens=limit,
            pooling=self.spec.pooling,
            normalize=self.spec.normalize,
            dtype=dtype,
            identity=self.identity(limit, dtype=dtype),
            name=self.name,
            revision=self.revision,
            files=files,
        )

    def file(self, role: str) -> Path:
        """Return the file of that role; BundleNotFoundError if this export has none."""
        if role not in self.files:
            raise BundleNotFoundError(
                f"{self.folder / MANIFEST}: files.{role}: this export has none (it has {', '.join(self.files)}); "
                "export the model again with ipr export-encoder"
            )
        return self.files[role]


def is_export(folder: str | os.PathLike[str]) -> bool:
    """Return whether the folder has an encoder.json."""
    return (Path(folder) / MANIFEST).exists()


def read_export(folder: str | os.PathLike[str]) -> Export:
    """Read an export and verify the size and sha256 of every file it names.

    Raises:
        BundleNotFoundError, BundleFormatError, BundleHashError, BundleVersionError, BundlePathError, BundleValueError: names
            the file and the field.
    """
    base = as_path(folder, "folder").absolute()
    where = str(base / MANIFEST)
    if not (base / MANIFEST).exists():
        raise BundleNotFoundError(f"{where}: nothing there; expected a folder that `ipr export-encoder` wrote")
    data = read_regular(base / MANIFEST, where)
    document = parse_json(data, where)
    # The version first: another one may have other keys, which must not be called unknown.
    version = document.mapping().get("schema_version")
    if version is not None and version.integer(at_least=0) != SCHEMA_VERSION:
        todo = "use the release of ipr_engine that wrote it, or export the model again"
        fail(BundleVersionError, version.where, f"schema_version {SCHEMA_VERSION}", version.value, todo)
    keys = document.object(_KEYS)
    entries = _entries(keys["files"], base)
    tokenizer = entries["tokenizer"].read()
    source = keys["source"].object(("name", "revision", "weights_sha256", "tokenizer_sha256", "config_sha256"))
    for role in REQUIRED_ROLES:
        if source[f"{role}_sha256"].sha256() != entries[role].sha256:
            source[f"{role}_sha256"].fail(f"the sha256 of files.{role}", BundleValueError)
    special = keys["special"].object(("before", "after"))
    positions = keys["positions"]
    spec = TransformerSpec(
        pooling=keys["pooling"].one_of(POOLINGS),
        normalize=keys["normalize"].boolean(),
        before=_ids(special["before"]),
        after=_ids(special["after"]),
        pad_id=keys["pad_id"].integer(at_least=0),
        positions=None if positions.value is None else positions.integer(at_least=1),
        tokenizer=tokenizer,
        weights_sha256=source["weights_sha256"].sha256(),
        tokenizer_sha256=entries["tokenizer"].sha256,
        config_sha256=entries["config"].sha256,
    )
    keys["provenance"].mapping()
    keys["provenance"].require_finite_tree()
    return Export(
        folder=base,
        sha256=hashlib.sha256(data).hexdigest(),
        architecture=keys["architecture"].text(),
        dim=keys["dim"].integer(at_least=1),
        max_tokens=keys["max_tokens"].integer(at_least=1),
        spec=spec,
        name=source["name"].text(),
        revision=None if source["revision"].value is None else source["revision"].text(),
        files=MappingProxyType({role: entry.verify() for role, entry in entries.items()}),
        hashes=MappingProxyType({role: entry.sha256 for role, entry in entries.items()}),
        provenance=MappingProxyType(keys["provenance"].value),
    )


def write_manifest(
    folder: str | os.PathLike[str],
    *,
    architecture: str,
    dim: int,
    max_tokens: int,
    spec: TransformerSpec,
    origin: ModelOrigin,
    files: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> Export:
    """Write the encoder.json of a folder whose files are in place, and read the whole back.

    Args:
        files: role -> path relative to the folder.
    Raises:
        as `read_export`.
    """
    base = as_path(folder, "folder")
    entries = {}
    for role, relative in sorted(files.items()):
        digest, size = sha256_of(base / relative, f"{relative} (for {role})")
        entries[role] = {"path": relative, "sha256": digest, "bytes": size}
    document = {
        "schema_version": SCHEMA_VERSION,
        "architecture": architecture,
        "dim": dim,
        "pooling": spec.pooling,
        "normalize": spec.normalize,
        "max_tokens": max_tokens,
        "positions": spec.positions,
        "pad_id": spec.pad_id,
        "special": {"before": list(spec.before), "after": list(spec.after)},
        "source": {
            "name": origin.name,
            "revision": origin.revision,
            "weights_sha256": spec.weights_sha256,
            "tokenizer_sha256": spec.tokenizer_sha256,
            "config_sha256": spec.config_sha256,
        },
        "files": entries,
        "provenance": dict(provenance),
    }
    (base / MANIFEST).write_bytes(canonical_json(document))
    return read_export(base)


def _entries(field: Field, folder: Path) -> dict[str, FileEntry]:
    found = field.mapping()
    missing: Sequence[str] = [role for role in REQUIRED_ROLES if role not in found]
    unknown = [role for role in found if role not in ROLES]
    if missing or unknown:
        field.fail(f"files of {', '.join(REQUIRED_ROLES)} and maybe {', '.join(ROLES[2:])}")
    return {role: file_entry(entry, folder) for role, entry in found.items()}


def _ids(field: Field) -> tuple[int, ...]:
    return tuple(item.integer(at_least=0, at_most=2**31 - 1) for item in field.list())
