"""This file opens the encoder of a bundle or of a folder, on the tier that serves it; a tier's packages load only then (tiers.py)."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from ipr_engine._extras import pip_extra
from ipr_engine.bundle.spec import BundleSpec, EncoderSpec
from ipr_engine.cuda import EMULATED
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.heeded import warn_by_tier
from ipr_engine.encoders.load_options import LoadOptions, on_gpu
from ipr_engine.encoders.same_model import same_model
from ipr_engine.encoders.tiers import AUTO, FOLDER_TIER, ON_GPU_ALONE, TIMED, TRANSFORMER_TIERS
from ipr_engine.errors import BackendUnavailableError, BundleNotFoundError, EncoderMismatchError, InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.encoders.manifest import Export


class TransformerTier(Protocol):
    """A `TransformerTier` is the class that a row of tiers.py names."""

    def open_export(
        self, export: Export, options: LoadOptions, *, max_tokens: int | None, dtype: str | None
    ) -> Encoder:
        """Load an export, with those of the options that the tier heeds.

        Args:
            max_tokens: None is the export's own.
            dtype: a key of the tier's `roles`.
        """


class FolderTier(TransformerTier, Protocol):
    """A `FolderTier` is FOLDER_TIER's class, which loads transformers folders too."""

    def open_folder(self, folder: Path, options: LoadOptions, **arguments: Any) -> Encoder:
        """Load a transformers folder; the arguments are those of the class's `from_folder`, device and batches apart."""


def make_encoder(bundle: BundleSpec, id: str, options: LoadOptions | None = None) -> Encoder:
    """Load and plan an encoder of a bundle.

    Raises:
        BackendUnavailableError: a package, a device or the tier asked for is missing here.
        BundleNotFoundError: the bundle references a model that is in none of the folders.
        EncoderMismatchError: the files are not those that the bundle means.
    """
    options = LoadOptions() if options is None else options
    spec = bundle.encoder(id)
    encoder = _KINDS[spec.kind](bundle, spec, options)
    # Hashed again while it was loaded: the file may have changed since the bundle was verified.
    if encoder.identity != spec.identity or encoder.dim != spec.dim:
        raise EncoderMismatchError(
            f"encoder {spec.id!r}: expected identity {spec.identity[:12]} of {spec.dim} dimensions, got "
            f"{encoder.identity[:12]} of {encoder.dim}{same_model([encoder], spec.identity)}; a file changed after the bundle was "
            "verified: load it again"
        )
    return encoder


def _static(bundle: BundleSpec, spec: EncoderSpec, options: LoadOptions) -> Encoder:
    from ipr_engine.encoders.static import StaticEncoder

    files = spec.files
    return StaticEncoder.load(
        files["table"],
        files["tokenizer"],
        files["config"],
        max_tokens=spec.max_tokens,
        head_tokens=spec.head_tokens,
        fold_width=spec.fold_width,
        isa=options.isa,
    )


def _transformer(bundle: BundleSpec, spec: EncoderSpec, options: LoadOptions) -> Encoder:
    from ipr_engine.encoders.manifest import is_export, read_export

    if spec.files:
        return open_export(spec.files["manifest"].parent, options, max_tokens=spec.max_tokens, dtype=spec.dtype)
    looked = []
    for folder in options.encoder_folders:
        looked.append(str(folder))
        if is_export(folder):
            export = read_export(folder)
            has_it = spec.dtype != "int8" or "onnx_int8" in export.files
            if not has_it and export.name == spec.name:
                looked[-1] += ", which has no int8 graph: ipr export-encoder --int8 writes one"
            if has_it and export.identity(spec.max_tokens, dtype=spec.dtype) == spec.identity:
                return open_export(folder, options, max_tokens=spec.max_tokens, dtype=spec.dtype)
        elif (found := _folder(Path(folder), spec, options)) is not None:
            return found
    searched = "; ".join(looked) or "none was given"
    form = f"{spec.dtype or 'float32'}, max_tokens {spec.max_tokens}"
    raise BundleNotFoundError(
        f"encoder {spec.id!r}: the bundle references {spec.name!r} ({form}, revision {spec.revision or 'not stated'}) and does not "
        f"contain it; pass the folder of its export as encoder_folders=... (looked in: {searched})"
    )


def _concatenated(bundle: BundleSpec, spec: EncoderSpec, options: LoadOptions) -> Encoder:
    from ipr_engine.encoders.concatenated import ConcatenatedEncoder

    return ConcatenatedEncoder([make_encoder(bundle, part, options) for part in spec.parts])


def _surface(bundle: BundleSpec, spec: EncoderSpec, options: LoadOptions) -> Encoder:
    from ipr_engine.encoders.surface import SurfaceEncoder

    return SurfaceEncoder.load(spec.files["lexicon"])


def _task(bundle: BundleSpec, spec: EncoderSpec, options: LoadOptions) -> Encoder:
    from ipr_engine.encoders.task_columns import TaskColumns

    return TaskColumns(spec.tasks)


# EncoderSpec.kind -> loader
_KINDS = {
    "static": _static,
    "transformer": _transformer,
    "task": _task,
    "surface": _surface,
    "concatenated": _concatenated,
}


def _folder(folder: Path, spec: EncoderSpec, options: LoadOptions) -> Encoder | None:
    """Load a transformers folder if it holds the model of `spec`; else return None."""
    from ipr_engine.encoders.transformer_files import read_transformer_folder

    modules = (folder / "modules.json").exists()
    asked = {} if modules else {"pooling": spec.pooling, "normalize": spec.normalize}
    source = read_transformer_folder(folder, **asked)  # type: ignore[arg-type]
    if source.identity(spec.max_tokens, dtype=spec.dtype) != spec.identity:
        return None
    if options.tier not in ("auto", FOLDER_TIER):
        raise BackendUnavailableError(
            f"tier: {options.tier!r} needs an export of {folder}; make one with ipr export-encoder"
        )
    warn_by_tier(options, FOLDER_TIER, spec.name or folder.name)
    tier = cast(FolderTier, _tier_class(FOLDER_TIER, options.device))
    return tier.open_folder(folder, options, **asked, max_tokens=spec.max_tokens, dtype=spec.dtype or "float32")


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
        dtype: None or "float32" for embeddings as float32 gives them; "int8", "bfloat16" or "bfloat16-mixed" for those of that
            arithmetic.
    Raises:
        InvalidInputError: a dtype that no tier has.
        BackendUnavailableError: no tier can serve it here, or not the one asked for; the message says why each cannot.
        as `read_export`.
    """
    from ipr_engine.encoders.manifest import read_export

    options = LoadOptions() if options is None else options
    dtype = None if dtype == "float32" else dtype
    known = dict.fromkeys(own for tier in TRANSFORMER_TIERS.values() for own in tier.roles)
    if dtype not in known:
        names = ", ".join(own or "float32" for own in known)
        raise InvalidInputError(f"dtype: expected one of {names}, got {dtype!r}")
    export = read_export(folder)

    def open_tier(name: str) -> Encoder:
        tier = _tier_class(name, options.device)
        return tier.open_export(export, options, max_tokens=max_tokens, dtype=dtype)

    tiers = _tiers_for(export, options, dtype)
    if len(tiers) == 1:
        warn_by_tier(options, tiers[0], export.name)
        return open_tier(tiers[0])
    from ipr_engine.encoders.tier_choice import open_fastest

    return open_fastest(export, tiers, cast(Any, open_tier), threads=options.threads, dtype=dtype)


def _tiers_for(export: Export, options: LoadOptions, dtype: str | None) -> tuple[str, ...]:
    """Return the first tier that can serve an export, and those to time against it, if any.

    Raises:
        BackendUnavailableError: none can; says why each cannot.
    """
    if options.tier in ON_GPU_ALONE and options.device == "cpu":
        raise InvalidInputError(f"tier: {options.tier!r} runs on a GPU; name one as device, 'cuda' or 'cuda:N'")
    asked = AUTO[_kind_of(options.device)] if options.tier == "auto" else (options.tier,)
    reasons = {name: _why_not(name, export, dtype) or _why_not_on(name, options) for name in asked}
    able = [name for name, reason in reasons.items() if reason is None]
    if not able:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise BackendUnavailableError(f"tier: no tier can run {export.name!r} in {export.folder} here ({told})")
    timed = TIMED if options.device == "cpu" and able[0] in TIMED else ()
    return (able[0], *(name for name in able[1:] if name in timed))


def _kind_of(device: str) -> str:
    return device if device in ("cpu", EMULATED) else "cuda"


def _why_not(name: str, export: Export, dtype: str | None) -> str | None:
    """Say why a tier cannot serve an export; None where it can."""
    tier = TRANSFORMER_TIERS[name]
    if dtype not in tier.roles:
        return f"it has {' and '.join(own or 'float32' for own in tier.roles)}, no {dtype or 'float32'}"
    if not any(role in export.files for role in tier.roles[dtype]):
        return f"the export has no file {' or '.join(tier.roles[dtype])}"
    if not any(importlib.util.find_spec(package) for package in tier.packages):
        return f"{' or '.join(tier.packages)} is not installed; {' or '.join(map(pip_extra, tier.extras))}"
    return None


def _why_not_on(name: str, options: LoadOptions) -> str | None:
    """Say why "auto" passes over a tier on this device; None where it does not, and where the tier was asked for by name."""
    if name != "tensorrt" or options.tier != "auto":
        return None
    from ipr_engine.cuda.driver import Device
    from ipr_engine.encoders.tensorrt.api import load_api

    try:
        with contextlib.closing(Device(options.device)) as gpu:
            load_api().require_gpu(gpu)
    except BackendUnavailableError as error:  # no driver, or a GPU that this TensorRT does not build for
        import logging  # `import ipr_engine` does without it

        logging.getLogger(__name__).warning("tier 'auto' passes over tensorrt: %s", error)
        return str(error)
    return None


def _tier_class(name: str, device: str) -> TransformerTier:
    """Import the class of a tier for a device."""
    tier = TRANSFORMER_TIERS[name]
    place = tier.gpu_encoder if tier.gpu_encoder is not None and on_gpu(device) else tier.encoder
    module, _, encoder = place.partition(":")
    found: TransformerTier = getattr(importlib.import_module(f"ipr_engine.encoders.{module}"), encoder)
    return found


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
        dtype: "int8", "bfloat16" or "bfloat16-mixed" for an export's embeddings in that arithmetic, which have an identity of
            their own.
    Raises:
        InvalidInputError: an argument is outside of the above, or pooling cannot be told.
        BackendUnavailableError: a package or the device is missing here.
        BundleNotFoundError, BundleFormatError, BundleShapeError, BundleValueError: a file is not what it should be.
    """
    from ipr_engine.encoders.manifest import is_export

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
        refuse_folder_options(folder, options)
        runs = cast(FolderTier, _tier_class(FOLDER_TIER, device))
        return runs.open_folder(folder, options, pooling=pooling, **limit)
    asked = {"pooling": (pooling, None), "device": (device, "cpu"), "tier": (tier, "auto"), "threads": (threads, None)}
    for name, (value, default) in asked.items():
        if value != default:
            raise InvalidInputError(
                f"{name}: {folder} holds a model2vec table, which is averaged on the CPU; expected {default!r}, got {value!r}"
            )
    from ipr_engine.encoders.static import StaticEncoder

    return StaticEncoder.from_folder(folder, **limit)


def refuse_folder_options(folder: Path, options: LoadOptions) -> None:
    """Raise InvalidInputError for options that a transformers folder, which FOLDER_TIER runs, does not heed."""
    for name, value, default in (("tier", options.tier, "auto"), ("threads", options.threads, None)):
        if value not in (default, FOLDER_TIER):
            raise InvalidInputError(
                f"{name}: {folder} is a transformers folder, which the {FOLDER_TIER} tier runs; for {value!r} export it first "
                "(ipr export-encoder)"
            )


def is_model2vec(folder: Path) -> bool:
    """Return whether a folder holds a model2vec table."""
    # config.json tells. modules.json does not: model2vec writes one too, and a transformer may lie in a subfolder of it.
    from ipr_engine.encoders.model_files import parse_json, read_bytes

    path = folder / "config.json"
    if not path.exists():
        if (folder / "modules.json").exists():
            return False
        raise BundleNotFoundError(f"encoder: {folder} has neither config.json nor modules.json")
    config = parse_json(path, read_bytes(path))
    if not isinstance(config, dict) or config.get("model_type", "model2vec") != "model2vec":
        return False
    return "model_type" in config or _holds_table(folder / "model.safetensors")


def _holds_table(path: Path) -> bool:
    """Return whether a file holds a tensor `embeddings`, as a table does whose config.json, of other tools, names no model_type."""
    from ipr_engine.encoders.model_files import map_tensors

    return path.is_file() and "embeddings" in map_tensors(path)
