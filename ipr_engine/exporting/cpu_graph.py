"""model.cpu.onnx: a BERT-shaped transformer for ONNX Runtime on a CPU, for rows of one length.

Rows of one length need no mask, and without a mask ONNX Runtime computes attention block by block, never holding the
(tokens, tokens) scores. The rest is what its CPU kernels like best: (batch * tokens, dim) matrices through Gemm with the bias
inside; Add and LayerNormalization apart, since the fused SkipLayerNormalization takes several times as long (docs/encoders.md).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ipr_engine.exporting.bert_weights import BertWeights, Layer, Linear
from ipr_engine.exporting.graph_writer import MICROSOFT, GraphWriter


def write_cpu_graph(weights: BertWeights, pooling: str, normalize: bool, path: Path) -> None:
    """Write input_ids (batch, tokens) int64 -> embedding (batch, dim) float32, pooled and maybe normalised."""
    graph = GraphWriter()
    dim = weights.dim
    rows = graph.constant("rows", [-1, dim])
    states = graph.node("Reshape", _embedding(graph, weights), rows)  # (batch * tokens, dim)
    shape = graph.node("Concat", graph.node("Shape", "input_ids"), graph.constant("dim", [dim]), axis=0)
    for number, layer in enumerate(weights.layers):
        states = _layer(graph, f"layer{number}", layer, states, shape, rows, weights)
    states = graph.node("Reshape", states, shape)
    graph.save(path, inputs=["input_ids"], output=pooled(graph, states, pooling, normalize), dim=dim)


def _embedding(graph: GraphWriter, weights: BertWeights) -> str:
    """(batch, tokens, dim) states before the first layer."""
    tokens = graph.node("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("zero", [0])
    words = graph.node("Gather", graph.constant("words", weights.words), "input_ids")
    places = graph.node("Slice", graph.constant("positions", weights.positions), zero, tokens, zero)
    return normed(graph, "embedding", weights.norm, graph.node("Add", words, places), weights.epsilon)


def _layer(
    graph: GraphWriter, name: str, layer: Layer, states: str, shape: str, rows: str, weights: BertWeights
) -> str:
    query, key, value = (
        graph.node("Reshape", _linear(graph, f"{name}.{part}", linear, states), shape)
        for part, linear in (("query", layer.query), ("key", layer.key), ("value", layer.value))
    )  # (batch, tokens, dim) each
    attended = graph.node("MultiHeadAttention", query, key, value, domain=MICROSOFT, num_heads=weights.heads)
    attended = graph.node("Reshape", attended, rows)
    states = graph.node("Add", _linear(graph, f"{name}.output", layer.output, attended), states)
    states = normed(graph, f"{name}.output_norm", layer.output_norm, states, weights.epsilon)
    hidden = graph.node("Gelu", _linear(graph, f"{name}.up", layer.up, states), domain=MICROSOFT)
    states = graph.node("Add", _linear(graph, f"{name}.down", layer.down, hidden), states)
    return normed(graph, f"{name}.down_norm", layer.down_norm, states, weights.epsilon)


def _linear(graph: GraphWriter, name: str, linear: Linear, x: str) -> str:
    weight, bias = graph.constant(f"{name}.weight", linear.weight), graph.constant(f"{name}.bias", linear.bias)
    result: str = graph.node("Gemm", x, weight, bias)
    return result


def normed(graph: GraphWriter, name: str, norm: Linear, x: str, epsilon: float) -> str:
    """LayerNormalization over the last axis."""
    scale, bias = graph.constant(f"{name}.scale", norm.weight), graph.constant(f"{name}.bias", norm.bias)
    result: str = graph.node("LayerNormalization", x, scale, bias, axis=-1, epsilon=epsilon)
    return result


def pooled(graph: GraphWriter, states: str, pooling: str, normalize: bool) -> str:
    """(batch, tokens, dim) states of rows without padding -> (batch, dim)."""
    if pooling == "mean":
        x = graph.node("ReduceMean", states, axes=[1], keepdims=0)
    else:
        place = graph.constant("place", np.int64(0 if pooling == "cls" else -1))
        x = graph.node("Gather", states, place, axis=1)
    if normalize:
        norm = graph.node("ReduceL2", x, axes=[-1], keepdims=1)
        x = graph.node("Div", x, graph.node("Max", norm, graph.constant("least", np.float32(1e-12))))
    return str(x)
