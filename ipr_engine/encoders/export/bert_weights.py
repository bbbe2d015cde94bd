"""This file reads the weights of a BERT-shaped transformer under one set of names, for the graphs that are written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
ARCHITECTURES = ("bert", "roberta", "xlm-roberta", "camembert")  # the same layers under the same names
ACTIVATIONS = ("gelu",)  # x * Phi(x)


@dataclass(frozen=True)
class Linear:
    """A `Linear` is y = x weight + bias; weight (inputs, outputs), bias (outputs,). A norm: its scale and bias, (dim,) each."""

    weight: Array
    bias: Array


@dataclass(frozen=True)
class Layer:
    """A `Layer` is one transformer layer: attention, its output and norm, the two halves of the feed-forward network, its norm."""

    query: Linear
    key: Linear
    value: Linear
    output: Linear
    output_norm: Linear
    up: Linear
    down: Linear
    down_norm: Linear


@dataclass(frozen=True)
class BertWeights:
    """`BertWeights` hold the weights of a BERT-shaped transformer.

    Attributes:
        words: (vocabulary, dim). positions: (positions, dim) by the place of a token, the embedding of token type 0 added.
        norm: of the sum of the two. epsilon: of every norm.
    """

    words: Array
    positions: Array
    norm: Linear
    layers: tuple[Layer, ...]
    heads: int
    epsilon: float

    @property
    def dim(self) -> int:
        return int(self.words.shape[1])

    def linears(self) -> dict[str, Linear]:
        """Return every linear map, named like "layer0.query"."""
        parts = ("query", "key", "value", "output", "up", "down")
        return {
            f"layer{number}.{part}": getattr(layer, part) for number, layer in enumerate(self.layers) for part in parts
        }


def read_bert_weights(model: Any) -> BertWeights | None:
    """Read the weights of a model that transformers loaded in float32; None where it is not shaped like BERT."""
    config = model.config
    plain = (
        config.model_type in ARCHITECTURES
        and getattr(config, "hidden_act", None) in ACTIVATIONS
        and getattr(config, "position_embedding_type", "absolute") in (None, "absolute")
        and not getattr(config, "is_decoder", False)
        and not getattr(config, "add_cross_attention", False)
    )
    if not plain:
        return None
    tensors: Mapping[str, Array] = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    table = model.embeddings.position_embeddings
    first = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from there

    def linear(name: str) -> Linear:
        # torch keeps (outputs, inputs)
        return Linear(np.ascontiguousarray(tensors[f"{name}.weight"].T), tensors[f"{name}.bias"])

    def norm(name: str) -> Linear:
        return Linear(tensors[f"{name}.weight"], tensors[f"{name}.bias"])

    def layer(number: int) -> Layer:
        name = f"encoder.layer.{number}"
        return Layer(
            query=linear(f"{name}.attention.self.query"),
            key=linear(f"{name}.attention.self.key"),
            value=linear(f"{name}.attention.self.value"),
            output=linear(f"{name}.attention.output.dense"),
            output_norm=norm(f"{name}.attention.output.LayerNorm"),
            up=linear(f"{name}.intermediate.dense"),
            down=linear(f"{name}.output.dense"),
            down_norm=norm(f"{name}.output.LayerNorm"),
        )

    return BertWeights(
        words=tensors["embeddings.word_embeddings.weight"],
        positions=tensors["embeddings.position_embeddings.weight"][first:]
        + tensors["embeddings.token_type_embeddings.weight"][0],
        norm=norm("embeddings.LayerNorm"),
        layers=tuple(layer(number) for number in range(config.num_hidden_layers)),
        heads=config.num_attention_heads,
        epsilon=config.layer_norm_eps,
    )
