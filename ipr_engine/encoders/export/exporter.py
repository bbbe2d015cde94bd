"""`export_encoder` finds a model (a folder, or on the hub), writes every file of its export, and measures it against float32."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._extras import need
from ipr_engine._version import __version__
from ipr_engine.encoders.base import as_prompt_list
from ipr_engine.encoders.cpu_runs import import_onnxruntime
from ipr_engine.encoders.export.bert_weights import ARCHITECTURES, read_bert_weights
from ipr_engine.encoders.export.check import (
    MIN_COSINE,
    MIN_COSINE_FLOAT16,
    MIN_COSINE_INT8,
    TEXTS,
    check_cosine,
    check_rows_graph,
    check_standard_graph,
    embedded_alone,
    openvino_cosines,
    sample,
    worst_cosine,
)
from ipr_engine.encoders.export.cpu_graphs import write_cpu_graph, write_int8_graph
from ipr_engine.encoders.export.quantize import CALIBRATION_PROMPTS, linear_inputs
from ipr_engine.encoders.export.standard_graph import OPSET, write_standard_graph
from ipr_engine.encoders.manifest import Export, ModelOrigin, read_export, write_manifest
from ipr_engine.encoders.model_files import parse_json, read_bytes
from ipr_engine.encoders.openvino import COSINES
from ipr_engine.encoders.tokenizer import read_tokenizer
from ipr_engine.encoders.torch import TorchEncoder, check_fit, load_model, spec_of
from ipr_engine.encoders.transformer_files import read_transformer_folder, special_ids
from ipr_engine.errors import BundleFormatError, BundleNotFoundError, InvalidInputError

_PURPOSE = "exporting an encoder"
# Weights in safetensors, tokenizer and settings: nothing that runs, nothing pickled.
_PATTERNS = ("*.json", "*.safetensors", "*/config.json")
_IGNORED = ("onnx/*", "openvino/*")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def export_encoder(
    source: str | Path,
    out: str | Path,
    *,
    revision: str | None = None,
    pooling: str | None = None,
    max_tokens: int | None = None,
    int8: bool = False,
    calibration: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Export:
    """Export a sentence encoder for the tiers `onnx`, `openvino`, `tensorrt` and `torch` (docs/encoders.md).

    Args:
        source: a sentence-transformers folder, a transformers folder (then `pooling`), or a hub id.
        out: the folder to write; it must not exist, or be empty. It appears whole or not at all.
        revision: a hub id's branch, tag or commit; the commit found is recorded.
        pooling: "mean", "cls" or "last", where the folder does not tell it.
        max_tokens: what the tiers take by default; None is the model's own max_seq_length, at most 512.
        int8: whether to write an int8 graph for the CPU too (BERT-shaped models only).
        calibration: prompts like those to come, some thousands of tokens, on which the int8 weights are rounded; None takes
            a few of the project's own.
        progress: told each step before it begins; the whole takes a minute or more.
    Raises:
        InvalidInputError: an argument is outside of the above, pooling cannot be told, the architecture cannot be exported, or
            an exported graph does not compute what the float32 model does (cosine below 0.99999 on a fixed sample).
        BackendUnavailableError: a package of the extra [export] is missing here.
        BundleNotFoundError, BundleFormatError: a file is missing or not what it should be, or the hub does not give it.
    """
    out = Path(out)
    if calibration is not None and not int8:
        raise InvalidInputError("calibration: it serves the int8 graph alone; pass int8 too, or leave it out")
    _check_out(out)
    for package in ("torch", "transformers", "onnx"):
        need(package, _PURPOSE, "export")
    import_onnxruntime(_PURPOSE, "export")
    progress(f"reading {source} ...")
    model_folder, origin = _find_source(str(source), revision)
    folder = read_transformer_folder(model_folder, pooling=pooling)
    before, after = special_ids(folder.tokenizer, str(folder.path / "tokenizer.json"))
    tokenizer = read_tokenizer(folder.tokenizer)
    model = load_model(folder.path, "float32")
    check_fit(model, tokenizer)
    spec = spec_of(folder, model, before, after)
    if max_tokens is None:
        max_tokens = _max_tokens_of(folder.path, spec.positions)
    calibration = CALIBRATION_PROMPTS if calibration is None else as_prompt_list(calibration)
    if not any(calibration):
        raise InvalidInputError("calibration: expected at least one prompt, got none")
    reference = TorchEncoder(model, spec, tokenizer, max_tokens=max_tokens, batch=1, device="cpu", dtype="float32")
    progress("embedding the sample that every graph is compared on, in float32 by PyTorch ...")
    rows = sample(reference)
    want = embedded_alone(reference, rows)
    if not np.isfinite(want).all():
        raise BundleFormatError(f"{folder.path}: the model gives embeddings that are not finite")
    # Beside the target, so that the last step is one rename: the folder appears whole or not at all.
    target = out.absolute()
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        files = {"config": "config.json", "tokenizer": "tokenizer.json"}
        for name in files.values():
            shutil.copyfile(folder.path / name, work / name)
        cosines: dict[str, float] = {}

        files["weights"] = "model.safetensors"
        progress("writing and comparing the float16 weights ...")
        _write_float16(model, work / files["weights"])
        # The float16 weights are judged by computing in float32 with them: rounding of weights alone.
        half = TorchEncoder(
            load_model(work, "float32"), spec, tokenizer, max_tokens=max_tokens, batch=1, device="cpu", dtype="float32"
        )
        cosine = worst_cosine(embedded_alone(half, rows), want)
        cosines["weights"] = check_cosine("float16 weights", cosine, MIN_COSINE_FLOAT16)
        del half

        files["onnx"] = "model.onnx"
        progress("tracing and comparing model.onnx ...")
        (work / "graph").mkdir()  # a large model's weights become files beside its graph: this folder collects them
        data = write_standard_graph(model, spec.pooling, spec.normalize, work / "graph" / "model.onnx")
        for file in (work / "graph").iterdir():
            file.rename(work / file.name)
        (work / "graph").rmdir()
        if data is not None:
            files["onnx_data"] = data.name
        cosines["onnx"] = check_standard_graph(work / files["onnx"], rows, want, spec.pad_id)
        cosines |= openvino_cosines(work / files["onnx"], rows, want)

        weights = read_bert_weights(model)
        if weights is not None:
            files["onnx_cpu"] = "model.cpu.onnx"
            progress("writing and comparing model.cpu.onnx ...")
            write_cpu_graph(weights, spec.pooling, spec.normalize, work / files["onnx_cpu"])
            cosines["onnx_cpu"] = check_rows_graph(work / files["onnx_cpu"], rows, want, MIN_COSINE)
        if int8:
            if weights is None:
                raise InvalidInputError(
                    f"int8: architecture {model.config.model_type!r} has no int8 graph, only {', '.join(ARCHITECTURES)} with "
                    "GELU have; leave it out"
                )
            files["onnx_int8"] = "model.int8.onnx"
            progress(f"rounding the int8 weights on {len(calibration)} prompts, and comparing model.int8.onnx ...")
            inputs = linear_inputs(model, reference.ids(calibration), reference.embed)
            write_int8_graph(weights, inputs, spec.pooling, spec.normalize, work / files["onnx_int8"])
            # Judged on text: drawn ids are unlike anything that the weights were rounded on.
            texts = slice(0, len(TEXTS))
            cosines["onnx_int8"] = check_rows_graph(
                work / files["onnx_int8"], rows[texts], want[texts], MIN_COSINE_INT8
            )

        write_manifest(
            work,
            architecture=model.config.model_type,
            dim=want.shape[1],
            max_tokens=max_tokens,
            spec=spec,
            origin=origin,
            files=files,
            provenance=_provenance(cosines, len(rows)),
        )
        work.chmod(0o755)  # mkdtemp gave 0o700
        for file in work.iterdir():
            file.chmod(0o644)
        if target.exists():
            target.rmdir()  # empty: _check_out saw to it
        work.rename(target)
    except OSError as error:
        raise InvalidInputError(f"out: cannot write {out}: {error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return read_export(target)


def _check_out(out: Path) -> None:
    """Refuse a folder to write that exists and is not empty, or whose parent does not exist."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInputError(f"out: {out} exists already; remove it, or write to another folder")
    if not out.absolute().parent.is_dir():
        raise InvalidInputError(f"out: {out.absolute().parent} is no folder; make it first")


def _find_source(source: str, revision: str | None = None) -> tuple[Path, ModelOrigin]:
    """Return a model's folder and origin: a folder as it is; a hub id at a revision, downloaded or from the hub's cache.

    Raises:
        InvalidInputError: source is neither a folder nor a hub id, or revision comes with a folder.
        BackendUnavailableError: huggingface_hub is missing here.
        BundleNotFoundError: the hub has no such model or revision, or cannot be reached and the cache lacks it.
    """
    folder = Path(source)
    if folder.is_dir():
        if revision is not None:
            raise InvalidInputError(f"revision: {source} is a folder, which has none; got {revision!r}, leave it out")
        return folder, ModelOrigin(folder.resolve().name)
    if not _HUB_ID.fullmatch(source):
        raise InvalidInputError(
            f"source: {source!r} is neither a folder here nor a hub id such as 'sentence-transformers/all-MiniLM-L6-v2'"
        )
    hub = need("huggingface_hub", "downloading from the hub", "export")
    try:
        found = Path(
            hub.snapshot_download(source, revision=revision, allow_patterns=_PATTERNS, ignore_patterns=_IGNORED)
        )
    except (OSError, ValueError, RuntimeError) as error:  # its HTTP errors are OSError, LocalEntryNotFoundError too
        reason = str(error).strip().partition("\n")[0]
        at = "" if revision is None else f" at revision {revision}"
        raise BundleNotFoundError(
            f"source: {source}{at}: the hub did not give it ({type(error).__name__}: {reason}); "
            "offline, pass a folder that holds the model"
        ) from error
    # The hub's cache calls a snapshot's folder by its commit.
    return found, ModelOrigin(source, found.name if _COMMIT.fullmatch(found.name) else revision)


def _max_tokens_of(folder: Path, positions: int | None, default: int = 512) -> int:
    """Return the length of prompts a model was made for: sentence-transformers' max_seq_length, at most `default` and `positions`."""
    limits = [default] if positions is None else [default, positions]
    settings = folder / "sentence_bert_config.json"
    if settings.exists():
        value = parse_json(settings, read_bytes(settings))
        stated = value.get("max_seq_length") if isinstance(value, dict) else None
        if type(stated) is int and stated > 0:
            limits.append(stated)
    return min(limits)


def _write_float16(model: Any, path: Path) -> None:
    """Write the weights under transformers' own names; InvalidInputError for one that exceeds float16."""
    torch, safetensors = need("torch", _PURPOSE, "export"), need("safetensors.torch", _PURPOSE)
    tensors = {}
    for name, tensor in model.state_dict().items():
        tensors[name] = tensor.to(torch.float16).clone() if tensor.is_floating_point() else tensor.clone()
        if not torch.isfinite(tensors[name]).all():
            raise InvalidInputError(f"source: its weight {name} exceeds float16, largest {float(tensor.abs().max()):g}")
    safetensors.save_file(tensors, str(path), metadata={"format": "pt"})


def _provenance(cosines: dict[str, float], rows: int) -> dict[str, Any]:
    packages = ["torch", "transformers", "onnx", "onnxruntime", "tokenizers"]
    packages += ["openvino"] * any(name in cosines for name in COSINES.values())
    return {
        "versions": {"ipr_engine": __version__, **{name: version(name) for name in packages}},
        "opset": OPSET,
        "smallest_cosine": cosines,
        "sample_rows": rows,
    }
