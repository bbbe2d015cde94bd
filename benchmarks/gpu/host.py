"""The host's part of a call, the device's work replaced by nothing: a launch stores the number of the request, and that is all.

The answers are those that the last real work left, so only times are looked at. The one C++ call stands beside the steps from
Python, whose recordings are replaced likewise, in turns. It takes every step of the host, on any machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from ipr_engine import Engine
from ipr_engine._C import RecordedRoute
from ipr_engine.gpu_router.recorded import pass_of
from tests.support.graph_stand_in import GraphDriver, address_of

from ..harness.results import Line
from .models import prompts_of
from .timing import GpuRun, calls_us

LENGTHS = (16, 64, 256)
PROMPTS = 32  # of each length, in turn
MANY, MANY_TOKENS = 1024, 64
NOTE = "the device's work replaced by nothing: the host's part alone"


class _Nothing:
    """A recording of nothing."""

    native = None

    def replay(self) -> None: ...
    def wait(self) -> None: ...


def measure(run: GpuRun, engine: Engine) -> Iterator[Line]:
    """Yield lines of op "host": texts by the C++ call and by the steps from Python; the engine decides nothing afterwards."""
    gpu = engine.loaded.gpu
    assert gpu is not None
    encoder: Any = gpu.stream
    policy = engine.policy(tau=0.2)
    prompts = {tokens: prompts_of(encoder, tokens, PROMPTS) for tokens in LENGTHS if tokens <= encoder.max_tokens}
    many = prompts_of(encoder, min(MANY_TOKENS, encoder.max_tokens), MANY)
    for some in prompts.values():  # every bucket that is timed answers of decided rows
        engine.route(some[0], policy)
    engine.route_many(many[: 4 * max(bucket.batch for bucket in encoder.buckets)], policy)
    slots = [slot for slots in gpu.router.passes.slots.values() for slot in slots]
    for slot in slots:
        slot.recording = _Nothing()
    with tempfile.TemporaryDirectory() as folder:
        driver = GraphDriver(Path(folder))
        graphs = [driver.graph(slot.inputs.host["sequence"], slot.done) for slot in slots]
        before, after = encoder.special_ids
        recorded = RecordedRoute(
            engine.loaded.router,
            encoder.wordpiece,
            before=before,
            after=after,
            max_tokens=encoder.max_tokens,
            pad_id=encoder.pad_id,
            passes=[{**pass_of(slot), "replay": address_of(graph)} for slot, graph in zip(slots, graphs, strict=True)],
            **driver.arguments,
        )
        driver.make_current(driver.arguments["context"])
        for tokens, some in prompts.items():
            calls: dict[str, Callable[[], object]] = {
                "Engine.route, one C++ call": _by(engine, recorded, some, policy),
                "Engine.route, steps from Python": _by(engine, None, some, policy),
                "RecordedRoute.route_one alone": _each(some, lambda text: recorded.route_one(text, policy.compiled, 0)),
                "tokenizing alone": _each(some, encoder.count_tokens),
            }
            for what, times in calls_us(run, calls):
                yield {"op": "host", "what": what, "tokens": tokens, "note": NOTE} | times
        batch: dict[str, Callable[[], object]] = {
            "Engine.route_many, one C++ call": _by(engine, recorded, [many], policy),
            "Engine.route_many, steps from Python": _by(engine, None, [many], policy),
        }
        for what, times in calls_us(run, batch, rounds=10, calls=5):
            told = {"op": "host", "what": what, "tokens": MANY_TOKENS, "prompts": MANY, "note": NOTE}
            yield told | times | {"us_a_prompt": round(times["p50_us"] / MANY, 3)}


def _by(engine: Engine, recorded: RecordedRoute | None, prompts: list[Any], policy: Any) -> Callable[[], object]:
    """Return a call of the engine with one of the prompts in turn; a list is a batch."""
    gpu = engine.loaded.gpu
    assert gpu is not None

    def call(prompt: Any) -> object:
        gpu.recorded = recorded
        return engine.route_many(prompt, policy) if isinstance(prompt, list) else engine.route(prompt, policy)

    return _each(prompts, call)


def _each(prompts: list[Any], call: Callable[[Any], object]) -> Callable[[], object]:
    turns = cycle(prompts)
    return lambda: call(next(turns))
