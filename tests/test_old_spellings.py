"""route takes one prompt and route_many a list; the spellings of earlier releases work as they did, and warn once a process."""

import asyncio
import inspect
import warnings

import numpy as np
import pytest

from ipr_engine import Decision, Decisions, Engine, InvalidInputError, RowError
from ipr_engine.decision.decision import FailedRow
from ipr_engine.serving import AsyncEngine, BatchingEngine
from tests.support.bundles import make_bundle
from tests.support.serving_encoders import queued_engine

PROMPTS = ["why", "what is the story"]
TERMS = {"tau": 0.3}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine.load(make_bundle(tmp_path_factory.mktemp("bundle"), models=5, dim=16, context_windows=[2000] * 5))


def called(call):
    """What a call gives, and the DeprecationWarnings that it leaves."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        return call(), [one for one in told if issubclass(one.category, DeprecationWarning)]


def spellings(engine):
    recorder = engine.recorder([].append)
    serving = BatchingEngine(engine).start()
    waiting = AsyncEngine(engine)
    asyncio.run(waiting.start())
    status = TERMS | {"on_error": "status"}

    def awaited():
        async def ask():
            return await waiting.route("why", **status)

        return asyncio.run(ask())

    return {
        "Engine.route(a list": lambda: engine.route(PROMPTS, **TERMS),
        "Engine.route(..., on_error": lambda: engine.route("why", **status),
        "Recorder.route(a list": lambda: recorder.route(PROMPTS, **TERMS),
        "Recorder.route(..., on_error": lambda: recorder.route("why", **status),
        "BatchingEngine.route(..., on_error": lambda: serving.route("why", **status),
        "AsyncEngine.route(..., on_error": awaited,
    }


def test_an_old_spelling_works_and_warns_once_where_it_is_called(engine, fresh_spellings):
    for name, call in spellings(engine).items():
        first, told = called(call)
        again, silent = called(call)
        assert not silent, name
        (warning,) = told
        assert str(warning.message).startswith(name)
        assert ".route_many(" in str(warning.message)
        assert warning.filename == __file__, name
        many = isinstance(first, Decisions)
        assert many == ("a list" in name)
        assert (first.models if many else first.model) == (again.models if many else again.model)


def test_an_old_spelling_raises_each_time_where_the_warning_is_an_error(engine, fresh_spellings):
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(DeprecationWarning, match="route_many"):
                engine.route(PROMPTS, **TERMS)


def test_a_list_gives_what_it_gave(engine, fresh_spellings):
    for prompts in (PROMPTS, tuple(PROMPTS), [[{"role": "user", "content": "why"}], "how"], []):
        old, _ = called(lambda prompts=prompts: engine.route(prompts, **TERMS))
        new = engine.route_many(prompts, **TERMS)
        assert old.models == new.models
        assert old.qualities.tobytes() == new.qualities.tobytes()


def test_one_prompt_is_no_list_and_a_list_is_no_prompt(engine):
    for one in ("why", [{"role": "user", "content": "why"}], {"messages": [{"role": "user", "content": "why"}]}, 7):
        with pytest.raises(InvalidInputError, match="prompts: expected a list of prompts, got"):
            engine.route_many(one, **TERMS)
    assert [row.model for row in engine.route_many([[{"role": "user", "content": "why"}]], **TERMS)] == [
        engine.route("why", **TERMS).model
    ]


def test_a_failed_row_is_told_by_its_model_and_by_its_kind(engine):
    good, bad = engine.route_many(["why", ""], on_error="status", **TERMS)
    assert isinstance(good.model, str)
    assert not isinstance(good, FailedRow)
    assert (bad.model, bad.status, bad.prior) == (None, "invalid_input", None)
    assert isinstance(bad, FailedRow)
    assert isinstance(bad, Decision)  # as it has always been
    assert engine.decide(np.full((1, engine.plan.dim), np.nan, np.float32), billed_tokens=3, on_error="status", **TERMS)[
        0
    ].model is None  # fmt: skip


@pytest.mark.parametrize("face", [Engine, AsyncEngine, BatchingEngine])
def test_the_model_of_a_route_is_a_string_to_a_type_checker(face):
    assert inspect.signature(face.route).return_annotation == "Decision"
    assert Decision.model.fget.__annotations__["return"] == "str"


@pytest.mark.parametrize("queued", [False, True], ids=["inline", "queued"])
@pytest.mark.parametrize("front", ["threads", "tasks"])
def test_a_serving_engine_answers_a_list_row_by_row(engine, front, queued):
    one = queued_engine(engine.bundle)[0] if queued else engine
    image = [{"role": "user", "content": [{"type": "image_url"}]}]
    prompts = ["why", "", image, "what is the story", "how"]
    given = {"billed_tokens": [None, None, 90, 10**9, 7], "extra_usd": np.eye(5, dtype=np.float32) / 100}
    want = engine.route_many(prompts, tau=0.3, on_error="status", **given)

    def ask(**options):
        if front == "threads":
            with BatchingEngine(one) as serving:
                return serving.route_many(prompts, tau=0.3, **given, **options)

        async def tasks():
            async with AsyncEngine(one) as serving:
                return await serving.route_many(prompts, tau=0.3, **given, **options)

        return asyncio.run(tasks())

    got = ask(on_error="status")
    for ours, theirs in zip(got, want, strict=True):
        assert type(ours) is type(theirs)
        assert (ours.model, ours.status, ours.reason, ours.billed_tokens) == (
            theirs.model, theirs.status, theirs.reason, theirs.billed_tokens
        )  # fmt: skip
        np.testing.assert_array_equal(ours.costs_usd, theirs.costs_usd)
    with pytest.raises(InvalidInputError, match=r"prompts\[1\]: expected text"):
        ask()
    del prompts[1], given["billed_tokens"][1]
    given["extra_usd"] = 0.0
    with pytest.raises(RowError) as told:
        ask()
    assert told.value.rows == (2,)
