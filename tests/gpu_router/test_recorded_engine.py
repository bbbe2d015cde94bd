"""Engine(device="cuda"): what the one C++ call decides is what the steps from Python decide, to the bit. Emulated without a GPU."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from ipr_engine import _profiling as profiling
from ipr_engine.errors import BackendUnavailableError, InvalidInputError, OutOfDeviceMemoryError
from ipr_engine.gpu_router import recorded
from ipr_engine.gpu_router.recorded import recorded_route
from ipr_engine.tokens.profiles import shipped_profile
from tests.support.gpu_engines import POLICIES, PROMPTS, gpu_engine, make_bundle, random_prompts

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter


def by_steps(engine, prompts, policy):
    """The decisions by the steps from Python."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.loaded.gpu, "recorded", None)
        return engine.route_many(prompts, policy)


def in_one_call(engine, prompt, policy):
    """The decision of one prompt by the C++ call, and by the steps from Python."""
    [walked] = by_steps(engine, [prompt], policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine.loaded), "walk", None)
        return engine.route(prompt, policy), walked


def assert_equal_bits(got, want):
    assert got.to_dict() == want.to_dict()
    for name in ("qualities", "tokens_out", "costs_usd", "own_tokens"):
        ours, theirs = getattr(got, name), getattr(want, name)
        assert np.array_equal(ours, theirs, equal_nan=ours is not None), name
    assert (got.truncated, got.billed_tokens, got.support) == (want.truncated, want.billed_tokens, want.support)


def test_one_prompt_in_one_call_is_what_the_walk_gives_to_the_bit(engine, rng):
    policy = engine.policy(tau=0.35)
    for prompt in [*PROMPTS, *random_prompts(rng, 3), "why " * 300]:
        assert_equal_bits(*in_one_call(engine, prompt, policy))


@pytest.mark.parametrize("terms", POLICIES, ids=str)
def test_one_prompt_under_any_policy_in_one_call_is_what_the_walk_gives_to_the_bit(engine, terms):
    policy = engine.policy(**terms)
    for prompt in (PROMPTS[0], "why " * 300):
        assert_equal_bits(*in_one_call(engine, prompt, policy))


def test_one_request_in_one_call_is_what_the_walk_gives_to_the_bit(engine):
    user = {"role": "user", "content": "what is the story"}
    policy = engine.policy(tau=0.4)
    for request in (
        {"messages": [{"role": "system", "content": "be brief and kind"}, user]},
        {"messages": [user], "tools": [{"name": "add"}]},
        {"messages": [user], "max_tokens": 7000},
    ):
        got, want = in_one_call(engine, request, policy)
        assert_equal_bits(got, want)
        assert got.excluded == want.excluded


def test_a_task_that_no_head_knows_is_told_and_changes_neither_the_way_nor_a_bit(engine, monkeypatch):
    policy, asked = engine.policy(tau=0.4), ["sql", None, "chat"]
    want = engine.route_many(PROMPTS[:2], policy)
    monkeypatch.setattr(type(engine.loaded), "_encode_all", None)  # of the walk that decides on the CPU
    got = engine.route_many([*PROMPTS[:2], ""], policy, task=asked, on_error="status")
    for name in ("qualities", "tokens_out", "costs_usd"):
        assert getattr(got, name)[:2].tobytes() == getattr(want, name).tobytes()
    assert [(row.status, row.task) for row in got] == [("ok", "sql"), ("ok", None), ("invalid_input", "chat")]
    assert got[0].task_known is False
    assert engine.route(PROMPTS[0], policy, task="sql").task == "sql"


def test_support_of_one_prompt_in_one_call_sends_it_where_the_policy_says(export, tmp_path):
    folder = make_bundle(tmp_path, export, support=True)
    engine = gpu_engine(folder, batches=(1,))
    policy = engine.policy(tau=0.3, min_support=1.0, unsupported="cheapest")
    for prompt in PROMPTS:
        got, want = in_one_call(engine, prompt, policy)
        assert_equal_bits(got, want)
        assert got.cause == "unsupported"


def test_own_tokens_of_one_request_in_one_call_are_those_of_the_walk(export, tmp_path):
    engine = gpu_engine(make_bundle(tmp_path, export, models=5, tokenizer=shipped_profile("claude_2")), batches=(1,))
    policy = engine.policy(tau=0.3)
    chat = [{"role": "system", "content": "Почему небо голубое? " * 6}, {"role": "user", "content": "why 8080"}]
    for request in ("what is the story", {"messages": chat, "tools": [{"name": "add"}]}):
        got, want = in_one_call(engine, request, policy)
        assert got.own_tokens is not None
        assert_equal_bits(got, want)


def test_limits_windows_and_several_answers_pass_a_second_time_in_the_one_call(engine):
    policy = engine.policy(tau=0.2)
    user = {"role": "user", "content": "what is the story"}
    for request in (
        {"messages": [user], "max_tokens": 3},
        {"messages": [user], "n": 3},
        {"messages": [user], "max_tokens": 9000, "tools": [{"name": "add"}]},
        "story " * 9000,
    ):
        got, want = in_one_call(engine, request, policy)
        assert_equal_bits(got, want)
        assert got.excluded == want.excluded


@pytest.mark.parametrize("count", [0, 1, 2, 5, 11])
def test_a_batch_in_one_call_is_what_the_steps_from_python_give_to_the_bit(engine, rng, count):
    policy = engine.policy(tau=0.35, worth=0.002)
    prompts = [*random_prompts(rng, count // 2), *["story " * 9000] * (count > 4), *PROMPTS][:count]
    want = by_steps(engine, prompts, policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(engine.loaded.gpu), "route", None)
        got = engine.route_many(prompts, policy)
    for name in (
        "qualities",
        "tokens_out",
        "costs_usd",
        "threshold",
        "gap",
        "index",
        "status",
        "cause",
        "billed_tokens",
        "truncated",
    ):
        np.testing.assert_array_equal(getattr(got, name), getattr(want, name), err_msg=name)


def test_a_prompt_without_a_token_is_an_error_in_the_same_words(engine, cpu):
    policy, there = engine.policy(tau=0.2), cpu.policy(tau=0.2)
    for bad in ("", " ", "\ud800", ["why", " "], ["why", "\ud800"]):
        with pytest.raises(InvalidInputError) as ours:
            engine.route_many(bad, policy) if isinstance(bad, list) else engine.route(bad, policy)
        with pytest.raises(InvalidInputError) as theirs:
            cpu.route_many(bad, there) if isinstance(bad, list) else cpu.route(bad, there)
        assert str(ours.value) == str(theirs.value)
    kept = engine.route_many(["why", " ", "how"], policy, on_error="status")
    assert [row.status for row in kept] == ["ok", "invalid_input", "ok"]


@pytest.mark.parametrize("where", ["one text", "beside the text"])
def test_a_long_text_is_not_tokenized_while_others_wait_for_the_device(engine, monkeypatch, where):
    policy, text = engine.policy(tau=0.2), "why " * 17_000
    chat = [{"role": "system", "content": text}, {"role": "user", "content": "why"}]
    engine.route("why", policy)
    read, held = engine.loaded.gpu.stream.read, []
    turn = engine.loaded.gpu.router.passes.graphs.turn
    monkeypatch.setattr(engine.loaded.gpu.stream, "read", lambda texts: held.append(turn.locked()) or read(texts))
    assert engine.route(text if where == "one text" else chat, policy).billed_tokens >= 17_000
    assert held == [False]


def test_without_the_drivers_library_prompts_are_replayed_from_python_and_the_log_says_so(engine, monkeypatch, caplog):
    plan, loaded = engine.loaded.gpu, engine.loaded

    def missing():
        raise OSError("libcuda.so.1: cannot open shared object file")

    monkeypatch.setattr(plan.router.passes.graphs, "native_calls", missing)
    assert recorded_route(plan.router.passes, loaded.router, plan.stream) is None
    assert "libcuda.so.1: cannot open shared object file; they are replayed from Python" in caplog.text


@pytest.mark.parametrize("kind", [RuntimeError, BackendUnavailableError, OutOfDeviceMemoryError])
def test_a_graph_that_does_not_answer_at_load_is_replayed_from_python_too(engine, monkeypatch, caplog, kind):
    class Refused:
        def __init__(self, *_, **__):
            pass

        def replay_each(self):
            raise kind("bucket 1 x 16: refused")

    plan, native = engine.loaded.gpu, SimpleNamespace(addresses={}, context=0, stream=0)
    monkeypatch.setattr(plan.router.passes.graphs, "native_calls", lambda: native)
    monkeypatch.setattr(recorded, "RecordedRoute", Refused)
    assert recorded_route(plan.router.passes, engine.loaded.router, plan.stream) is None
    assert "bucket 1 x 16: refused; they are replayed from Python" in caplog.text


def test_ranges_for_a_profiler_take_the_walk(engine, monkeypatch):
    policy, walked = engine.policy(tau=0.2), []
    engine.route("why", policy)
    steps = type(engine.loaded.gpu).route
    monkeypatch.setattr(type(engine.loaded.gpu), "route", lambda *given: walked.append(1) or steps(*given))
    engine.route("why", policy)
    assert not walked
    profiling.enable("profiler")
    try:
        engine.route("why", policy)
    finally:
        profiling.disable()
    assert walked
