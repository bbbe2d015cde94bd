"""`convert_precision` makes a float32 ONNX graph float16 or bfloat16, with float32 islands, for a strongly typed network.

TensorRT 11 and TensorRT-RTX take every type from the graph. What stays float32, and why:

- LayerNormalization, RMSNormalization, Softmax, sine, cosine: float32 inside, their result is handed on in the small type;
- any other operator that is not in `_SMALL` (reductions, powers, roots, ...), and the elementwise arithmetic on its results up
  to the next matrix multiplication: the steps of a normalisation that is written out;
- what leads to a sine or cosine: positions, which float16 cannot count beyond 2,048;
- what no matrix multiplication reads any more: the last normalisation, the pooling, the norm. The embedding leaves in float32.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Any

import numpy as np

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError

PRECISIONS = ("float16", "bfloat16", "float32")
_PURPOSE = "an engine in float16 or bfloat16"
_MULTIPLY = frozenset({"MatMul", "Gemm"})
_SEALED = frozenset(
    {"LayerNormalization", "RMSNormalization", "Softmax", "Sin", "Cos", "Cast", "ConstantOfShape", "Constant"}
)
# Elementwise arithmetic and movement of values: computed in the small type between two matrix multiplications.
_SMALL = frozenset(
    "Abs Add And Clip Concat CumSum Div Dropout Equal Erf Expand Flatten Gather GatherElements GatherND Gelu Greater "  # noqa: SIM905
    "GreaterOrEqual Identity IsInf IsNaN Less LessOrEqual Max Min Mul Neg Not Or Pad Relu Reshape Sigmoid Slice Split Squeeze "
    "Sub Swish Tanh Tile Transpose Trilu Unsqueeze Where".split()
)


def convert_precision(model: Any, precision: str) -> Any:
    """Return the same function of the same inputs, computed in another type; the input graph is left as it is.

    Args:
        model: onnx.ModelProto, float32, standard operators of opset 17 or later, weights inside.
        precision: one of PRECISIONS; "float32" gives a copy.
    Returns:
        onnx.ModelProto; inputs and outputs keep their types.
    Raises:
        InvalidInputError: a graph with branches or loops, of other float types, or a weight beyond the type's range.
    """
    if precision not in PRECISIONS:
        raise InvalidInputError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    onnx = need("onnx", _PURPOSE, "tensorrt")
    converted = onnx.ModelProto()
    converted.CopyFrom(model)
    if precision != "float32":
        small = onnx.TensorProto.FLOAT16 if precision == "float16" else onnx.TensorProto.BFLOAT16
        _Graph(onnx, converted, small, precision).convert()
    return converted


class _Graph:
    """A `_Graph` rewrites one graph: it marks nodes small or not, then puts a cast on each edge between the two types."""

    def __init__(self, onnx: Any, model: Any, small: int, precision: str) -> None:
        self._onnx = onnx
        self._model, self._graph = model, model.graph
        self._small_type, self._precision = small, precision
        self._constants_to_initializers()
        self._weights = {tensor.name: tensor for tensor in self._graph.initializer}
        self._float32 = self._float32_values()
        self._producer = {name: node for node in self._graph.node for name in node.output if name}

    def convert(self) -> None:
        """Rewrite the graph in place."""
        small = self._small_nodes()
        is_small = {name for node in self._graph.node if id(node) in small for name in node.output}
        casts: dict[tuple[str, int], str] = {}  # (value, type) -> its cast: one for all that read it
        nodes = []
        for node in list(self._graph.node):
            wanted = self._small_type if id(node) in small else self._onnx.TensorProto.FLOAT
            for i, name in enumerate(node.input):
                # nothing to cast: no float, or already of the type
                if name not in self._float32 or (name in is_small) == (wanted == self._small_type):
                    continue
                if (name, wanted) not in casts:
                    casts[name, wanted] = f"{name}__{self._precision if wanted == self._small_type else 'float32'}"
                    if name in self._weights:
                        self._add_small_weight(name, casts[name, wanted])
                    else:
                        cast = self._onnx.helper.make_node("Cast", [name], [casts[name, wanted]], to=wanted)
                        cast.name = casts[name, wanted]
                        nodes.append(cast)
                node.input[i] = casts[name, wanted]
            nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(nodes)
        del self._graph.value_info[:]  # they state the types of before
        # A weight read in the small type alone would be in the file twice.
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in self._graph.initializer if tensor.name in read]
        del self._graph.initializer[:]
        self._graph.initializer.extend(kept)

    def _small_nodes(self) -> set[int]:
        """Return ids of the nodes that compute in the small type; the rest keep float32 (or have nothing to do with floats)."""
        multiply = [node for node in self._graph.node if node.op_type in _MULTIPLY]
        trigonometric = [node for node in self._graph.node if node.op_type in ("Sin", "Cos")]
        exact = self._ancestors(trigonometric, self._float32)
        feeding = self._ancestors(multiply, self._producer) | {id(node) for node in multiply}
        small: set[int] = set()
        open_values: set[str] = set()  # float32 results of an unfinished normalisation
        for node in self._graph.node:  # the order of an ONNX graph is topological
            floats = [name for name in (*node.input, *node.output) if name in self._float32]
            if not floats:
                continue
            inherits = node.op_type not in _MULTIPLY | _SEALED and any(name in open_values for name in node.input)
            allowed = node.op_type in _MULTIPLY | _SMALL and id(node) in feeding - exact
            if allowed and not inherits:
                small.add(id(node))
            elif node.op_type not in _SEALED:
                open_values.update(name for name in node.output if name in self._float32)
        return small

    def _ancestors(self, nodes: Iterable[Any], over: Container[str]) -> set[int]:
        """Return ids of all nodes whose results reach one of `nodes` over values named in `over`."""
        found: set[int] = set()
        pending = list(nodes)
        while pending:
            for name in pending.pop().input:
                producer = self._producer.get(name)
                if producer is not None and name in over and id(producer) not in found:
                    found.add(id(producer))
                    pending.append(producer)
        return found

    def _add_small_weight(self, name: str, new: str) -> None:
        """Add a weight in the small type under a name of its own; InvalidInputError where it exceeds the type's range."""
        values = self._onnx.numpy_helper.to_array(self._weights[name])
        limit = 65504.0 if self._precision == "float16" else 3.3895e38  # the largest finite number of the type
        beyond = np.isfinite(values) & (np.abs(values) > limit)
        if beyond.any() and values.size > 1:
            raise InvalidInputError(
                f"precision: weight {name!r} reaches {np.abs(values[beyond]).max():.4g}, beyond {self._precision}'s "
                f"{limit:.4g}; use tier='torch', or TensorRtEncoder with precision='bfloat16' or 'float32'"
            )
        # A lone constant beyond the range is what fills the attention mask: the most negative number of the type is meant.
        values = np.clip(values, -limit, limit) if beyond.any() else values
        small = values.astype(self._onnx.helper.tensor_dtype_to_np_dtype(self._small_type))
        self._graph.initializer.append(self._onnx.numpy_helper.from_array(small, name=new))

    def _constants_to_initializers(self) -> None:
        """Turn float constants into initializers, which are converted once; refuses what this rewriting does not see through."""
        TensorProto, nodes = self._onnx.TensorProto, []
        for node in self._graph.node:
            if any(attribute.type in (attribute.GRAPH, attribute.GRAPHS) for attribute in node.attribute):
                raise InvalidInputError(
                    f"onnx: node {node.name!r} ({node.op_type}) has a subgraph; export without branches"
                )
            value = next((a for a in node.attribute if a.name in ("value", "value_float", "value_floats")), None)
            if node.op_type == "Constant" and value is not None:
                tensor = self._onnx.TensorProto()
                if value.name == "value":
                    tensor.CopyFrom(value.t)
                else:
                    plain = np.array(value.f if value.name == "value_float" else list(value.floats), dtype=np.float32)
                    tensor.CopyFrom(self._onnx.numpy_helper.from_array(plain))
                if tensor.data_type == TensorProto.FLOAT:
                    tensor.name = node.output[0]
                    self._graph.initializer.append(tensor)
                    continue
            nodes.append(node)
        del self._graph.node[:]
        self._graph.node.extend(nodes)

    def _float32_values(self) -> set[str]:
        """Return names of all float32 values, by ONNX's own type inference on the graph without its weights' bytes."""
        onnx, light = self._onnx, self._onnx.ModelProto()
        light.CopyFrom(_without_weights(onnx, self._model))
        try:
            inferred = onnx.shape_inference.infer_shapes(light, check_type=True, strict_mode=False)
        except onnx.shape_inference.InferenceError as error:
            raise InvalidInputError(f"onnx: types cannot be inferred: {error}") from error
        types = {tensor.name: tensor.data_type for tensor in self._graph.initializer}
        for info in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            types[info.name] = info.type.tensor_type.elem_type
        for node in self._graph.node:
            for name in node.output:
                if name and not types.get(name):
                    raise InvalidInputError(f"onnx: the type of {name!r} ({node.op_type}) cannot be inferred")
        other = {onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
        strange = sorted(name for name, kind in types.items() if kind in other)
        if strange:
            raise InvalidInputError(f"onnx: expected a float32 graph, got another float type at {strange[0]!r}")
        return {name for name, kind in types.items() if kind == onnx.TensorProto.FLOAT}


def _without_weights(onnx: Any, model: Any) -> Any:
    """Return the model with its large initializers as typed inputs: inference copies the model, and protobuf ends at 2 GB."""
    light = onnx.ModelProto()
    light.ir_version = model.ir_version
    light.opset_import.extend(model.opset_import)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    light.graph.input.extend(model.graph.input)
    light.graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if int(np.prod(tensor.dims)) <= 64:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            )
    return light
