"""Which class serves which encoder: lazy factories, so that a tier's packages load only when it is used."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ipr_engine.bundle import Bundle, EncoderSpec
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.files import parse_json, read_bytes
from ipr_engine.encoders.load_options import EMULATED, LoadOptions, on_gpu
from ipr_engine.encoders.manifest import Export, is_export, read_export
from ipr_engine.errors import BackendUnavailableError, BundleNotFoundError, EncoderMismatchError, InvalidInputError


def make_encoder(bundle: Bundle, id: str, options: LoadOptions | None = None) -> Encoder:
    """Load and plan an encoder of a bundle.

    Raises:
        BackendUnavailableError: a package, a device or the tier asked for is missing here.
        BundleNotFoundError: the bundle references a model that is in none of the folders.
        EncoderMismatchError: the files are not those that the bundle means.
    """
    options = LoadOptions() if options is None else options
    spec = bundle.encoder(id)
    encoder: Encoder
    if spec.kind == "static":
        encoder = _static(spec, options)
    elif spec.kind == "transformer":
        encoder = _transformer(spec, options)
    else:
        from ipr_engine.encoders.concatenated import ConcatenatedEncoder

        encoder = ConcatenatedEncoder([make_encoder(bundle, part, options) for part in spec.parts])
    if encoder.identity != spec.identity or encoder.dim != spec.dim:
        raise EncoderMismatchError(
            f"encoder {spec.id!r}: expected identity {spec.identity[:12]} of {spec.dim} dimensions, got "
            f"{encoder.identity[:12]} of {encoder.dim}; a file changed after the bundle was verified: load it again"
        )
    return encoder


def _static(spec: EncoderSpec, options: LoadOptions) -> Encoder:
    from ipr_engine.encoders.static import StaticEncoder

    files = spec.files
    return StaticEncoder.load(
        files["table"], files["tokenizer"], files["config"], max_tokens=spec.max_tokens, isa=options.isa
    )


def _transformer(spec: EncoderSpec, options: LoadOptions) -> Encoder:
    if spec.files:
        return open_export(spec.files["manifest"].parent, options, max_tokens=spec.max_tokens, dtype=spec.dtype)
    for folder in options.encoder_folders:
        if is_export(folder):
            export = read_export(folder)
            has_it = spec.dtype != "int8" or "onnx_int8" in export.files
            if has_it and export.identity(spec.max_tokens, dtype=spec.dtype) == spec.identity:
                return open_export(folder, options, max_tokens=spec.max_tokens, dtype=spec.dtype)
        elif (found := _folder(Path(folder), spec, options)) is not None:
            return found
    searched = ", ".join(map(str, options.encoder_folders)) or "none was given"
    raise BundleNotFoundError(
        f"encoder {spec.id!r}: the bundle references {spec.name!r} (revision {spec.revision or 'not stated'}) and does not "
        f"contain it; pass the folder of its export as encoder_folders=... (looked in: {searched})"
    )


def _folder(folder: Path, spec: EncoderSpec, options: LoadOptions) -> Encoder | None:
    """A transformers folder on the torch tier, if it is the model that is meant."""
    from ipr_engine.encoders.transformer_folder import read_transformer_folder

    modules = (folder / "modules.json").exists()
    asked = {} if modules else {"pooling": spec.pooling, "normalize": spec.normalize}
    source = read_transformer_folder(folder, **asked)  # type: ignore[arg-type]
    if source.identity(spec.max_tokens, dtype=spec.dtype) != spec.identity:
        return None
    if options.tier not in ("auto", "torch"):
        raise BackendUnavailableError(
            f"tier: {options.tier!r} needs an export of {folder}; make one with ipr export-encoder"
        )
    encoder: Encoder = _torch_class(options.device).from_folder(
        folder,
        **asked,
        max_tokens=spec.max_tokens,
        device=options.device,
        dtype=spec.dtype or "float32",
        **_batches(options),
    )
    return encoder


def open_export(
    folder: str | os.PathLike[str],
    options: LoadOptions | None = None,
    *,
    max_tokens: int | None = None,
    dtype: str | None = None,
) -> Encoder:
    """Load an export on the tier that the options ask for.

    Args:
        max_tokens: None is the export's own.
        dtype: None for embeddings as float32 gives them; "int8" or "bfloat16" for those of that arithmetic.
    Raises:
        BackendUnavailableError: no tier can serve it here, or not the one asked for; the message says why each cannot.
        as `read_export`.
    """
    options = LoadOptions() if options is None else options
    export = read_export(folder)
    tier = _choose_tier(export, options, dtype)
    return _TRANSFORMER_TIERS[tier].make(export, options, max_tokens, dtype)


def _choose_tier(export: Export, options: LoadOptions, dtype: str | None) -> str:
    order: Sequence[str] = ("tensorrt", "torch", "onnx")
    if options.tier == "tensorrt" and options.device == "cpu":
        raise InvalidInputError("tier: 'tensorrt' runs on a GPU; pass device='cuda' or 'cuda:N' beside it")
    if options.device == "cpu":
        order = ("onnx", "torch")
    elif options.device == EMULATED:
        order = ("torch",)
    asked = order if options.tier == "auto" else (options.tier,)
    reasons = []
    for name in asked:
        reason = _why_not(_TRANSFORMER_TIERS[name], export, dtype)
        if reason is None:
            return name
        reasons.append(f"{name}: {reason}")
    raise BackendUnavailableError(f"tier: no tier can run {export.name!r} here ({'; '.join(reasons)})")


@dataclass(frozen=True)
class _Tier:
    packages: tuple[str, ...]  # one of them
    extra: str  # what pip installs to have one
    roles: Mapping[str | None, tuple[str, ...]]  # dtype -> the files, one of which it needs
    make: Callable[[Export, LoadOptions, int | None, str | None], Encoder]


def _why_not(tier: _Tier, export: Export, dtype: str | None) -> str | None:
    if dtype not in tier.roles:
        return f"it has no {dtype}"
    if not any(role in export.files for role in tier.roles[dtype]):
        return f"the export has no file {' or '.join(tier.roles[dtype])}"
    if not any(importlib.util.find_spec(package) for package in tier.packages):
        return f"{' or '.join(tier.packages)} is not installed; pip install {tier.extra}"
    return None


def _onnx(export: Export, options: LoadOptions, max_tokens: int | None, dtype: str | None) -> Encoder:
    from ipr_engine.encoders.onnx import OnnxEncoder

    if options.device not in ("cpu", "cuda", "cuda:0"):
        raise InvalidInputError(f"device: the onnx tier runs on 'cpu' or 'cuda:0', got {options.device!r}")
    return OnnxEncoder.from_export(
        export.folder,
        max_tokens=max_tokens,
        precision="int8" if dtype == "int8" else "float32",
        threads=options.threads,
        provider="cpu" if options.device == "cpu" else "cuda",
    )


def _torch_class(device: str) -> Any:
    """Under CUDA graphs on a GPU, eager on the CPU and on what else torch has."""
    if on_gpu(device):
        from ipr_engine.encoders.torch_graphs import TorchGraphEncoder

        return TorchGraphEncoder
    from ipr_engine.encoders.torch import TorchEncoder

    return TorchEncoder


def _batches(options: LoadOptions) -> dict[str, Any]:
    return {} if options.batches is None or not on_gpu(options.device) else {"batches": options.batches}


def _torch(export: Export, options: LoadOptions, max_tokens: int | None, dtype: str | None) -> Encoder:
    encoder: Encoder = _torch_class(options.device).from_export(
        export.folder, max_tokens=max_tokens, device=options.device, dtype=dtype, **_batches(options)
    )
    return encoder


def _tensorrt(export: Export, options: LoadOptions, max_tokens: int | None, dtype: str | None) -> Encoder:
    from ipr_engine.encoders.tensorrt import TensorRtEncoder

    return TensorRtEncoder.from_export(export.folder, max_tokens=max_tokens, device=options.device, **_batches(options))


_TRANSFORMER_TIERS: Mapping[str, _Tier] = MappingProxyType(
    {
        "onnx": _Tier(
            ("onnxruntime",), "'ipr_engine[onnx]'", {None: ("onnx", "onnx_cpu"), "int8": ("onnx_int8",)}, _onnx
        ),
        "torch": _Tier(("torch",), "'ipr_engine[gpu]'", {None: ("weights",), "bfloat16": ("weights",)}, _torch),
        "tensorrt": _Tier(
            ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"),
            "'ipr_engine[tensorrt]' or 'ipr_engine[tensorrt-rtx]'",
            {None: ("onnx",)},
            _tensorrt,
        ),
    }
)


def open_encoder(
    folder: str | Path,
    *,
    max_tokens: int | None = None,
    pooling: str | None = None,
    tier: str = "auto",
    device: str = "cpu",
    threads: int | None = None,
    dtype: str | None = None,
) -> Encoder:
    """Load the encoder in a folder: the static tier for a model2vec model, a transformer tier for an export, the torch tier
    for a transformer as sentence-transformers or transformers save it.

    Args:
        max_tokens: None is the tier's own default: 512 static, the export's own, 256 torch.
        pooling: "mean", "cls" or "last" for a transformers folder that does not tell it; None otherwise.
        tier, device, threads: as of `LoadOptions`; a table is read on the CPU.
        dtype: "int8" or "bfloat16" for an export's embeddings in that arithmetic, which have an identity of their own.
    Raises:
        InvalidInputError: an argument is outside of the above, or pooling cannot be told.
        BackendUnavailableError: a package or the device is missing here.
        BundleNotFoundError, BundleFormatError, BundleShapeError, BundleValueError: a file is not what it should be.
    """
    folder = Path(folder)
    options = LoadOptions(tier=tier, device=device, threads=threads)
    if not folder.is_dir():
        raise BundleNotFoundError(f"encoder: {folder}: no such folder")
    limit: dict[str, Any] = {} if max_tokens is None else {"max_tokens": max_tokens}
    if is_export(folder):
        if pooling is not None:
            raise InvalidInputError(
                f"pooling: {folder} is an export, which tells its own; expected None, got {pooling!r}"
            )
        return open_export(folder, options, max_tokens=max_tokens, dtype=dtype)
    if dtype is not None:
        raise InvalidInputError(f"dtype: {folder} is no export; expected None, got {dtype!r}")
    if not is_model2vec(folder):
        if tier not in ("auto", "torch"):
            raise InvalidInputError(
                f"tier: {folder} is a transformers folder, which the torch tier runs; for {tier!r} export it first "
                "(ipr export-encoder)"
            )
        encoder: Encoder = _torch_class(device).from_folder(folder, pooling=pooling, device=device, **limit)
        return encoder
    if pooling is not None or device != "cpu" or tier != "auto":
        raise InvalidInputError(
            f"pooling, device, tier: {folder} holds a model2vec table, which is averaged on the CPU; "
            f"expected None, 'cpu' and 'auto', got {pooling!r}, {device!r} and {tier!r}"
        )
    from ipr_engine.encoders.static import StaticEncoder

    return StaticEncoder.from_folder(folder, **limit)


def is_model2vec(folder: Path) -> bool:
    """Whether a folder holds a table. config.json tells; modules.json does not: model2vec writes one too, and a transformer may
    live in a subfolder of it."""
    path = folder / "config.json"
    if not path.exists():
        if (folder / "modules.json").exists():
            return False
        raise BundleNotFoundError(f"encoder: {folder} has neither config.json nor modules.json")
    config = parse_json(path, read_bytes(path))
    return isinstance(config, dict) and config.get("model_type") == "model2vec"
