"""Encoder graphs are written operator by operator (no torch): a BERT, and decoder parts that other arithmetic has to survive."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from ipr_engine.encoders.manifest import Export, ModelOrigin, write_manifest
from ipr_engine.encoders.transformer_files import TransformerSpec
from tests.support.bundles import make_tokenizer

SMALL = {"layers": 2, "hidden": 32, "heads": 2, "inner": 48, "positions": 64, "vocabulary": 200}
FLOAT = 1  # onnx.TensorProto.FLOAT
INT64 = 7


class Graph:
    """A `Graph` collects nodes and weights; `op` returns the name of the result."""

    def __init__(self) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}

    def weight(self, name: str, value: Any) -> str:
        self.weights.setdefault(name, np.asarray(value))
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(self._helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def model(self, output: str, dim: int, *, result: str = "embedding") -> Any:
        value = self._helper.make_tensor_value_info
        self.nodes.append(self._helper.make_node("Identity", [output], [result], name="result"))
        graph = self._helper.make_graph(
            self.nodes,
            "encoder",
            [value(name, INT64, ["batch", "tokens"]) for name in ("input_ids", "attention_mask")],
            [value(result, FLOAT, ["batch", dim])],
            [self._numpy.from_array(array, name) for name, array in self.weights.items()],
        )
        return self._helper.make_model(graph, opset_imports=[self._helper.make_opsetid("", 18)], ir_version=9)


def random_weights(rng: np.random.Generator, sizes: dict[str, int] = SMALL) -> dict[str, np.ndarray]:
    """Draw BERT's weights under transformers' own names."""

    def draw(*shape: int) -> np.ndarray:
        return (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32)

    hidden, found = sizes["hidden"], {}
    for name, rows in (("word", sizes["vocabulary"]), ("position", sizes["positions"]), ("token_type", 2)):
        found[f"embeddings.{name}_embeddings.weight"] = draw(rows, hidden) * 5
    shapes = {
        f"attention.{part}": (hidden, hidden) for part in ("self.query", "self.key", "self.value", "output.dense")
    }
    shapes |= {"intermediate.dense": (sizes["inner"], hidden), "output.dense": (hidden, sizes["inner"])}
    norms = ["embeddings.LayerNorm"]
    for layer in (f"encoder.layer.{i}." for i in range(sizes["layers"])):
        for name, shape in shapes.items():
            found[f"{layer}{name}.weight"], found[f"{layer}{name}.bias"] = draw(*shape), draw(1, shape[0])[0]
        norms += [f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"]
    for name in norms:
        found[f"{name}.weight"], found[f"{name}.bias"] = 1 + draw(1, hidden)[0] / 4, draw(1, hidden)[0]
    return found


def bert(weights: dict[str, np.ndarray], *, heads: int, result: str = "embedding", dim: int | None = None) -> Any:
    """Build input_ids, attention_mask -> mean-pooled, normalised embedding (onnx.ModelProto); dim: a wrong one, to be noticed."""
    graph = Graph()
    weight = {name: graph.weight(name, array) for name, array in weights.items() if not name.startswith("pooler")}
    hidden = weights["embeddings.word_embeddings.weight"].shape[1]
    axis = {n: graph.weight(f"axis{n}", np.array([n], dtype=np.int64)) for n in (0, 1, 2)}

    def linear(x: str, name: str) -> str:
        matrix = graph.op("Transpose", weight[f"{name}.weight"], perm=[1, 0])
        return graph.op("Add", graph.op("MatMul", x, matrix), weight[f"{name}.bias"])

    def norm(x: str, name: str) -> str:
        return graph.op("LayerNormalization", x, weight[f"{name}.weight"], weight[f"{name}.bias"], epsilon=1e-12)

    split = graph.weight("split", np.array([0, 0, heads, hidden // heads], dtype=np.int64))
    merge = graph.weight("merge", np.array([0, 0, hidden], dtype=np.int64))
    scale = graph.weight("scale", np.float32(np.sqrt(hidden // heads)))
    length = graph.op("Gather", graph.op("Shape", "input_ids"), graph.weight("one", np.int64(1)))
    zero, one = graph.weight("zero", np.int64(0)), graph.weight("step", np.int64(1))
    position = graph.op("Range", zero, length, one)
    x = graph.op("Gather", weight["embeddings.word_embeddings.weight"], "input_ids")
    x = graph.op("Add", x, graph.op("Gather", weight["embeddings.position_embeddings.weight"], position))
    x = graph.op("Add", x, graph.op("Gather", weight["embeddings.token_type_embeddings.weight"], axis[0]))
    x = norm(x, "embeddings.LayerNorm")
    seen = graph.op("Cast", "attention_mask", to=FLOAT)  # (batch, tokens)
    hidden_keys = graph.op("Sub", graph.weight("unit", np.float32(1)), seen)
    away = graph.op("Mul", hidden_keys, graph.weight("lowest", np.finfo(np.float32).min))
    away = graph.op("Unsqueeze", away, graph.weight("axes12", np.array([1, 2], dtype=np.int64)))
    for layer in sorted({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}, key=int):
        at = f"encoder.layer.{layer}."
        query, key, value = (
            graph.op("Reshape", linear(x, f"{at}attention.self.{part}"), split) for part in ("query", "key", "value")
        )
        query, value = (graph.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (query, value))
        scores = graph.op("MatMul", query, graph.op("Transpose", key, perm=[0, 2, 3, 1]))
        scores = graph.op("Add", graph.op("Div", scores, scale), away)
        mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
        mixed = graph.op("Reshape", graph.op("Transpose", mixed, perm=[0, 2, 1, 3]), merge)
        x = norm(graph.op("Add", linear(mixed, f"{at}attention.output.dense"), x), f"{at}attention.output.LayerNorm")
        inner = linear(x, f"{at}intermediate.dense")
        erf = graph.op("Erf", graph.op("Div", inner, graph.weight("sqrt2", np.float32(np.sqrt(2)))))
        half = graph.op("Mul", inner, graph.weight("half", np.float32(0.5)))
        inner = graph.op("Mul", half, graph.op("Add", erf, "unit"))
        x = norm(graph.op("Add", linear(inner, f"{at}output.dense"), x), f"{at}output.LayerNorm")
    return graph.model(mean_normalized(graph, x, seen, axis), hidden if dim is None else dim, result=result)


def mean_normalized(graph: Graph, x: str, seen: str, axis: dict[int, str]) -> str:
    summed = graph.op("ReduceSum", graph.op("Mul", x, graph.op("Unsqueeze", seen, axis[2])), axis[1], keepdims=0)
    x = graph.op("Div", summed, graph.op("ReduceSum", seen, axis[1]))
    return graph.op("Div", x, graph.op("ReduceL2", x, axis[1]))


def rotary_rms(rng: np.random.Generator, *, hidden: int = 16, vocabulary: int = 200) -> Any:
    """Build one block as decoders have it: RMS normalisation written out, rotary positions by a multiplication, sine and cosine."""
    graph = Graph()
    axis = {n: graph.weight(f"axis{n}", np.array([n], dtype=np.int64)) for n in (1, 2)}

    def matrix(name: str, *shape: int) -> str:
        return graph.weight(name, (rng.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32))

    def rms(x: str, name: str) -> str:
        power = graph.op("Pow", x, graph.weight("two", np.float32(2)))
        mean = graph.op("ReduceMean", power, graph.weight("last", np.array([-1], dtype=np.int64)))
        root = graph.op("Sqrt", graph.op("Add", mean, graph.weight("epsilon", np.float32(1e-6))))
        return graph.op("Mul", graph.op("Mul", x, graph.op("Reciprocal", root)), matrix(name, hidden))

    x = graph.op("Gather", matrix("words", vocabulary, hidden), "input_ids")
    length = graph.op("Gather", graph.op("Shape", "input_ids"), graph.weight("one", np.int64(1)))
    steps = graph.op("Range", graph.weight("zero", np.int64(0)), length, graph.weight("step", np.int64(1)))
    far = graph.op(
        "Add", graph.op("Cast", steps, to=FLOAT), graph.weight("far", np.float32(4000))
    )  # float16 steps by 2 there
    speeds = graph.weight("speeds", (10000.0 ** -(np.arange(hidden) / hidden)).astype(np.float32)[None])
    angle = graph.op("MatMul", graph.op("Unsqueeze", far, axis[1]), speeds)  # (tokens, hidden)
    query = graph.op("MatMul", rms(x, "norm1"), matrix("query", hidden, hidden))
    turned = graph.op("Add", graph.op("Mul", query, graph.op("Cos", angle)), graph.op("Mul", x, graph.op("Sin", angle)))
    seen = graph.op("Cast", "attention_mask", to=FLOAT)
    x = graph.op("Add", x, graph.op("MatMul", rms(turned, "norm2"), matrix("out", hidden, hidden)))
    return graph.model(mean_normalized(graph, rms(x, "norm3"), seen, axis), hidden)


def make_export(folder: Path, rng: np.random.Generator, *, max_tokens: int = 40, **graph: Any) -> Export:
    """Write an export of a small BERT with random weights: manifest, tokenizer, config, model.onnx; graph: arguments of `bert`."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(make_tokenizer(folder / "tokenizer.json")))
    sizes = {**SMALL, "vocabulary": tokenizer.get_vocab_size()}
    onnx.save(bert(random_weights(rng, sizes), heads=SMALL["heads"], **graph), folder / "model.onnx")
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", **sizes}))
    digest = {name: _sha256(folder / name) for name in ("model.onnx", "tokenizer.json", "config.json")}
    spec = TransformerSpec(
        pooling="mean",
        normalize=True,
        before=(tokenizer.token_to_id("[CLS]"),),
        after=(tokenizer.token_to_id("[SEP]"),),
        pad_id=0,
        positions=SMALL["positions"],
        tokenizer=(folder / "tokenizer.json").read_bytes(),
        weights_sha256=digest["model.onnx"],
        tokenizer_sha256=digest["tokenizer.json"],
        config_sha256=digest["config.json"],
    )
    return write_manifest(
        folder,
        architecture="bert",
        dim=SMALL["hidden"],
        max_tokens=max_tokens,
        spec=spec,
        origin=ModelOrigin("small"),
        files={"onnx": "model.onnx", "tokenizer": "tokenizer.json", "config": "config.json"},
        provenance={},
    )


def random_batch(rng: np.random.Generator, rows: int, tokens: int, vocabulary: int) -> dict[str, np.ndarray]:
    """Draw ids of rows of different lengths, padded on the right."""
    lengths = rng.integers(2, tokens + 1, rows)
    lengths[0] = tokens
    mask = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    return {"input_ids": rng.integers(1, vocabulary, (rows, tokens)) * mask, "attention_mask": mask}


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()
