"""model.cpu.onnx: a BERT-shaped transformer for ONNX Runtime on a CPU, for rows of one length.

Rows of one length need no mask, and without a mask ONNX Runtime computes attention block by block, never holding the
(tokens, tokens) scores. The rest is what its CPU kernels like best: (batch * tokens, dim) matrices through Gemm with the bias
inside; Add and LayerNormalization apart, since the fused SkipLayerNormalization takes several times as long (docs/encoders.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ipr_engine.encoders.export.bert_weights import BertWeights, Linear
from ipr_engine.encoders.export.graph_writer import MICROSOFT, GraphWriter


class Linears(Protocol):
    """How a linear map named like "layer0.query" is computed: x (rows, inputs) -> (rows, outputs)."""

    def linear(self, graph: GraphWriter, name: str, x: str) -> str: ...

    def gelu_of_linear(self, graph: GraphWriter, name: str, x: str) -> str: ...


class FloatLinears:
    """In float32."""

    def __init__(self, weights: BertWeights) -> None:
        self._linears = weights.linears()

    def linear(self, graph: GraphWriter, name: str, x: str) -> str:
        own = self._linears[name]
        weight, bias = graph.constant(f"{name}.weight", own.weight), graph.constant(f"{name}.bias", own.bias)
        result: str = graph.node("Gemm", x, weight, bias)
        return result

    def gelu_of_linear(self, graph: GraphWriter, name: str, x: str) -> str:
        result: str = graph.node("Gelu", self.linear(graph, name, x), domain=MICROSOFT)
        return result


def write_cpu_graph(
    weights: BertWeights, pooling: str, normalize: bool, path: Path, linears: Linears | None = None
) -> None:
    """Write input_ids (batch, tokens) int64 -> embedding (batch, dim) float32, pooled and maybe normalised."""
    linears = FloatLinears(weights) if linears is None else linears
    graph = GraphWriter()
    dim = weights.dim
    rows = graph.constant("rows", [-1, dim])
    states = graph.node("Reshape", _embedding(graph, weights), rows)  # (batch * tokens, dim)
    shape = graph.node("Concat", graph.node("Shape", "input_ids"), graph.constant("dim", [dim]), axis=0)
    for number, layer in enumerate(weights.layers):
        name = f"layer{number}"
        query, key, value = (
            graph.node("Reshape", linears.linear(graph, f"{name}.{part}", states), shape)
            for part in ("query", "key", "value")
        )  # (batch, tokens, dim) each
        attended = graph.node("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=weights.heads)
        attended = graph.node("Reshape", attended, rows)
        states = graph.node("Add", linears.linear(graph, f"{name}.output", attended), states)
        states = normed(graph, f"{name}.output_norm", layer.output_norm, states, weights.epsilon)
        hidden = linears.gelu_of_linear(graph, f"{name}.up", states)
        states = graph.node("Add", linears.linear(graph, f"{name}.down", hidden), states)
        states = normed(graph, f"{name}.down_norm", layer.down_norm, states, weights.epsilon)
    states = graph.node("Reshape", states, shape)
    graph.save(path, inputs=["input_ids"], output=pooled(graph, states, pooling, normalize), dim=dim)


def _embedding(graph: GraphWriter, weights: BertWeights) -> str:
    """Return (batch, tokens, dim) states before the first layer."""
    tokens = graph.node("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("zero", [0])
    words = graph.node("Gather", graph.constant("words", weights.words), "input_ids")
    places = graph.node("Slice", graph.constant("positions", weights.positions), zero, tokens, zero)
    return normed(graph, "embedding", weights.norm, graph.node("Add", words, places), weights.epsilon)


def normed(graph: GraphWriter, name: str, norm: Linear, x: str, epsilon: float) -> str:
    """Add LayerNormalization over the last axis."""
    scale, bias = graph.constant(f"{name}.scale", norm.weight), graph.constant(f"{name}.bias", norm.bias)
    result: str = graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)
    return result


def pooled(graph: GraphWriter, states: str, pooling: str, normalize: bool) -> str:
    """Add the pooling: (batch, tokens, dim) states of rows without padding -> (batch, dim)."""
    if pooling == "mean":
        # Not ReduceMean: for one row it sums in another order than for several, the only node here that would.
        tokens = graph.node("Shape", states, start=1, end=2)
        row = graph.node("Expand", graph.constant("unit", np.ones((1, 1), dtype=np.float32)), tokens)  # (1, tokens)
        total = graph.node("Squeeze", graph.node("MatMul", row, states), graph.constant("middle_axis", [1]))
        x = graph.node("Div", total, graph.node("Cast", tokens, to=1))  # 1: float32
    else:
        place = graph.constant("place", np.int64(0 if pooling == "cls" else -1))
        x = graph.node("Gather", states, place, axis=1)
    if normalize:
        norm = graph.node("ReduceL2", x, axes=[-1], keepdims=1)
        x = graph.node("Div", x, graph.node("Max", norm, graph.constant("least", np.float32(1e-12))))
    return str(x)
