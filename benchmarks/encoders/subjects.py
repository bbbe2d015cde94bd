"""`open_subjects` opens what is timed: our tiers and the peers, each as tokenise and embed over a list of prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.encoders.manifest import Export
from ipr_engine.encoders.registry import open_export
from ipr_engine.encoders.tiers import HEEDED
from ipr_engine.errors import BackendUnavailableError, InvalidInputError, IprError

from ..peers.embedders import compiled_torch, openvino, plain_onnx, sentence_transformers, torch_on
from ..peers.subject import Absent, Subject


def open_subjects(
    export: Export, model: Path | None, *, threads: int, device: str, only: Sequence[str] | None
) -> Iterator[Subject | Absent]:
    """Open every tier and peer, or those of `only` if it is given.

    Args:
        model: the folder that the export was made of, for the peers that read it; None leaves them out.
        threads: of each of them; tensorrt has none on a CPU.
    """
    makers: dict[str, Callable[[], Subject]] = {
        "onnx": lambda: _tier(export, "onnx", threads, device),
        "onnx int8": lambda: _tier(export, "onnx", threads, device, dtype="int8"),
        "openvino": lambda: _tier(export, "openvino", threads, device),
        "openvino bfloat16-mixed": lambda: _tier(export, "openvino", threads, device, dtype="bfloat16-mixed"),
        "torch": lambda: _tier(export, "torch", threads, device),
        "tensorrt": lambda: _tier(export, "tensorrt", threads, device),
        "plain ONNX Runtime": lambda: plain_onnx(export, threads),
        "OpenVINO": lambda: openvino(export, threads),
        "sentence-transformers": lambda: sentence_transformers(_given(model), export, threads, device),
        "torch.compile": lambda: compiled_torch(_given(model), export, threads, device),
    }
    unknown = sorted(set(only or ()) - set(makers))
    if unknown:
        raise InvalidInputError(f"only: expected some of {', '.join(makers)}; got {', '.join(unknown)}")
    for name, make in makers.items():
        if only is not None and name not in only:
            continue
        try:
            yield make()
        except (IprError, ImportError) as error:
            yield Absent(name, str(error))


def _given(model: Path | None) -> Path:
    if model is None:
        raise BackendUnavailableError("it reads the original model; pass its folder with --model")
    return model


def _tier(export: Export, tier: str, threads: int, device: str, *, dtype: str | None = None) -> Subject:
    if tier == "torch":
        torch_on(threads)
    options = LoadOptions(tier=tier, device=device, threads=threads if tier in HEEDED["threads"] else None)
    encoder: Any = open_export(export.folder, options, dtype=dtype)
    name = f"{tier} {dtype}" if dtype else tier
    return Subject(name, True, encoder.ids, encoder.embed, lambda prompts: encoder.encode(prompts).x)
