"""model.int8.onnx: model.cpu.onnx with its linear maps in int8.

Each row of an input (a token) is divided by its own largest absolute value, so that it fills [-127, 127], and multiplied back after
the integer product: a row's scale comes from that row alone, never from the other prompts of a run, as it would with ONNX
Runtime's DynamicQuantizeLinear. Attention, norms, GELU and pooling stay in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ipr_engine.encoders.export.bert_weights import Array, BertWeights
from ipr_engine.encoders.export.cpu_graph import write_cpu_graph
from ipr_engine.encoders.export.graph_writer import MICROSOFT, GraphWriter
from ipr_engine.encoders.export.quantize import Int8Linear, quantize_together

_SHARED = {"query": ("query", "key", "value"), "output": ("output",), "up": ("up",), "down": ("down",)}


def write_int8_graph(weights: BertWeights, inputs: dict[str, Array], pooling: str, normalize: bool, path: Path) -> None:
    """Write input_ids (batch, tokens) int64 -> embedding (batch, dim) float32.

    Args:
        inputs: what the linear maps see on real prompts, by the name of the map ("layer0.query" for key and value too).
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
    """The linear maps of a graph: rows quantised by their own scales, an integer product, and back."""

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
        """Return (rows, outputs), without the bias."""
        quantized, scale = self._rows(graph, name, x)
        own = self._linears[name]
        product = graph.node(
            "MatMulIntegerToFloat",
            quantized,
            graph.constant(f"{name}.weight", own.weight),
            graph.constant("one", np.float32(1)),
            graph.constant(f"{name}.scale", own.scale),
            graph.constant("middle", np.uint8(128)),
            graph.constant(f"zeros{len(own.scale)}", np.zeros(len(own.scale), dtype=np.int8)),
            domain=MICROSOFT,
        )
        result: str = graph.node("Mul", product, scale)
        return result

    def _rows(self, graph: GraphWriter, name: str, x: str) -> tuple[str, str]:
        """Return x in uint8 around 128, and each row's scale (rows, 1); once for the maps that share x."""
        key = (x, id(self._divisors[name]))
        if key not in self._quantized:
            factor = graph.constant(f"{name}.factor", (1 / self._divisors[name]).astype(np.float32))
            x = graph.node("Mul", x, factor)
            largest = graph.node("ReduceMax", graph.node("Abs", x), axes=[-1], keepdims=1)
            largest = graph.node("Max", largest, graph.constant("least_row", np.float32(1e-30)))
            scale = graph.node("Mul", largest, graph.constant("per_step", np.float32(1 / 127)))
            filled = graph.node("Div", x, scale)
            quantized = graph.node(
                "QuantizeLinear", filled, graph.constant("one", np.float32(1)), graph.constant("middle", np.uint8(128))
            )
            self._quantized[key] = (quantized, scale)
        return self._quantized[key]
