"""The serving engine over a GPU's recordings, emulated where there is no GPU: prompts are queued, so that their batches are gathered."""

from __future__ import annotations

import asyncio
import threading

import pytest

from ipr_engine import AsyncEngine
from ipr_engine.gpu_router.route_plan import GpuRoutePlan
from tests.support.gpu_engines import PROMPTS, gpu_engine, make_bundle, make_export

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter


def test_no_prompt_waits_for_the_device_in_the_callers_thread(tmp_path, monkeypatch):
    engine = gpu_engine(make_bundle(tmp_path, make_export(tmp_path)), batches=(1, 4))
    policy = engine.policy(tau=0.3)
    alone = [engine.route(prompt, policy) for prompt in PROMPTS]
    asked = []
    for name in ("route_one", "route_request"):
        monkeypatch.setattr(GpuRoutePlan, name, lambda *_: asked.append(threading.current_thread()))

    async def main():
        async with AsyncEngine(engine) as serving:
            answers = await asyncio.gather(*(serving.route(prompt, policy) for prompt in PROMPTS))
            return answers, serving.counters()

    answers, counters = asyncio.run(main())
    assert threading.current_thread() not in asked
    assert max(counters.batch_sizes) > 1
    assert [answer.billed_tokens for answer in answers] == [one.billed_tokens for one in alone]
