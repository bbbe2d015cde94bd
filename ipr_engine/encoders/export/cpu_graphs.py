"""This file writes the graphs for ONNX Runtime on a CPU: a BERT-shaped transformer, node by node, for rows of one length.

    model.cpu.onnx    float32
    model.int8.onnx   the same with its linear maps in int8

Rows of one length need no mask, and without a mask ONNX Runtime computes attention block by block, never holding the
(tokens, tokens) scores. The rest is what its CPU kernels like best: (batch * tokens, dim) matrices through Gemm with the bias
inside; Add and LayerNormalization apart, since the fused SkipLayerNormalization takes several times as long (docs/encoders.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ipr_engine._extras import need
from ipr_engine.encoders.export.bert_weights import Array, BertWeights, Linear
from ipr_engine.encoders.export.quantize import Int8Linear, quantize_together
from ipr_engine.encoders.export.standard_graph import OPSET

MICROSOFT = "com.microsoft"  # ONNX Runtime's own operators
_PURPOSE = "exporting an encoder"


class GraphWriter:
    """A `GraphWriter` makes an ONNX graph: nodes in the order they are written, and constants. A value is the name of a tensor."""

    def __init__(self) -> None:
        self._onnx = need("onnx", _PURPOSE, "export")
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, array: NDArray[Any] | np.generic | Sequence[int]) -> str:
        """Add a constant under a name of its own; the same name again is the same constant. Plain ints are int64."""
        if name not in self._constants:
            self._constants[name] = self._onnx.numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def node(self, op: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any) -> Any:
        """Add one operator; return its output's name, or a list of them where it has several."""
        number = len(self._nodes)
        names = [f"{op}_{number}.{index}" for index in range(outputs)]
        node = self._onnx.helper.make_node(op, inputs, names, name=f"{op}_{number}", domain=domain, **attributes)
        self._nodes.append(node)
        return names[0] if outputs == 1 else names

    def save(self, path: Path, *, inputs: Sequence[str], output: str, dim: int) -> None:
        """Write the graph: inputs (batch, tokens) int64 -> `embedding` (batch, dim) float32, from the value `output`."""
        helper, kinds = self._onnx.helper, self._onnx.TensorProto
        self._nodes.append(helper.make_node("Identity", [output], ["embedding"], name="embedding"))
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, kinds.INT64, ["batch", "tokens"]) for name in inputs],
            [helper.make_tensor_value_info("embedding", kinds.FLOAT, ["batch", dim])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, producer_name="ipr_engine", ir_version=8)
        self._onnx.save_model(model, str(path))


class Linears(Protocol):
    """`Linears` compute a graph's linear maps, each named like "layer0.query": x (rows, inputs) -> (rows, outputs)."""

    def linear(self, graph: GraphWriter, name: str, x: str) -> str: ...

    def gelu_of_linear(self, graph: GraphWriter, name: str, x: str) -> str: ...


class FloatLinears:
    """`FloatLinears` compute linear maps in float32."""

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
        attended = graph.node("Reshape", attended, rows)  # (batch * tokens, dim), as all states from here on
        states = graph.node("Add", linears.linear(graph, f"{name}.output", attended), states)
        states = normed(graph, f"{name}.output_norm", layer.output_norm, states, weights.epsilon)
        hidden = linears.gelu_of_linear(graph, f"{name}.up", states)
        states = graph.node("Add", linears.linear(graph, f"{name}.down", hidden), states)
        states = normed(graph, f"{name}.down_norm", layer.down_norm, states, weights.epsilon)
    states = graph.node("Reshape", states, shape)
    graph.save(path, inputs=["input_ids"], output=pooled(graph, states, pooling, normalize), dim=dim)


def _embedding(graph: GraphWriter, weights: BertWeights) -> str:
    """Add the embeddings: (batch, tokens, dim) states before the first layer."""
    tokens = graph.node("Shape", "input_ids", start=1, end=2)
    zero = graph.constant("zero", [0])
    words = graph.node("Gather", graph.constant("words", weights.words), "input_ids")
    # the first `tokens` rows: nothing is padded, so the tokens of every row stand at 0, 1, 2, ...
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


# The first of the maps that see the same input -> all of them: they share one divisor and one quantised input.
_SHARED = {"query": ("query", "key", "value"), "output": ("output",), "up": ("up",), "down": ("down",)}


def write_int8_graph(weights: BertWeights, inputs: dict[str, Array], pooling: str, normalize: bool, path: Path) -> None:
    """Write input_ids (batch, tokens) int64 -> embedding (batch, dim) float32.

    Args:
        inputs: the inputs of the linear maps on real prompts, (rows, inputs) by the name of the map; "layer0.query" stands
            for key and value too.
    """
    linears = weights.linears()
    divisors: dict[str, Array] = {}
    made: dict[str, Int8Linear] = {}
    for number in range(len(weights.layers)):
        for first, parts in _SHARED.items():
            names = [f"layer{number}.{part}" for part in parts]
            divisor, own = quantize_together([linears[name] for name in names], inputs[f"layer{number}.{first}"])
            divisors |= dict.fromkeys(names, divisor)
            made |= dict(zip(names, own, strict=True))
    write_cpu_graph(weights, pooling, normalize, path, Int8Linears(divisors, made))


class Int8Linears:
    """`Int8Linears` compute linear maps in int8; attention, norms, GELU and pooling stay in float32.

    Each row of an input (a token) is divided by its own largest absolute value, so that it fills [-127, 127], and multiplied
    back after the integer product. A row's scale comes from that row alone, never from the other prompts of a run, as it
    would with ONNX Runtime's DynamicQuantizeLinear.
    """

    def __init__(self, divisors: dict[str, Array], linears: dict[str, Int8Linear]) -> None:
        self._divisors, self._linears = divisors, linears
        self._quantized: dict[tuple[str, int], tuple[str, str]] = {}

    def linear(self, graph: GraphWriter, name: str, x: str) -> str:
        product = self._product(graph, name, x)
        result: str = graph.node("Add", product, graph.constant(f"{name}.bias", self._linears[name].bias))
        return result

    def gelu_of_linear(self, graph: GraphWriter, name: str, x: str) -> str:
        bias = graph.constant(f"{name}.bias", self._linears[name].bias)
        result: str = graph.node("BiasGelu", self._product(graph, name, x), bias, domain=MICROSOFT)
        return result

    def _product(self, graph: GraphWriter, name: str, x: str) -> str:
        """Add the integer product: (rows, outputs), without the bias."""
        quantized, scale = self._rows(graph, name, x)
        own = self._linears[name]
        product = graph.node(
            "MatMulIntegerToFloat",
            quantized,
            graph.constant(f"{name}.weight", own.weight),
            graph.constant("one", np.float32(1)),  # the rows' scales differ, and this takes one for all: Mul below
            graph.constant(f"{name}.scale", own.scale),
            graph.constant("middle", np.uint8(128)),
            graph.constant(f"zeros{len(own.scale)}", np.zeros(len(own.scale), dtype=np.int8)),
            domain=MICROSOFT,
        )
        result: str = graph.node("Mul", product, scale)
        return result

    def _rows(self, graph: GraphWriter, name: str, x: str) -> tuple[str, str]:
        """Add the quantisation of x, once for the maps that share it: uint8 around 128, and each row's scale (rows, 1)."""
        key = (x, id(self._divisors[name]))
        if key not in self._quantized:
            factor = graph.constant(f"{name}.factor", (1 / self._divisors[name]).astype(np.float32))
            x = graph.node("Mul", x, factor)
            largest = graph.node("ReduceMax", graph.node("Abs", x), axes=[-1], keepdims=1)
            largest = graph.node("Max", largest, graph.constant("least_row", np.float32(1e-30)))  # no row divides by 0
            scale = graph.node("Mul", largest, graph.constant("per_step", np.float32(1 / 127)))
            filled = graph.node("Div", x, scale)
            quantized = graph.node(
                "QuantizeLinear", filled, graph.constant("one", np.float32(1)), graph.constant("middle", np.uint8(128))
            )
            self._quantized[key] = (quantized, scale)
        return self._quantized[key]
