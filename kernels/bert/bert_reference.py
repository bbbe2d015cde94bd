"""`states_ref` defines what the encoder computes: BERT's token states in numpy, float64, of one row without padding."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "relu": lambda a: np.maximum(a, 0),
    "gelu": lambda a: 0.5 * a * (1 + np.vectorize(math.erf)(a / math.sqrt(2))),
    "gelu_tanh": lambda a: 0.5 * a * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a**3))),
}


def states_ref(weights: Mapping[str, Any], ids: Any, *, heads: int, activation: str = "gelu", eps: float) -> Array:
    """Return the states of one row before the last LayerNorm, (tokens, dim): what BertLaunch.states holds of it.

    Args:
        weights: arrays under the names that transformers' BertModel gives them.
        ids: (tokens,) integers, padding left out.
    """
    w = {name: np.asarray(value, np.float64) for name, value in weights.items() if not name.startswith("pooler.")}
    act, norm = ACTIVATIONS[activation], "embeddings.LayerNorm"
    y: Array = w["embeddings.word_embeddings.weight"][ids] + w["embeddings.token_type_embeddings.weight"][0]
    y = y + w["embeddings.position_embeddings.weight"][: len(y)]
    for at in (f"encoder.layer.{layer}." for layer in range(sum(name.endswith("query.weight") for name in w))):
        x = norm_ref(w, norm, y, eps)
        q, k, v = (
            _dense(w, f"{at}attention.self.{name}", x).reshape(len(x), heads, -1).swapaxes(0, 1)
            for name in ("query", "key", "value")
        )  # (heads, tokens, head)
        s = q @ k.swapaxes(1, 2) / math.sqrt(q.shape[2])
        p = np.exp(s - s.max(axis=2, keepdims=True))
        context = (p / p.sum(axis=2, keepdims=True) @ v).swapaxes(0, 1).reshape(x.shape)
        y = x + _dense(w, f"{at}attention.output.dense", context)
        x = norm_ref(w, f"{at}attention.output.LayerNorm", y, eps)
        y = x + _dense(w, f"{at}output.dense", act(_dense(w, f"{at}intermediate.dense", x)))
        norm = f"{at}output.LayerNorm"
    return y


def norm_ref(w: Mapping[str, Any], name: str, y: Array, eps: float) -> Array:
    """Return LayerNorm(y) by the weights of that name."""
    y = y - y.mean(axis=1, keepdims=True)
    scaled: Array = y / np.sqrt((y * y).mean(axis=1, keepdims=True) + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]
    return scaled


def _dense(w: Mapping[str, Any], name: str, x: Array) -> Array:
    found: Array = x @ w[f"{name}.weight"].T + w[f"{name}.bias"]
    return found
