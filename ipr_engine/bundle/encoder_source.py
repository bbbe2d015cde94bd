"""This file describes encoders to put into a bundle, and makes the identity of each: the hash of all that shapes its output."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ipr_engine._files import as_path, sha256_hex
from ipr_engine.bundle.fields import canonical_json

SURFACE_DEFINITION = 1  # raised by every change of what encoders/surface_reference.py gives
MANIFEST = "encoder.json"  # of an export, which names its other files


@dataclass(frozen=True, kw_only=True)
class EncoderSource:
    """An `EncoderSource` is a model2vec table to put into a bundle; `write_bundle` reads dim from it, and normalize from its config.

    head_tokens: how many tokens of a prompt's beginning have a mean of their own behind that of the whole; 0: none.
    fold_width: whether full width forms are read as the ASCII that they stand for.
    """

    id: str
    table: Path
    tokenizer: Path
    config: Path
    max_tokens: int
    pooling: str = "mean"
    head_tokens: int = 0
    fold_width: bool = False

    @classmethod
    def in_folder(
        cls, folder: str | os.PathLike[str], *, id: str, max_tokens: int, pooling: str = "mean"
    ) -> EncoderSource:
        """Return an encoder as model2vec saves it: model.safetensors, tokenizer.json and config.json in one folder."""
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
    """A `TransformerSource` is a transformer to put into a bundle; `Export.bundle_source` makes it.

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
    """A `ConcatenatedSource` puts encoders of one bundle side by side: those of ids `parts`, which `write_bundle` must get before it."""

    id: str
    parts: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class SurfaceSource:
    """A `SurfaceSource` is surface features to put into a bundle, with the file of their lexicon (`bundle.surface_lexicon`).

    Heads read them beside an embedding: a `ConcatenatedSource` names them as its last part.
    """

    id: str
    lexicon: Path


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """A `TaskSource` is the tasks that heads tell apart, to put into a bundle: a column of x each, in this order.

    Heads read them beside an embedding: a `ConcatenatedSource` names them behind every embedding, before surface features.
    """

    id: str
    names: tuple[str, ...]


# What `write_bundle` takes.
AnySource = EncoderSource | TransformerSource | SurfaceSource | TaskSource | ConcatenatedSource


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
    """Return the sha256 over all that shapes an encoder's output; table, tokenizer and config are the sha256 of those files.

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
    # Written only where it is stated: identities of float32 encoders stay what they were before there was a dtype.
    if dtype is not None:
        document["dtype"] = dtype
    return sha256_hex(canonical_json(document, compact=True))


def head_view_identity(whole: str, head_tokens: int) -> str:
    """Return the identity of a table with a head view: the sha256 over that of the table without one, and the view's tokens.

    Without a head view it is the table's own, as before there were such views.
    """
    if head_tokens == 0:
        return whole
    document = {"kind": "static", "whole": whole, "head_tokens": head_tokens}
    return sha256_hex(canonical_json(document, compact=True))


def folded_width_identity(whole: str, fold_width: bool) -> str:
    """Return the identity of a table that folds width: the sha256 over that of the same table without. Without, it is the table's own."""
    if not fold_width:
        return whole
    document = {"kind": "static", "whole": whole, "fold_width": True}
    return sha256_hex(canonical_json(document, compact=True))


def surface_identity(lexicon: str) -> str:
    """Return the identity of surface features: the sha256 over their definition's number and their lexicon's file, a sha256 too."""
    document = {"kind": "surface", "definition": SURFACE_DEFINITION, "files": {"lexicon": lexicon}}
    return sha256_hex(canonical_json(document, compact=True))


def task_identity(names: Sequence[str]) -> str:
    """Return the identity of task columns: the sha256 over the tasks' names, in order."""
    return sha256_hex(canonical_json({"kind": "task", "names": list(names)}, compact=True))


def concatenated_identity(identities: Sequence[str]) -> str:
    """Return the identity of encoders side by side: the sha256 over theirs, in order."""
    document = {"kind": "concatenated", "encoders": list(identities)}
    return sha256_hex(canonical_json(document, compact=True))
