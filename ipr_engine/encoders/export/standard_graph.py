"""This file writes model.onnx, a transformer with pooling and normalisation inside, in standard operators, through PyTorch's exporter."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError

OPSET = 17  # the first with LayerNormalization; TensorRT 8.6 and ONNX Runtime 1.15 read it
SINGLE_FILE_BYTES = 1_900_000_000  # protobuf ends at 2 GiB
_PURPOSE = "exporting an encoder"


def write_standard_graph(
    model: Any, pooling: str, normalize: bool, path: Path, *, single_file_bytes: int = SINGLE_FILE_BYTES
) -> Path | None:
    """Trace the model and write input_ids, attention_mask (batch, tokens) int64 -> embedding (batch, dim) float32.

    Attention is written out in plain operators (transformers' "eager"), which both TensorRT and ONNX Runtime know how to fuse.
    The tracing exporter is used and not the one on torch.export: its graph has no training-mode operators, OpenVINO
    and TensorRT read it, and it is ten times as quick.

    Returns:
        The file of the weights beside it, where they exceed `single_file_bytes`; else None.
    Raises:
        InvalidInputError: PyTorch cannot export this architecture.
    """
    torch, onnx = need("torch", _PURPOSE, "export"), need("onnx", _PURPOSE, "export")
    kind = model.config.model_type
    try:
        model.set_attn_implementation("eager")
    except (AttributeError, ValueError) as error:
        raise InvalidInputError(
            f"architecture {kind!r}: transformers has no eager attention for it: {error}"
        ) from error
    wrapped = _pooled(torch, model, pooling, normalize)
    # Sizes unlike each other, and one row padded: a size that the trace fixed would show.
    ids = torch.ones((2, 7), dtype=torch.int64)  # (batch, tokens)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    axes = {0: "batch", 1: "tokens"}
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # about values that the trace fixes: check.py measures what they do
            torch.onnx.export(
                wrapped,
                (ids, mask),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=["input_ids", "attention_mask"],
                output_names=["embedding"],
                dynamic_axes={"input_ids": axes, "attention_mask": axes, "embedding": {0: "batch"}},
            )
    except Exception as error:  # the exporter raises whatever the traced code raises
        reason = str(error).strip().partition("\n")[0]
        raise InvalidInputError(
            f"architecture {kind!r}: PyTorch cannot export it to ONNX ({type(error).__name__}: {reason})"
        ) from error
    return _tidy(onnx, path, single_file_bytes)


def _pooled(torch: Any, model: Any, pooling: str, normalize: bool) -> Any:
    """Return the module that is traced; every size in it comes from its inputs."""

    def forward(_: Any, input_ids: Any, attention_mask: Any) -> Any:
        states = model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (batch, tokens, dim)
        if pooling == "mean":
            seen = attention_mask.unsqueeze(-1).to(states.dtype)  # (batch, tokens, 1)
            x = (states * seen).sum(dim=1) / seen.sum(dim=1)  # (batch, dim)
        elif pooling == "cls":
            x = states[:, 0]
        else:
            last = attention_mask.sum(dim=1, keepdim=True) - 1  # (batch, 1)
            x = states.gather(1, last.unsqueeze(-1).expand(-1, -1, states.shape[-1])).squeeze(1)
        return torch.nn.functional.normalize(x, dim=1) if normalize else x

    wrapper = type("Pooled", (torch.nn.Module,), {"forward": forward})()
    wrapper.model = model
    return wrapper.eval()


def _tidy(onnx: Any, path: Path, single_file_bytes: int) -> Path | None:
    """Write the graph again without source lines, and with weights either inside or in one file beside it."""
    graph = onnx.load(str(path))
    for file in path.parent.iterdir():  # of a large model the exporter writes one file a tensor
        if file != path:
            file.unlink()
    for node in graph.graph.node:
        node.ClearField("doc_string")
        node.ClearField("metadata_props")
    weights = sum(len(tensor.raw_data) for tensor in graph.graph.initializer)
    if weights <= single_file_bytes:
        onnx.save_model(graph, str(path))
        return None
    data = path.with_name(path.name + ".data")
    onnx.save_model(
        graph,
        str(path),
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location=data.name,
        size_threshold=1024,
    )
    return data
