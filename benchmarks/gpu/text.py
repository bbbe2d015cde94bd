"""This part times text to decision, by stage and whole, beside other ways to run the encoder with the decision on the CPU.

`measure` is ours beside eager torch; `measure_compiled` goes into a process of its own, as that of decide.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ipr_engine import Decisions, Engine
from ipr_engine.cuda.buckets import fill_rows
from ipr_engine.encoders.base import Encoded
from ipr_engine.encoders.torch import TorchEncoder
from ipr_engine.gpu_router.route_rows import RouteRows
from ipr_engine.gpu_router.route_slot import RouteSlot
from ipr_engine.gpu_router.router import GpuRouter

from ..harness.results import Line
from .models import prompts_of
from .timing import GpuRun, calls_us, node_us, spread

LENGTHS = (64, 16, 128, 32, 256, 512)
BATCHES = (1, 8)
COMPILED = ((1, 64), (8, 64))  # a shape is compiled anew: some only
MODES = ("default", "max-autotune-no-cudagraphs", "reduce-overhead")
THROUGHPUT = (1, 8, 32, 64, 128, 256, 512, 1024)
FLOOR = {
    "float16": 1e-2,
    "float32": 1e-4,
}  # of quality, against eager float32: what is checked before anything is timed


def measure(run: GpuRun, engine: Engine, export: Path) -> Iterator[Line]:
    """Yield lines of op "stages", "text to decision" and "throughput"."""
    encoder = engine.encoder
    lengths = tuple(length for length in LENGTHS if length <= encoder.max_tokens)
    sizes = [
        (batch, tokens)
        for tokens in lengths[: 1 if run.quick else None]
        for batch in BATCHES[: 1 if run.quick else None]
    ]
    eager = _eager(run, engine, export)
    _check(engine, export)
    for batch, tokens in sizes:
        if run.has_time(f"text to decision, {batch} x {tokens}", 5):
            yield from _stages(run, engine, batch, tokens)
            yield from _whole(run, engine, eager, batch, tokens)
    for batch in THROUGHPUT[: 1 if run.quick else None]:
        if run.has_time(f"throughput, {batch} prompts", 5):
            yield from _throughput(run, engine, batch)
    for pooling in ("fused", "apart")[: 1 if run.quick else None]:
        if run.has_time(f"pooling {pooling}", 8):
            yield from _pooling(run, engine, pooling)


def measure_compiled(run: GpuRun, engine: Engine, export: Path) -> Iterator[Line]:
    """Time the whole beside a compiled encoder; `reduce-overhead` comes last: it frees memory under graphs recorded before."""
    encoder = engine.encoder
    eager = _eager(run, engine, export)
    for mode in MODES:
        for batch, tokens in COMPILED:
            if (
                run.on_gpu
                and tokens <= encoder.max_tokens
                and run.has_time(f"torch.compile {mode}, {batch} x {tokens}", 60)
            ):
                yield from _whole(run, engine, eager, batch, tokens, mode=mode)


def _eager(run: GpuRun, engine: Engine, export: Path) -> TorchEncoder:
    encoder: Any = engine.encoder
    return TorchEncoder.from_export(
        export, device=run.graphs.device, dtype=encoder.dtype, max_tokens=encoder.max_tokens
    )


def _check(engine: Engine, export: Path) -> None:
    """Compare the GPU's decisions with the CPU's float32, before anything is timed."""
    encoder: Any = engine.encoder
    cpu = TorchEncoder.from_export(export, max_tokens=encoder.max_tokens)
    prompts = [prompts_of(cpu, tokens, 1)[0] for tokens in (9, 16, 40, 64)]
    policy = engine.policy(tau=0.3)
    want, got = engine.decide(cpu.encode(prompts), policy), engine.route_many(prompts, policy)
    assert isinstance(want, Decisions)
    assert isinstance(got, Decisions)
    floor = FLOOR[encoder.dtype]
    np.testing.assert_allclose(got.qualities, want.qualities, atol=floor)
    sure = want.gap > 4 * floor
    np.testing.assert_array_equal(got.index[sure], want.index[sure])


def _stages(run: GpuRun, engine: Engine, batch: int, tokens: int) -> Iterator[Line]:
    """Time the columns tokenize, copy, encode and decide, each alone: the names of the profiler's ranges."""
    loaded = engine.loaded
    assert loaded.gpu is not None
    router: GpuRouter = loaded.gpu.router
    encoder: Any = router.encoder
    bucket = next(b for b in encoder.buckets if b.batch >= batch and b.tokens >= tokens)
    slot = router.make_slot(run.graphs, bucket)
    prompts = prompts_of(encoder, tokens, batch)
    fill_rows(slot.inputs.host, [np.ones(bucket.tokens, np.int64)] * bucket.batch, slot.pad_id)
    x = run.graphs.buffer((bucket.batch, router.live.dim), torch.float32)
    seen = []
    for _ in range(5 if run.quick else 300):
        seen.append(_timed(lambda: encoder.read(prompts)))
    labels = {"op": "stages", "tier": _tier(engine), "batch": batch, "tokens": tokens, "bucket": str(bucket)}
    columns = {"tokenize_us": spread(seen)["p50_us"]}
    columns["copy_us"] = node_us(run, "copy", slot.inputs.copy_in)["p50_us"]
    slot.inputs.copy_in()
    columns["encode_us"] = node_us(run, "encode", encoder.bind(bucket, slot.inputs, x), nodes=4)["p50_us"]
    columns["decide_us"] = node_us(run, "decide", _launch(router, slot, bucket, x))["p50_us"]
    columns["whole_us"] = _replay_us(run, slot)
    yield labels | columns


def _launch(router: GpuRouter, slot: RouteSlot, bucket: Any, x: Any) -> Callable[[], object]:
    from ipr_engine.kernels.plan import GpuRequest, GpuResult
    from ipr_engine.kernels.run import DecideLaunch

    names = ("billed_tokens", "policy_of_row", "tokens_out", "extra_usd", "allowed")
    request = GpuRequest(x=x, **{name: slot.inputs.device[name] for name in names})
    launch: Callable[[], object] = DecideLaunch(router.live, request, GpuResult(router.live, bucket.batch))
    return launch


def _replay_us(run: GpuRun, slot: RouteSlot) -> float:
    def call() -> None:
        with run.graphs.exclusive():
            slot.recording.replay()
            slot.recording.wait()

    return spread([_timed(call) for _ in range(5 if run.quick else 300)])["p50_us"]


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e3


def _whole(
    run: GpuRun, engine: Engine, eager: TorchEncoder, batch: int, tokens: int, *, mode: str | None = None
) -> Iterator[Line]:
    """Time calls from Python, text in, decision out; with `mode` beside a compiled encoder."""
    prompts = prompts_of(eager, tokens, batch)
    policy = engine.policy(tau=0.3)
    variants: dict[str, Callable[[], object]] = {}
    if batch == 1:
        variants["one graph, one C++ call"] = lambda: engine.route(prompts[0], policy)
    variants["encoder and decide in one graph"] = lambda: engine.route_many(prompts, policy)
    if mode is None:
        variants["encoder in a graph, decide on the CPU"] = lambda: engine.decide(engine.encode(prompts), policy)
        variants["eager encoder, decide on the CPU"] = lambda: _by(engine, eager, prompts, policy)
    else:
        compiled = _Compiled(eager, mode)
        if mode == "reduce-overhead":
            variants.clear()  # their graphs may point to memory that this mode frees
        variants[f"torch.compile {mode} encoder, decide on the CPU"] = lambda: _by(engine, compiled, prompts, policy)
    labels = {"op": "text to decision", "tier": _tier(engine), "batch": batch, "tokens": tokens}
    for name, found in calls_us(run, variants):
        yield labels | {"impl": name, **found}


def _tier(engine: Engine) -> str:
    encoder: Any = engine.encoder
    return str(encoder.tier)


def _by(engine: Engine, encoder: Any, prompts: list[str], policy: Any) -> object:
    encoded: Encoded = encoder.encode(prompts)
    return engine.decide(encoded, policy)


class _Compiled(TorchEncoder):
    """A `_Compiled` is an eager encoder's model, compiled for the shapes it sees."""

    def __init__(self, eager: TorchEncoder, mode: str) -> None:
        self.__dict__.update(eager.__dict__)
        self.model = torch.compile(self.model, mode=mode, dynamic=False)


def _pooling(run: GpuRun, engine: Engine, pooling: str) -> Iterator[Line]:
    """Time whole replays with and without the pooling fused into the decide launch."""
    plan = engine.loaded.gpu
    assert plan is not None
    router = GpuRouter.__new__(GpuRouter)  # the recordings of one bucket, not of all
    router.__dict__.update(plan.router.__dict__)
    router.fused = pooling == "fused"
    for bucket in plan.stream.buckets:
        if (bucket.batch, bucket.tokens) in ((1, 16), (1, 64), (8, 64), (64, 64)):
            yield {
                "op": "pooling",
                "impl": pooling,
                "bucket": str(bucket),
                "p50_us": _replay_us(run, router.make_slot(run.graphs, bucket)),
            }


def _throughput(run: GpuRun, engine: Engine, batch: int, tokens: int = 64) -> Iterator[Line]:
    """Count prompts a second of one caller: from text, and from ids, which leaves out one thread's tokenizing."""
    loaded = engine.loaded
    assert loaded.gpu is not None
    tokens = min(tokens, loaded.gpu.stream.buckets[-1].tokens)
    prompts = prompts_of(engine.encoder, tokens, batch)  # type: ignore[arg-type]
    policy = engine.policy(tau=0.3)
    ids, billed, _ = loaded.gpu.stream.read(prompts)
    rows = RouteRows(ids=ids, billed=billed)
    plan = loaded.gpu
    variants = {"text": lambda: engine.route_many(prompts, policy), "ids": lambda: plan.route(policy, rows)}
    for name, found in calls_us(run, variants, rounds=5, calls=10):
        rate = round(batch / found["p50_us"] * 1e6)
        yield {"op": "throughput", "batch": batch, "tokens": tokens, "impl": name, "prompts_per_s": rate, **found}
