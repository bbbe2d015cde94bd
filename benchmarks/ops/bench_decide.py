"""This benchmark checks the answer of decide, then times every variant in turn.

Cases: one prompt through Python, every instruction set beside numpy float32 and eager torch doing the same work; 256
prompts at once against the roof measured beside it, peak multiply-adds (or memory, if the bytes moved take longer).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ipr_engine._C import fma_chains
from ipr_engine.decide.contract import DecidePlan, DecidePolicy, available_isas
from tests.support.decide_requests import Request, make_heads, make_policy

from ..harness.results import Line
from ..harness.turns import FULL, Size, Timings, copy_gb_per_s
from .decide_on_cpu import NumpyDecide, TorchDecide

MODELS, DIM, BATCH = 11, 256, 256
FORMS: dict[str, dict[str, Any]] = {"linear": {}, "trunk64_rank4": {"hidden": 64, "rank": 4}}
BILLED = 350.0
FMA_STEPS = 10_000
SECONDS = 3.0  # a case


def make_request(form: str, batch: int) -> Request:
    rng = np.random.default_rng(zlib.crc32(f"{form}-{batch}".encode()))
    return Request(
        heads=make_heads(rng, MODELS, DIM, **FORMS[form]),
        policy=make_policy(rng, MODELS, "minmax", tau=0.3),
        x=rng.standard_normal((batch, DIM)).astype(np.float32),
        billed_tokens=BILLED,
    )


def check(name: str, request: Request, index: Any, quality: Any, cost: Any) -> None:
    """Stop the benchmark when a variant's answer is not the reference's."""
    exact = request.reference()
    np.testing.assert_array_equal(np.ravel(index), [row.index for row in exact.rows], err_msg=name)
    np.testing.assert_allclose(np.atleast_2d(quality), exact.quality, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(np.atleast_2d(cost), exact.cost_usd, rtol=2e-5, err_msg=name)


def caller(request: Request, isa: str, x: np.ndarray) -> Callable[[], Any]:
    plan = DecidePlan(request.heads, isa)
    policy = DecidePolicy(plan, **request.policy)
    result = plan.run(x, policy, BILLED)
    check(isa, request, result.index, result.quality, result.cost_usd)
    run = plan.run
    return lambda: run(x, policy, BILLED)


def peers(request: Request, x: np.ndarray) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """Return callables that do the same work, and why some are missing."""
    numpy_full, numpy_choice = (NumpyDecide(request.heads, request.policy, choice_only=c) for c in (False, True))
    made: dict[str, Callable[[], Any]] = {
        "numpy": lambda: numpy_full(x, BILLED),
        "numpy_choice_only": lambda: numpy_choice(x, BILLED),
    }
    missing = {}
    try:
        torch_full, torch_choice = (TorchDecide(request.heads, request.policy, choice_only=c) for c in (False, True))
    except ImportError:
        missing["torch"] = "not run: torch is not installed"
    else:
        tensor = torch_full.torch.from_numpy(x)
        made |= {"torch": lambda: torch_full(tensor, BILLED), "torch_choice_only": lambda: torch_choice(tensor, BILLED)}
    for name, peer in made.items():
        index, quality, _, cost = peer()[:4]
        check(name, request, index, quality, cost)
    return made, missing


def one_prompt(form: str, seconds: float) -> Iterator[Line]:
    request = make_request(form, 1)
    x = request.x[0]
    others, missing = peers(request, x)
    timings = Timings({isa: caller(request, isa, x) for isa in available_isas()} | others, seconds)
    for name in others:
        yield {"op": "decide", "case": form, "impl": name, "batch": 1, "p50_us": timings.us(name)}
    for isa in available_isas():
        yield {
            "op": "decide", "case": form, "impl": isa, "batch": 1, "models": MODELS, "dim": DIM,
            "p50_us": timings.us(isa), "p99_us": timings.us(isa, 0.99),
            "vs": {name: timings.ratio(name, isa) for name in others} | missing,
        }  # fmt: skip


def many_prompts(form: str, seconds: float) -> Iterator[Line]:
    request = make_request(form, BATCH)
    heads, packed = request.heads, FORMS[form]
    flops = 2 * BATCH * (sum(getattr(heads, n).size for n in ("skip", "len_skip", "trunk", "down") if has(heads, n)))
    flops += 2 * BATCH * MODELS * packed.get("hidden", 0) * (packed.get("rank", 0) + 1)
    moved = request.x.nbytes + BATCH * (MODELS * 3 * 4 + 14)
    gb_per_s = copy_gb_per_s(64 << 20)
    isas = [isa for isa in available_isas() if isa != "scalar"]
    calls = {isa: caller(request, isa, request.x) for isa in isas}
    calls |= {f"fma_{isa}": partial(fma_chains, isa, FMA_STEPS) for isa in isas}
    timings = Timings(calls, seconds)
    for isa in isas:
        fma_flops = 2 * fma_chains(isa, FMA_STEPS)
        us, memory_us = timings.us(isa), moved / gb_per_s / 1e3
        arithmetic = flops / fma_flops * timings.ratio(f"fma_{isa}", isa)
        yield {
            "op": "decide", "case": form, "impl": isa, "batch": BATCH, "models": MODELS, "dim": DIM,
            "p50_us": us, "p99_us": timings.us(isa, 0.99), "gflops": flops / us / 1e3,
            "roof": {"fma_gflops": fma_flops / timings.us(f"fma_{isa}") / 1e3, "memory_gb_per_s": gb_per_s},
            "roof_ratio": max(arithmetic, memory_us / us),
        }  # fmt: skip


def has(heads: Any, name: str) -> bool:
    return getattr(heads, name) is not None


def run(size: Size = FULL) -> Iterator[Line]:
    for case in (one_prompt, many_prompts):
        for form in FORMS:
            yield from case(form, size.of(SECONDS, 0.05))
