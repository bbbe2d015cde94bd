"""Text to decision, one prompt a call: ours end to end and stage by stage, beside model2vec's encode plus numpy.

The peer does the same work on the same table: model2vec tokenizes and embeds (its float table is ours, unpacked), numpy
float32 computes qualities, tokens, costs, the `minmax` threshold and the choice. Choices are compared before anything is timed.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from benchmarks.bench_encoder import model2vec_of
from benchmarks.harness import Line, interleave
from benchmarks.prompts import ASCII, OTHER
from ipr_engine import Engine
from ipr_engine.decide import available_isas
from ipr_engine.engine import Policy

TAU = 0.2


def run() -> Iterator[Line]:
    engine = Engine.load()
    policy = engine.policy(tau=TAU)
    ten_kb = (" ".join(ASCII) * 3)[:10_000]
    kinds = {"ascii": list(ASCII), "other": list(OTHER), "10 kB": [ten_kb], "100 kB": [ten_kb * 10]}
    every = [prompt for prompts in kinds.values() for prompt in prompts]
    peer = model2vec_and_numpy(engine, policy, every) if importlib.util.find_spec("model2vec") else None
    if peer is None:
        print("route: model2vec not run: not installed", file=sys.stderr)
    for kind, prompts in kinds.items():
        if peer is not None:
            check(engine, policy, peer, prompts)
        yield from interleave(
            variants(engine, policy, peer if "kB" not in kind else None),
            prompts,
            {"op": "route", "prompts": kind, "bytes": round(np.mean([len(p.encode()) for p in prompts]))},
            base="Engine.route",
        )


def variants(engine: Engine, policy: Policy, peer: Callable[[str], int] | None) -> dict[str, Callable[[str], object]]:
    native, router = engine.encoder.native, engine._live.router
    assert native is not None
    x = engine.encode([ASCII[0]]).x
    calls: dict[str, Callable[[str], object]] = {
        "Engine.route": lambda prompt: engine.route(prompt, policy),
        "stage: tokenize": engine.encoder.count_tokens,
        "stage: tokenize + gather": lambda prompt: native.encode([prompt]),
        "stage: tokenize + gather + decide + support": lambda prompt: router.route_one(prompt, policy.compiled),
        "stage: decide": lambda prompt: engine.plan.run(x, policy.compiled, 60.0),
    }
    for isa in available_isas():
        forced = Engine.load(isa=isa)
        calls[f"Engine.route, {isa}"] = bound_route(forced)
    if peer is not None:
        calls["model2vec + numpy"] = peer
    return calls


def bound_route(engine: Engine) -> Callable[[str], object]:
    policy = engine.policy(tau=TAU)
    return lambda prompt: engine.route(prompt, policy)


def check(engine: Engine, policy: Policy, peer: Callable[[str], int], prompts: list[str]) -> None:
    for prompt in prompts:
        ours = engine.route(prompt, policy)
        if ours.truncated or ours.gap < 1e-4:
            continue  # model2vec cuts elsewhere; a tie may fall either way
        theirs = peer(prompt)
        assert ours.index == theirs, (prompt[:60], ours, theirs)


def model2vec_and_numpy(engine: Engine, policy: Policy, prompts: Sequence[str]) -> Callable[[str], int]:
    """What one would write with model2vec and numpy: prompt -> index of the choice."""
    spec = engine.bundle.encoder(engine.bundle.quality_heads.encoder)
    model = model2vec_of((spec.table, spec.tokenizer, spec.config))
    tensors = engine.bundle.quality_heads.tensors
    # Caps: every candidate has the same hidden layer, so one product of (hidden,) serves all of them.
    thresholds, out = tensors["identity"][0], np.ascontiguousarray(tensors["out"])
    assert (tensors["identity"] == thresholds).all()
    assert engine.bundle.quality_heads.activation == "relu"
    weights = np.ascontiguousarray(np.concatenate([tensors["skip"], tensors["len_skip"], tensors["trunk"]]).T)
    bias, len_bias, len_cap = tensors["bias"], tensors["len_bias"], tensors["len_cap"]
    models = len(bias)
    prices = [policy.prices.prices[name] for name in engine.bundle.names]
    ratio = np.array([candidate.token_ratio for candidate in engine.bundle.candidates])
    in_rate = (np.array([price.input_usd_per_1m for price in prices]) * ratio / 1e6).astype(np.float32)
    out_rate = np.array([price.output_usd_per_1m / 1e6 for price in prices], np.float32)
    fixed = np.array([price.fixed_usd for price in prices], np.float32)
    hi_share, lo_share = np.float32(1 - TAU), np.float32(TAU)
    # The count of billed tokens is a gift to the peer: model2vec's encode does not return it.
    billed_tokens = {prompt: engine.encoder.count_tokens(prompt) for prompt in prompts}

    def choose(prompt: str) -> int:
        x = model.encode([prompt])[0].astype(np.float32)
        dots = x @ weights
        hidden = np.maximum(dots[2 * models :] + thresholds, 0)
        quality = 1 / (1 + np.exp(-(dots[:models] + out @ hidden + bias)))
        tokens = np.minimum(np.exp(dots[models : 2 * models] + len_bias), len_cap)
        cost = fixed + (in_rate * billed_tokens[prompt] + out_rate * tokens)
        threshold = hi_share * quality.max() + lo_share * quality.min()
        return int(np.where(quality >= threshold, cost, np.inf).argmin())

    return choose
