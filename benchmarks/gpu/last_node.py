"""This part times decide as the last node of a graph: what pooling, LayerNorm, answers in the host's memory and PDL add to a node.

The last line of a size is a whole replay of that node alone, from the launch to the host that sees its number.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ipr_engine.decide.contract import Heads
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult, StateNorm
from ipr_engine.kernels.run import DecideLaunch
from ipr_engine.kernels.variant import takes_pdl
from tests.support.bundles import make_tensors

from ..harness.results import Line
from .timing import GpuRun, node_us, spread

MODELS, DIM, HIDDEN = 11, 384, 64
SIZES = ((1, 64), (1, 16), (1, 512), (8, 64), (64, 64))  # batch, tokens
EPS = 1e-12


def measure(run: GpuRun) -> Iterator[Line]:
    """Yield lines of op "last node"."""
    for batch, tokens in ((2, 5),) if run.quick else SIZES:
        if run.has_time(f"decide as the last node, {batch} x {tokens}", 8):
            yield from _size(run, batch, tokens)


def _size(run: GpuRun, batch: int, tokens: int) -> Iterator[Line]:
    rng = np.random.default_rng(batch + tokens)
    plan = GpuPlan(
        Heads(**make_tensors(models=MODELS, dim=DIM, hidden=HIDDEN), activation="relu"), device=run.graphs.device
    )
    prices = (rng.uniform(1e-7, 1e-5, MODELS).astype(np.float32) for _ in range(2))
    plan.set_policy(
        0, alpha_hi=0.7, alpha_lo=0.3, offset=0.0, worth=0.0, allowed=np.ones(MODELS, np.bool_), in_rate=next(prices),
        out_rate=next(prices), fixed_usd=np.zeros(MODELS, np.float32),
    )  # fmt: skip
    states = torch.from_numpy(rng.normal(0.2, 2, (batch, tokens, DIM)).astype(np.float32)).half().to(plan.device)
    lengths = torch.full((batch,), tokens, dtype=torch.int32, device=plan.device)
    norm = StateNorm(
        scale=torch.ones(DIM, device=plan.device), shift=torch.zeros(DIM, device=plan.device), eps=EPS
    )  # fmt: skip
    given = GpuRequest.buffers(plan, batch)
    pooled = replace(given, states=states, lengths=lengths, pooling="mean", normalize=True)
    normed = replace(pooled, norm=norm)
    number, done = (run.graphs.host_buffer((1,), torch.int32) for _ in range(2))
    there = GpuResult(plan, batch)
    block = run.graphs.host_buffer(tuple(there.block.shape), torch.uint8)
    places: dict[str, Any] = {"block": block, "x_copy": run.graphs.host_buffer((batch, DIM), torch.float32)}
    told = replace(normed, sequence=number)
    launches = {
        "x given": DecideLaunch(plan, given, there),
        "pooled": DecideLaunch(plan, pooled, there),
        "pooled after LayerNorm": DecideLaunch(plan, normed, there),
        "answers in the host's memory": DecideLaunch(plan, normed, GpuResult(plan, batch, **places)),
        "and the host told": DecideLaunch(plan, told, GpuResult(plan, batch, **places, done=done)),
    }
    if plan.arch is None or takes_pdl(plan.arch):
        launches["and PDL"] = DecideLaunch(plan, told, GpuResult(plan, batch, **places, done=done), pdl=True)
    _check(run, launches, states)
    labels = {"op": "last node", "batch": batch, "tokens": tokens, "models": MODELS, "dim": DIM, "hidden": HIDDEN}
    for name, launch in launches.items():
        yield labels | {"what": name, "as": "node", **node_us(run, name, launch)}
    *_, last = launches.values()
    yield labels | {"what": "a replay, polled", **_replays(run, last, number.numpy(), done.numpy())}


def _check(run: GpuRun, launches: dict[str, DecideLaunch], states: Any) -> None:
    """Compare the pooled x with float64, and every later answer with that of the launch whose answers stay on the device."""
    exact = torch.nn.functional.layer_norm(states.cpu().double(), (DIM,), eps=EPS).mean(1)
    exact = torch.nn.functional.normalize(exact, dim=1)
    normed, *later = (launch for name, launch in launches.items() if name not in ("x given", "pooled"))
    right = {name: value.tobytes() for name, value in normed().numpy().items()}
    np.testing.assert_allclose(normed.request.x.cpu().numpy(), exact.numpy(), rtol=0, atol=1e-6)
    for launch in later:
        launch()
        run.synchronize()
        assert {name: value.tobytes() for name, value in launch.result.numpy().items()} == right
        assert torch.equal(launch.result.x_copy, launch.request.x.cpu())


def _replays(run: GpuRun, launch: DecideLaunch, number: Any, done: Any) -> dict[str, float]:
    """Return microseconds from a replay to the number seen; each replay has a new one."""
    recording = run.graphs.record("the last node", launch)
    seen = []
    for turn in range(1, 6 if run.quick else 1001):
        number[0] = turn
        with run.graphs.exclusive():
            start = time.perf_counter_ns()
            recording.replay()
            until = start + 10**9
            while done[0] != turn:
                if time.perf_counter_ns() > until:
                    raise RuntimeError(f"the number {turn} did not come within a second, {done[0]} is there")
            seen.append((time.perf_counter_ns() - start) / 1e3)
            recording.wait()
    return spread(seen)
