"""A server with a share of exploration: who is asked, what the reply says, what the record says, and who is never drawn."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from ipr_engine import Engine
from ipr_engine.audit import Explorer
from ipr_engine.audit.record import Record
from tests.support import skips
from tests.support.http_calls import nobody
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, KEYS, PATHS, SPEAKERS, TEAM_KEY, body_of, gateway_config
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("uvicorn", reason=skips.SERVE)
PROMPT = "explain to the python student why this code is slow and how to write a better story"
SHARE = 0.5
POLICY = {"tau": 0.3, "rule": "minmax"}
QUESTION = {"type": "choice", "name": "llm", "instructions": ""}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "decisions.jsonl"


@pytest.fixture
def server(engine: Engine, log: Path) -> Iterator[LocalServer]:
    config = {"policy": POLICY, "exploration": SHARE, "records": {"path": str(log)}, "server": {"log_requests": True}}
    with LocalServer(engine, config) as made:
        made.state.decider.explorer = Explorer(SHARE, Random(5).random)
        yield made


def records(log: Path) -> dict[Any, Record]:
    found = [Record.from_line(line) for line in log.read_bytes().splitlines()]
    return {record.id: record for record in found}


def test_a_reply_names_who_is_asked_with_its_own_figures(engine: Engine, server: LocalServer, log: Path) -> None:
    chosen = engine.route(PROMPT, **POLICY)
    plain = chosen.to_dict()
    replies = [server.post("/v1/route", {"prompt": PROMPT}).body for _ in range(40)]
    assert "exploration: 0.5 of requests are asked of a candidate that chance draws" in server.state.summary()
    for reply in replies:
        m = engine.bundle.names.index(reply["model"])
        record = records(log)[reply["id"]]
        assert record.exploration is not None
        assert record.exploration.model == reply["model"] == reply["ranked"][0]
        said = {"chosen": chosen.model, "share": SHARE, "propensity": record.exploration.propensity}
        assert reply["exploration"] == said
        assert sorted(reply["ranked"]) == sorted(plain["ranked"])
        assert reply["cost_usd"] == pytest.approx(float(chosen.costs_usd[m]))
        assert reply["quality"] == pytest.approx(float(chosen.qualities[m]))
        assert reply["cause"] == ("explored" if reply["model"] != chosen.model else chosen.cause)
        if reply["model"] == chosen.model:
            assert {name: reply[name] for name in plain} == plain
    drawn = sum(reply["model"] != chosen.model for reply in replies)
    assert 0 < drawn < 40
    metrics = server.metrics()
    assert sum(n for name, n in metrics.items() if name.startswith("ipr_explored_total{")) == drawn
    spent = sum(n for name, n in metrics.items() if name.startswith("ipr_cost_usd_total"))
    assert spent == pytest.approx(sum(reply["cost_usd"] for reply in replies), rel=1e-6)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/route?trial=true", {"prompt": PROMPT}),
        ("/v1/route", {"prompt": PROMPT, "ipr": {"cached_tokens": {"alpha/large": 3}}}),
        (
            "/v1/decisions",
            {
                "input": PROMPT,
                "questions": [{**QUESTION, "choices": [{"value": "alpha/large"}, {"value": "beta/mid"}]}],
            },
        ),
    ],
)
def test_nobody_is_drawn_for_trials_questions_and_conversations_with_a_cache(
    server: LocalServer, log: Path, path: str, body: dict[str, Any]
) -> None:
    replies = [server.post(path, body) for _ in range(20)]
    assert {reply.status for reply in replies} == {200}
    assert {record.exploration for record in records(log).values()} == {None}
    assert b"exploration" not in replies[0].content


def test_one_candidate_is_asked_for_certain(server: LocalServer, log: Path) -> None:
    body = {"prompt": PROMPT, "ipr": {"allowed": ["beta/mid"]}}
    assert {server.post("/v1/route", body).body["model"] for _ in range(10)} == {"beta/mid"}
    made = [record.exploration for record in records(log).values()]
    assert {one.propensity for one in made if one is not None} == {1.0}
    assert None not in made


def test_without_a_share_nothing_is_said(engine: Engine, log: Path) -> None:
    with LocalServer(engine, {"policy": POLICY, "records": {"path": str(log)}}) as server:
        assert server.state.decider.explorer is None
        reply = server.post("/v1/route", {"prompt": PROMPT})
    assert b"exploration" not in reply.content + log.read_bytes()


def test_a_gateway_asks_whom_chance_drew_and_says_so(provider: UpstreamStub, tmp_path: Path) -> None:
    log = tmp_path / "decisions.jsonl"
    config = gateway_config(provider.url, nobody()) | {"exploration": SHARE, "records": {"path": str(log)}}
    provider.reset()
    with ServerProcess(tmp_path, config, environment=KEYS, headers={"authorization": f"Bearer {TEAM_KEY}"}) as server:
        replies = [server.post(PATHS[CHAT], body_of(CHAT)) for _ in range(60)]
        seen = provider.seen()
        provider.reset()
        named = server.post(PATHS[CHAT], body_of(CHAT, model="gpt-4o-2024-08-06"))
        before = server.metrics()
        fallen = []
        for model in SPEAKERS[CHAT][:-1]:  # one answers, whoever was drawn
            provider.fail(model, "status", status=503, times=20)
        for _ in range(8):
            fallen.append(server.post(PATHS[CHAT], body_of(CHAT)).told)
        provider.reset()
        lines = [json.loads(line) for line in server.printed().splitlines() if line.startswith("{")]
    assert {reply.status for reply in replies} == {200}
    kept = records(log)
    drawn = 0
    for reply, one in zip(replies, seen, strict=True):
        told = reply.told
        record = kept[told["decision-id"]]
        assert record.exploration is not None
        assert told["candidate"] == record.exploration.model
        assert told["model"] == one["model"]
        assert float(told["propensity"]) == pytest.approx(record.exploration.propensity, rel=1e-5)
        assert {record.candidates[m] for m in record.exploration.among} == set(SPEAKERS[CHAT])
        assert told.get("explored") == (record.outcome.model if told["cause"] == "explored" else None)
        assert (told["cause"] == "explored") == (told["candidate"] != record.outcome.model)
        drawn += told["cause"] == "explored"
    assert 10 < drawn < 50
    assert sum(n for name, n in before.items() if name.startswith("ipr_explored_total{")) == drawn
    assert (named.told["cause"], named.told.get("propensity")) == ("named", None)
    assert {told["cause"] for told in fallen} >= {"fallback"}
    assert [told["cause"] for told in fallen] == [
        "fallback" if "propensity" not in told else told["cause"] for told in fallen
    ]
    assert len([line for line in lines if line.get("cause") == "explored" and line["propensity"] < SHARE]) >= drawn
    of_fallen = [
        line for line in lines if line.get("cause") == "fallback"
    ]  # the propensity is of who was drawn, not of them
    assert of_fallen
    assert not any("propensity" in line for line in of_fallen)
