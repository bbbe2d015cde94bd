"""A policy decides a plain request in one C++ call as its engine does, and leaves alone what it would not tell in full."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError
from ipr_engine._C import PlainPolicy, has_header
from ipr_engine.decision.written_policy import WrittenPolicy
from ipr_engine.policy.best_position import best_position
from ipr_engine.request.controls import NO_CONTROLS
from tests.support import skips
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.conversations import given_turns
from tests.support.decide_requests import bytes_of
from tests.support.tokenized_bundles import MOST, PROFILES, WINDOWS, limited
from tests.support.two_tier_bundles import join, make_tiers
from tests.support.weighed_bundles import WEIGHTS, figures_of, weighed_bundle

pytest.importorskip("orjson", reason=skips.SERVE)
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.decision_json import decision_dict
from ipr_engine.server.plain_decisions import plain_policy
from ipr_engine.server.tenants import ANYBODY
from ipr_engine.serving.decision_writer import written as written_of

PREFIX, NUMBER = "0a1B", 0xFE
ID = "0a1B000000fe"
CHARACTERS = 20_000
BOTH = {(left, stated) for left in (False, True) for stated in (False, True)}
WAYS = {
    "own tokenizers": BOTH - {(False, False)},  # no window is so wide that any answer fits
    "own tokenizers, wide": BOTH,
    "own tokenizers, no bound": BOTH,
    "none of them": BOTH - {(False, True)},
    "none, no windows": {(False, False), (True, True)},
}
"""Engine -> (whether a request was left, whether it states a limit), of all that were tried."""


def asked_of(engine: Engine, **options: Any) -> AskedPolicy:
    policy = engine.policy(**options)
    return AskedPolicy(policy, {**policy.exclusions, 'another "model"': "é"}, best_position(policy, engine.bundle))


def plain_of(engine: Engine, asked: AskedPolicy) -> PlainPolicy:
    made = plain_policy(asked, engine.bundle, CHARACTERS)
    assert made is not None
    return made


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Engine]:
    folder = tmp_path_factory.mktemp("plain")
    unknown = (None,) * 5
    wide = [None if window is None else 40 * window for window in WINDOWS]
    return {
        "own tokenizers": Engine(limited(folder / "own")),
        "own tokenizers, wide": Engine(limited(folder / "wide", wide, MOST)),
        "own tokenizers, no bound": Engine(limited(folder / "unbound", wide, unknown)),
        "none of them": Engine(limited(folder / "none", wide, MOST, unknown)),
        "none, no windows": Engine(limited(folder / "nothing", unknown, unknown, unknown, support=False)),
        **{
            name: Engine.load(given_turns(folder / name, bundle_parts(folder / f"of {name}", models=5), name))
            for name in ("last", "recency")
        },
    }


texts = st.builds(
    lambda text, times: text * times,
    st.sampled_from(("why ", "what is the story", "Почему небо? ", "空はなぜ青いのか。", "x", "👍🏽", " ", "\u200b")),
    st.integers(0, 900) | st.integers(0, 5),
)
turns = st.lists(
    st.builds(
        lambda role, text: {"role": role, "content": text}, st.sampled_from(("user", "system", "assistant")), texts
    ),
    min_size=1,
    max_size=4,
)
stated = st.sampled_from((None, 0, 1, 39, 40, 41, 300, 301, 2000, 2001, 36_000, 10**7)) | st.integers(0, 40_000)
requests = st.builds(lambda said, most: {"messages": said, "max_tokens": most}, texts | turns, stated)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(request=requests, tau=st.sampled_from((0.0, 0.3, 1.0)), name=st.integers(0, 6))
def test_a_plain_request_is_decided_as_the_engine_does(
    engines: dict[str, Engine], request: dict[str, Any], tau: float, name: int
) -> None:
    engine = list(engines.values())[name]
    asked = asked_of(engine, tau=tau)
    loaded, policy = engine.loaded, asked.policy
    written, wrong = None, None
    try:
        written = written_of(loaded, request, policy, plain_of(engine, asked), PREFIX, NUMBER)
    except InvalidInputError as error:
        wrong = error
    try:
        row = engine.route_many([request], policy, on_error="status")[0]
    except InvalidInputError as error:
        refused = str(error)
        assert written is None
        assert wrong is None or "prompt" in refused
        return
    if wrong is not None:
        assert row.status == "invalid_input"
        return
    size = sum(len(turn["content"]) for turn in request["messages"]) if type(request["messages"]) is list else 0
    if written is None:
        assert row.status != "ok" or row.may_keep_out or row.cause == "unsupported" or size > CHARACTERS - 8
        return
    made = written.decision()
    one = Decided.of(ID, AskedRequest(None, NO_CONTROLS, ANYBODY, "auto"), asked, made, 0)
    assert json.loads(written.json) == decision_dict(one)
    assert not row.may_keep_out
    assert made.to_dict() == row.to_dict()
    assert bytes_of(made.result) == bytes_of(row.result)
    assert (made.inputs.limits is None) == (request["max_tokens"] is None)


def test_each_bound_is_as_the_decision_tells_it(engines: dict[str, Engine]) -> None:
    for name in WAYS:
        engine = engines[name]
        asked = asked_of(engine, tau=0.3)
        plain, ways = plain_of(engine, asked), set()
        for words in (1, 8, 40, 90, 300, 1300, 3000):
            for most in (None, 0, 30, 40, 41, 250, 3400, 4750, 4799, 35_000, 1 << 20):
                request = {"prompt": "why " * words, "max_tokens": most}
                written = written_of(engine.loaded, request, asked.policy, plain, PREFIX, NUMBER)
                row = engine.route_many([request], asked.policy, on_error="status")[0]
                assert (written is None) == (row.status != "ok" or row.may_keep_out), (name, words, most)
                ways.add((written is None, most is not None))
        assert ways == WAYS[name], name


@pytest.mark.parametrize("name", ["own tokenizers, no bound", "none, no windows"])
def test_a_request_at_a_bound_is_as_the_decision_says_of_it(engines: dict[str, Engine], name: str) -> None:
    engine, request = engines[name], {"prompt": "why " * 30}
    policy = engine.policy(tau=0.3)
    words = WrittenPolicy.of(policy, engine.bundle).words

    def is_plain(stated: int | None, billed: float = math.inf, own: float = math.inf, window: float = math.inf) -> bool:
        plain = PlainPolicy(policy.compiled, words, b"}", 0, billed, own, window, 1000, CHARACTERS)
        made = plain.route(engine.loaded.router, {**request, "max_tokens": stated}, "a", 0)
        return made is not None

    row = engine.route(request, policy)
    if row.own_tokens is None:
        assert not is_plain(None, billed=row.billed_tokens)
        assert is_plain(None, billed=row.billed_tokens + 1)
        return
    most = float(row.own_tokens.max())
    assert not is_plain(None, own=most)
    assert is_plain(None, own=most + 1)
    assert is_plain(40, window=most + 40)
    assert not is_plain(40, window=most + 39)


def test_what_more_than_the_policy_decides_is_left(engines: dict[str, Engine], tmp_path: Path) -> None:
    engine = Engine(weighed_bundle(tmp_path / "weighed"))
    weighed = asked_of(engine, tau=0.3, cost_weights=WEIGHTS, performance=figures_of(engine.bundle.names))
    assert plain_policy(weighed, engine.bundle, CHARACTERS) is None
    two = Engine(join(tmp_path / "tiers", make_tiers(tmp_path / "tiers", models=4), gap=0.05))
    assert plain_policy(asked_of(two, tau=0.3), two.bundle, CHARACTERS) is None
    assert plain_policy(asked_of(two, tau=0.3, escalate_below=0.0), two.bundle, CHARACTERS) is not None
    engine = engines["none, no windows"]
    asked = asked_of(engine, tau=0.3)
    held = replace(asked, policy=replace(asked.policy, reserve=asked.policy.allowed[:1]))
    assert plain_policy(held, engine.bundle, CHARACTERS) is None
    request, plain = {"prompt": "why?"}, plain_of(engine, asked)
    assert written_of(engine.loaded, request, asked.policy, plain, PREFIX, NUMBER) is not None
    for other in ("why?", [{"role": "user", "content": "why?"}], {"prompt": "w" * (CHARACTERS + 1)}, {"prompt": 7}, {}):
        assert written_of(engine.loaded, other, asked.policy, plain, PREFIX, NUMBER) is None
    with pytest.raises(InvalidInputError, match="without one token"):
        written_of(engine.loaded, {"prompt": ""}, asked.policy, plain, PREFIX, NUMBER)
    near = Engine.load(make_bundle(tmp_path / "near", models=5, context_windows=[None] * 5))
    unsupported = asked_of(near, tau=0.3, min_support=1.0, unsupported="cheapest")
    assert written_of(near.loaded, request, unsupported.policy, plain_of(near, unsupported), PREFIX, NUMBER) is None
    best = asked_of(engine, tau=0.3)
    unknown = replace(best, best=None, written=[])
    written = written_of(engine.loaded, request, best.policy, plain_of(engine, unknown), PREFIX, NUMBER)
    assert written is not None
    assert json.loads(written.json)["saved_usd"] is None


def test_its_arguments_are_checked(engines: dict[str, Engine], default_engine: Engine) -> None:
    engine = engines["none of them"]
    asked = asked_of(engine, tau=0.3)
    plain, router = plain_of(engine, asked), engine.loaded.router
    for number, id in ((0, "00000000"), (2**32, "100000000"), (2**64 - 1, "f" * 16)):
        made = plain.route(router, {"prompt": "why"}, "", number)
        assert made is not None
        assert json.loads(made[0])["id"] == id
    with pytest.raises(InvalidInputError, match="prefix: expected letters and digits"):
        plain.route(router, {"prompt": "why"}, 'a"', 0)
    with pytest.raises(InvalidInputError, match="router: expected one of 5 models, got 11"):
        plain.route(default_engine.loaded.router, {"prompt": "why"}, "a", 0)
    with pytest.raises(TypeError):
        plain.route(router, {"prompt": "why"}, "a", -1)
    bounds = (1.0, 1.0, 1.0, 1, 1)
    words = ((b'"a"',) * 5, (b"null",) * 5, (b'"c"',) * 6, np.ones(5).tobytes())
    with pytest.raises(InvalidInputError, match="best: expected -1 to 4, got 5"):
        PlainPolicy(asked.policy.compiled, words, b"}", 5, *bounds)
    for wrong in (words[:3], ((b'"a"',), *words[1:]), (words[0], words[1], words[2][1:], words[3]), (*words[:3], b"")):
        with pytest.raises(TypeError):
            PlainPolicy(asked.policy.compiled, wrong, b"}", 0, *bounds)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        PlainPolicy(asked, words, b"}", 0, *bounds)  # type: ignore[arg-type]


def test_headers_are_found_by_name_and_by_what_they_begin_with() -> None:
    headers = [(b"host", b"x"), (b"x-ipr-tau", b"0.3"), (b"accept", b"origin")]
    for names, prefix, found in (
        ((), b"x-ipr-", True),
        ((), b"x-ipr-tau-", False),
        ((b"host",), b"y", True),
        ((b"hos", b"hosts"), b"y", False),
        ((b"origin",), b"y", False),
        ((), b"", True),
    ):
        assert has_header(headers, names, prefix) is found
    assert has_header([], (b"host",), b"") is False
    assert has_header([[b"accept", b"x"], [b"x-ipr-tau", b"0.3"]], (), b"x-ipr-") is True  # type: ignore[list-item]
    for wrong in (((b"host", b"x"),), [b"host"], [(b"host",)], [[b"host"]], [("host", b"x")]):
        with pytest.raises(TypeError):
            has_header(wrong, (b"host",), b"x")  # type: ignore[arg-type]
    assert has_header(headers, (b"accept",), None) is True
    assert has_header(headers, (), None) is False
    with pytest.raises(TypeError):
        has_header(headers, ("host",), b"x")  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        has_header(headers, (), "x")  # type: ignore[arg-type]


def test_the_profiles_of_these_candidates_are_their_own(engines: dict[str, Engine]) -> None:
    assert [engines[name].loaded.router.has_tokenizers for name in WAYS] == [True, True, True, False, False]
    assert len(PROFILES) == 5
