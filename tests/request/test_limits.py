"""What keeps a candidate from one request: prompt and output over its window, too long an answer, a feature it lacks."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, InvalidInputError, RowError
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import BundleParts, write_bundle
from ipr_engine.bundle.context_windows import ContextWindows
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.decisions import bits
from tests.support.seeds import seeded
from tests.support.two_tier_bundles import join, make_tiers

USER = {"role": "user", "content": "what is the story"}
TOOL = {"type": "function", "function": {"name": "add"}}
IMAGE = [{"role": "user", "content": [{"type": "text", "text": "what is it"}, {"type": "image_url"}]}]


def asking(max_tokens, **more):
    return {"messages": [USER], "max_tokens": max_tokens, **more}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    windows = [1000, None, 800, 4000, 1000]
    return Engine.load(make_bundle(tmp_path_factory.mktemp("limits"), models=5, dim=16, context_windows=windows))


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """The second candidate answers with at most 100 tokens, the third with at most 50; the first says nothing."""
    folder = tmp_path_factory.mktemp("most")
    parts = bundle_parts(folder, models=3, dim=16, context_windows=[1000, 1000, None])
    most = (None, 100, 50)
    parts["candidates"] = [
        replace(candidate, max_output_tokens=tokens, features=("tools",))
        for candidate, tokens in zip(parts["candidates"], most, strict=True)
    ]
    return Engine.load(write_bundle(folder / "bundles", BundleParts(**parts)))


def need(decision, name):
    """Tokens of prompt and output, by the candidate's own count."""
    at = decision.bundle.names.index(name)
    candidate = decision.bundle.candidates[at]
    return decision.billed_tokens * candidate.token_ratio + float(decision.result.tokens_out[decision.row, at])


# -- the context window


@pytest.mark.parametrize("given", [None, 1.0, 700.0, 5000.0])
@pytest.mark.parametrize("form", ["one", "many", "decided"])
def test_prompt_and_output_together_must_fit(engine, given, form):
    rng = seeded("limits", given, form)
    bills = [*rng.integers(1, 1200, 60).tolist(), 10**9]
    prompts = ["what is the story " * int(rng.integers(1, 4)) for _ in bills]
    terms = {"tau": 0.6, "on_error": "status", "tokens_out": given}
    if form == "one":
        decisions = [engine.route_many([p], billed_tokens=b, **terms)[0] for p, b in zip(prompts, bills, strict=True)]
    elif form == "many":
        decisions = list(engine.route_many(prompts, billed_tokens=bills, **terms))
    else:
        decisions = list(engine.decide(engine.encode(prompts, billed_tokens=bills), **terms))
    seen = set()
    for decision in decisions:
        for view, candidate in zip(decision.candidates, engine.bundle.candidates, strict=True):
            over = candidate.context_window is not None and need(decision, view.name) > candidate.context_window
            assert view.allowed == (not over)
            assert (view.excluded_because is not None) == over
            seen.add(over)
        assert decision.allowed[decision.index]
        assert set(decision.ranked) == set(engine.bundle.names) - decision.excluded.keys()
    assert seen == {True, False}


def test_the_reason_tells_prompt_and_output(engine):
    decision = engine.route("what is the story", tau=0.2, billed_tokens=900, tokens_out=250)
    assert (
        decision.excluded["alpha/large"]
        == "prompt of about 900 and output of 250 tokens over its context window of 1000"
    )
    assert (
        "prompt of about 2250 tokens over its context window of 800"
        in (engine.route("what is the story", tau=0.2, billed_tokens=1800, tokens_out=250).excluded["gamma/small"])
    )
    with pytest.raises(RowError, match="none_allowed"):
        engine.route("what is the story", tau=0.2, billed_tokens=900, tokens_out=250, allowed=["alpha/large"])
    (row,) = engine.route_many(
        ["what is the story"], tau=0.2, billed_tokens=900, tokens_out=250, allowed=["alpha/large"], on_error="status"
    )
    assert (row.status, row.model) == ("none_allowed", None)
    assert "alpha/large: prompt of about 900" in row.reason
    assert "alpha/large" in str(engine.explain("what is the story", tau=0.2, billed_tokens=900, tokens_out=250))


def test_a_stated_limit_of_output_is_what_the_window_must_hold(engine):
    free, held = engine.route(asking(5), tau=0.2), engine.route(asking(3000), tau=0.2)
    assert not free.excluded
    assert set(held.excluded) == {"alpha/large", "gamma/small", "epsilon/nano"}
    assert "output of 3000 tokens" in held.excluded["alpha/large"]
    given = engine.route(asking(3000), tau=0.2, tokens_out=5)  # the caller knows better
    assert not given.excluded


def test_no_more_output_is_predicted_than_the_request_allows(engine):
    predicted = engine.route([USER], tau=0.2)
    cut = engine.route(asking(7), tau=0.2)
    names = engine.bundle.names
    tokens = np.minimum(predicted.result.tokens_out[0], 7)
    assert cut.result.tokens_out[0].tolist() == tokens.tolist()
    expected = engine.route([USER], tau=0.2, tokens_out=[tokens.tolist()])
    assert cut.costs_usd.tobytes() == expected.costs_usd.tobytes()
    assert cut.model == expected.model
    assert cut.qualities.tobytes() == predicted.qualities.tobytes()
    assert all(cut.costs_usd[at] < predicted.costs_usd[at] for at in range(len(names)))


def test_a_bound_on_the_output_spares_short_prompts_a_second_look(tmp_path):
    """Heads without a cap predict without bound: every row is looked at, to the same answers."""
    parts = bundle_parts(tmp_path, models=3, dim=16, context_windows=[500, 500, 9000])
    capped = Engine.load(write_bundle(tmp_path / "capped", BundleParts(**parts)))
    tensors = {name: tensor for name, tensor in parts["heads"][0].tensors.items() if name != "len_cap"}
    parts["heads"] = [replace(parts["heads"][0], tensors=tensors)]
    free = Engine.load(write_bundle(tmp_path / "free", BundleParts(**parts)))
    prompts = ["why " * count for count in (1, 100, 300, 600)]
    assert [capped.route(p, tau=0.5).excluded for p in prompts] == [free.route(p, tau=0.5).excluded for p in prompts]
    assert capped.policy(tau=0.5).surely_fits.billed < 9000
    assert free.policy(tau=0.5).surely_fits == (-np.inf, -np.inf)


def test_windows_in_numpy_are_those_of_the_router(engine):
    """What the GPU path computes on the host."""
    rng = seeded("windows")
    prompts = ["what is the story"] * 40
    bills = rng.integers(1, 4000, 40)
    limits = np.where(rng.random(40) < 0.5, -1, rng.integers(1, 900, 40))
    made = engine.loaded.router.decide(
        engine.encode(prompts).x, engine.policy(tau=0.5).compiled, bills, max_tokens=limits.astype(np.int64)
    )[0]
    predicted = engine.encode(prompts[:1])
    tokens = np.repeat(engine.decide(predicted, tau=0.5, billed_tokens=1).tokens_out, 40, axis=0)
    fits, cut = ContextWindows(engine.bundle.candidates).within(bills, tokens, limits)
    np.testing.assert_array_equal(made.tokens_out, cut)
    again = engine.loaded.router.decide(
        engine.encode(prompts).x, engine.policy(tau=0.5).compiled, np.zeros(40, np.int64), tokens_out=cut, allowed=fits
    )[0]
    np.testing.assert_array_equal(made.index, again.index)


def test_a_prompt_over_a_window_is_kept_out_whatever_its_output_is_said_to_be(engine):
    given = np.full((1, 5), 10, np.float32)
    given[0, engine.bundle.names.index("alpha/large")] = np.nan
    decision = engine.route("what is the story", tau=0.6, billed_tokens=1500, tokens_out=given)
    assert (decision.status, "alpha/large" in decision.excluded) == ("ok", True)
    windows = ContextWindows(engine.bundle.candidates)
    np.testing.assert_array_equal(windows.fit(np.array([1500]), given)[0], decision.allowed)
    (short,) = engine.route_many(["what is the story"], tau=0.6, billed_tokens=5, tokens_out=given, on_error="status")
    assert (short.status, short.excluded) == ("nonfinite_cost", {})


# -- most output tokens


def test_no_candidate_is_predicted_more_than_it_can_give(limited):
    predicted = limited.route([USER], tau=0.2).result.tokens_out[0]
    assert predicted[1] <= 100
    assert predicted[2] <= 50
    assert limited.plan.has_tokens


def test_who_cannot_give_the_output_asked_for_is_kept_out(limited):
    for asked, away in ((50, []), (51, ["gamma/small"]), (500, ["beta/mid", "gamma/small"])):
        for decision in (limited.route(asking(asked), tau=0.2), limited.route([USER], tau=0.2, tokens_out=asked)):
            assert sorted(decision.excluded) == away
            for name in away:
                assert f"asked for {asked} output tokens, over its most of" in decision.excluded[name]
    own = limited.route([USER], tau=0.2, tokens_out=[[10, 101, 10]])
    assert set(own.excluded) == {"beta/mid"}


# -- features


def test_tools_keep_out_who_has_none_and_are_billed(engine):
    plain, tools = engine.route([USER], tau=0.5), engine.route({"messages": [USER], "tools": [TOOL]}, tau=0.5)
    without = {c.name for c in engine.bundle.candidates if "tools" not in c.features}
    assert set(tools.excluded) == without
    assert set(tools.excluded.values()) == {"lacks tools, needed by 'tools'"}
    assert tools.billed_tokens > plain.billed_tokens
    assert tools.qualities.tobytes() == plain.qualities.tobytes()
    required = engine.route([USER], tau=0.5, requires="tools", billed_tokens=tools.billed_tokens)
    assert (tools.model, tools.threshold, tools.gap) == (required.model, required.threshold, required.gap)


def test_tools_beside_the_policy_are_refused_with_what_to_do(engine):
    with pytest.raises(
        InvalidInputError, match=r"tools: unknown; known: .*; a request .* is given whole, as the prompt"
    ):
        engine.route([USER], tau=0.5, tools=[TOOL])


def test_a_row_of_a_batch_equals_that_request_alone(engine):
    requests = ["why", asking(3000), {"messages": [USER], "tools": [TOOL]}, [USER], asking(3, tools=[TOOL])]
    policy = engine.policy(tau=0.5)
    for row, request in zip(engine.route_many(requests, policy), requests, strict=True):
        alone = engine.route(request, policy)
        assert bits(row) == bits(alone)
        assert row.excluded == alone.excluded
    encoded = engine.encode(requests)
    for row, kept in zip(engine.route_many(requests, policy), engine.decide(encoded, policy), strict=True):
        assert bits(row) == bits(kept)
        assert row.excluded == kept.excluded
    part = engine.decide(encoded[[2, 4]], policy)
    assert [bits(row) for row in part] == [bits(engine.route(requests[row], policy)) for row in (2, 4)]


def test_a_request_that_nobody_allowed_can_read_is_refused_by_name(engine):
    with pytest.raises(
        InvalidInputError, match=r"needs 'vision' for its image_url.*alpha/large lacks vision.*tools, vision"
    ):
        engine.route(IMAGE, tau=0.5, billed_tokens=90, allowed=["alpha/large"])
    (row,) = engine.route_many([IMAGE], tau=0.5, billed_tokens=90, allowed=["alpha/large"], on_error="status")
    assert row.status == "invalid_input"


def test_an_image_alone_routes_with_its_bill(engine):
    alone = [{"role": "user", "content": [{"type": "image_url"}]}]
    decision = engine.route(alone, tau=0.5, billed_tokens=90)
    assert (decision.billed_tokens, decision.support) == (90, 0.0)
    assert "vision" in engine.bundle.candidates[decision.index].features
    told = engine.route([{"role": "system", "content": "describe the story"}, *alone], tau=0.5, billed_tokens=90)
    assert told.qualities.tobytes() == engine.route("describe the story", tau=0.5).qualities.tobytes()


# -- elsewhere


def test_second_heads_keep_out_the_same_candidates(tmp_path):
    bundle = join(tmp_path, make_tiers(tmp_path, models=4, context_windows=[600, None, 9000, None]), gap=10.0)
    engine = Engine(bundle)
    for request in (asking(3000), {"messages": [USER], "tools": [TOOL]}):
        decision = engine.route(request, tau=0.4)
        assert decision.escalated
        assert decision.allowed[decision.index]
        assert "alpha/large" in decision.excluded
        assert set(decision.ranked).isdisjoint(decision.excluded)


def test_a_record_keeps_what_a_request_needs_and_replays_to_the_bit(engine, tmp_path):
    lines = []
    recorder = engine.recorder(lines.append, min_words=0)
    plain = recorder.route("why", tau=0.5)
    asked = recorder.route(asking(3000, tools=[TOOL]), tau=0.5)
    assert bits(asked) == bits(engine.route(asking(3000, tools=[TOOL]), tau=0.5))
    assert plain.model is not None
    assert b'"needs":null' in lines[0]
    assert b'"max_output_tokens":3000' not in lines[0]
    assert b'"max_output_tokens":3000' in lines[1]
    assert b"add" not in lines[1]
    assert [one.differences for one in replay(lines, engine)] == [(), ()]
    damaged = lines[1].replace(b"3000", b"3001")
    assert "damaged or edited" in next(iter(replay([damaged], engine))).refused
