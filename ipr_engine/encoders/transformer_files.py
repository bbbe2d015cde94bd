"""This file reads a frozen transformer's files, and everything they decide: pooling, special ids, hashes, the identity that follows.

TransformerSpec         a model as every tier needs it
TransformerFolder       a model as sentence-transformers or transformers saved it; `read_transformer_folder` reads one
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._extras import need
from ipr_engine._files import file_sha256
from ipr_engine.bundle import encoder_identity
from ipr_engine.encoders.model_files import parse_json, read_bytes
from ipr_engine.errors import BundleFormatError, BundleNotFoundError, InvalidInputError

POOLINGS = ("mean", "cls", "last")
# sentence-transformers' old settings of a pooling, one true at a time -> ours
_POOLING_KEYS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}


@dataclass(frozen=True, kw_only=True)
class TransformerFiles:
    """`TransformerFiles` are a transformer's files and the pooling of its token states: everything its identity is made of.

    Attributes:
        pooling: "mean" over all ids, the first one's state ("cls") or the "last" one's. normalize: x / max(||x||, 1e-12).
        tokenizer: the bytes of tokenizer.json.
        weights_sha256, tokenizer_sha256, config_sha256: of the original files; of several weight files, over their names
            and hashes.
    """

    pooling: str
    normalize: bool
    tokenizer: bytes
    weights_sha256: str
    tokenizer_sha256: str
    config_sha256: str

    def identity(self, max_tokens: int, *, dtype: str | None = None) -> str:
        """Return the encoder's name, the same on every tier (see `ipr_engine.bundle.encoder_identity`).

        Args:
            dtype: None for float32, and for float16, which stays within a cosine of 0.9999 of it; else the type's name.
        """
        return encoder_identity(
            kind="transformer",
            table=self.weights_sha256,
            tokenizer=self.tokenizer_sha256,
            config=self.config_sha256,
            pooling=self.pooling,
            normalize=self.normalize,
            max_tokens=max_tokens,
            dtype=dtype,
        )


@dataclass(frozen=True, kw_only=True)
class TransformerSpec(TransformerFiles):
    """A `TransformerSpec` holds everything that decides an embedding besides the arithmetic of a tier.

    Attributes:
        before, after: the special ids around those of a prompt. pad_id: the id that fills a row up.
        positions: the most ids the model can see, None where it has no table of them.
    """

    before: tuple[int, ...]
    after: tuple[int, ...]
    pad_id: int
    positions: int | None


@dataclass(frozen=True, kw_only=True)
class TransformerFolder(TransformerFiles):
    """A `TransformerFolder` is a transformer's folder, read and hashed.

    Attributes:
        path: the folder of config.json, tokenizer.json and the weights.
    """

    path: Path


def read_transformer_folder(
    folder: str | Path, *, pooling: str | None = None, normalize: bool | None = None
) -> TransformerFolder:
    """Read a sentence-transformers folder (modules.json), or a bare transformers folder with `pooling` given.

    Args:
        pooling: "mean", "cls" or "last". A sentence-transformers folder says its own: None, or the same.
        normalize: likewise; None means no for a bare folder.
    Raises:
        InvalidInputError: pooling cannot be told, contradicts the folder, or the folder asks for a step that is not known here.
        BundleNotFoundError, BundleFormatError: config.json, tokenizer.json or safetensors weights are missing or unreadable.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleNotFoundError(f"{folder}: no such folder")
    if pooling is not None and pooling not in POOLINGS:
        raise InvalidInputError(f"pooling: expected one of {', '.join(POOLINGS)}, got {pooling!r}")
    if normalize is not None and type(normalize) is not bool:
        raise InvalidInputError(f"normalize: expected true, false or None, got {normalize!r}")
    if (folder / "modules.json").exists():
        path, own_pooling, own_normalize = _read_modules(folder)
        for name, given, own in (("pooling", pooling, own_pooling), ("normalize", normalize, own_normalize)):
            if given not in (None, own):
                raise InvalidInputError(f"{name}: {folder} says {own!r}, got {given!r}; leave it out")
    elif pooling is None:
        raise InvalidInputError(
            f"pooling: {folder} has no modules.json that tells it; pass pooling= one of {', '.join(POOLINGS)}"
        )
    else:
        path, own_pooling, own_normalize = folder, pooling, bool(normalize)
    config, tokenizer = read_bytes(path / "config.json"), read_bytes(path / "tokenizer.json")
    return TransformerFolder(
        path=path,
        pooling=own_pooling,
        normalize=own_normalize,
        tokenizer=tokenizer,
        weights_sha256=_weights_sha256(path),
        tokenizer_sha256=hashlib.sha256(tokenizer).hexdigest(),
        config_sha256=hashlib.sha256(config).hexdigest(),
    )


def special_ids(tokenizer: bytes, where: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that a tokenizer.json's post-processor puts before and after the tokens of a text; needs `tokenizers`."""
    tokenizers = need("tokenizers", f"{where}: finding its special tokens")
    try:
        library = tokenizers.Tokenizer.from_str(tokenizer.decode())
        library.no_truncation()
        library.no_padding()
        probe = library.encode("a")
    except Exception as error:  # the library raises bare Exception
        raise BundleFormatError(f"{where}: the tokenizers library fails on it: {error}") from error
    own = np.flatnonzero(np.array(probe.special_tokens_mask) == 0)
    if not len(own):
        raise BundleFormatError(f"{where}: it gives no token for the text 'a'")
    return tuple(probe.ids[: own[0]]), tuple(probe.ids[own[-1] + 1 :])


def _read_modules(folder: Path) -> tuple[Path, str, bool]:
    """Return the transformer's folder, pooling and normalize of modules.json: Transformer, Pooling and maybe Normalize."""
    file = folder / "modules.json"
    modules = _read_json(file, list)
    try:
        steps = [(module["type"].rsplit(".", 1)[-1], folder / module["path"]) for module in modules]
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleFormatError(f"{file}: expected objects with type and path: {error!r}") from error
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise InvalidInputError(
            f"{file}: expected the modules Transformer, Pooling and maybe Normalize, got {', '.join(kinds) or 'none'}"
        )
    for _, path in steps:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise InvalidInputError(f"{file}: {path} is outside of the folder")
    settings = steps[0][1] / "sentence_bert_config.json"
    if settings.exists() and _read_json(settings, dict).get("do_lower_case"):
        raise InvalidInputError(
            f"{settings}: do_lower_case is not supported; let the normalizer of tokenizer.json do it"
        )
    return steps[0][1], _read_pooling(steps[1][1] / "config.json"), len(kinds) == 3


def _read_pooling(file: Path) -> str:
    """Return the one pooling of 1_Pooling/config.json, in its old form (a flag a mode) or its new one (pooling_mode)."""
    config = _read_json(file, dict)
    if "pooling_mode" in config:
        modes = [{"lasttoken": "last"}.get(str(config["pooling_mode"]), str(config["pooling_mode"]))]
    else:
        asked = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
        modes = [_POOLING_KEYS.get(key, key) for key in asked]
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise InvalidInputError(
            f"{file}: pooling cannot be told: expected exactly one of {', '.join(POOLINGS)}, "
            f"got {', '.join(modes) or 'none'}"
        )
    return modes[0]


def _read_json(file: Path, kind: type) -> Any:
    """Return the JSON value of a file; BundleFormatError where it is no `kind`, list or dict."""
    value = parse_json(file, read_bytes(file))
    if not isinstance(value, kind):
        raise BundleFormatError(f"{file}: expected a JSON {'array' if kind is list else 'object'}")
    return value


def _weights_sha256(path: Path) -> str:
    """Return the hash of a model's weights; of shards, over their names and hashes, the index first."""
    if (path / "adapter_config.json").exists():
        raise InvalidInputError(f"{path}: it holds an adapter; merge it into its model and save that")
    if (path / "model.safetensors").exists():
        return file_sha256(path / "model.safetensors")[0]
    if not (path / "model.safetensors.index.json").exists():
        raise BundleNotFoundError(
            f"{path}: no model.safetensors; pickled weights (pytorch_model.bin) are never read: "
            "save the model with safe_serialization=True"
        )
    files = [path / "model.safetensors.index.json", *sorted(path.glob("model-*.safetensors"))]
    return hashlib.sha256("".join(f"{file.name} {file_sha256(file)[0]}\n" for file in files).encode()).hexdigest()
