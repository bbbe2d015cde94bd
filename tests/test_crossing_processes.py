"""Policies, decisions, figures and errors cross processes by pickle, and are copied; an engine says how to load another."""

import copy
import dataclasses
import inspect
import math
import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine, errors
from ipr_engine._C import DecidePlan, DecidePolicy
from ipr_engine.bundle import Bundle, with_calibrations
from ipr_engine.bundle.description import BundleDescription
from ipr_engine.bundle.origin import constant_of
from ipr_engine.decide.contract import Heads
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.prompts import parse_request
from ipr_engine.serving.fallback import DegradedDecision
from tests.support import elsewhere
from tests.support.calibration_maps import make_map
from tests.support.path_rows import with_path
from tests.support.told import OF_A_BATCH, told
from tests.support.two_tier_bundles import join, make_tiers, measured
from tests.support.weighed_bundles import WEIGHTS, figures_of, weighed_bundle

CHAT = [{"role": "user", "content": "what is the story"}]
TOOLS = {"messages": CHAT, "tools": [{"type": "function", "function": {"name": "f"}}], "max_tokens": 40}
PROMPTS = ["why", "what is the story", CHAT, "a b c " * 400, "how to code", {"messages": CHAT, "max_tokens": 900}]


def crossed(value):
    return pickle.loads(pickle.dumps(value))


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, bundle_folder):
    folder = tmp_path_factory.mktemp("calibrated") / "bundles"
    shutil.copytree(bundle_folder, folder)
    bundle = Bundle.load(folder)
    return Engine.load(with_calibrations(bundle, [make_map(bundle)], activate=False))


@pytest.fixture(scope="module")
def two_tiers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    return Engine(measured(join(folder, make_tiers(folder), gap=0.05)))


@pytest.fixture(scope="module")
def weighed(tmp_path_factory):
    return Engine(weighed_bundle(tmp_path_factory.mktemp("weighed")))


@pytest.fixture(scope="module", params=["default", "path", "minmax", "calibrated", "two tiers", "support", "weighed"])
def asked(request):
    """An engine and a policy of each kind."""
    name = request.param
    of_name = {
        "default": "default_engine",
        "minmax": "engine",
        "path": "engine",
        "two tiers": "two_tiers",
        "support": "two_tiers",
    }
    engine = request.getfixturevalue(of_name.get(name, name))
    if name == "path":
        engine = with_path(engine)
    figures = {"performance": figures_of(engine.bundle.names)} if name == "weighed" else {}
    options = {
        "default": {"max_usd_per_1k": 0.5, "exclude": [engine.bundle.names[0]]},
        "path": {"tau": 0.2, "prices": {engine.bundle.names[0]: (1.0, 2.0)}},
        "minmax": {"tau": 0.3, "worth": 0.01, "family": engine.bundle.candidates[0].family},
        "calibrated": {"tau": 0.2, "rule": "calibrated"},
        "two tiers": {"tau": 0.3, "escalate_below": math.inf},
        "support": {"tau": 0.5, "min_support": 1.0, "unsupported": "cheapest"},
        "weighed": {"tau": 0.3, "cost_weights": WEIGHTS, **figures},
    }
    return engine, engine.policy(**options[name])


def test_a_policy_that_crossed_tells_what_it_told_and_decides_the_same(asked):
    engine, policy = asked
    there = crossed(policy)
    assert told(there) == told(policy)
    assert (there, hash(there), repr(there)) == (policy, hash(policy), repr(policy))
    here = engine.route_many(PROMPTS[:2], policy, on_error="status")
    again = engine.route_many(PROMPTS[:2], there, on_error="status")  # compiled anew from its options
    assert again.policy is not there
    assert told(again) == told(here)


def test_a_decision_that_crossed_tells_what_it_told(asked):
    engine, policy = asked
    decisions = engine.route_many(PROMPTS, policy, on_error="status")
    assert told(crossed(decisions)) == told(decisions)
    assert crossed(decisions).to_dicts() == decisions.to_dicts()
    for decision in decisions:
        there = crossed(decision)
        assert (type(there), there.row, len(there.result)) == (type(decision), 0, 1)
        assert told(there, OF_A_BATCH) == told(decision, OF_A_BATCH)
        assert there.to_dict() == decision.to_dict()
        explained = engine.explain(decision)
        assert told(crossed(explained), {"decision"}) == told(explained, {"decision"})
        assert str(crossed(explained)) == str(explained) == str(engine.explain(there))


def test_what_a_request_asked_and_its_caller_gave_crosses_too(engine):
    names = engine.bundle.names
    given = {"tokens_out": 50.0, "extra_usd": [0.001] * len(names), "tokens_in": {names[1]: 9}}
    decisions = engine.route_many([TOOLS, "why", ""], tau=0.3, on_error="status", **given)
    assert {row.status for row in decisions} >= {"ok", "invalid_input"}
    assert told(crossed(decisions)) == told(decisions)
    for decision in decisions:
        assert told(crossed(decision), OF_A_BATCH) == told(decision, OF_A_BATCH)
    encoded = engine.encode(["why", TOOLS])
    assert told(crossed(encoded)) == told(encoded)
    assert told(engine.decide(crossed(encoded), tau=0.3)) == told(engine.decide(encoded, tau=0.3))
    assert crossed(parse_request(TOOLS)) == parse_request(TOOLS)


def test_a_decision_of_the_fallback_crosses_as_one(engine):
    row = engine.route("why", tau=0.3)
    late = DegradedDecision(row.result, 0, row.policy, row.bundle, row.billed_tokens, row.truncated, row.support)
    late.degraded = "candidate"
    assert crossed(late).to_dict() == late.to_dict()
    assert (crossed(late).cause, crossed(late).degraded) == ("deadline", "candidate")


def test_what_a_recorder_keeps_of_prompts_does_not_leave_with_the_answers(engine):
    made = engine.recorder(lambda line: None).route_many(["secret words"], tau=0.3)
    assert made.made_on is not None
    assert crossed(made).made_on is None
    assert b"secret" not in pickle.dumps(made)


def test_a_process_without_the_bundle_reads_a_decision_and_a_policy(bundle_folder, tmp_path):
    shutil.copytree(bundle_folder, tmp_path / "bundles")
    engine = Engine.load(tmp_path / "bundles")
    policy = engine.policy(tau=0.3, exclude=["beta/mid"])
    values = [policy, *engine.route_many(["why", "how to code", ""], policy, on_error="status")]
    expected = [(told(v, OF_A_BATCH), v.to_dict() if v is not policy else None) for v in values]
    shutil.rmtree(tmp_path / "bundles")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = list(pool.map(elsewhere.read, map(pickle.dumps, values), timeout=60))
    assert found == [(one, False) for one in expected]


def test_workers_load_the_engine_by_path_and_options_and_take_a_policy(bundle_folder):
    engine = Engine.load(bundle_folder, isa="scalar", encoder_folders=["nowhere"])
    assert crossed(engine.options) == engine.options == LoadOptions(**dataclasses.asdict(engine.options))
    begin = (engine.bundle.path, dataclasses.asdict(engine.options))
    policy = engine.policy(tau=0.3, prices={"beta/mid": (0.1, 0.2)})
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=elsewhere.load, initargs=begin) as pool:
        made, compiled = pool.submit(elsewhere.route, ["why", "how to code"], policy).result(timeout=60)
    here = engine.route_many(["why", "how to code"], policy)
    assert [told(row, OF_A_BATCH) for row in made] == [told(row, OF_A_BATCH) for row in here]
    assert compiled == 1


def test_an_engine_says_how_to_load_another_where_it_is_used(engine):
    for cross in (pickle.dumps, copy.deepcopy, copy.copy):
        with pytest.raises(
            TypeError, match=r"Engine: .* load one where it is used: .*Engine\.load\(path, \*\*options\)"
        ):
            cross(engine)


def test_a_bundle_crosses_as_a_description_that_no_engine_takes(default_engine):
    bundle = default_engine.bundle
    there = crossed(bundle)
    assert (type(there), told(there)) == (BundleDescription, told(bundle))
    assert told(crossed(there)) == told(bundle)
    assert (there.support, there.path_rows, len(there.heads)) == (None, None, len(bundle.heads))
    assert there.quality_heads.rule_constants == bundle.quality_heads.rule_constants
    with pytest.raises(InvalidInputError, match=r"expected a Bundle, got BundleDescription; Engine\.load\(path\)"):
        Engine(there)
    with pytest.raises(errors.BundleNotFoundError, match="heads: their tensors did not cross"):
        constant_of(there)
    with pytest.raises(errors.BundleNotFoundError, match="heads: their tensors did not cross"):
        there.heads_key(there.names)


def test_copies_of_what_nothing_changes_are_the_thing_itself(default_engine):
    decision = default_engine.route("why", tau=0.2)
    assert copy.deepcopy(decision.policy) is decision.policy
    assert copy.copy(decision.bundle) is copy.deepcopy(decision.bundle) is default_engine.bundle
    copied = copy.deepcopy(decision)
    assert told(copied) == told(decision)
    assert copied.bundle is decision.bundle


def test_prices_and_figures_cross_read_only(default_engine):
    prices = default_engine.bundle.prices
    assert crossed(prices) == copy.deepcopy(prices) == prices
    assert dataclasses.asdict(prices)["prices"] == prices.prices
    with pytest.raises(TypeError, match="does not support item assignment"):
        crossed(prices).prices["new"] = None
    figures = figures_of(default_engine.bundle.names)
    engine = Engine.load()
    engine.update_performance(figures)
    assert crossed(engine.performance) == engine.performance


def test_figures_that_only_another_process_has_are_asked_for(engine):
    other = Engine(engine.bundle)
    other.update_performance(figures_of(other.bundle.names))
    policy = crossed(other.policy(tau=0.3, cost_weights=WEIGHTS))
    with pytest.raises(InvalidInputError, match=r"were taken back by .*, or given in another process alone"):
        engine.route("why", policy)


def test_what_was_known_of_drift_crosses_with_a_policy(two_tiers):
    engine = with_path(Engine(two_tiers.bundle))
    policy = engine.policy(tau=0.3, escalate_below=0)
    engine.mark_stale(DriftEvidence(kind="stated", message="traffic changed"))
    assert policy.calibration.status == "stale"
    there = crossed(policy)
    engine.mark_stale(None)
    assert there.calibration == ("stale", "traffic changed")
    assert engine.route("why", there).calibration == engine.route("why", policy).calibration == "estimated"


def test_sizes_are_those_of_answers_not_of_bundles(default_engine):
    policy = default_engine.policy(tau=0.2)
    batch = default_engine.route_many(["what is 17 * 23?", "why"] * 500, policy)
    whole = sum(path.stat().st_size for path in default_engine.bundle.path.rglob("*") if path.is_file())
    one, rows = len(pickle.dumps(batch[7])), len(pickle.dumps(list(batch)))
    assert len(pickle.dumps(policy)) < one < 60_000 < whole / 20
    assert rows < one + 1000 * 1000  # what rows share is there once
    assert len(pickle.dumps(batch)) < one + 1000 * 300
    policy.key  # noqa: B018  # what is computed of a policy does not make it larger
    assert len(pickle.dumps(policy)) < one


@pytest.mark.parametrize("tiers", [1, 3])
@pytest.mark.parametrize("models", [1, 5, 17])
def test_a_compiled_policy_crosses_to_the_bit(models, tiers, rng):
    ties = rng.permutation(models).astype(np.int32)
    heads = Heads(
        skip=rng.normal(size=(models, 3)).astype(np.float32), bias=np.zeros(models, np.float32), tie_rank=ties
    )
    plan = DecidePlan(heads)
    shape = (models,) if tiers == 1 else (tiers, models)
    above = None if tiers == 1 else np.sort(rng.random((tiers - 1, models), np.float32) * 100, axis=0)
    rates = [rng.random(shape, np.float32) for _ in range(2)]
    mask = rng.random(models) < 0.7
    mask[0] = True
    own = {"min_support": 0.25, "unsupported": 0, "unsupported_allowed": ~mask, "tier_above": above}
    policy = DecidePolicy(plan, 0.7, 0.3, 0.1, 1e-3, *rates, rng.random(models, np.float32), mask, **own)
    there = crossed(policy)
    assert there.__getstate__() == policy.__getstate__()
    assert (there.models, there.tiers) == (models, tiers)
    x, tokens = rng.normal(size=(9, 3)).astype(np.float32), rng.random((9, models), np.float32) * 50
    a, b = (plan.run(x, one, 70, tokens_out=tokens) for one in (policy, there))
    assert told(a) == told(b) == told(crossed(a))
    names = tuple(map(str, range(models)))
    assert [a.ranked(row, policy, names, None) for row in range(9)] == [
        b.ranked(row, there, names, None) for row in range(9)
    ]


@pytest.mark.parametrize(
    ("part", "value"),
    [(0, 0), (1, 0), (0, 2**23), (1, 2**23), (3, b"\0" * 5), (4, b""), (5, b""), (8, b""), (6, 7.0), (7, 99)],
)
def test_a_damaged_compiled_policy_is_refused(engine, part, value):
    state = list(engine.policy(tau=0.3).compiled.__getstate__())
    state[part] = value
    made = DecidePolicy.__new__(DecidePolicy)
    with pytest.raises(InvalidInputError):
        made.__setstate__(tuple(state))


def every_error():
    """One of each error class that the package raises on purpose."""
    given = {
        errors.RowError: ([3, 4, 5, 6, 7, 8], ["none_allowed"] * 6),
        errors.OverloadError: (7, 8, 120.5),
        errors.DeadlineError: (50.0, 60.0, "no fallback"),
    }
    found = [one for _, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.IprError)]
    assert len(found) > 20
    return [one(*given.get(one, ("argument: expected this, got that",))) for one in found]


@pytest.mark.parametrize("error", every_error(), ids=lambda error: type(error).__name__)
def test_an_error_crosses_with_its_message_and_attributes(error):
    for there in (crossed(error), copy.deepcopy(error)):
        assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))


def test_a_swapped_bundle_takes_a_policy_that_crossed(two_tiers):
    policy = crossed(two_tiers.policy(tau=0.3))
    engine = Engine(replace(two_tiers.bundle, hash="a" * 64))
    assert engine.route("why", policy).policy.bundle_hash == "a" * 64
