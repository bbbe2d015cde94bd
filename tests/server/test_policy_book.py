"""The policy of a request is what server, model, tenant and request say together; who is at fault is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.policy.rules import DEFAULT_TAU
from ipr_engine.request.controls import NO_CONTROLS, Controls, read_controls
from ipr_engine.server.decided import AskedRequest
from ipr_engine.server.policy_book import PolicyBook
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.request_formats import MESSAGES
from ipr_engine.server.server_config import Endpoint, ServerConfig, Tenant
from ipr_engine.server.tenants import ANYBODY
from tests.support.server_configs import EVERY, OPENAI

CLAUDE = Tenant(name="claude", keys_sha256=(64 * "0",), policy={"family": "claude", "tau": 0.6})


def said(headers: dict[str, str]) -> Controls:
    return read_controls(headers.items(), [])


def question(controls: Controls = NO_CONTROLS, tenant: Tenant = ANYBODY, **more: Any) -> AskedRequest:
    return AskedRequest(None, controls, tenant, "auto", **more)


def test_without_an_aim_tau_is_that_of_the_seats(default_engine: Engine) -> None:
    book = PolicyBook(default_engine, ServerConfig())
    assert asyncio.run(book.of(question())).policy.tau == pytest.approx(DEFAULT_TAU)
    assert asyncio.run(book.of(question(said({"x-ipr-tau": "0"})))).policy.tau == 0


def test_aims_replace_each_other_and_masks_add_up(default_engine: Engine) -> None:
    config = ServerConfig(policy={"tau": 0.2, "requires": "vision"}, models={"auto": {"preset": "cost"}})
    book = PolicyBook(default_engine, config)
    sees = set(default_engine.policy(tau=0, requires="vision").allowed)
    claude = set(default_engine.policy(tau=0, requires="vision", family="claude").allowed)
    (first, *_) = sorted(claude)
    for asked, allowed, aim in (
        (question(), sees, {"preset": "cost"}),
        (question(tenant=CLAUDE), claude, {"tau": 0.6}),
        (question(said({"x-ipr-quality-share": "0.97"}), CLAUDE), claude, {"quality_share": 0.97}),
        (question(said({"x-ipr-exclude": first}), CLAUDE), claude - {first}, {"tau": 0.6}),
        (question(said({"x-ipr-family": "claude"}), among=tuple(sees)), claude, {"preset": "cost"}),
    ):
        made = book.compile(asked)
        names = [name for name in default_engine.bundle.names if name in allowed]
        assert made.policy == default_engine.policy(**aim, allowed=names)
        assert set(made.exclusions) == {*default_engine.bundle.names} - allowed


def test_what_is_last_goes_over_the_requests(default_engine: Engine) -> None:
    last = {"tau": 1.0, "exclude": [EVERY[0]]}
    made = PolicyBook(default_engine, ServerConfig(), last).compile(question(said({"x-ipr-tau": "0.1"})))
    assert made.policy == default_engine.policy(tau=1.0, exclude=[EVERY[0]])


def refusal(book: PolicyBook, asked: AskedRequest) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        asyncio.run(book.of(asked))
    return refused.value


def test_a_requests_fault_is_told_by_its_controls_name(default_engine: Engine) -> None:
    book = PolicyBook(default_engine, ServerConfig())
    found = refusal(book, question(said({"x-ipr-family": "gpt-9", "x-ipr-tau": "0.1"})))
    assert (found.status, found.param) == (400, "x-ipr-family")


def test_another_fault_is_not_blamed_on_the_request(default_engine: Engine) -> None:
    book = PolicyBook(default_engine, ServerConfig(policy={"exclude": ["gone"]}))  # as after a swap
    found = refusal(book, question(said({"x-ipr-tau": "0.1"})))
    assert (found.status, found.param) == (503, None)  # the server's own fault: another may answer
    found = refusal(PolicyBook(default_engine, ServerConfig()), question(said({"x-ipr-tau": "2"})))
    assert found.param == "x-ipr-tau"


def test_who_cannot_speak_the_format_is_left_out_by_that_cause(default_engine: Engine) -> None:
    chat, every, silent = OPENAI[0], EVERY[0], EVERY[1]
    endpoints = {
        "chat": Endpoint(base_url="http://any/v1", formats=("openai-chat",)),
        "every": Endpoint(base_url="http://any/v1", formats=("openai-chat", "anthropic-messages")),
    }
    config = ServerConfig(endpoints=endpoints, upstreams={chat: "chat", every: "every"})
    made = PolicyBook(default_engine, config).compile(question(form=MESSAGES))
    assert made.policy.allowed == (every,)
    assert made.exclusions[chat] == "format: its upstream speaks openai-chat, not anthropic-messages"
    assert made.exclusions[silent] == "upstream: none is configured"
    assert made.masked == (chat,)
