"""A server's JSON of a decision says what its dictionary says: what its policy says is written once, the rest for each decision."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.bundle import with_calibrations
from ipr_engine.decision.decision import Decision
from ipr_engine.policy.best_position import best_position
from ipr_engine.policy.calibrated import DriftEvidence
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.serving.fallback import DegradedDecision
from tests.support import skips
from tests.support.bundles import make_bundle
from tests.support.calibration_maps import make_map
from tests.support.weighed_bundles import WEIGHTS, figures_of, weighed_bundle

pytest.importorskip("orjson", reason=skips.SERVE)
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.decision_json import decision_dict, decision_json
from ipr_engine.server.tenants import ANYBODY

CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what is the story"}]
TOOLS = [{"type": "function", "function": {"name": "f"}}]
BODIES: list[Any] = [
    "why is the sky blue?",
    CHAT,
    {"messages": CHAT, "max_tokens": 40},
    {"messages": CHAT, "max_tokens": 10**6},
    {"messages": CHAT, "tools": TOOLS},
    "a b c " * 40_000,
]


def asked_of(engine: Engine, **options: Any) -> AskedPolicy:
    policy = engine.policy(**options)
    exclusions = {**policy.exclusions, 'another "model"': "format: its upstream speaks é"}
    return AskedPolicy(policy, exclusions, best_position(policy, engine.bundle))


def decided(asked: AskedPolicy, decision: Decision, id: str = "0a1b", assumed: int = 0) -> Decided:
    return Decided.of(id, AskedRequest(None, NO_CONTROLS, ANYBODY, "auto"), asked, decision, assumed)


def is_said_alike(one: Decided) -> bool:
    """Return whether a decision's own figures were written in C++, once its JSON was compared with its dictionary."""
    written, told = decision_json(one), decision_dict(one)
    assert json.loads(written) == told
    assert decision_json(one) == written
    assert set(json.loads(written)["excluded"]) >= {'another "model"'}
    policy_part = one.asked.written[0] if one.asked.written else b""
    return bool(policy_part) and written.endswith(policy_part)


@pytest.mark.parametrize(
    "options", [{"tau": 0.0}, {"tau": 0.3}, {"tau": 1.0}, {"tau": 0.3, "rule": "minmax", "worth": 0.02}], ids=str
)
def test_each_request_is_said_alike(default_engine: Engine, options: dict[str, Any]) -> None:
    asked = asked_of(default_engine, **options)
    for number, body in enumerate(BODIES):
        made = default_engine.route_many([body], asked.policy, on_error="status")[0]
        one = decided(asked, made, 'an "id" \\ é', assumed=1000 * number)
        is_said_alike(one)
        assert json.loads(decision_json(one))["saved_usd"] == one.saved
    assert len(asked.written) == 1


def test_a_plain_decision_has_its_policys_part_from_the_first(default_engine: Engine) -> None:
    asked = asked_of(default_engine, tau=0.3)
    for body in BODIES[:3]:
        assert is_said_alike(decided(asked, default_engine.route(body, asked.policy)))
    unknown = replace(asked, best=None, written=[])
    one = decided(unknown, default_engine.route(BODIES[0], asked.policy))
    assert is_said_alike(one)
    assert json.loads(decision_json(one))["saved_usd"] is None


def test_a_decision_of_another_policy_is_written_whole(default_engine: Engine) -> None:
    asked = asked_of(default_engine, tau=0.3)
    one = decided(asked, default_engine.route(BODIES[0], default_engine.policy(tau=0.9)))
    assert not is_said_alike(one)
    assert json.loads(decision_json(one))["tau"] == 0.9


def test_what_a_caller_gave_is_written_whole(default_engine: Engine) -> None:
    asked = asked_of(default_engine, tau=0.3)
    for given in ({"billed_tokens": 70}, {"tokens_out": 3.0}, {"tokens_in": {default_engine.bundle.names[0]: 9}}):
        made = default_engine.route(BODIES[0], asked.policy, **given)  # type: ignore[arg-type]
        assert is_said_alike(decided(asked, made)) is not bool(made.inputs.moved)


def test_costs_that_are_weighed_and_a_fallback_are_written_whole(tmp_path: Any) -> None:
    engine = Engine(weighed_bundle(tmp_path))
    asked = asked_of(engine, tau=0.3, cost_weights=WEIGHTS, performance=figures_of(engine.bundle.names))
    assert not is_said_alike(decided(asked, engine.route("what is the sum", asked.policy)))
    plain = asked_of(engine, tau=0.3)
    row = engine.route("what is the sum", plain.policy)
    late = DegradedDecision(row.result, 0, row.policy, row.bundle, row.billed_tokens, row.truncated, row.support)
    late.degraded = "candidate"
    assert not is_said_alike(decided(plain, late))


def test_support_below_the_least_is_written_whole(tmp_path: Any) -> None:
    engine = Engine.load(make_bundle(tmp_path, models=5))
    for to in ("cheapest", engine.bundle.names[1]):
        asked = asked_of(engine, tau=0.3, min_support=1.0, unsupported=to)
        one = decided(asked, engine.route("what is the story", asked.policy))
        assert one.decision.cause == "unsupported"
        assert not is_said_alike(one)


def test_a_mark_of_drift_is_told_while_it_stands_and_never_kept(tmp_path: Any) -> None:
    bundle = Engine.load(make_bundle(tmp_path, models=3)).bundle
    engine = Engine.load(with_calibrations(bundle, [make_map(bundle)], activate=False))
    asked = asked_of(engine, tau=0.1, rule="calibrated")
    one = decided(asked, engine.route("why", asked.policy))
    told = []
    for evidence in (DriftEvidence(kind="stated", message='the "product" changed'), None) * 2:
        engine.mark_stale(evidence)
        is_said_alike(one)
        told.append(json.loads(decision_json(one))["calibration"])
    assert told == ["stale", one.decision.policy.certificate.status] * 2
