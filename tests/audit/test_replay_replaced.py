"""Terms given to replay stand in place of those terms of each record, and of nothing else."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit.replay import ReplaySummary, replay
from ipr_engine.audit.row_record import outcome_of
from ipr_engine.bundle import Performance
from tests.support import skips

pytest.importorskip("cryptography", reason=skips.RECORDS)

TEXT = "A train leaves at noon and travels sixty miles an hour; when does it arrive in the city?"
KEY = bytes(range(32))
FIGURES = {"ttft_s": 0.4, "tpot_s": 0.02}
FIELDS = ("model", "quality", "cost_usd", "tokens_out", "threshold", "gap", "support")
RECORDERS = [{"min_words": 0}, {"keep_x": True, "key": KEY}]


@pytest.fixture(scope="module")
def engine(bundle_folder):
    return Engine.load(bundle_folder)


def recorded(engine, *, recorder=RECORDERS[0], **terms):
    lines = []
    engine.recorder(lines.append, **recorder).route(TEXT, **terms)
    return lines[0]


def replayed(line, engine, policy=None, **terms):
    [one] = replay([line], engine, policy, key=KEY, **terms)
    return one


def same(outcome, engine, **terms):
    """Whether it is what the engine decides of the prompt under these terms, to the bit."""
    now = outcome_of(engine.route_many([TEXT], **terms), 0)
    return all(np.asarray(getattr(outcome, f)).tobytes() == np.asarray(getattr(now, f)).tobytes() for f in FIELDS)


@pytest.fixture(scope="module")
def names(engine):
    return engine.bundle.names


@pytest.mark.parametrize("recorder", RECORDERS, ids=["figures", "embedding"])
@given(
    own=st.fixed_dictionaries(
        {"tau": st.floats(0, 1)},
        optional={
            "rule": st.sampled_from(["minmax", "max", "fixed"]),
            "worth": st.floats(0, 0.01),
            "allowed": st.sets(st.integers(0, 4), min_size=1),
            "prices": st.dictionaries(st.integers(0, 4), st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1),
        },
    ),
    other=st.fixed_dictionaries(
        {},
        optional={
            "tau": st.floats(0, 1),
            "rule": st.sampled_from(["minmax", "max", "fixed"]),
            "worth": st.floats(0, 0.01),
            "allowed": st.sets(st.integers(0, 4), min_size=1),
            "prices": st.dictionaries(st.integers(0, 4), st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1),
        },
    ),
)
@settings(max_examples=60)
def test_a_replay_is_what_would_have_been_decided_with_these_terms_in_place(engine, names, recorder, own, other):
    def named(terms):
        made = dict(terms)
        if "allowed" in made:
            made["allowed"] = [names[m] for m in sorted(made["allowed"])]
        if "prices" in made:
            made["prices"] = {names[m]: pair for m, pair in made["prices"].items()}
        return made

    own, other = named(own), named(other)
    one = replayed(recorded(engine, recorder=recorder, **own), engine, **other)
    assert one.refused is None
    assert same(one.outcome, engine, **{**own, **other})
    assert dict(one.replaced).keys() == other.keys()
    if not other:
        assert one.differences == ()


def test_another_tau_chooses_among_the_allowed_at_the_prices_of_then(engine, names):
    own = {"tau": 0.1, "allowed": names[2:], "prices": {names[3]: (0.001, 0.001)}}
    for tau in (0.0, 0.5, 1.0):
        one = replayed(recorded(engine, **own), engine, tau=tau)
        assert one.outcome.model in names[2:]
        assert same(one.outcome, engine, **{**own, "tau": tau})


def test_none_leaves_the_term_of_the_record(engine, names):
    line = recorded(engine, tau=0.9, allowed=names[2:])
    one = replayed(line, engine, allowed=None, tau=None)
    assert (one.differences, dict(one.replaced)) == ((), {})


def test_a_whole_policy_replaces_everything(engine, names):
    line = recorded(engine, tau=0.9, allowed=[names[4]], worth=0.01, rule="minmax")
    one = replayed(line, engine, engine.policy(tau=0.0))
    assert same(one.outcome, engine, tau=0.0)
    assert one.whole_policy
    summary = ReplaySummary()
    summary.add(one)
    assert "decided under tau=0.0, slack=0.0 in place of each record's own policy" in str(summary)
    with pytest.raises(InvalidInputError, match="tau: give either a policy or its arguments, not both"):
        replayed(line, engine, engine.policy(tau=0.0), tau=0.1)


def test_worth_and_slack_of_a_record_stay_where_the_rule_has_them(engine):
    line = recorded(engine, tau=0.4, rule="max", slack=0.2, worth=0.003)
    assert same(replayed(line, engine, tau=0.7).outcome, engine, tau=0.7, rule="max", slack=0.2, worth=0.003)
    assert same(replayed(line, engine, rule="minmax").outcome, engine, tau=0.4, rule="minmax", worth=0.003)
    refused = replayed(line, engine, rule="minmax", slack=0.1).refused
    assert "terms: slack: only rule 'max' has one" in refused


def test_a_given_ask_that_the_rule_of_a_record_does_not_answer_is_refused_there(engine):
    one = replayed(recorded(engine, tau=0.4), engine, quality_share=0.9)
    assert one.refused.startswith("terms: quality_share: only rule 'calibrated' answers it, got rule 'minmax'")
    assert one.outcome is None


def test_under_the_path_asks_and_tau_replace_each_other_and_worth_is_refused():
    engine = Engine.load()
    three = list(engine.bundle.names[:3])
    line = recorded(engine, tau=0.2, allowed=three)
    assert replayed(line, engine).record.policy.rule == "path"
    for terms in ({"tau": 0.8}, {"preset": "cost"}, {"rule": "minmax", "worth": 0.01}):
        kept = {} if "preset" in terms else {"tau": 0.2}
        assert same(replayed(line, engine, **terms).outcome, engine, **{"allowed": three, **kept, **terms})
    assert "terms: worth: rule 'path' reads it from tau" in replayed(line, engine, worth=0.01).refused
    asked = recorded(engine, preset="cost", allowed=three)
    assert same(replayed(asked, engine, tau=0.1).outcome, engine, tau=0.1, allowed=three)
    plain = recorded(engine, tau=0.2, rule="minmax", worth=0.01, allowed=three)
    assert same(replayed(plain, engine, rule="path").outcome, engine, tau=0.2, rule="path", allowed=three)


# -- weighed costs


@pytest.fixture(scope="module")
def weighed(engine, names):
    """An engine that knows figures; `engine`, of the same bundle, knows none."""
    other = Engine(engine.bundle)
    other.update_performance({name: {"ttft_s": 0.1 + m, "tpot_s": 0.03 / (m + 1)} for m, name in enumerate(names)})
    return other


WEIGHTS = {"ttft_s": 0.001, "generation_s": 0.0005}


def test_a_weighted_record_is_decided_again_by_its_own_figures(engine, weighed):
    line = recorded(weighed, tau=0.3, cost_weights=WEIGHTS)
    one = replayed(line, engine, tau=0.9)
    assert one.refused is None
    assert same(one.outcome, weighed, tau=0.9, cost_weights=WEIGHTS)
    one = replayed(line, engine, cost_weights={"ttft_s": 1.0})
    assert same(one.outcome, weighed, tau=0.3, cost_weights={"ttft_s": 1.0})


def test_given_figures_go_over_those_of_the_record_number_by_number(engine, weighed, names):
    line = recorded(weighed, tau=0.3, cost_weights=WEIGHTS)
    faster = {names[0]: {"ttft_s": 0.001}, names[1].upper(): Performance(tpot_s=0.4)}
    one = replayed(line, engine, performance=faster)
    assert same(one.outcome, weighed, tau=0.3, cost_weights=WEIGHTS, performance=faster)


def test_figures_of_a_record_can_be_taken_away(engine, weighed, names):
    line = recorded(weighed, tau=0.3, cost_weights=WEIGHTS)
    assert f"of {names[0]} is not known" in replayed(line, engine, performance={names[0]: None}).refused
    others = {"performance": {names[0].upper(): None}, "exclude": [names[0]]}
    one = replayed(line, engine, **others)
    assert same(one.outcome, weighed, tau=0.3, cost_weights=WEIGHTS, exclude=[names[0]])
    summary = ReplaySummary()
    summary.add(one)
    assert summary.to_dict()["replaced"]["performance"] == {names[0].upper(): None}


def test_figures_of_a_record_that_is_no_longer_weighed_are_left_out(engine, weighed):
    one = replayed(recorded(weighed, tau=0.3, cost_weights=WEIGHTS), engine, cost_weights={"usd": 1})
    assert one.refused is None
    assert same(one.outcome, engine, tau=0.3)


def test_figures_given_to_a_record_that_weighs_none_are_refused_there(engine, names):
    one = replayed(recorded(engine, tau=0.3), engine, performance={names[0]: FIGURES})
    assert "terms: performance: nothing but USD is weighed" in one.refused


# -- what is told, and what is an error


def test_the_summary_tells_every_kind_of_term(engine, names):
    line = recorded(engine, tau=0.3)
    summary = ReplaySummary()
    given = {"tau": np.float64(0.9), "exclude": {names[0]}, "prices": {names[1]: (1, 2)}}
    for one in replay([line, line], engine, **given):
        summary.add(one)
    told = summary.to_dict()
    assert json.loads(json.dumps(told["replaced"], allow_nan=False)) == {
        "tau": 0.9,
        "exclude": [names[0]],
        "prices": {"date": None, "prices": {names[1]: [1, 2]}},
    }
    assert f'decided under tau=0.9, exclude=["{names[0]}"], prices={{"{names[1]}": [1, 2]}} in place of each' in str(
        summary
    )


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"tauu": 0.1}, "tauu: unknown; known: allowed"),
        ({"tau": math.nan}, "tau: expected a finite number"),
        ({"tau": 0.1, "preset": "cost"}, "got tau, preset"),
        ({"preset": "cheap"}, "preset: expected one of"),
        ({"rule": "best"}, "rule: expected one of 'path', 'minmax'"),
        ({"allowed": ["nobody"]}, "allowed: unknown 'nobody'"),
        ({"prices": {"nobody": (1, 2)}}, "prices: unknown 'nobody'"),
        ({"worth": -1}, "worth: expected a value from 0"),
        ({"slack": 2.0}, "slack: expected a value in"),
        ({"cost_weights": {"minutes": 1}}, "cost_weights: unknown 'minutes'"),
        ({"performance": {"nobody": FIGURES}}, "performance: unknown 'nobody'"),
        ({"unsupported": "nobody"}, "unsupported: unknown 'nobody'"),
        ({"escalate_below": 0.1}, "escalate_below: the bundle has no second tier"),
    ],
    ids=str,
)
def test_a_term_that_is_wrong_for_every_record_is_an_error_before_the_first(engine, terms, message):
    with pytest.raises(InvalidInputError, match=message):
        replay([], engine, **terms)
