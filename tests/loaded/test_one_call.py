"""A prompt that one C++ call decides has the decision, or the error, that the walk over a batch gives it, to the bit."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError, RowError, parse_request
from ipr_engine._C import available_isas
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.context_windows import SurelyFits
from ipr_engine.decision import Explanation
from ipr_engine.errors import IprError
from ipr_engine.prompts import ParsedRequest
from ipr_engine.prompts.parsed import Needs
from ipr_engine.request.kept_limits import MOST_KEPT, KeptLimits
from ipr_engine.request.route_request import RouteRequest
from ipr_engine.request.row_inputs import request_limits
from ipr_engine.serving import BatchingEngine
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.conversations import given_turns
from tests.support.decide_requests import bytes_of
from tests.support.surface_bundles import make_surface_bundle, surface_parts
from tests.support.tokenized_bundles import limited
from tests.support.two_tier_bundles import join, make_tiers

SCRIPTS = (
    "what is the story, and why?",
    "Почему небо голубое? ",
    "空はなぜ青いのか。",
    "لماذا السماء زرقاء؟",
    "आकाश नीला क्यों है",
    "왜 하늘은 파란가",
    "👩‍🚀🇩🇪👍🏽 𝔘𝔫𝔦𝔠𝔬𝔡𝔢",
    "x" * 300,
    "2 + 2 = 4\n\n\t{}",
)
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "title": "Сумма"}}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"enum": ["a", "ß"]}}}
USER = {"role": "user", "content": "what is the story"}


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Name -> engine and policies: own tokenizers and limits, surface features, each on every instruction set; neither; two tiers."""
    folder = tmp_path_factory.mktemp("one_call")
    bundle = limited(folder / "own")
    made = {f"own {isa}": Engine(bundle, isa=isa) for isa in available_isas()}
    features = Bundle.load(make_surface_bundle(folder / "surface"))
    made |= {f"surface {isa}": Engine(features, isa=isa) for isa in available_isas()}
    weighed = Bundle.load(given_turns(folder / "weighed", surface_parts(folder / "turns"), "recency"))
    made |= {f"recency {isa}": Engine(weighed, isa=isa) for isa in available_isas()}
    made["last"] = Engine.load(given_turns(folder / "last", bundle_parts(folder / "alone", models=4), "last"))
    made["plain"] = Engine.load(make_bundle(folder / "plain", models=3, support=False))
    made["forest"] = Engine.load(make_bundle(folder / "forest", models=4, trees=9))
    made["two tiers"] = Engine(join(folder / "tiers", make_tiers(folder / "tiers", models=4), gap=0.05))
    asked = [
        {"tau": 0.3},
        {"tau": 0.6, "worth": 1e-4},
        {"tau": 0.2, "requires": "tools"},
        {"tau": 0.2, "allowed": ["alpha/large"]},
    ]
    near = [{"tau": 0.2, "min_support": 0.9, "unsupported": "cheapest"}]
    return {
        name: (engine, [engine.policy(**options) for options in asked + (near if engine.bundle.support else [])])
        for name, engine in made.items()
    }


texts = st.one_of(
    st.sampled_from(SCRIPTS),
    st.sampled_from(("", " ", "why", "\ud800")),
    st.text(max_size=40),
    st.builds(lambda text, times: text * times, st.sampled_from(SCRIPTS), st.integers(1, 60)),
)
contents = texts | st.lists(st.builds(lambda text: {"type": "text", "text": text}, texts), max_size=2)
messages = st.one_of(
    st.builds(
        lambda role, said: {"role": role, "content": said}, st.sampled_from(("user", "system", "assistant")), contents
    ),
    st.builds(lambda said: {"role": "tool", "content": said}, texts),
    st.builds(lambda said: {"role": "assistant", "tool_calls": [{"function": {"arguments": said}}]}, texts),
    st.just({"role": "user", "content": [{"type": "image_url"}]}),
)
bodies = st.fixed_dictionaries(
    {"messages": st.lists(messages, min_size=1, max_size=4).map(lambda turns: [*turns, USER])},
    optional={
        "system": contents,
        "tools": st.lists(st.just(TOOL), max_size=2),
        "response_format": st.just(SCHEMA),
        "max_tokens": st.sampled_from((0, 1, 39, 41, 200, 301, 3000, 10**9)) | st.none(),
        "n": st.integers(1, 4),
        "modalities": st.just(["text", "audio"]),
    },
)
prompts = texts | st.lists(messages, min_size=1, max_size=3) | bodies


def told(decision):
    """Return all that a row says, as one comparable value."""
    row = (decision.row, len(decision.result))
    return {
        "result": bytes_of(decision.result),
        "row": row,
        "type": type(decision),
        "dict": json.dumps(decision.to_dict()),
        "figures": (decision.billed_tokens, decision.truncated, repr(decision.support), decision.escalated),
        "own": None if decision.own_tokens is None else decision.own_tokens.tobytes(),
        "inputs": decision.inputs,
        "views": repr(decision.candidates),
        "ranked": (decision.ranked, decision.feasible, decision.excluded, decision.may_keep_out),
        "calibration": (decision.calibration, decision.calibration_reason),
        "explained": str(Explanation(decision)),
    }


def outcome(call):
    try:
        return told(call())
    except IprError as error:
        return type(error), str(error)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(prompt=prompts, at=st.integers(0, 4), name=st.integers(0, 12))
@example(prompt="write code", at=0, name=-2)
@example(prompt={"messages": [USER], "max_tokens": 3000}, at=3, name=0)
@example(prompt={"messages": [USER], "tools": [TOOL]}, at=3, name=0)
@example(prompt={"messages": [{"role": "user", "content": " "}]}, at=0, name=0)
def test_one_call_decides_as_the_walk_does(engines, prompt, at, name):
    engine, policies = list(engines.values())[name % len(engines)]
    policy = policies[at % len(policies)]
    walked = outcome(lambda: engine.loaded.route(RouteRequest([prompt], policy))[0])
    if isinstance(walked, tuple):
        walked = walked[0], walked[1].replace("prompts[0]", "prompt", 1)
    assert outcome(lambda: engine.route(prompt, policy)) == walked
    if isinstance(walked, dict):  # what a decision says without looking at every candidate is what it says when it does
        looking = replace(policy, surely_fits=SurelyFits(-math.inf, -math.inf), least_window=-math.inf)
        looked = told(engine.route(prompt, looking))
        assert looked["ranked"][3]
        assert looked | {"ranked": looked["ranked"][:3]} == walked | {"ranked": walked["ranked"][:3]}
    try:
        parsed = parse_request(prompt)
    except InvalidInputError:
        return
    assert outcome(lambda: engine.route(parsed, policy)) == walked
    failed = engine.route_many([prompt], policy, on_error="status")[0]
    if failed.status != "invalid_input" and not failed.escalated:
        here = engine.loaded.route_here(RouteRequest(parsed, policy))
        assert told(here) == told(failed)


@pytest.mark.parametrize(
    "prompt",
    [
        "why",
        [USER],
        {"messages": [{"role": "system", "content": "be brief"}, USER], "max_tokens": 200},
        {"messages": [USER], "tools": [TOOL], "n": 2},
        parse_request({"input": "why", "max_output_tokens": 5}),
    ],
    ids=["text", "chat", "system", "tools", "parsed"],
)
def test_a_prompt_that_can_be_counted_never_reaches_the_walk(engines, prompt, monkeypatch):
    engine, policies = engines["own scalar"]
    monkeypatch.setattr(type(engine.loaded), "walk", None)
    assert engine.route(prompt, policies[0]).status == "ok"


@pytest.mark.parametrize(
    "prompt",
    [
        [{"role": "user", "content": [{"type": "text", "text": "what is it"}, {"type": "image_url"}]}],
        ParsedRequest("what is it", images=1),
    ],
    ids=["uncountable", "image"],
)
def test_images_are_left_to_the_walk(engines, prompt):
    engine, policies = engines["own scalar"]
    assert engine.loaded.route_one(prompt, policies[0], {}) is None
    assert engine.loaded.route_one([USER], policies[0], {"tokens_out": 5}) is None


def test_serving_engines_and_recorders_decide_a_request_as_the_engine_does(engines):
    engine, policies = engines["own scalar"]
    body = {"messages": [{"role": "system", "content": "be brief"}, USER], "tools": [TOOL], "max_tokens": 350, "n": 2}
    recorder = engine.recorder(lambda line: None)
    with BatchingEngine(engine) as serving:
        for policy in policies:
            expected = outcome(lambda policy=policy: engine.route(body, policy))
            assert outcome(lambda policy=policy: serving.route(body, policy)) == expected
            assert outcome(lambda policy=policy: recorder.route(body, policy)) == expected
        assert serving.counters().stages["inline"].count == sum(
            policy.allowed != ("alpha/large",) for policy in policies
        )


def test_a_failed_row_raises_what_the_walk_raises(engines):
    engine, _ = engines["own scalar"]
    body = {"messages": [USER], "max_tokens": 3000}
    with pytest.raises(RowError, match="none_allowed") as caught:
        engine.route(body, tau=0.2, allowed=["alpha/large"])
    assert (caught.value.rows, caught.value.reasons) == ((0,), ("none_allowed",))
    row = engine.loaded.route_one(body, engine.policy(tau=0.2, allowed=["alpha/large"]), {}, "status")
    assert (row.model, row.status) == (None, "none_allowed")
    assert "output of 3000 tokens over its context window of 900" in row.reason


def test_what_has_no_token_is_refused_with_its_bytes(engines):
    engine, policies = engines["own scalar"]
    with pytest.raises(InvalidInputError, match=r"^prompt: expected text, got 3 bytes without one token$"):
        engine.route([{"role": "system", "content": "be brief"}, {"role": "user", "content": "   "}], policies[0])


def test_the_router_refuses_a_request_that_is_none(engines):
    engine, policies = engines["own scalar"]
    route = engine.loaded.router.route_request
    compiled = policies[0].compiled
    for wrong, message in (
        ((1, (), compiled, None, -1, 1), "encoded: expected str, got int"),
        (("why", ("\ud800",), compiled, None, -1, 1), "billed_only: .*lone surrogate"),
        (("why", (), compiled, b"\x01", -1, 1), "allowed: expected 5 bytes or None, got bytes"),
        (("why", (), compiled, None, -1, 0), "answers: expected at least 1, got 0"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            route(*wrong)


FEATURES = (
    {},
    {"tools": "tools"},
    {"vision": "image_url"},
    {"tools": "tool_use", "vision": "image"},
    {"smell": "nose"},
)


@given(st.lists(st.tuples(st.sampled_from(FEATURES), st.none() | st.integers(0, 2500), st.integers(1, 3)), max_size=12))
def test_kept_limits_are_those_of_the_request(engines, asked):
    bundle = engines["own scalar"][0].bundle
    kept = KeptLimits(bundle)
    for features, most, answers in asked:
        needs = Needs(features, most, answers)
        limits, allowed = kept.of(needs)
        expected = request_limits(bundle, [needs], None, 1)
        assert limits == expected.rows[0]
        assert list(limits.excluded) == list(expected.rows[0].excluded)
        assert allowed == (None if expected.allowed is None else expected.allowed.tobytes())


def test_kept_limits_do_not_grow_with_features_that_callers_make_up(engines):
    bundle = engines["own scalar"][0].bundle
    kept = KeptLimits(bundle)
    for number in range(2 * MOST_KEPT):
        limits, allowed = kept.of(Needs({f"feature {number}": "part"}))
        assert (set(limits.excluded), allowed) == (set(bundle.names), bytes(5))
    assert len(kept) == MOST_KEPT
