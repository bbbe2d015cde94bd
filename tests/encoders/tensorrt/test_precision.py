"""A float32 graph made float16 or bfloat16: the same function, the small type in its multiplications, islands of float32."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import skips

onnx = pytest.importorskip("onnx", reason=skips.TENSORRT)
ort = pytest.importorskip("onnxruntime", reason=skips.TENSORRT)

from onnx.reference import ReferenceEvaluator  # noqa: E402

from ipr_engine.encoders.tensorrt.precision import convert_precision  # noqa: E402
from ipr_engine.errors import InvalidInputError  # noqa: E402
from tests.support.onnx_graphs import SMALL, Graph, bert, random_batch, random_weights, rotary_rms  # noqa: E402

TYPES = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}
ERROR = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # of one rounding


@pytest.fixture(params=["bert", "rotary_rms"])
def graph(request, rng):
    return bert(random_weights(rng), heads=SMALL["heads"]) if request.param == "bert" else rotary_rms(rng)


def float32_embeddings(model, feed):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feed)[0]


def cosines(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def types_of(model):
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    types = {tensor.name: tensor.data_type for tensor in inferred.initializer}
    for info in (*inferred.input, *inferred.value_info, *inferred.output):
        types[info.name] = info.type.tensor_type.elem_type
    return types


@pytest.mark.parametrize("precision", TYPES)
def test_embeddings_stay_those_of_float32_but_for_rounding(graph, precision, rng):
    feed = random_batch(rng, 3, 17, SMALL["vocabulary"])
    converted = convert_precision(graph, precision)
    onnx.checker.check_model(converted, full_check=True)
    x = ReferenceEvaluator(converted).run(None, feed)[0]
    # rounding of a value at a time adds up like a random walk: 1 - cosine is of the order of its square
    assert x.dtype == np.float32
    assert (cosines(x, float32_embeddings(graph, feed)) > 1 - 16 * ERROR[precision] ** 2).all()


def test_onnx_runtime_computes_the_float16_graph_too(graph, rng):
    feed = random_batch(rng, 3, 17, SMALL["vocabulary"])
    x = float32_embeddings(convert_precision(graph, "float16"), feed)
    assert (cosines(x, float32_embeddings(graph, feed)) > 0.9999).all()


@pytest.mark.parametrize("precision", TYPES)
def test_multiplications_are_small_and_normalisation_softmax_pooling_float32(precision, rng):
    converted = convert_precision(bert(random_weights(rng), heads=SMALL["heads"]), precision)
    types = types_of(converted)
    kinds = {}
    for node in converted.graph.node:
        kinds.setdefault(node.op_type, set()).add(types[node.output[0]])
    assert kinds["MatMul"] == kinds["Erf"] == {TYPES[precision]}
    float32 = {onnx.TensorProto.FLOAT}
    assert all(kinds[name] == float32 for name in ("LayerNormalization", "Softmax", "ReduceSum", "ReduceL2"))
    assert types["embedding"] == onnx.TensorProto.FLOAT
    final = max(i for i, node in enumerate(converted.graph.node) if node.op_type == "MatMul")
    after = {types[name] for node in converted.graph.node[final + 1 :] for name in node.output}
    assert after == float32  # bias and residual too: nothing is rounded any more on the way out
    stored = {tensor.data_type for tensor in converted.graph.initializer if len(tensor.dims) == 2}
    assert stored == {TYPES[precision]}


@pytest.mark.parametrize("precision", TYPES)
def test_positions_and_a_written_out_normalisation_stay_float32(precision, rng):
    converted = convert_precision(rotary_rms(rng), precision)
    types, float32 = types_of(converted), onnx.TensorProto.FLOAT
    for node in converted.graph.node:
        if node.op_type in ("Sin", "Cos", "Pow", "ReduceMean", "Sqrt", "Reciprocal", "Range"):
            assert all(types[name] in (float32, onnx.TensorProto.INT64) for name in (*node.input, *node.output)), (
                node.name
            )
        if "epsilon" in node.input or any(name.startswith("reciprocal") for name in node.input):
            assert {types[name] for name in (*node.input, *node.output)} == {float32}, node.name
    multiplications = [types[node.output[0]] for node in converted.graph.node if node.op_type == "MatMul"]
    assert sorted(multiplications) == sorted([float32, TYPES[precision], TYPES[precision]])  # the angles, query, out


def test_float32_is_a_copy_and_the_input_is_never_changed(graph):
    before = graph.SerializeToString(deterministic=True)
    assert convert_precision(graph, "float32").SerializeToString(deterministic=True) == before
    convert_precision(graph, "float16")
    assert graph.SerializeToString(deterministic=True) == before


def test_what_fills_the_mask_is_the_lowest_float16_and_a_weight_out_of_range_is_refused(rng):
    weights = random_weights(rng)
    converted = convert_precision(bert(weights, heads=2), "float16")
    values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in converted.graph.initializer}
    assert values["lowest__float16"] == np.float16(-65504)
    weights["encoder.layer.0.output.dense.weight"][0, 0] = 1e6
    with pytest.raises(
        InvalidInputError, match=r"layer\.0\.output\.dense\.weight.*1e\+06.*use tier='torch', or .*bfloat16"
    ):
        convert_precision(bert(weights, heads=2), "float16")
    convert_precision(bert(weights, heads=2), "bfloat16")


def test_a_guard_against_nan_after_the_softmax_keeps_its_type(rng):
    """As PyTorch's exporter writes scaled_dot_product_attention: isnan(p) ? 0 : p."""
    graph = Graph()
    table = graph.weight("table", rng.standard_normal((50, 8)).astype(np.float32))
    x = graph.op("Gather", table, "input_ids")
    p = graph.op("Softmax", graph.op("MatMul", x, graph.op("Transpose", x, perm=[0, 2, 1])), axis=-1)
    p = graph.op("Where", graph.op("IsNaN", p), graph.weight("zero", np.float32(0)), p)
    y = graph.op(
        "ReduceMean", graph.op("MatMul", p, x), graph.weight("axis", np.array([1], dtype=np.int64)), keepdims=0
    )
    converted = convert_precision(graph.model(y, 8), "float16")
    nodes = {node.op_type: node for node in converted.graph.node if node.op_type in ("IsNaN", "Where")}
    types = types_of(converted)
    assert types[nodes["IsNaN"].input[0]] == types[nodes["Where"].output[0]] == onnx.TensorProto.FLOAT16
    onnx.checker.check_model(converted, full_check=True)


def test_an_unknown_precision_a_branch_and_other_floats_are_refused(rng):
    model = bert(random_weights(rng), heads=2)
    with pytest.raises(InvalidInputError, match="precision: expected one of float16, bfloat16, float32, got 'int8'"):
        convert_precision(model, "int8")
    with pytest.raises(InvalidInputError, match="expected a float32 graph, got another float type"):
        convert_precision(convert_precision(model, "float16"), "float16")
    branch = onnx.helper.make_graph([], "then", [], [])
    model.graph.node.append(
        onnx.helper.make_node("If", ["input_ids"], ["y"], name="fork", then_branch=branch, else_branch=branch)
    )
    with pytest.raises(InvalidInputError, match="node 'fork'"):
        convert_precision(model, "float16")
