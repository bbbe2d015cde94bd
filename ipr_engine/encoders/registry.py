"""Which class serves which kind of encoder: a table of lazy factories, so that a tier's packages load only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.files import parse_json, read_bytes
from ipr_engine.errors import BackendUnavailableError, BundleNotFoundError, EncoderMismatchError, InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.bundle import EncoderSpec


def _make_static(spec: EncoderSpec, isa: str) -> Encoder:
    from ipr_engine.encoders.static import StaticEncoder

    return StaticEncoder.load(spec.table, spec.tokenizer, spec.config, max_tokens=spec.max_tokens, isa=isa)


ENCODERS: Mapping[str, Callable[[EncoderSpec, str], Encoder]] = MappingProxyType({"static": _make_static})


def make_encoder(spec: EncoderSpec, *, isa: str = "auto") -> Encoder:
    """Load and plan the encoder a bundle names.

    Raises:
        BackendUnavailableError: this version has no tier of that kind.
        EncoderMismatchError: the files are no longer those the bundle was verified with.
    """
    if spec.kind not in ENCODERS:
        raise BackendUnavailableError(f"encoder {spec.id!r}: kind {spec.kind!r} is not one of {', '.join(ENCODERS)}")
    encoder = ENCODERS[spec.kind](spec, isa)
    if encoder.identity != spec.identity:
        raise EncoderMismatchError(
            f"encoder {spec.id!r}: expected identity {spec.identity[:12]}, got {encoder.identity[:12]}; "
            "a file changed after the bundle was verified: load it again"
        )
    return encoder


def open_encoder(
    folder: str | Path, *, max_tokens: int | None = None, pooling: str | None = None, device: str = "cpu"
) -> Encoder:
    """Load the encoder in a folder: the static tier for a model2vec model, the torch tier for a transformer.

    Args:
        folder: a model2vec folder (its config.json says `"model_type": "model2vec"`), a sentence-transformers or a
            transformers folder.
        max_tokens: None is the tier's own default: 512 static, 256 torch.
        pooling: "mean", "cls" or "last" for a transformers folder that does not tell it; None otherwise.
        device: where a transformer runs; a table is read on the CPU.
    Raises:
        InvalidInputError: an argument is outside of the above, or pooling cannot be told.
        BackendUnavailableError: a package or the device is missing here.
        BundleNotFoundError, BundleFormatError, BundleShapeError, BundleValueError: a file is not what it should be.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BundleNotFoundError(f"encoder: {folder}: no such folder")
    limit: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    if not _is_model2vec(folder):
        from ipr_engine.encoders.torch import TorchEncoder

        return TorchEncoder.from_folder(folder, pooling=pooling, device=device, **limit)
    if pooling is not None or device != "cpu":
        raise InvalidInputError(
            f"pooling, device: {folder} holds a model2vec table, which is averaged on the CPU; "
            f"expected None and 'cpu', got {pooling!r} and {device!r}"
        )
    from ipr_engine.encoders.static import StaticEncoder

    return StaticEncoder.from_folder(folder, **limit)


def _is_model2vec(folder: Path) -> bool:
    """config.json tells; modules.json does not: model2vec writes one too, and a transformer may live in a subfolder of it."""
    path = folder / "config.json"
    if not path.exists():
        if (folder / "modules.json").exists():
            return False
        raise BundleNotFoundError(f"encoder: {folder} has neither config.json nor modules.json")
    config = parse_json(path, read_bytes(path))
    return isinstance(config, dict) and config.get("model_type") == "model2vec"
