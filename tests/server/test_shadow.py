"""The shadow's own policy goes over the request's: its level replaces it, and its masks add up."""

from __future__ import annotations

from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.bundles import NAMES, make_bundle, make_siblings
from tests.support.local_server import LocalServer

pytest.importorskip("uvicorn", reason=skips.SERVE)
PROMPTS = [f"why python {number} and {number * number}" for number in range(8)]
ALLOWED = list(NAMES[:4])


@pytest.mark.parametrize(
    "shadows", [{}, {"tau": 0.95}, {"exclude": [NAMES[3]]}, {"tau": 0.6, "exclude": [NAMES[3]]}], ids=str
)
def test_the_shadow_decides_by_its_own_policy(tmp_path: Any, shadows: dict[str, Any]) -> None:
    first, second = make_siblings(tmp_path, 2)
    serving, beside = Engine.load(first), Engine.load(second)
    config = {"policy": {"rule": "minmax", "tau": 0.4}, "shadow": {"bundle": str(second), "policy": shadows}}
    said: dict[str, Any] = {"tau": 0.2, "allowed": ALLOWED}
    with LocalServer(first, config) as server:
        replies = [server.post("/v1/route", {"prompt": one, "ipr": said}) for one in PROMPTS]
        counted = server.until(
            lambda: (
                sum(found.values()) == len(PROMPTS) and found
                if (found := {n: v for n, v in server.metrics().items() if n.startswith("ipr_shadow_total")})
                else None
            )
        )
        figures = server.metrics()
    own = [serving.route(one, rule="minmax", **said) for one in PROMPTS]
    assert [reply.body["model"] for reply in replies] == [one.model for one in own]
    its = [beside.route(one, rule="minmax", **{**said, **shadows}) for one in PROMPTS]
    other = [(mine, shadow) for mine, shadow in zip(own, its, strict=True) if mine.model != shadow.model]
    assert counted.get('ipr_shadow_total{choice="other"}', 0) == len(other)
    position = beside.bundle.names.index
    cost = sum(shadow.cost_usd - shadow.usd_of(position(mine.model)) for mine, shadow in other)
    quality = sum(shadow.quality - float(shadow.qualities[position(mine.model)]) for mine, shadow in other)
    assert figures["ipr_shadow_cost_usd"] == pytest.approx(cost)
    assert figures["ipr_shadow_quality"] == pytest.approx(quality)


def test_costs_that_a_request_brings_enter_no_sum(tmp_path: Any) -> None:
    first, second = make_siblings(tmp_path, 2)
    names = Engine.load(first).bundle.names
    config = {"policy": {"rule": "minmax", "tau": 0.4}, "shadow": {"bundle": str(second), "policy": {"tau": 0.95}}}
    with LocalServer(first, config) as server:
        before = server.metrics()
        usd = [0.5 + number for number in range(len(names))]
        for prompt in PROMPTS:
            assert server.post("/v1/route", {"prompt": prompt, "ipr": {"tau": 0.0, "extra_usd": usd}}).status == 200
        server.until(lambda: sum(v for n, v in server.metrics().items() if n.startswith("ipr_shadow_total")) == 8)
        counted = server.counted(before)
    assert counted['ipr_shadow_total{choice="other"}'] > 0
    sums = ("ipr_shadow_cost_usd", "ipr_shadow_quality", "ipr_cost_usd_total", "ipr_saved_usd")
    assert not [name for name in counted if name.startswith(sums)]


def test_policies_of_the_shadow_choose_otherwise(tmp_path: Any) -> None:
    _, second = make_siblings(tmp_path, 2)
    beside = Engine.load(second)

    def chosen(**options: Any) -> list[str]:
        return [
            beside.route(one, **{"rule": "minmax", "tau": 0.2, "allowed": ALLOWED, **options}).model for one in PROMPTS
        ]

    assert len({str(chosen(**one)) for one in ({}, {"tau": 0.95}, {"exclude": [NAMES[3]]})}) > 1


def test_why_the_shadow_cannot_decide_repeats_nothing_of_the_request(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served, beside = make_bundle(tmp_path / "one", models=4), make_bundle(tmp_path / "two", models=2)
    with LocalServer(served, {"policy": {"rule": "minmax"}, "shadow": {"bundle": str(beside)}}) as server:
        assert server.post("/v1/route", {"prompt": PROMPTS[0], "ipr": {"allowed": [NAMES[3]]}}).status == 200
        problem = server.until(lambda: server.get("/ready").body["shadow"]["problem"])
    assert problem == "ipr.allowed: is wrong"
    assert caplog.messages == [f"the shadow bundle cannot decide a request: {problem}"]


BY_NAME = [{"exclude": [NAMES[3]]}, {"exclude": [NAMES[3].upper(), NAMES[0]]}, {"allowed": [NAMES[0], NAMES[3]]}]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        *((one, {}) for one in BY_NAME),
        *(({}, one) for one in BY_NAME),
        ({}, {"tokens_in": {NAMES[3]: 7, NAMES[0]: 9}}),
        ({}, {"cached_tokens": {NAMES[3]: 1}}),
    ],
    ids=str,
)
def test_what_concerns_a_candidate_that_the_shadow_lacks_says_nothing_there(
    tmp_path: Any, policy: dict[str, Any], said: dict[str, Any]
) -> None:
    served, beside = make_bundle(tmp_path / "one", models=4), make_bundle(tmp_path / "two", models=2)
    config = {"policy": {"rule": "minmax", **policy}, "shadow": {"bundle": str(beside)}}
    with LocalServer(served, config) as server:
        assert server.post("/v1/route", {"prompt": PROMPTS[0], "ipr": said}).status == 200
        counted = server.until(
            lambda: [name for name, n in server.metrics().items() if name.startswith("ipr_shadow_total") and n]
        )
        assert server.get("/ready").body["shadow"]["problem"] is None
    assert counted in (['ipr_shadow_total{choice="same"}'], ['ipr_shadow_total{choice="other"}'])


def test_a_reason_is_told_once_though_other_requests_can_be_decided(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    served, beside = make_bundle(tmp_path / "one", models=4), make_bundle(tmp_path / "two", models=2)
    with LocalServer(served, {"policy": {"rule": "minmax"}, "shadow": {"bundle": str(beside)}}) as server:
        for number in range(6):
            allowed = {"ipr": {"allowed": [NAMES[3]]}} if number % 2 else {}
            server.post("/v1/route", {"prompt": PROMPTS[number], **allowed})
            server.until(
                lambda number=number: (
                    sum(n for name, n in server.metrics().items() if name.startswith("ipr_shadow_total")) == number + 1
                )
            )
    assert caplog.messages == ["the shadow bundle cannot decide a request: ipr.allowed: is wrong"]
