"""This part times the decide kernel under other launch parameters: an entry of kernels/launch.json should hold the best.

Every variant is compared with the float64 reference before it is timed; they are compiled by several processes at once,
which share Triton's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import torch

from ipr_engine.decide import reference
from ipr_engine.decide.contract import Heads
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult
from ipr_engine.kernels.run import DecideLaunch
from ipr_engine.kernels.variant import LaunchParams, launch_params
from tests.support.bundles import make_tensors

from ..harness.results import Line
from .timing import GpuRun, node_us

MODELS = (11, 1000, 100, 64, 32)
DIM, HIDDEN = 384, 64
BATCHES = (1, 8, 64, 256, 1024)
CHECKED = 5
COMPILERS = 12
ARCH = "sm_90"
SHOWN = (
    "block_rows",
    "block_models",
    "block_hidden",
    "block_dim",
    "unroll",
    "num_warps",
    "num_stages",
    "one_program",
)


def variants(models: int) -> list[LaunchParams]:
    """Return the entry of the table, then what else might be faster."""
    table = launch_params(models, DIM, ARCH)
    found = [table]
    if models <= 64:
        most = 1 << (models - 1).bit_length()
        hidden = {16: 64, 32: 32, 64: 16}[max(most, 16)]
        base = replace(table, one_program=True, block_models=max(most, 16), block_hidden=hidden)
        for rows, warps, dim, unroll in (
            (1, 1, 32, 6), (1, 2, 32, 6), (1, 4, 32, 6), (1, 8, 32, 6), (1, 4, 64, 3), (1, 4, 128, 3), (1, 8, 64, 3),
            (1, 8, 128, 3), (1, 16, 64, 6), (2, 4, 32, 6), (2, 8, 64, 3), (2, 8, 128, 1), (4, 8, 32, 3), (4, 4, 32, 3),
        ):  # fmt: skip
            found.append(replace(base, block_rows=rows, num_warps=warps, block_dim=dim, unroll=unroll))
    else:
        if models <= 128:
            whole = replace(table, one_program=True, block_models=128, block_hidden=16, block_choice=128)
            for rows, warps, dim, unroll in ((1, 8, 32, 1), (1, 16, 32, 2), (1, 16, 64, 1), (2, 16, 32, 1)):
                found.append(replace(whole, block_rows=rows, num_warps=warps, block_dim=dim, unroll=unroll))
        split = launch_params(1000, DIM, ARCH)
        for rows, tile, warps, dim in (
            (1, 16, 4, 64), (1, 16, 8, 32), (1, 32, 8, 32), (2, 16, 8, 32), (4, 16, 8, 32), (8, 16, 8, 32), (4, 32, 8, 32),
            (8, 8, 8, 32), (4, 16, 4, 32),
        ):  # fmt: skip
            found.append(replace(split, block_rows=rows, block_models=tile, num_warps=warps, block_dim=dim))
    return list(dict.fromkeys(replace(one, shape_class="tried", source="benchmarks/gpu/tune.py") for one in found))


def measure(run: GpuRun) -> Iterator[Line]:
    """Yield lines of op "tune"."""
    models = MODELS[:1] if run.quick else MODELS
    tried = [(count, params) for count in models for params in variants(count)[: 2 if run.quick else None]]
    if run.on_gpu:
        with ProcessPoolExecutor(COMPILERS, mp_context=get_context("spawn")) as pool:
            for fault in pool.map(_compile, [run.graphs.device] * len(tried), *zip(*tried, strict=True)):
                if fault:
                    yield {"op": "tune", "what": "not compiled", "error": fault}
    for count, params in tried:
        shown = {name: getattr(params, name) for name in SHOWN}
        labels = {"op": "tune", "models": count, "dim": DIM, "hidden": HIDDEN, "params": shown}
        if not run.has_time(f"tune {labels}"):
            continue
        try:
            _check(run, count, params)
            found = {}
            for batch in (1,) if run.quick else BATCHES:
                launch = make_launch(run.graphs.device, count, params, batch)
                found[f"batch_{batch}_us"] = node_us(run, f"tune {batch}", launch)["p50_us"]
        except Exception as error:  # a variant that does not fit the device is a line too; others are measured
            yield labels | {"error": f"{type(error).__name__}: {str(error).partition(chr(10))[0][:200]}"}
        else:
            yield labels | found


def _heads(models: int) -> Heads:
    return Heads(**make_tensors(models=models, dim=DIM, hidden=HIDDEN), activation="relu")


def _policy(models: int) -> dict[str, Any]:
    rng = np.random.default_rng(models)
    rates = {name: rng.uniform(1e-7, 1e-5, models).astype(np.float32) for name in ("in_rate", "out_rate")}
    return {
        "alpha_hi": 0.7, "alpha_lo": 0.3, "offset": 0.0, "worth": 0.0, "allowed": np.ones(models, np.bool_),
        "fixed_usd": np.zeros(models, np.float32), **rates,
    }  # fmt: skip


def make_launch(device: str, models: int, params: LaunchParams, batch: int) -> DecideLaunch:
    """Return the kernel of generated heads on a generated batch, ready to be called."""
    plan = GpuPlan(_heads(models), device=device, launch=params)
    plan.set_policy(0, **_policy(models))
    request, result = GpuRequest.buffers(plan, batch), GpuResult(plan, batch)
    rng = np.random.default_rng(batch)
    request.x.copy_(torch.from_numpy((rng.standard_normal((batch, DIM)) / np.sqrt(DIM)).astype(np.float32)))
    request.billed_tokens.fill_(300.0)
    return DecideLaunch(plan, request, result)


def _compile(device: str, models: int, params: LaunchParams) -> str:
    try:
        make_launch(device, models, params, 1)()
        torch.cuda.synchronize(device)
    except Exception as error:
        return f"{models} {params}: {type(error).__name__}: {str(error)[:200]}"
    return ""


def _check(run: GpuRun, models: int, params: LaunchParams) -> None:
    launch = make_launch(run.graphs.device, models, params, CHECKED)
    answer = launch().numpy()
    exact = reference.decide(_heads(models), _policy(models), launch.request.x.cpu().numpy(), 300.0)
    np.testing.assert_allclose(answer["quality"], exact.quality, atol=1e-4)
    for row, right in enumerate(exact.rows):
        if right.gap > 1e-3 and answer["index"][row] != right.index:
            raise AssertionError(f"row {row}: chose {answer['index'][row]}, the reference {right.index}")
