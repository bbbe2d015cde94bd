"""This benchmark times text to decision, one prompt a call: ours whole and by stage, beside model2vec's encode plus numpy.

The peer does the same work on the same table (`benchmarks/peers/embedding.py`): model2vec tokenizes and
embeds (its float table is ours, unpacked), numpy float32 computes qualities, tokens, costs, the rule's threshold and the
choice. Choices are compared before anything is timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from ipr_engine import Engine, Policy
from ipr_engine._C import count_texts
from ipr_engine.decide.contract import available_isas
from ipr_engine.errors import BackendUnavailableError

from ..harness.results import Line
from ..harness.turns import FULL, Size, interleave
from ..peers.registry import Setup, open_peers
from .prompts import ASCII, OTHER

TAU = 0.2


def run(size: Size = FULL) -> Iterator[Line]:
    engine = Engine.load()
    policy = engine.policy(tau=TAU)
    ten_kb = (" ".join(ASCII) * 3)[:10_000]
    kinds = {"ascii": list(ASCII), "other": list(OTHER), "10 kB": [ten_kb], "100 kB": [ten_kb * 10]}
    peer = model2vec_and_numpy(engine, policy, [prompt for prompts in kinds.values() for prompt in prompts])
    for kind, prompts in kinds.items():
        if peer is not None:
            check(engine, policy, peer, prompts)
        yield from interleave(
            variants(engine, policy, peer if "kB" not in kind else None),
            prompts,
            {"op": "route", "prompts": kind, "bytes": round(np.mean([len(p.encode()) for p in prompts]))},
            base="Engine.route",
            size=size,
        )


def variants(engine: Engine, policy: Policy, peer: Callable[[str], str] | None) -> dict[str, Callable[[str], object]]:
    native, router = engine.encoder.native, engine.loaded.router
    assert native is not None
    x = engine.encode([ASCII[0]]).x
    calls: dict[str, Callable[[str], object]] = {
        "Engine.route": lambda prompt: engine.route(prompt, policy),
        "stage: what a text is made of (own tokens)": lambda prompt: count_texts([prompt]),
        "stage: tokenize": engine.encoder.count_tokens,
        "stage: tokenize + gather": lambda prompt: native.encode([prompt]),
        "stage: tokenize + gather + decide + support": lambda prompt: router.route_one(prompt, policy.compiled),
        "stage: decide": lambda prompt: engine.plan.run(x, policy.compiled, 60.0),
    }
    bundle = engine.bundle
    bare = tuple(replace(candidate, tokenizer=None) for candidate in bundle.candidates)
    calls["Engine.route, one count for all"] = bound_route(Engine(replace(bundle, candidates=bare, hash="0" * 64)))
    for isa in available_isas():
        forced = Engine.load(isa=isa)
        calls[f"Engine.route, {isa}"] = bound_route(forced)
    if peer is not None:
        calls["model2vec + numpy"] = peer
    return calls


def bound_route(engine: Engine) -> Callable[[str], object]:
    policy = engine.policy(tau=TAU)
    return lambda prompt: engine.route(prompt, policy)


def check(engine: Engine, policy: Policy, peer: Callable[[str], str], prompts: list[str]) -> None:
    for prompt in prompts:
        ours = engine.route(prompt, policy)
        if ours.truncated or ours.gap < 1e-4:
            continue  # model2vec cuts elsewhere; a tie may fall either way
        theirs = peer(prompt)
        assert ours.model == theirs, (prompt[:60], ours, theirs)


def model2vec_and_numpy(engine: Engine, policy: Policy, prompts: Sequence[str]) -> Callable[[str], str] | None:
    """Map prompt -> name of the choice as one would write it with model2vec and numpy; None, and told, without model2vec."""
    try:
        [peer], _ = open_peers(["model2vec"], Setup(engine, policy, tuple(prompts)))
    except BackendUnavailableError as error:
        print(f"route: not run: {error}", file=sys.stderr)
        return None
    return peer.choose
