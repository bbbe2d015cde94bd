"""Small BERT encoders with random weights, their fused launches, and what float64 says of them.

Without a GPU the kernels run in Triton's interpreter, which must be chosen before triton is imported: import this first.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest

from tests.support import decide_implementations, skips  # the first chooses the interpreter where there is no GPU

DEVICE, ON_DEVICE = decide_implementations.DEVICE, decide_implementations.ON_DEVICE
torch = decide_implementations.torch
transformers = pytest.importorskip("transformers", reason=skips.TORCH)

from ipr_engine.kernels.bert import BertLaunch, BertPlan, BertTiles  # noqa: E402
from ipr_engine.kernels.bert.bert_plan import ACTIVATIONS  # noqa: E402
from ipr_engine.kernels.bert.bert_reference import norm_ref, states_ref  # noqa: E402
from ipr_engine.kernels.bert.bert_tiles import bert_tables  # noqa: E402

GATE = 0.9999  # least cosine to float32's embedding
TABLES = bert_tables()
VOCABULARY = 211


@cache
def make_bert(dim: int = 64, head: int = 32, layers: int = 1, wide: int = 128, act: str = "gelu") -> Any:
    """Return transformers' BertModel with weights wide enough for attention to choose."""
    torch.manual_seed(dim + head + layers)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, hidden_size=dim, num_hidden_layers=layers, num_attention_heads=dim // head,
        intermediate_size=wide, max_position_embeddings=512, hidden_act=act, initializer_range=1.2 / dim**0.5,
    )  # fmt: skip
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    for name, value in model.state_dict().items():  # transformers leaves these at 0 and 1
        if name.endswith("bias") or "LayerNorm" in name:
            value += 0.1 * torch.randn(value.shape)
    return model


@cache
def plan_of(model: Any) -> BertPlan:
    return BertPlan(model, DEVICE)


def make_ids(lengths: Sequence[int], tokens: int, seed: int = 0) -> Any:
    """Return (batch, tokens) int32 on the device; a row's ids depend on its number and not on the batch, padding is -1."""
    ids = np.full((len(lengths), tokens), -1, np.int32)
    for row, length in enumerate(lengths):
        ids[row, :length] = np.random.default_rng((seed, row)).integers(0, VOCABULARY, 512)[:length]
    return torch.from_numpy(ids).to(DEVICE)


def make_launch(model: Any, ids: Any, lengths: Sequence[int], tiles: BertTiles | None = None) -> BertLaunch:
    """Return a launch whose buffers hold NaN."""
    launch = BertLaunch(
        plan_of(model), ids, torch.tensor(lengths, dtype=torch.int32, device=DEVICE), *ids.shape, tiles=tiles
    )
    for buffer in launch.buffers():
        buffer.fill_(float("nan"))
    return launch


def run(model: Any, lengths: Sequence[int], tokens: int | None = None, tiles: BertTiles | None = None) -> Any:
    """Return the states (batch, tokens, dim) of generated rows, as float16 arrays."""
    tokens = tokens or max(lengths)
    return make_launch(model, make_ids(lengths, tokens), lengths, tiles)().cpu().numpy()


def exact(model: Any, ids: Any) -> np.ndarray:
    """Return (tokens, dim) float64: the last hidden state of one row, by the reference."""
    config = model.config
    weights = {name: value.double().cpu().numpy() for name, value in model.state_dict().items()}
    states = states_ref(
        weights, np.asarray(ids.cpu()), heads=config.num_attention_heads,
        activation=ACTIVATIONS[config.hidden_act], eps=config.layer_norm_eps,
    )  # fmt: skip
    return norm_ref(
        weights, f"encoder.layer.{config.num_hidden_layers - 1}.output.LayerNorm", states, config.layer_norm_eps
    )


def last_norm(model: Any, states: Any) -> np.ndarray:
    """Return the last hidden state, float64, of what a launch gave."""
    plan = plan_of(model)
    scale, shift = (value.double().cpu() for value in (plan.norm_scale, plan.norm_shift))
    states = torch.from_numpy(np.asarray(states, np.float64))
    return torch.nn.functional.layer_norm(states, (plan.dim,), scale, shift, plan.eps).numpy()


def least_cosine(found: np.ndarray, right: np.ndarray) -> float:
    """Return the least cosine over the tokens, and that of their mean."""
    pairs = [*zip(found, right, strict=True), (found.mean(axis=0), right.mean(axis=0))]
    return min(float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b))) for a, b in pairs)
