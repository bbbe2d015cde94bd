"""Recorders of serving engines: the answers of the face itself, each with a record that is decided again to the bit."""

import asyncio
import json
import threading

import numpy as np
import pytest

from ipr_engine import AsyncEngine, Engine, InvalidInputError, RowError
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import ReplaySummary, replay
from ipr_engine.errors import EncoderFailedError, NotServingError, RecordError
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.serving import BatchingEngine
from tests.support import skips
from tests.support.callers import SOON, held, in_loop, join_all, settled
from tests.support.decisions import bits
from tests.support.replay_logs import KEY, all_equal
from tests.support.serving_encoders import CHAT, PROMPTS, Gate, QueuedEncoder, queued_engine
from tests.support.two_tier_bundles import join, make_prompts, make_tiers, middle_gap

OPTIONS = [
    {},
    {"tokens_out": 50.0},
    {"billed_tokens": 12},
    {"extra_usd": [0.1, 0, 0, 0, 0]},
    {"cached_tokens": {"alpha/large": 3}},
    {"tokens_in": {"beta/mid": 30}},
]
TERMS = [{"tau": 0.3}, {"tau": 0.9, "family": "alpha"}, {"tau": 0.5, "worth": 0.01}]
ASKED = [(prompt, {**terms, **given}) for prompt in [*PROMPTS, CHAT] for terms in TERMS for given in OPTIONS]


def recorded(lines):
    return [Record.from_line(line) for line in lines]


# -- the same answers, and what replays


@pytest.mark.parametrize("queued", [False, True])
@in_loop
async def test_many_tasks_get_the_faces_answers_and_every_record_replays(bundles, queued):
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    reference, lines = Engine(bundles[0]), []
    async with (
        AsyncEngine(engine, limits={"max_batch": 8}) as serving,
        serving.recorder(lines.append, min_words=0) as to,
    ):
        answers = await asyncio.gather(
            *(to.route(prompt, id=at, **options) for at, (prompt, options) in enumerate(ASKED))
        )
        counters = serving.counters()
    for (prompt, options), answer in zip(ASKED, answers, strict=True):
        assert bits(answer) == bits(reference.route(prompt, **options))
    assert sorted(all_equal(lines, reference)) == list(range(len(ASKED)))
    for record in recorded(lines):
        assert (record.outcome.model, record.degraded) == (answers[record.id].model, None)
        assert record.outcome.quality.tobytes() == answers[record.id].qualities.tobytes()
    assert (counters.decided, counters.requests) == (len(ASKED), len(ASKED))
    assert (counters.records.written, counters.records.waiting) == (len(ASKED), 0)
    assert counters.stages["queued" if queued else "inline"].count == len(ASKED)
    assert counters.stages["record"].count == counters.stages["total"].count == len(ASKED)


@pytest.mark.parametrize("queued", [False, True])
def test_many_threads_do_too_and_share_the_log_with_tasks(bundles, queued, tmp_path):
    engine = queued_engine(bundles[0])[0] if queued else Engine(bundles[0])
    reference, answers = Engine(bundles[0]), {}
    log = tmp_path / "log.jsonl"

    async def main():
        async with AsyncEngine(engine) as serving, serving.recorder(log, min_words=0) as to:

            def ask(worker):
                for at, prompt in enumerate(PROMPTS):
                    name = f"{worker}/{at}"
                    answers[name] = to.blocking.route(prompt, tau=0.3, id=name)

            threads = [threading.Thread(target=ask, args=(worker,)) for worker in range(4)]
            for thread in threads:
                thread.start()
            made = await asyncio.gather(*(to.route(p, tau=0.3, id=f"task/{at}") for at, p in enumerate(PROMPTS)))
            answers.update((f"task/{at}", one) for at, one in enumerate(made))
            await asyncio.to_thread(join_all, threads)

    asyncio.run(main())
    ids = all_equal(log.read_bytes().splitlines(), reference)
    assert sorted(ids) == sorted(answers)
    for name, answer in answers.items():
        assert bits(answer) == bits(reference.route(PROMPTS[int(name.split("/")[1])], tau=0.3))


@in_loop
async def test_bundles_swapped_meanwhile_leave_no_record_that_is_torn(bundles):
    engines = {bundle.hash: queued_engine(bundle) for bundle in bundles}
    engine, _ = engines[bundles[0].hash]
    lives, turns = [made.loaded for made, _ in engines.values()], iter(range(10**6))

    def swap(prompts):
        engine.loaded = lives[next(turns) % len(lives)]  # in the middle of a forward

    for _, one in engines.values():
        one.on_encode = swap
    lines, answers = [], []
    async with (
        AsyncEngine(engine, limits={"max_batch": 4}) as serving,
        serving.recorder(lines.append, min_words=0) as to,
    ):
        policy = serving.policy(tau=0.3, exclude=["beta/mid"])
        for _ in range(6):
            asked = [to.route(prompt, policy, id=len(answers) + at) for at, prompt in enumerate(PROMPTS)]
            answers += await asyncio.gather(*asked)
    assert sorted(all_equal(lines, *map(Engine, bundles))) == list(range(len(answers)))
    assert {record.bundle for record in recorded(lines)} == set(engines)
    for record in recorded(lines):
        assert record.bundle == answers[record.id].bundle_hash
        assert record.outcome.quality.tobytes() == answers[record.id].qualities.tobytes()


@pytest.mark.parametrize("queued", [False, True])
def test_rows_that_escalate_are_recorded_with_the_heads_and_embedding_that_decided(tmp_path, queued):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    prompts, tiers = make_prompts(20, "recorded"), make_tiers(tmp_path)
    bundle = join(tmp_path, tiers, gap=middle_gap(Engine(tiers[0]).route_many(prompts, tau=0.2).gap))
    engine = Engine(bundle)
    second = QueuedEncoder(engine.second_encoder)
    encoders = {second.identity: second}
    if queued:
        first = QueuedEncoder(engine.encoder)
        encoders[first.identity] = first
    engine.loaded = LoadedBundle(bundle, options=engine.options, encoders=encoders)
    lines = []
    with BatchingEngine(engine) as serving, serving.recorder(lines.append, keep_x=True, key=KEY) as to:
        made = to.route_many(prompts, tau=0.2, id=list(range(len(prompts))))
    assert 0 < sum(decision.escalated for decision in made) < len(prompts)
    assert sorted(all_equal(lines, Engine(bundle), key=KEY)) == list(range(len(prompts)))  # by the heads
    for record in recorded(lines):
        assert record.heads == made[record.id].heads.sha256


@in_loop
async def test_a_list_is_recorded_row_by_row_and_a_row_that_fails_too(bundles):
    lines, terms = [], {"tau": 0.1, "allowed": ["alpha/large"]}
    for engine in (Engine(bundles[0]), queued_engine(bundles[0])[0]):
        lines.clear()
        async with AsyncEngine(engine) as serving:
            async with serving.recorder(lines.append, min_words=0) as to:
                with pytest.raises(RowError):
                    await to.route("why", id="one", billed_tokens=10**9, **terms)
                with pytest.raises(RowError) as failed:
                    await to.route_many(["why", "how"], id=["two", "three"], billed_tokens=[5, 10**9], **terms)
                rows = await to.route_many(["why"], billed_tokens=10**9, on_error="status", **terms)
            assert failed.value.rows == (1,)
            assert [row.status for row in rows] == ["none_allowed"]
            assert serving.counters().by_cause == {"only_allowed": 1, "failed": 3}
        assert sorted(filter(None, all_equal(lines, Engine(bundles[0])))) == ["one", "three", "two"]
        assert [record.outcome.status for record in recorded(lines)].count("none_allowed") == 3


# -- what is not decided has no record


@in_loop
async def test_what_is_refused_has_no_record_and_is_counted_as_by_the_face_itself(bundles):
    engine, lines = queued_engine(bundles[0])[0], []
    async with AsyncEngine(engine) as serving:
        to = serving.recorder(lines.append)
        bad = [("", {"tau": 0.1}), ("why", {}), ("why", {"tau": 3}), ("why", {"tau": 0.1, "id": 1.5}), (7, {"tau": 1})]
        for prompt, options in bad:
            with pytest.raises(InvalidInputError):
                await to.route(prompt, **options)
        assert serving.counters().events["invalid"] == serving.counters().requests == 5
        with pytest.raises(InvalidInputError, match="id: expected one a row, 2 in all"):
            await to.route_many(["why", "how"], tau=0.1, id=["a"])
        with pytest.raises(InvalidInputError, match=r"on_error: route raises; write route_many"):
            await to.route("why", tau=0.1, on_error="status")
        rows = await to.route_many(["why", "", "how"], tau=0.1, on_error="status")
        assert [row.status for row in rows] == ["ok", "invalid_input", "ok"]
    with pytest.raises(NotServingError):
        await to.route("why", tau=0.1)
    assert len(lines) == serving.counters().records.written == 2


@in_loop
async def test_an_encoder_that_fails_and_a_task_that_is_cancelled_leave_no_record(bundles):
    engine, encoder = queued_engine(bundles[0])
    lines = []
    async with AsyncEngine(engine) as serving, serving.recorder(lines.append) as to:
        gate, first, _ = await held(encoder, serving)
        tasks = [asyncio.create_task(to.route(prompt, tau=0.2, id=prompt)) for prompt in ("why", "how")]
        await asyncio.sleep(0)
        tasks[0].cancel()
        await settled(tasks[:1])
        assert serving.counters().queue_depth == 1

        def fail(prompts):
            raise RuntimeError("out of memory")

        encoder.on_encode = fail
        gate.open()
        assert isinstance((await settled(tasks[1:]))[0], EncoderFailedError)
        await first
        events = serving.counters().events
        assert (events["cancelled"], events["encoder_failed"], serving.counters().requests) == (1, 1, 3)
    assert lines == []


# -- deadlines


@in_loop
async def test_a_static_fallbacks_answer_is_recorded_as_such_and_replays_on_its_bundle(bundles):
    engine, encoder = queued_engine(bundles[0])
    static, lines = Engine(bundles[1]), []
    async with AsyncEngine(engine, fallback=static) as serving, serving.recorder(lines.append, min_words=0) as to:
        gate, first, _ = await held(encoder, serving)
        late = await to.route("how", tau=0.3, exclude=["beta/mid"], budget_us=SOON, id="task", extra_usd=0.25)
        blocked = await asyncio.to_thread(to.blocking.route, CHAT, tau=0.3, budget_us=SOON, id="thread")
        gate.open()
        await first
        assert (late.degraded, blocked.degraded, late.cause) == ("static", "static", "deadline")
        assert serving.counters().by_cause["deadline"] == serving.counters().records.written == 2
        assert serving.counters().records.not_replayable == 0
    assert all_equal(lines, static) == ["task", "thread"]
    assert [(record.degraded, record.bundle) for record in recorded(lines)] == [("static", bundles[1].hash)] * 2
    assert recorded(lines)[0].outcome.quality.tobytes() == late.qualities.tobytes()
    summary = ReplaySummary()
    for replayed in replay(lines, Engine(bundles[0])):
        assert "decided by heads" in replayed.refused
        summary.add(replayed)
    assert summary.to_dict()["degraded"] == {"static": 2}
    assert "answered by a fallback past the deadline: static 2" in str(summary)


@in_loop
async def test_a_candidates_answer_is_on_record_and_says_that_it_cannot_be_decided_again(bundles):
    engine, encoder = queued_engine(bundles[0])
    lines = []
    async with AsyncEngine(engine, fallback="beta/mid") as serving, serving.recorder(lines.append, min_words=0) as to:
        gate, first, _ = await held(encoder, serving)
        late = await to.route("how to code", tau=0.3, budget_us=SOON, id="late")
        gate.open()
        await first
        assert await to.route("how to code", tau=0.3, id="soon") is not None
        counts = serving.counters().records
        assert (counts.written, counts.not_replayable) == (2, 1)
    record, other = recorded(lines)
    assert (late.degraded, record.degraded, record.id) == ("candidate", "candidate", "late")
    assert (record.outcome.model, record.outcome.cause, record.outcome.status) == ("beta/mid", "deadline", "ok")
    assert np.isnan(record.outcome.quality).all()
    assert (record.bundle, record.terms["tau"], record.billed_tokens) == (bundles[0].hash, 0.3, late.billed_tokens)
    assert record.to_line() == lines[0]
    one, two = replay(lines, Engine(bundles[0]))
    assert "the fallback's candidate answered past the deadline" in one.refused
    assert (two.differences, two.refused, other.degraded) == ((), None, None)


@in_loop
async def test_a_forward_that_ends_after_the_fallback_answered_is_not_what_is_recorded(bundles):
    engine, encoder = queued_engine(bundles[0])
    lines = []
    async with AsyncEngine(engine, fallback="beta/mid") as serving, serving.recorder(lines.append, min_words=0) as to:
        gate = encoder.on_encode = Gate()
        task = asyncio.create_task(to.route("how", tau=0.3, budget_us=50_000, id="only"))
        assert await asyncio.to_thread(gate.entered.wait, 20)
        assert (await task).degraded == "candidate"
        gate.open()
    assert [(record.id, record.degraded) for record in recorded(lines)] == [("only", "candidate")]


def test_few_words_without_a_key_are_counted_as_not_replayable(bundles):
    lines = []
    with BatchingEngine(Engine(bundles[0])) as serving, serving.recorder(lines.append) as to:
        to.route("why", tau=0.3)
        to.route("one two three four five six seven eight nine", tau=0.3)
        assert serving.counters().records.not_replayable == 1
    assert [record.withheld for record in recorded(lines)] == [True, False]


# -- the decision cache


@pytest.mark.parametrize("queued", [False, True])
def test_a_kept_decision_is_recorded_again_under_its_own_id(bundles, queued):
    engine, encoder = queued_engine(bundles[0])
    lines, others = [], []
    with BatchingEngine(engine if queued else Engine(bundles[0]), cache_entries=10) as serving:
        to = serving.recorder(lines.append, min_words=0)
        plain = serving.route("why", tau=0.3)
        encoder.batches.clear()
        first = to.route("why", tau=0.3, id=1)  # the kept decision has no record
        assert first is not plain
        assert [to.route("why", tau=0.3, id=at) is first for at in (2, 3)] == [True, True]
        assert serving.route("why", tau=0.3) is first
        assert encoder.batches == ([["why"]] if queued else [])
        other = serving.recorder(others.append, min_words=0)
        assert other.route("why", tau=0.3, id=4) is not first  # by another recorder
        counts = serving.counters()
        assert (counts.cache.hits, counts.cache.misses, counts.stages["cache"].count) == (3, 3, 3)
        assert counts.records.written == 4
    assert all_equal(lines, Engine(bundles[0])) == [1, 2, 3]
    assert all_equal(others, Engine(bundles[0])) == [4]


# -- what is kept


@in_loop
async def test_a_prompt_that_its_caller_changes_meanwhile_is_recorded_as_it_was_asked(bundles):
    engine, encoder = queued_engine(bundles[0])
    lines, chat = [], [{"role": "user", "content": "why"}]
    extra = np.zeros(5, np.float32)
    for one, gate in ((engine, Gate()), (Engine(bundles[0]), None)):
        lines.clear()
        async with AsyncEngine(one) as serving, serving.recorder(lines.append, keep_prompts=True, min_words=0) as to:
            encoder.on_encode = gate
            task = asyncio.create_task(to.route(chat, tau=0.2, extra_usd=extra))
            await asyncio.sleep(0)
            chat[0]["content"], extra[:] = "how", 7
            if gate is not None:
                gate.open()
            answer = await task
        [record] = recorded(lines)
        assert record.prompt == [{"role": "user", "content": "why"}]
        assert not record.extra_usd.any()
        assert answer.costs_usd.max() < 7
        all_equal(lines, Engine(bundles[0]))
        chat[0]["content"], extra[:] = "why", 0


def test_what_json_cannot_hold_is_refused_before_it_is_answered(bundles):
    lines = []
    with BatchingEngine(Engine(bundles[0])) as serving:
        to = serving.recorder(lines.append, keep_prompts=True)
        odd = {"messages": [{"role": "user", "content": "why"}], "metadata": {"of": {1, 2}}}
        with pytest.raises(InvalidInputError, match="prompt: expected what JSON can hold"):
            to.route(odd, tau=0.2)
        assert serving.counters().events["invalid"] == serving.counters().requests == 1
        to.route({"messages": [{"role": "user", "content": "why"}]}, tau=0.2)
    assert json.loads(lines[0])["prompt"] == {"messages": [{"role": "user", "content": "why"}]}


def test_prompts_and_embeddings_are_sealed_under_the_key(bundles):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    lines = []
    with BatchingEngine(queued_engine(bundles[0])[0]) as serving:
        with serving.recorder(lines.append, keep_prompts=True, keep_x=True, key=KEY) as to:
            to.route("explain the code", tau=0.2, id="one")
        assert serving.counters().records.not_replayable == 0
        for arguments in ({"keep_x": True}, {"min_words": -1}, {"keep_prompts": 1}):
            with pytest.raises(InvalidInputError, match=next(iter(arguments))):
                serving.recorder(lines.append, **arguments)
    assert b"explain" not in lines[0]
    assert all_equal(lines, Engine(bundles[0]), key=KEY) == ["one"]


def test_a_recorder_says_how_it_is(bundles):
    with BatchingEngine(Engine(bundles[0])) as serving:
        assert repr(serving.recorder([].append)).startswith("BatchingRecorder(Engine(")
        assert "0 records to write" in repr(serving.recorder([].append))
    with pytest.raises(RecordError, match="cannot append"):
        serving.recorder("/no/such/folder/log")
