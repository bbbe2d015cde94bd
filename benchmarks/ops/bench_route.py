"""This benchmark times text to decision, one prompt a call: ours whole, by stage and with all that heads can have, beside peers.

model2vec plus numpy does the same work on the same table (`benchmarks/peers/embedding.py`): model2vec tokenizes and embeds (its
float table is ours, unpacked), numpy float32 computes qualities, tokens, costs, the rule's threshold and the choice. Choices are
compared before anything is timed. LiteLLM's heuristic_v2 answers another question, easier to compute: a tier of four.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Unpack

import numpy as np

from ipr_engine import Engine, Policy
from ipr_engine._C import count_texts
from ipr_engine.decide.contract import available_isas
from ipr_engine.errors import BackendUnavailableError
from ipr_engine.request.route_request import RequestOptions

from ..harness.results import Line
from ..harness.turns import FULL, Size, interleave
from ..peers.registry import Setup, open_peers
from .grown_bundle import grown
from .prompts import ASCII, OTHER

TAU = 0.2
TASKS = tuple(f"task {n}" for n in range(8))
SAME = "model2vec"  # the peer that does the same work
PEERS = {SAME: "model2vec + numpy", "litellm-heuristic-v2": "LiteLLM heuristic_v2"}  # name of the peer -> label


def run(size: Size = FULL) -> Iterator[Line]:
    engine = Engine.load()
    policy = engine.policy(tau=TAU)
    ten_kb = (" ".join(ASCII) * 3)[:10_000]
    kinds = {"ascii": list(ASCII), "other": list(OTHER), "10 kB": [ten_kb], "100 kB": [ten_kb * 10]}
    texts = [prompt for prompts in kinds.values() for prompt in prompts]
    opened = {PEERS[name]: open_peer(name, engine, policy, texts) for name in PEERS}
    peers = {label: choose for label, choose in opened.items() if choose is not None}
    for kind, prompts in kinds.items():
        if PEERS[SAME] in peers:
            check(engine, policy, peers[PEERS[SAME]], prompts)
        yield from interleave(
            variants(engine, policy, texts) | ({} if "kB" in kind else peers),
            prompts,
            {"op": "route", "prompts": kind, "bytes": round(np.mean([len(p.encode()) for p in prompts]))},
            base="Engine.route",
            size=size,
        )


def variants(engine: Engine, policy: Policy, prompts: Sequence[str]) -> dict[str, Callable[[str], object]]:
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
    calls["Engine.route, surface features and a forest"] = bound_route(Engine(grown(bundle, prompts)))
    everything = grown(bundle, prompts, head_tokens=16, tasks=TASKS)
    calls["Engine.route, a head view and tasks beside"] = bound_route(Engine(everything))
    calls["Engine.route, the same, a task named"] = bound_route(Engine(everything), task=TASKS[0])
    for isa in available_isas():
        forced = Engine.load(isa=isa)
        calls[f"Engine.route, {isa}"] = bound_route(forced)
    return calls


def bound_route(engine: Engine, **given: Unpack[RequestOptions]) -> Callable[[str], object]:
    policy = engine.policy(tau=TAU)
    return lambda prompt: engine.route(prompt, policy, **given)


def check(engine: Engine, policy: Policy, peer: Callable[[str], str], prompts: list[str]) -> None:
    for prompt in prompts:
        ours = engine.route(prompt, policy)
        if ours.truncated or ours.gap < 1e-4:
            continue  # model2vec cuts elsewhere; a tie may fall either way
        theirs = peer(prompt)
        assert ours.model == theirs, (prompt[:60], ours, theirs)


def open_peer(name: str, engine: Engine, policy: Policy, prompts: Sequence[str]) -> Callable[[str], str] | None:
    """Return prompt -> name of the peer's choice; None, and told, where the peer is not installed."""
    try:
        [peer], _ = open_peers([name], Setup(engine, policy, tuple(prompts)))
    except BackendUnavailableError as error:
        print(f"route: not run: {error}", file=sys.stderr)
        return None
    return peer.choose
