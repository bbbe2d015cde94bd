"""`to_json` says what `to_dict` says, whether a row is written in C++ or not."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine._C import DecidePlan, DecidePolicy, decide_result, decision_json, largest
from ipr_engine.bundle import BundleParts, with_calibrations, write_bundle
from ipr_engine.decide.contract import CAUSE, Heads
from ipr_engine.decision.written_policy import RowWords, json_bytes
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.serving.fallback import DegradedDecision
from tests.support.bundles import bundle_parts, make_bundle, make_prices
from tests.support.calibration_maps import make_map
from tests.support.tokenized_bundles import tokenized
from tests.support.two_tier_bundles import join, make_tiers
from tests.support.weighed_bundles import WEIGHTS, figures_of, weighed_bundle

CHAT = [{"role": "user", "content": "what is the story"}]
PROMPTS: list[Any] = [
    "why",
    "what is the story",
    "a b c " * 400,
    CHAT,
    {"messages": CHAT, "max_tokens": 40},
    {"messages": CHAT, "max_tokens": 9000, "n": 2},
    {"messages": CHAT, "tools": [{"type": "function", "function": {"name": "f"}}]},
    "",
]
TERMS: list[dict[str, Any]] = [
    {"tau": 0.0},
    {"tau": 0.4, "worth": 0.01},
    {"tau": 1.0},
    {"tau": 0.2, "rule": "max", "slack": 0.1},
    {"tau": 0.5, "exclude": ["beta/mid"]},
    {"tau": 0.5, "allowed": ["alpha/large"]},
    {"tau": 0.5, "min_support": 1.0, "unsupported": "alpha/large"},
    {"tau": 0.5, "min_support": 1.0, "unsupported": "cheapest"},
]
ODD_NAMES = ['quo"ted\\', "новый/модель", "tab\tline\n", "日本/😀", "plain"]


def is_said_alike(row: Any) -> bool:
    """Return whether a decision was written in C++, once its JSON was compared with its `to_dict`."""
    written, told = row.to_json(), row.to_dict()
    assert json.loads(written) == told
    assert list(json.loads(written)) == list(told)
    floats = {name for name, value in told.items() if type(value) is float}
    assert {name for name, value in json.loads(written).items() if type(value) is float} == floats
    return row.own_json() is not None


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    work = tmp_path_factory.mktemp
    folder = work("two")
    return {
        "plain": Engine.load(make_bundle(work("one"), models=5, dim=16, context_windows=[None] * 5)),
        "windows": Engine.load(make_bundle(work("windows"), models=5, context_windows=[1000, None, 800, 600, None])),
        "two tiers": Engine(join(folder, make_tiers(folder), gap=0.05)),
        "own tokens": Engine(tokenized(work("tokens"))),
        "without support": Engine.load(make_bundle(work("bare"), models=3, support=False)),
    }


KINDS = ["plain", "windows", "two tiers", "own tokens", "without support"]
ASKED = [(kind, terms) for kind in KINDS for terms in TERMS if kind != "without support" or "min_support" not in terms]


@pytest.mark.parametrize(("kind", "terms"), ASKED, ids=str)
def test_every_decision_is_said_alike(engines: dict[str, Engine], kind: str, terms: dict[str, Any]) -> None:
    engine = engines[kind]
    rows = list(engine.route_many(PROMPTS, on_error="status", **terms))
    rows += [engine.route(prompt, **terms) for prompt, row in zip(PROMPTS, rows, strict=True) if row.status == "ok"]
    short = [is_said_alike(row) for row in rows]
    assert short[len(PROMPTS) - 1] is False  # it failed
    for row in rows[:3]:
        crossed = pickle.loads(pickle.dumps(row))
        assert (is_said_alike(crossed), crossed.to_json()) == (is_said_alike(row), row.to_json())


def test_most_decisions_are_written_in_c(engines: dict[str, Engine]) -> None:
    for kind in ("plain", "own tokens", "without support"):
        engine = engines[kind]
        rows = [engine.route("why", tau=0.4), engine.route_many(["why"], tau=0.4)[0], engine.route(CHAT, tau=0.4)]
        assert all(is_said_alike(row) for row in rows)
    assert is_said_alike(engines["own tokens"].route({"messages": CHAT, "max_tokens": 9}, tau=0.4))


def test_what_a_caller_gives_is_said_alike(engines: dict[str, Engine]) -> None:
    engine = engines["own tokens"]
    names = engine.bundle.names
    given: list[dict[str, Any]] = [
        {"billed_tokens": 70},
        {"tokens_out": 3.0, "extra_usd": [0.0] * (len(names) - 1) + [0.25]},
        {"tokens_in": {names[0]: 9}},
        {"cached_tokens": {names[0]: 1}},
    ]
    assert not any(is_said_alike(engine.route("why is that so", tau=0.3, **one)) for one in given[:3])
    for one in given:
        is_said_alike(engine.route("why is that so", tau=0.3, **one))


def test_weighed_costs_are_said_alike(tmp_path: Any) -> None:
    engine = Engine(weighed_bundle(tmp_path))
    figures = figures_of(engine.bundle.names)
    weighed = engine.route("what is the sum", tau=0.3, cost_weights=WEIGHTS, performance=figures)
    assert not is_said_alike(weighed)
    assert json.loads(weighed.to_json())["cost_terms"] == weighed.cost_terms._asdict()  # type: ignore[union-attr]
    assert is_said_alike(engine.route("what is the sum", tau=0.3))


def test_a_policy_that_holds_some_in_reserve_or_went_stale_is_said_alike(tmp_path: Any) -> None:
    bundle = Engine.load(make_bundle(tmp_path, models=3)).bundle
    engine = Engine.load(with_calibrations(bundle, [make_map(bundle)], activate=False))
    policy = engine.policy(tau=0.1, rule="calibrated")
    before = engine.route("why", policy)
    assert is_said_alike(before)
    engine.mark_stale(DriftEvidence(kind="stated", message='the "product" changed'))
    assert not is_said_alike(engine.route("why", policy))
    assert json.loads(before.to_json())["calibration"] == "stale"
    first = engine.policy(tau=0.12, rule="calibrated")  # its first decision is written while it is stale
    stale = engine.route("why", first)
    assert not is_said_alike(stale)
    engine.mark_stale(None)
    assert is_said_alike(stale)
    assert is_said_alike(before)
    held = replace(policy, reserve=(bundle.names[0],), allowed=bundle.names[1:])
    before.policy = held
    assert not is_said_alike(before)


def test_a_decision_of_the_fallback_is_said_alike(engines: dict[str, Engine]) -> None:
    row = engines["plain"].route("why", tau=0.3)
    for kind in ("static", "candidate"):
        late = DegradedDecision(row.result, 0, row.policy, row.bundle, row.billed_tokens, row.truncated, row.support)
        late.degraded = kind
        assert not is_said_alike(late)
        assert json.loads(late.to_json())["degraded"] == kind


def test_a_support_that_is_no_number_is_null(engines: dict[str, Engine]) -> None:
    row = engines["plain"].route("why", tau=0.3)
    for support in (float("nan"), None, 0.0, 1.0, 1e-7):
        row.support = support
        assert is_said_alike(row)


def test_names_are_quoted(tmp_path: Any) -> None:
    parts = bundle_parts(tmp_path / "sources", models=5)
    candidates = [replace(one, name=name) for one, name in zip(parts["candidates"], ODD_NAMES, strict=True)]
    heads = [replace(parts["heads"][0], candidates=ODD_NAMES)]
    parts |= {"candidates": candidates, "heads": heads, "prices": make_prices(candidates)}
    engine = Engine.load(write_bundle(tmp_path / "bundles", BundleParts(**parts)))
    chosen = set()
    for tau in (0.0, 0.1, 0.3, 1.0):
        for name in ODD_NAMES:
            row = engine.route("why", tau=tau, exclude=[name])
            assert is_said_alike(row)
            chosen.add(row.model)
    assert len(chosen) > 1


MODELS = 3
WORDS = RowWords(
    tuple(json_bytes(name) for name in "abc"),
    (b"null", b'"prior"', b"null"),
    tuple(json_bytes(cause) for cause in CAUSE),
    np.array([1.0, 1.5, 2.0]).tobytes(),
)


def made(quality: float = 0.5, gap: float = 0.25, index: int = 1, cause: int = 3) -> tuple[Any, DecidePolicy]:
    """Return the result of one row, and a policy that could have decided it."""
    plan = DecidePlan(Heads(skip=np.ones((MODELS, 2), np.float32), bias=np.zeros(MODELS, np.float32)))
    zeros = np.zeros(MODELS, np.float32)
    row = np.full((1, MODELS), quality, np.float32)
    result = decide_result(
        quality=row,
        tokens_out=row * 100,
        cost_usd=row / 1000,
        threshold=np.float32([quality]),
        gap=np.float32([gap]),
        index=np.int32([index]),
        status=np.uint8([0 if index >= 0 else 1]),
        cause=np.uint8([cause]),
    )
    return result, DecidePolicy(plan, 1.0, 0.0, 0.0, 0.0, zeros, zeros, zeros, np.ones(MODELS, np.bool_))


def test_every_float_reads_back_as_it_was(rng: np.random.Generator) -> None:
    values = [
        *rng.random(200, np.float32).tolist(),
        *(float(np.float32(2) ** -e) for e in range(0, 140, 7)),
        0.0,
        1.0,
        1e-5,
    ]
    for value in values:
        result, policy = made(quality=value, gap=value)
        written = decision_json(result, 0, policy, WORDS, None, 2**53, True, value)
        assert written is not None
        told = json.loads(b"{" + written + b"}")
        assert (told["quality"], told["gap"], told["support"]) == (result.quality_at(0, 1), result.gap_at(0), value)
        assert (told["cost_usd"], told["cost"]) == (result.cost_at(0, 1),) * 2
        assert (told["tokens_out"], told["threshold"]) == (result.tokens_at(0, 1), result.threshold_at(0))
        assert (told["tokens_in"], told["billed_tokens"], told["truncated"]) == (2**53 * 1.5, 2**53, True)
        assert (told["prior"], told["model"]) == ("prior", "b")
        assert all(type(told[name]) is float for name in ("quality", "gap", "support", "cost", "tokens_in"))


def test_an_infinite_gap_is_null_and_own_tokens_are_the_candidates() -> None:
    result, policy = made(gap=float("inf"))
    own = np.float32([7, 8.5, 9]).tobytes()
    told = json.loads(b"{" + (decision_json(result, 0, policy, WORDS, own, 5, False, None) or b"") + b"}")
    assert (told["gap"], told["tokens_in"], told["support"], told["truncated"]) == (None, 8.5, None, False)


@pytest.mark.parametrize("row", [{"index": -1, "cause": 0}, {"cause": CAUSE.index("unsupported")}])
def test_a_row_that_is_not_plain_is_not_written(row: dict[str, Any]) -> None:
    result, policy = made(**row)
    assert decision_json(result, 0, policy, WORDS, None, 5, False, None) is None


@pytest.mark.parametrize(
    ("at", "wrong", "error"),
    [
        (0, "result", TypeError),
        (1, 1, IndexError),
        (1, -1, IndexError),
        (1, "x", TypeError),
        (2, "policy", TypeError),
        (3, (), TypeError),
        (3, WORDS._replace(names=WORDS.names[1:]), TypeError),
        (3, WORDS._replace(priors=("null",) * MODELS), TypeError),
        (3, WORDS._replace(causes=()), TypeError),
        (3, WORDS._replace(ratios=b"1"), TypeError),
        (4, b"123", TypeError),
        (4, [1.0], TypeError),
        (5, 2**70, OverflowError),
        (5, "x", TypeError),
        (6, 1, TypeError),
        (7, "x", TypeError),
    ],
)
def test_a_wrong_argument_is_refused(at: int, wrong: Any, error: type[Exception]) -> None:
    result, policy = made()
    arguments = [result, 0, policy, WORDS, None, 5, False, None]
    assert decision_json(*arguments)
    arguments[at] = wrong
    with pytest.raises(error):
        decision_json(*arguments)
    with pytest.raises(TypeError):
        decision_json(*arguments[:-1])


def test_the_largest_of_own_tokens_is_that_of_numpy(rng: np.random.Generator) -> None:
    for count in (1, 2, 11, 40):
        values = rng.standard_normal(count).astype(np.float32) * 1000
        assert largest(values.tobytes()) == values.max()
        values[rng.integers(count)] = np.nan
        assert np.isnan(largest(values.tobytes()))
    for wrong in (b"", b"123", [1.0], None):
        with pytest.raises(TypeError):
            largest(wrong)
