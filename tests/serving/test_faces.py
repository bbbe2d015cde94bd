"""What both faces have of their engine besides routing: explain, watch, mark_stale."""

import asyncio
import threading

import pytest

from ipr_engine import AsyncEngine, Engine, InvalidInputError
from ipr_engine.bundle import activate
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.serving import BatchingEngine
from tests.support.bundles import make_siblings
from tests.support.callers import SOON, held, in_loop, settled
from tests.support.serving_encoders import CHAT, PROMPTS, Gate, queued_engine

# -- explain


@pytest.mark.parametrize("queued", [False, True])
@in_loop
async def test_an_explanation_is_the_engines_and_goes_the_way_of_a_request(bundles, queued):
    engine, encoder = queued_engine(bundles[0])
    reference = Engine(bundles[0])
    async with AsyncEngine(engine if queued else Engine(bundles[0])) as serving:
        encoder.batches.clear()
        policy = serving.policy(tau=0.3, exclude=["beta/mid"])
        for prompt in [*PROMPTS, CHAT]:
            for terms in ({"policy": policy}, {"tau": 0.2, "tokens_out": 9}):
                expected = reference.explain(prompt, **terms)
                for told in (
                    await serving.explain(prompt, **terms),
                    await asyncio.to_thread(serving.blocking.explain, prompt, **terms),
                ):
                    assert str(told) == str(expected)
                    assert told.to_dict() == expected.to_dict()
        asked = 4 * (len(PROMPTS) + 1)
        assert serving.counters().stages["queued" if queued else "inline"].count == asked
        assert bool(encoder.batches) == queued
        decision = await serving.route("why", tau=0.2)
        assert str(await serving.explain(decision)) == str(serving.blocking.explain(decision))
        assert serving.counters().decided == asked + 1  # a decision is explained as it is


@in_loop
async def test_a_row_that_fails_is_explained_and_what_is_no_call_is_refused_as_by_the_engine(bundles):
    terms = {"tau": 0.1, "allowed": ["alpha/large"]}
    for engine in (Engine(bundles[0]), queued_engine(bundles[0])[0]):
        async with AsyncEngine(engine) as serving:
            expected = Engine(bundles[0]).explain("why", billed_tokens=10**9, **terms)
            assert str(await serving.explain("why", billed_tokens=10**9, **terms)) == str(expected)
            decision = await serving.route("why", tau=0.1)
            for prompt, options in [
                ("why", {"tau": 0.1, "on_error": "status"}),
                (["why", "how"], {"tau": 0.1}),
                (decision, {"tau": 0.1}),
                ("", {"tau": 0.1}),
                ("why", {}),
            ]:
                with pytest.raises(InvalidInputError) as wanted:
                    Engine(bundles[0]).explain(prompt, **options)
                with pytest.raises(InvalidInputError) as told:
                    await serving.explain(prompt, **options)
                with pytest.raises(InvalidInputError) as blocked:
                    serving.blocking.explain(prompt, **options)
                assert str(told.value) == str(blocked.value) == str(wanted.value)


@pytest.mark.parametrize("fallback", ["beta/mid", "static"])
@in_loop
async def test_a_degraded_decision_can_be_explained(bundles, fallback):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine, fallback=Engine(bundles[1]) if fallback == "static" else fallback) as serving:
        gate, first, _ = await held(encoder, serving)
        late = await serving.route("how", tau=0.3, budget_us=SOON)
        told = await serving.explain(late)
        assert "the fallback answered past the deadline" in str(told)
        assert [view.name for view in told.candidates if view.chosen] == [late.model]
        gate.open()
        await first


@in_loop
async def test_a_cancelled_explanation_leaves_the_queue(bundles):
    engine, encoder = queued_engine(bundles[0])
    async with AsyncEngine(engine) as serving:
        gate = encoder.on_encode = Gate()
        first = asyncio.create_task(serving.explain("first", tau=0.2))
        assert await asyncio.to_thread(gate.entered.wait, 20)
        second = asyncio.create_task(serving.explain("why", tau=0.2))
        await asyncio.sleep(0)
        assert serving.counters().queue_depth == 1
        second.cancel()
        await settled([second])
        assert serving.counters().queue_depth == 0
        gate.open()
        await first


# -- watch


@in_loop
async def test_a_watch_swaps_what_the_faces_serve_and_looks_first_in_a_thread(tmp_path):
    folders = make_siblings(tmp_path, 2)
    root, swapped = folders[0].parent, []
    activate(root, folders[1].name)
    async with AsyncEngine.load(folders[0]) as serving:
        seen = lambda bundle: swapped.append((bundle.hash, threading.current_thread().name))  # noqa: E731
        watch = await serving.watch(root, interval_s=0.01, on_swap=seen)
        assert serving.bundle.hash == folders[1].name  # at once
        assert swapped[0][1] != threading.current_thread().name
        activate(root, folders[0].name)
        while serving.counters().swaps < 2:
            await asyncio.sleep(0.01)
        assert (await serving.route("why", tau=0.2)).bundle_hash == folders[0].name
        await asyncio.to_thread(watch.close)
    assert [name for name, _ in swapped] == [folders[1].name, folders[0].name]
    with BatchingEngine.load(folders[0]) as serving, serving.watch(root, interval_s=60):
        activate(root, folders[1].name)
        assert serving.bundle.hash == folders[0].name
        with pytest.raises(InvalidInputError, match="root"):
            serving.watch(tmp_path / "nowhere")


# -- mark_stale


def test_what_is_marked_stale_is_so_on_both_faces_and_of_kept_decisions(bundles):
    serving = AsyncEngine(Engine(bundles[0]), cache_entries=3)
    with serving.blocking as blocking:
        policy = serving.policy(tau=0.3)
        object.__setattr__(policy, "certificate", type(policy.certificate)("calibrated", "made up for the test"))
        kept = blocking.route("why", policy)
        evidence = DriftEvidence(kind="stated", message="made up for the test")
        for face in (serving, blocking):
            face.mark_stale(evidence)
            assert serving.engine.calibrations.drift.evidence is evidence
            assert (kept.calibration, blocking.route("why", policy).calibration) == ("stale", "stale")
            face.mark_stale(None)
            assert kept.calibration == "calibrated"
        with pytest.raises(InvalidInputError, match="evidence"):
            serving.mark_stale("drift")
