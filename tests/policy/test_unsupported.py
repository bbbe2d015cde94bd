"""A prompt that is unlike the fitting data goes where the policy says: min_support and unsupported."""

import dataclasses
import json
import math

import numpy as np
import pytest

from ipr_engine import Bundle, Engine, InvalidInputError
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import BundleParts, PathRows, write_bundle
from ipr_engine.bundle.reliability import ReliabilityBins, reliability_bytes
from ipr_engine.decide import reference
from ipr_engine.policy.rules import UNSUPPORTED
from ipr_engine.serving import BatchingEngine, prometheus_text
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.decisions import same_row
from tests.support.serving_encoders import queued_engine
from tests.support.two_tier_bundles import join, make_prompts, make_tiers, measured

USER = {"role": "user", "content": "what is the story"}
TOOL = {"type": "function", "function": {"name": "f"}}
PROMPTS = [
    *make_prompts(20, "unsupported"),
    "why " * 300,
    [USER],
    {"messages": [USER], "tools": [TOOL]},
    {"messages": [USER], "max_tokens": 700},
    {"messages": [USER], "max_tokens": 10},
]
WINDOWS = [1000, None, 800, 600, None]


def tables(means):
    """reliability.json in which each candidate was right so often, of 40."""
    bins = {name: ReliabilityBins((), (40,), (40 * mean,)) for name, mean in means.items()}
    return reliability_bytes(bins)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    parts = bundle_parts(folder / "sources", models=5, dim=16, context_windows=WINDOWS)
    names = [candidate.name for candidate in parts["candidates"]]
    file = tables(dict(zip(names, (0.5, 0.6, 0.9, 0.2, 0.9), strict=True)))
    return measured(
        Bundle.load(write_bundle(folder / "root", BundleParts(**parts, extra_files={"reliability.json": file})))
    )


@pytest.fixture(scope="module")
def engine(bundle):
    return Engine(bundle)


@pytest.fixture(scope="module")
def middle(engine):
    """About half of the prompts have less support."""
    return float(np.median(engine.route_many(PROMPTS, tau=0.3).support))


def low(decisions, least):
    return decisions.support.astype(np.float64) < least


@pytest.mark.parametrize("to", ["best", "cheapest", *range(5)])
@pytest.mark.parametrize("terms", [{}, {"worth": 0.01}, {"exclude": ["beta/mid"]}, {"requires": "tools"}], ids=str)
def test_rows_are_those_of_the_definition(engine, middle, to, terms):
    names = engine.bundle.names
    to = names[to] if isinstance(to, int) else to
    plain_policy = engine.policy(tau=0.3, **terms)
    if to not in ("best", "cheapest", *plain_policy.allowed):
        with pytest.raises(InvalidInputError, match=f"unsupported: {to} may not be chosen under this policy"):
            engine.policy(tau=0.3, min_support=middle, unsupported=to, **terms)
        return
    policy = engine.policy(tau=0.3, min_support=middle, unsupported=to, **terms)
    plain, sent = (engine.route_many(PROMPTS, one, on_error="status") for one in (plain_policy, policy))
    goes = {"cheapest": None, "best": policy.unsupported.candidate}.get(to, to)
    assert policy.unsupported == (middle, to, goes)
    np.testing.assert_array_equal(plain.support, sent.support)
    seen = set()
    for before, now, less in zip(plain, sent, low(plain, middle), strict=True):
        assert now.qualities.tobytes() == before.qualities.tobytes()
        assert now.costs_usd.tobytes() == before.costs_usd.tobytes()
        row = reference.Row(before.index, before.threshold, before.gap, before.status, before.cause)
        if less:
            may = np.array(before.allowed)
            row = reference.send_unsupported(
                row, before.qualities, before.costs_usd, may, engine.bundle.tie_rank,
                None if goes is None else names.index(goes),
            )  # fmt: skip
            assert row.cause == "unsupported"
            seen.add(row.gap == math.inf)
        assert (now.index, now.status, now.cause) == (row.index, row.status, row.cause)
        assert (now.threshold, now.gap) == (pytest.approx(row.threshold), pytest.approx(row.gap))
        assert set(now.ranked) == set(before.ranked)
        assert now.ranked[0] == now.model
        assert json.dumps(now.to_dict(), allow_nan=False)
    assert True in seen


def test_a_row_of_a_batch_is_that_row_alone_and_kept_embeddings_say_the_same(engine, middle):
    for to in ("best", "cheapest", "alpha/large"):
        policy = engine.policy(tau=0.3, min_support=middle, unsupported=to)
        together, kept = engine.route_many(PROMPTS, policy), engine.decide(engine.encode(PROMPTS), policy)
        for row, prompt in enumerate(PROMPTS):
            alone = engine.route(prompt, policy)
            for other in (together[row], kept[row]):
                assert same_row(alone, other)
                assert (alone.support, alone.ranked, alone.excluded) == (other.support, other.ranked, other.excluded)


def test_the_edges_of_min_support(engine):
    supports = engine.route_many(PROMPTS, tau=0.3).support
    off = engine.route_many(PROMPTS, tau=0.3, min_support=0)
    assert not (off.cause == UNSUPPORTED).any()
    every = engine.route_many(PROMPTS, tau=0.3, min_support=1, unsupported="cheapest")
    np.testing.assert_array_equal(every.cause == UNSUPPORTED, supports < 1)
    exactly = engine.route_many(PROMPTS, tau=0.3, min_support=float(supports[0]), unsupported="cheapest")
    assert exactly[0].cause != "unsupported"  # below it, not at it
    nothing_known = engine.route("你好", tau=0.3, min_support=0.001, unsupported="gamma/small")
    assert (nothing_known.support, nothing_known.cause, nothing_known.model) == (0.0, "unsupported", "gamma/small")


def test_who_cannot_serve_the_request_leaves_the_plain_decision(engine):
    policy = engine.policy(tau=0.3, min_support=1, unsupported="DELTA/tiny")
    asked = {"messages": [USER], "max_tokens": 700}  # over its window of 600
    sent, plain = engine.route(asked, policy), engine.route(asked, tau=0.3)
    assert (sent.cause, sent.model, sent.gap, sent.threshold) == (
        "unsupported",
        plain.model,
        plain.gap,
        plain.threshold,
    )
    assert sent.ranked == plain.ranked
    assert "delta/tiny" in sent.excluded
    told = engine.explain(sent).summary
    assert "delta/tiny, the one named for that, cannot (prompt of about" in told
    assert "so the plain decision stands" in told
    failed = engine.route_many([asked], policy, billed_tokens=10**9, on_error="status")[0]
    assert failed.model is not None or failed.cause == "failed"


def test_a_row_that_cannot_be_decided_stays_failed(engine):
    policy = engine.policy(tau=0.3, min_support=1, unsupported="alpha/large", allowed=["alpha/large", "gamma/small"])
    row = engine.route_many(["why"], policy, billed_tokens=10**9, on_error="status")[0]
    assert (row.status, row.cause, row.model) == ("none_allowed", "failed", None)
    x = np.full((1, 16), np.nan, np.float32)
    row = engine.decide(x, policy, billed_tokens=3, on_error="status")[0]
    assert (row.status, row.cause) == ("nonfinite_quality", "failed")


def test_best_is_told_by_outcomes_and_never_guessed(engine, bundle, tmp_path):
    names = bundle.names
    of_ties = min((names[2], names[4]))
    assert engine.policy(tau=0.3, min_support=0.1).unsupported == (0.1, "best", of_ties)
    assert engine.policy(tau=0.3, min_support=0.1, exclude=[names[2], names[4]]).unsupported.candidate == names[1]

    outcome = np.full((40, 5), 0, np.uint8)
    outcome[:, 1] = outcome[:, 3] = 254
    outcome[:, 0] = 255  # never judged: the prediction counts
    rows = PathRows(
        candidates=names,
        quality=np.full((40, 5), 0.7, np.float16),
        tokens_out=np.full((40, 5), 10, np.float32),
        outcome=outcome,
        billed_tokens=np.full(40, 20, np.uint32),
        heads=(bundle.quality_heads.sha256,),
    )
    path = Engine(dataclasses.replace(bundle, path_rows=rows))
    assert path.policy(tau=0.3, min_support=0.1).unsupported.candidate == names[3]  # as good, and cheaper
    dear = path.policy(tau=0.3, min_support=0.1, prices={names[3]: (900, 900)})
    assert dear.unsupported.candidate == names[1]
    assert path.policy(tau=0.3, min_support=0.1, exclude=[names[1], names[3]]).unsupported.candidate == names[0]

    bare = Engine.load(make_bundle(tmp_path, models=3, dim=16))
    with pytest.raises(
        InvalidInputError, match=r"unsupported: the bundle holds no outcomes .*; give a candidate's name"
    ):
        bare.policy(tau=0.3, min_support=0.1)
    assert bare.policy(tau=0.3, min_support=0.1, unsupported="cheapest").unsupported.candidate is None
    with pytest.raises(InvalidInputError, match="holds no outcomes"):
        bare.policy(tau=0.3, min_support=0.1, unsupported="BEST")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"min_support": 1.5}, r"min_support: expected a value in \[0, 1\], got 1.5"),
        ({"min_support": -0.1}, r"min_support: expected a value in \[0, 1\]"),
        ({"min_support": "x"}, "min_support: expected a number, got str"),
        ({"min_support": float("nan")}, "min_support: expected a finite number"),
        ({"min_support": True}, "min_support: expected a number, got bool"),
        ({"unsupported": "best"}, "unsupported: says who answers .* needs min_support"),
        ({"min_support": 0.1, "unsupported": "omega"}, "unsupported: unknown 'omega'; known: "),
        (
            {"min_support": 0.1, "unsupported": ["best"]},
            "unsupported: expected 'best', 'cheapest' or a candidate's name, got list",
        ),
        (
            {"min_support": 0.1, "unsupported": "alpha/large", "exclude": ["alpha/large"]},
            r"unsupported: alpha/large may not be chosen under this policy \(excluded by name\)",
        ),
    ],
)
def test_bad_terms_are_named(engine, terms, message):
    with pytest.raises(InvalidInputError, match=message):
        engine.policy(tau=0.3, **terms)
    with pytest.raises(InvalidInputError, match=message):
        engine.route("why", tau=0.3, **terms)


def test_a_bundle_without_centroids_is_refused_by_name(tmp_path):
    engine = Engine.load(make_bundle(tmp_path, models=3, dim=16, support=False))
    with pytest.raises(InvalidInputError, match="min_support: the bundle has no centroids"):
        engine.policy(tau=0.3, min_support=0.1, unsupported="cheapest")
    assert engine.route("why", tau=0.3, min_support=0).cause != "unsupported"


@pytest.mark.parametrize("below", [0.02, math.inf])
def test_of_two_tiers_an_unsupported_row_does_not_escalate(tmp_path, below):
    tiers = make_tiers(tmp_path, models=4)
    engine, first = Engine(measured(join(tmp_path, tiers, gap=0.02))), Engine(measured(tiers[0]))
    prompts = make_prompts(40, "escalate")
    least = float(np.median(first.route_many(prompts, tau=0.2).support))
    terms = {"min_support": least, "unsupported": "cheapest"}
    made = engine.route_many(prompts, tau=0.2, escalate_below=below, **terms)
    again = engine.route_many(prompts, tau=0.2, escalate_below=below)
    less = low(made, least)
    assert less.any()
    assert not made.escalated[less].any()
    np.testing.assert_array_equal(made.escalated[~less], again.escalated[~less])
    assert (made.cause[less] == UNSUPPORTED).all()
    alone = first.route_many(prompts, tau=0.2, **terms)
    for row, prompt in enumerate(prompts):
        one = engine.route(prompt, tau=0.2, escalate_below=below, **terms)
        assert same_row(one, made[row])
        if less[row]:
            assert same_row(one, alone[row])
    kept = engine.decide(
        engine.encode(prompts), tau=0.2, escalate_below=below, second=engine.encode(prompts, second=True), **terms
    )
    assert all(same_row(a, b) for a, b in zip(kept, made, strict=True))


def test_records_replay_to_the_bit(engine, middle):
    lines = []
    recorder = engine.recorder(lines.append, min_words=0)
    for to in ("best", "cheapest", "alpha/large"):
        recorder.route_many(PROMPTS, tau=0.3, min_support=middle, unsupported=to)
    log = b"".join(lines).splitlines()
    replayed = list(replay(log, engine))
    assert all(one.refused is None and not one.differences for one in replayed)
    assert (
        sum(one.outcome.cause == "unsupported" for one in replayed)
        == 3 * low(engine.route_many(PROMPTS, tau=0.3), middle).sum()
    )


def test_a_policy_follows_a_swap_with_its_terms(bundle, middle, tmp_path):
    engine = Engine(bundle)
    policy = engine.policy(tau=0.3, min_support=middle, unsupported="cheapest")
    engine.swap(dataclasses.replace(bundle, hash="0" * 64))
    assert engine.route("why", policy).policy.unsupported == policy.unsupported
    assert policy != engine.policy(tau=0.3, min_support=middle, unsupported="best")
    named = Engine(bundle).policy(tau=0.3, min_support=middle, unsupported="delta/tiny")
    fewer = Engine.load(make_bundle(tmp_path, models=3, dim=16))
    with pytest.raises(InvalidInputError, match=r"its terms do not fit bundle .*unsupported: unknown 'delta/tiny'"):
        fewer.route("why", named)
    assert "min_support" in repr(policy)


def test_they_are_counted(bundle, engine, middle):
    expected = int(low(engine.route_many(PROMPTS[:20], tau=0.3), middle).sum())
    terms = {"tau": 0.3, "min_support": middle, "unsupported": "cheapest"}
    for one in (engine, queued_engine(bundle)[0]):
        with BatchingEngine(one) as serving:
            rows = [serving.route(prompt, **terms) for prompt in PROMPTS[:20]]
            counters = serving.counters()
        assert [row.model for row in rows] == engine.route_many(PROMPTS[:20], **terms).models
        assert counters.unsupported == counters.by_cause["unsupported"] == expected > 0
        assert counters.routing_coverage == pytest.approx(1 - expected / 20)
        assert f"\nipr_unsupported_total {expected}\n" in prometheus_text(counters)
        assert counters.to_dict()["unsupported"] == expected


def test_it_is_explained(engine, middle):
    for to, words in (
        ("cheapest", "so the cheapest candidate answers"),
        ("best", "so the best single candidate answers"),
        ("alpha/large", "so the one named for that answers"),
    ):
        explanation = engine.explain("你好", tau=0.3, min_support=middle, unsupported=to)
        assert f"the prompt is unlike the fitting data (support 0.00 below {middle:g}), {words}" in explanation.summary
        assert set(explanation.gaps.values()) == {math.inf}
        assert explanation.holds_for == (0.0, None)
        assert json.dumps(explanation.to_dict(), allow_nan=False)
        assert "support 0: the prompt is unlike" not in str(explanation)
    assert "support 0: the prompt is unlike the fitting data" in str(engine.explain("你好", tau=0.3))
