"""This file is the network, as functions on named parameters: start values, scores, and the way back to the packed form.

Two forms over z, the standardised embedding (docs/decide.md has the packed form both export to):

    paper      score[m] = out . act(W (z ++ e[m]) + b) + c     W = [trunk | wid]; e[m] is candidate m's identity embedding
    adapters   score[m] = out[m] . act(trunk z + identity[m] + up[m] down[m] z) + skip[m] . z + common . z + bias[m]

`common` is the difficulty of the prompt, shared by all candidates, with a weight decay of its own; it folds into skip.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Generator, Tensor
from torch.nn.functional import gelu, relu, silu

from ipr_engine.training.estimators.network_config import NetworkConfig

Array = npt.NDArray[np.float64]
Parameters = dict[str, Tensor]

_ACTIVATIONS = {"relu": relu, "silu": silu, "gelu": lambda a: gelu(a, approximate="tanh")}


@dataclass(frozen=True)
class Standard:
    """A `Standard` is the standardisation z = (x - mean) * scale, both (dim,).

    One scale serves all columns, so that what is spread wide stays so (an embedding's columns are often principal
    components, the last ones noise); the `linear_only` trailing columns have one each. A constant column has scale 0 and
    decides nothing.
    """

    mean: Array
    scale: Array

    @classmethod
    def of(cls, x: Array, linear_only: int) -> Standard:
        # A column that hardly varies beside its size is constant but for rounding.
        spread = x.std(axis=0)
        live = spread > 1e-9 * np.maximum(1.0, np.abs(x).max(axis=0))
        main = live & (np.arange(len(live)) < len(live) - linear_only)
        spread[main] = np.sqrt(np.square(spread[main]).mean()) if main.any() else 1.0
        return cls(x.mean(axis=0), np.where(live, 1 / np.where(live, spread, 1.0), 0.0))

    def apply(self, x: Array) -> Array:
        return np.asarray((x - self.mean) * self.scale)


def start(config: NetworkConfig, dim: int, level: Tensor, shift: Tensor, generator: Generator) -> Parameters:
    """Return the parameters in float32 before the first step.

    Args:
        dim: columns that the hidden layer reads.
        level: (models,), the score each candidate starts from. shift: (models, linear_only), what each trailing column
            adds to it at first.
    """
    models, hidden, rank = len(level), config.hidden, config.rank
    parts = {"shift": shift.clone()} if shift.shape[1] else {}

    def normal(*shape: int, scale: float) -> Tensor:
        return torch.randn(shape, generator=generator) * scale

    if config.form == "paper":
        fan_in = dim + config.identity_dim
        return parts | {
            "trunk": normal(hidden, dim, scale=fan_in**-0.5),
            "wid": normal(hidden, config.identity_dim, scale=fan_in**-0.5),
            "embedding": normal(models, config.identity_dim, scale=1.0),
            "hidden_bias": torch.zeros(hidden),
            "out": normal(hidden, scale=hidden**-0.5),
            "bias": level.mean().reshape(1).clone(),
        }
    parts |= {
        "trunk": normal(hidden, dim, scale=dim**-0.5),
        "identity": normal(models, hidden, scale=0.1),
        "out": normal(models, hidden, scale=0.1 * hidden**-0.5),  # small: a fit begins near the candidates' means
        "bias": level.clone(),
    }
    if rank:
        parts["up"] = torch.zeros(models, hidden, rank)
        parts["down"] = normal(models, rank, dim, scale=dim**-0.5)
    if config.skip:
        parts["skip"] = torch.zeros(models, dim)
        parts["common"] = torch.zeros(dim)
    return parts


def score(parts: Parameters, z: Tensor, activation: str, kept: Tensor | None = None) -> Tensor:
    """Score z (rows, dim + linear_only): (rows, models). `kept` (rows, hidden) is what dropout multiplies units by."""
    dim = parts["trunk"].shape[1]
    z, trailing = z[:, :dim], z[:, dim:]
    shared = z @ parts["trunk"].T  # (rows, hidden)
    paper = "wid" in parts
    identity = parts["embedding"] @ parts["wid"].T + parts["hidden_bias"] if paper else parts["identity"]
    h = shared[None] + identity[:, None]  # (models, rows, hidden)
    if "up" in parts:
        models, rank, _ = parts["down"].shape
        # One product down for the adapters of all candidates, then one batched product up.
        d = (z @ parts["down"].reshape(models * rank, dim).T).reshape(len(z), models, rank)
        h = torch.baddbmm(h, d.transpose(0, 1), parts["up"].transpose(1, 2))
    h = _ACTIVATIONS[activation](h)
    if kept is not None:
        h = h * kept
    # "paper" shares one output vector, "adapters" have one a candidate.
    total = h @ parts["out"] if paper else torch.bmm(h, parts["out"][:, :, None])[:, :, 0]  # (models, rows)
    total = total.T + parts["bias"]
    if "skip" in parts:
        total = total + z @ (parts["skip"] + parts["common"]).T
    if "shift" in parts:
        total = total + trailing @ parts["shift"].T
    return total


def export(parts: Parameters, standard: Standard) -> dict[str, Array]:
    """Return the packed form on x itself, float64, with standardisation, `common` and `shift` folded in."""
    p = {name: value.detach().numpy().astype(np.float64) for name, value in parts.items()}
    dim, paper = p["trunk"].shape[1], "wid" in p
    identity = p["embedding"] @ p["wid"].T + p["hidden_bias"] if paper else p["identity"]  # (models, hidden)
    models = len(identity)
    out, bias = (np.tile(p["out"], (models, 1)), np.repeat(p["bias"], models)) if paper else (p["out"], p["bias"])
    linear_only = len(standard.mean) - dim  # trailing columns that no hidden unit reads

    def on_x(weights: Array) -> tuple[Array, Array]:
        """Turn weights (..., dim) on z into weights (..., dim + linear_only) on x and the constant (...) that goes with them."""
        padded = np.concatenate([weights, np.zeros((*weights.shape[:-1], linear_only))], axis=-1)
        return padded * standard.scale, -(padded @ (standard.mean * standard.scale))

    # The constants of the hidden layer go into `identity`, those of the linear part into `bias`.
    trunk, offset = on_x(p["trunk"])
    identity = identity + offset
    tensors = {"trunk": trunk, "out": out}
    if "up" in p:
        down, offset = on_x(p["down"])
        tensors |= {"up": p["up"], "down": down}
        identity = identity + np.einsum("mhr,mr->mh", p["up"], offset)
    if "skip" in p or linear_only:
        skip, offset = on_x(p["skip"] + p["common"] if "skip" in p else np.zeros((models, dim)))
        bias = bias + offset
        if linear_only:
            skip[:, dim:] = p["shift"] * standard.scale[dim:]
            bias = bias - skip[:, dim:] @ standard.mean[dim:]
        tensors["skip"] = skip
    return tensors | {"identity": identity, "bias": bias}
