"""Keys and the text of prompts stand in no log, error, header or metric."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.http_calls import Reply, nobody
from tests.support.server_configs import (
    CHAT,
    EVERY,
    KEYS,
    MESSAGES,
    PATHS,
    RESPONSES,
    TEAM_KEY,
    body_of,
    gateway_config,
)
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

CANARY = "zq-canary-prompt-5d81"
FORMS = (CHAT, RESPONSES, MESSAGES)


@pytest.fixture
def talkative(provider: UpstreamStub, tmp_path: Path) -> Iterator[ServerProcess]:
    """A gateway that logs requests and records decisions."""
    provider.reset()
    config = gateway_config(provider.url, nobody())
    config["records"] = {"path": str(tmp_path / "records.jsonl")}
    authorization = {"authorization": f"Bearer {TEAM_KEY}"}
    with ServerProcess(tmp_path, config, environment=KEYS, headers=authorization) as server:
        yield server
    provider.reset()


def wrong_bodies() -> list[tuple[str, Any, dict[str, str | None]]]:
    """Return requests that are refused, the canary wherever a client may put it."""
    deep: Any = CANARY
    for _ in range(600):
        deep = [deep]
    found: list[tuple[str, Any, dict[str, str | None]]] = []
    for form in FORMS:
        path, turns = PATHS[form], "input" if form == RESPONSES else "messages"
        found += [
            (path, f'{{"{CANARY}'.encode(), {}),
            (path, [CANARY], {}),
            (path, {"model": "auto", turns: {CANARY: CANARY}}, {}),
            (path, {"model": "auto", turns: [CANARY, 7]}, {}),
            (path, {"model": "auto", turns: [{"role": "user", "content": [{"type": "none", "text": CANARY}]}]}, {}),
            (path, {"model": "auto", turns: [{"role": "user", "content": deep}]}, {}),
            (path, body_of(form, CANARY, tools=CANARY), {}),
            (path, body_of(form, CANARY, tools=[{CANARY: CANARY}], n=CANARY, max_tokens=CANARY), {}),
            (path, body_of(form, CANARY), {"authorization": f"Bearer {CANARY}"}),
            (path, body_of(form, CANARY), {"x-ipr-tau": "1.5"}),
        ]
    found += [
        ("/v1/route", {"prompt": [CANARY, {}]}, {}),
        (
            "/v1/decisions",
            {"input": CANARY, "questions": [{"type": "choice", "choices": [7], "instructions": CANARY}]},
            {},
        ),
        ("/v1/systemone", {"state": CANARY, "questions": {"q": {"type": "choice", "instructions": CANARY}}}, {}),
        (PATHS[CHAT], {"model": "ipr-judge", "messages": [{"role": "user", "content": CANARY}]}, {}),
    ]
    return found


def test_nothing_of_a_prompt_or_key_is_told(talkative: ServerProcess, provider: UpstreamStub, tmp_path: Path) -> None:
    replies: list[Reply] = []
    for path, body, headers in wrong_bodies():
        reply = talkative.post(path, body, headers)
        assert 400 <= reply.status < 500, (path, body, reply.content)
        replies.append(reply)
    for form in FORMS:  # what is answered, what fails at its upstream, what is cut
        for stream in (False, True):
            assert talkative.post(PATHS[form], body_of(form, CANARY, stream=stream)).status == 200
        for how in ("cut", "close"):
            provider.fail(EVERY[0], how)
            replies.append(talkative.post(PATHS[form], body_of(form, CANARY, model=EVERY[0], stream=True)))
    provider.fail(EVERY[0], "status", status=403, message=f"{KEYS['TEST_PROVIDER_KEY']} may not")
    replies.append(talkative.post(PATHS[CHAT], body_of(CHAT, CANARY, model=EVERY[0])))
    replies.append(talkative.post("/v1/route", {"prompt": CANARY, "ipr": {"explain": True}}))
    replies += [talkative.get(path) for path in ("/metrics", "/ready", "/health", "/v1/models", f"/{CANARY}")]
    count = len(replies) + 2 * len(FORMS) - 4
    until(lambda: talkative.printed().count('"status":') >= count - 1)
    told = {
        f"reply {number}": reply.content + json.dumps(dict(reply.headers)).encode()
        for number, reply in enumerate(replies)
    }
    told |= {"log": talkative.log.read_bytes(), "records": (tmp_path / "records.jsonl").read_bytes()}
    for where, content in told.items():
        for secret in (CANARY, *KEYS.values()):
            assert secret.encode() not in content, where
    assert b"Traceback" not in told["log"]
