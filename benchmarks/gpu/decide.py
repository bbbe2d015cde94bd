"""This part times decide alone: a recording's node against a node, a call from Python against a call from Python.

`measure` is ours beside eager torch, `measure_compiled` ours beside torch.compile: in a process of its own, since a mode of
torch.compile frees memory that other graphs point to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch

from ipr_engine.decide import reference
from ipr_engine.decide.contract import Heads
from ipr_engine.kernels.plan import GpuPlan, GpuRequest, GpuResult
from ipr_engine.kernels.run import DecideLaunch
from tests.support.bundles import make_tensors

from ..harness.results import Line
from .decide_on_gpu import GemmArgmin, TorchDecideRows
from .timing import GpuRun, calls_us, node_us

# (models, dim, hidden); the figures to reach are stated for the first form.
FORMS = ((11, 384, 64), (11, 384, 0), (100, 384, 0), (1000, 1024, 0))
BATCHES = (1, 256, 8, 64, 1024)
COMPILED = {(11, 384, 64): (1, 256), (100, 384, 0): (256,)}  # compiling takes its time: some sizes only
CHECKED = 16  # rows compared with the reference, which is slow
MODES = ("default", "reduce-overhead")


def measure(run: GpuRun) -> Iterator[Line]:
    forms = ((3, 32, 8),) if run.quick else FORMS
    for form in forms:
        for batch in (1, 5) if run.quick else BATCHES:
            models, dim, hidden = form
            name = f"decide, {batch} x {models} x {dim}, hidden {hidden}"
            if run.has_time(name, 5):
                yield from _size(run, batch, models, dim, hidden)


def measure_compiled(run: GpuRun) -> Iterator[Line]:
    for (models, dim, hidden), batches in COMPILED.items():
        for batch in batches:
            if run.on_gpu and run.has_time(f"torch.compile of decide, {batch} x {models}", 60):
                yield from _size(run, batch, models, dim, hidden, modes=MODES)


def _size(
    run: GpuRun, batch: int, models: int, dim: int, hidden: int, *, modes: tuple[str, ...] = ()
) -> Iterator[Line]:
    rng = np.random.default_rng(batch + models)
    heads = Heads(**make_tensors(models=models, dim=dim, hidden=hidden), activation="relu")
    policy = {
        "alpha_hi": 0.7, "alpha_lo": 0.3, "offset": 0.0, "worth": 0.0, "allowed": np.ones(models, np.bool_),
        "in_rate": rng.uniform(1e-7, 1e-5, models).astype(np.float32),
        "out_rate": rng.uniform(1e-7, 1e-5, models).astype(np.float32), "fixed_usd": np.zeros(models, np.float32),
    }  # fmt: skip
    plan = GpuPlan(heads, device=run.graphs.device)
    plan.set_policy(0, **policy)
    request, result = GpuRequest.buffers(plan, batch), GpuResult(plan, batch)
    x = (rng.standard_normal((batch, dim)) / np.sqrt(dim)).astype(np.float32)
    request.x.copy_(torch.from_numpy(x))
    request.billed_tokens.fill_(300.0)
    launch = DecideLaunch(plan, request, result)
    peers: dict[str, Any] = {"torch": TorchDecideRows(heads, policy, run.graphs.device)}
    if not hidden:
        peers["gemm + argmin"] = GemmArgmin(heads, run.graphs.device)
    _check(launch, heads, policy, x, peers["torch"], request)

    labels = {"op": "decide", "batch": batch, "models": models, "dim": dim, "hidden": hidden}
    works: dict[str, Callable[[], object]] = {"ipr_engine": launch}
    works |= {name: partial(peer.run, request.x, request.billed_tokens) for name, peer in peers.items()}
    for mode in modes:
        compiled = torch.compile(peers["torch"].run, mode=mode, dynamic=False)
        works[f"torch.compile {mode}"] = partial(compiled, request.x, request.billed_tokens)
    for name, work in works.items():
        if name != "torch.compile reduce-overhead":  # records graphs itself; it cannot be a node of ours
            work()
            yield labels | {"impl": name, "as": "node", **node_us(run, name, work)}

    def waited(work: Callable[[], object]) -> Callable[[], object]:
        def call() -> None:
            with torch.inference_mode():
                work()
            run.synchronize()

        return call

    for name, found in calls_us(run, {name: waited(work) for name, work in works.items()}):
        yield labels | {"impl": name, "as": "python call", **found}


def _check(
    launch: DecideLaunch,
    heads: Heads,
    policy: dict[str, Any],
    x: np.ndarray,
    peer: TorchDecideRows,
    request: GpuRequest,
) -> None:
    """Compare the kernel and the peer with the float64 reference, before anything is timed."""
    answer = launch().numpy()
    with torch.inference_mode():
        index, quality = (part.cpu().numpy() for part in peer.run(request.x, request.billed_tokens)[:2])
    some = x[:CHECKED]
    exact = reference.decide(heads, policy, some, 300.0)
    for found in (answer["quality"], quality):
        np.testing.assert_allclose(found[:CHECKED], exact.quality, atol=1e-4)
    for row, right in enumerate(exact.rows):
        if right.gap > 1e-3:
            assert answer["index"][row] == index[row] == right.index, (row, right)
