"""What a caller tells of a prompt's cost takes the certificate from its decision, on every way through the engine."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import with_calibrations, with_prices
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.request.row_inputs import moved_by
from ipr_engine.serving import AsyncEngine, BatchingEngine
from tests.support.calibration_data import calibrate, make_engine, make_outcomes
from tests.support.path_rows import with_path
from tests.support.seeds import seeded

PROMPT = "prove why the sum of ten loops"
REQUEST = [{"role": "user", "content": PROMPT}]
TERMS = {"tau": 0.0, "rule": "calibrated"}  # certain on any data
MOVED = [
    ({"billed_tokens": 40}, "billed_tokens"),
    ({"tokens_out": 12}, "tokens_out"),
    ({"extra_usd": 1e-4}, "extra_usd"),
    ({"extra_usd": [0, 0, 0, 1e-4]}, "extra_usd"),
    ({"cached_tokens": 5}, "cached_tokens"),
    ({"cached_tokens": {"alpha/large": 5}, "extra_usd": 0.0}, "cached_tokens"),
    ({"tokens_in": 40}, "tokens_in"),
    ({"tokens_in": {"alpha/large": 40}}, "tokens_in"),
    ({"tokens_in": {"alpha/large": 40}, "billed_tokens": 30}, "billed_tokens and tokens_in"),
    ({"tokens_in": [1, 2, 3, 4], "billed_tokens": 30}, "tokens_in"),  # nobody is charged by the bill
    ({"tokens_out": 12, "extra_usd": 1.0, "cached_tokens": 5, "billed_tokens": 9},
     "billed_tokens and tokens_out and extra_usd and cached_tokens"),
]  # fmt: skip
STILL = [
    {},
    {"extra_usd": 0.0},
    {"cached_tokens": 0},
    {"cached_tokens": {}},
    {"billed_tokens": None},
    {"tokens_in": {}},
]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Prices of cached input are those that the map was made at."""
    plain = make_engine(tmp_path_factory.mktemp("moved")).bundle
    prices = {n: replace(p, cached_read_usd_per_1m=p.input_usd_per_1m / 4) for n, p in plain.prices.prices.items()}
    priced = Engine.load(with_prices(plain, replace(plain.prices, prices=prices), activate=False))
    made = calibrate(
        priced, make_outcomes(priced, "sample", 60), make_outcomes(priced, "path", 60), points=6, stated=True
    )
    return Engine.load(with_calibrations(priced.bundle, [made], activate=False))


def told(decision):
    return decision.calibration, decision.calibration_reason


def every_way(engine, given):
    """(status, reason) of the same prompt asked in every way that takes these arguments."""
    policy, found = engine.policy(**TERMS), {}
    bill = {"billed_tokens": given["billed_tokens"]} if given.get("billed_tokens") is not None else {}
    costs = {name: value for name, value in given.items() if name != "billed_tokens"}
    found["route"] = told(engine.route(PROMPT, policy, **given))
    found["request"] = told(engine.route(REQUEST, policy, **given))
    found["route_many"] = told(engine.route_many([PROMPT], policy, **given)[0])
    found["beside a bad row"] = told(engine.route_many(["", PROMPT], policy, **given, on_error="status")[1])
    found["kept embedding"] = told(engine.decide(engine.encode([PROMPT], **bill), policy, **costs)[0])
    found["to_dict"] = tuple(
        engine.route(PROMPT, policy, **given).to_dict()[key] for key in ("calibration", "calibration_reason")
    )
    found["recorder"] = told(engine.recorder([].append).route(PROMPT, policy, **given))
    for name, limits in (("inline", {}), ("queued", {"inline_chars": 0})):
        with BatchingEngine(engine, cache_entries=9, limits=limits) as serving:
            for again in ("first", "again"):
                found[f"{name}, {again}"] = told(serving.route(PROMPT, policy, **given))
            found[f"{name}, many"] = told(serving.route_many([PROMPT], policy, **given)[0])
            counted = serving.counters().by_calibration
            assert set(counted) == {found[f"{name}, first"][0]}

    async def tasks():
        async with AsyncEngine(engine, limits={"inline_chars": 0}) as serving:
            return [
                told(row) for row in await asyncio.gather(*(serving.route(PROMPT, policy, **given) for _ in range(3)))
            ]

    found["tasks"] = asyncio.run(tasks())[-1]
    return found


@pytest.mark.parametrize(("given", "names"), MOVED, ids=str)
def test_who_moves_the_predicted_costs_has_no_certificate_and_is_told_why(engine, given, names):
    assert engine.policy(**TERMS).calibration.status == "calibrated"
    found = every_way(engine, given)
    assert set(found.values()) == {("uncalibrated", f"{names} moved its predicted costs, and no policy is tested so")}


@pytest.mark.parametrize("given", STILL, ids=str)
def test_what_moves_no_cost_leaves_the_certificate(engine, given):
    assert {status for status, _ in every_way(engine, given).values()} == {"calibrated"}


def test_a_cache_that_saves_nothing_moves_nothing(engine):
    least = {n: replace(p, cache_min_tokens=1000) for n, p in engine.bundle.prices.prices.items()}
    dear = engine.policy(tau=0.5, prices=least)
    assert engine.route_many([PROMPT], dear, cached_tokens=999).moved is None
    assert engine.route_many([PROMPT], dear, cached_tokens=1000, billed_tokens=1000).moved is not None


def test_every_row_of_a_batch_is_told_apart(engine):
    extra = np.zeros((3, 4))
    extra[1, 2] = 1e-4
    rows = engine.route_many([PROMPT] * 3, **TERMS, extra_usd=extra, billed_tokens=[None, None, 7])
    assert rows.calibration == ["calibrated", "uncalibrated", "uncalibrated"]
    assert rows.moved == ((), ("extra_usd",), ("billed_tokens",))
    mixed = engine.route_many([PROMPT, "", PROMPT], **TERMS, extra_usd=extra[[0, 0, 1]], on_error="status")
    assert mixed.moved == ((), (), ("extra_usd",))


def test_a_bill_put_beside_kept_embeddings_is_given_and_that_of_a_bare_array_its_count(engine):
    kept = engine.encode([PROMPT])
    assert engine.decide(kept, **TERMS).calibration == ["calibrated"]
    assert engine.decide(kept, **TERMS, billed_tokens=40).calibration == ["uncalibrated"]
    assert engine.decide(kept.x, **TERMS, billed_tokens=40).calibration == ["calibrated"]


def test_an_estimated_promise_does_not_survive_moved_costs_and_a_stale_one_either(engine):
    path = with_path(engine)
    assert path.route(PROMPT, tau=0.3).calibration == "estimated"
    assert path.route(PROMPT, tau=0.3, tokens_out=9).calibration == "uncalibrated"
    stale = Engine(engine.bundle)
    stale.mark_stale(DriftEvidence(kind="stated", message="the product changed"))
    assert stale.route(PROMPT, **TERMS).calibration == "stale"
    assert stale.route(PROMPT, **TERMS, extra_usd=1).calibration == "uncalibrated"


def moved_by_definition(batch, terms, tokens_out, extra_usd, with_cached, given_tokens):
    """What `moved_by` returns, each argument a (batch,) mask in numpy."""
    before = np.float32(0) if extra_usd is None else extra_usd
    estimated = np.ones((1, 1), np.bool_) if given_tokens is None else np.isnan(given_tokens)
    rows = {
        "billed_tokens": False if terms is None else np.isnan(terms[:, 0]) & estimated.any(axis=-1),
        "tokens_out": tokens_out is not None,
        "extra_usd": False if extra_usd is None else (extra_usd != 0).any(axis=-1),
        "cached_tokens": False if with_cached is extra_usd else (with_cached != before).any(axis=-1),
        "tokens_in": ~estimated.all(axis=-1),
    }
    known = {name: np.broadcast_to(moved, (batch,)) for name, moved in rows.items() if np.any(moved)}
    return tuple(tuple(n for n, moved in known.items() if moved[row]) for row in range(batch)) if known else None


@pytest.mark.parametrize("batch", [0, 1, 2, 3])
def test_each_row_names_the_arguments_that_moved_its_own_costs(batch):
    random = seeded("moved", batch)
    for _ in range(500):
        models = int(random.integers(1, 4))
        of_models, of_rows = ((random.random(shape) < 0.5).astype(np.float32) for shape in (models, (batch, models)))
        terms = random.choice([None, 1])
        if terms is not None:
            terms = np.where(random.random((batch, 1)) < 0.5, np.nan, np.ones((batch, 9)))
        tokens_out, extra_usd = ((None, of_models, of_rows)[pick] for pick in random.integers(0, 3, 2))
        with_cached = extra_usd
        if random.random() < 0.5:
            saved = (random.random((batch, models)) < 0.3).astype(np.float32)
            with_cached = (np.float32(0) if extra_usd is None else extra_usd) - saved
        given_tokens = None if random.random() < 0.5 else np.where(of_rows > 0, np.float32("nan"), of_rows)
        arguments = batch, terms, tokens_out, extra_usd, with_cached, given_tokens
        assert moved_by(*arguments) == moved_by_definition(*arguments)
