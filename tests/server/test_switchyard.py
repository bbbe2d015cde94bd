"""NVIDIA's Switchyard takes `ipr serve` as the judge of a route: its own server asks, and its targets are our choices."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.http_calls import HttpCalls, events, free_port, nobody
from tests.support.places import ROOT
from tests.support.server_configs import EVERY, OPENAI, PROMPTS
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

pytestmark = pytest.mark.skipif(importlib.util.find_spec("switchyard_rust") is None, reason=skips.GATEWAYS)

TARGETS = (*OPENAI, EVERY[0])
DEFAULT = OPENAI[0]
TAU = {"ipr-balanced": 0.2, "ipr-cheap": 1.0}
"""Models of `ipr serve` that routes have as their judge, and their tau."""
SCHEMA = """
{"type": "object", "required": ["decision"], "additionalProperties": false, "properties": {"decision":
  {"type": "object", "required": ["target"], "additionalProperties": false, "properties": {"target":
    {"type": "string", "enum": [%s]}}}}}
"""


def routes(judge: str, provider: str) -> str:
    """Return the TOML of a Switchyard: a route a judge, named after it."""
    quoted = ", ".join(f'"{name}"' for name in TARGETS)
    schema = SCHEMA % quoted
    text = f"""
schema_version = 1
[llm_clients.ipr]
format = "openai_chat"
base_url = "{judge}/v1"
[llm_clients.provider]
format = "openai_chat"
base_url = "{provider}/v1"
"""
    for name in (*TAU, *TARGETS):
        client = "ipr" if name in TAU else "provider"
        text += f'[targets."{name}"]\nid = "{name}"\nllm_client = "{client}"\n'
    for name in TAU:
        text += f"""
[routes."by-{name}"]
id = "by-{name}"
type = "llm_classifier"
mode = "custom"
prompt = "Choose a target."
default_target = "{DEFAULT}"
response_schema = '''{schema}'''
[routes."by-{name}".policy]
type = "target_selector"
selector = "/decision/target"
[routes."by-{name}".models]
judge = ["{name}"]
any = [{quoted}]
"""
        text += "".join(f'"{target}" = ["{target}"]\n' for target in TARGETS)
    return text


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    config = {"models": {name: {"tau": tau} for name, tau in TAU.items()}}
    with ServerProcess(tmp_path_factory.mktemp("judge"), config) as server:
        yield server


@pytest.fixture(scope="module")
def switchyard(
    judge: ServerProcess, provider: UpstreamStub, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[HttpCalls]:
    from switchyard_rust.server import Server

    path: Path = tmp_path_factory.mktemp("switchyard") / "routes.toml"
    path.write_text(routes(judge.url, provider.url))
    with Server(str(path), 0) as running:
        yield HttpCalls(running.port)


@pytest.fixture
def seen(provider: UpstreamStub) -> Iterator[UpstreamStub]:
    provider.reset()
    yield provider
    provider.reset()


def chosen(engine: Engine, prompt: str, judge: str) -> str:
    model: str = engine.route(prompt, tau=TAU[judge], allowed=TARGETS).model
    return model


def turns(prompt: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.parametrize("by", TAU)
def test_the_target_is_the_engines_choice(
    switchyard: HttpCalls, seen: UpstreamStub, default_engine: Engine, by: str, prompt: str
) -> None:
    reply = switchyard.post("/v1/chat/completions", {"model": f"by-{by}", "messages": turns(prompt)})
    expected = chosen(default_engine, prompt, by)
    assert (reply.status, reply.headers["x-model-router-selected-model"]) == (200, expected)
    assert [one["model"] for one in seen.seen()] == [expected]


def test_a_stream_and_another_format_are_decided_alike(
    switchyard: HttpCalls, seen: UpstreamStub, default_engine: Engine
) -> None:
    by = "ipr-balanced"
    expected = chosen(default_engine, PROMPTS[0], by)
    body = {"model": f"by-{by}", "messages": turns(PROMPTS[0])}
    streamed = switchyard.post("/v1/chat/completions", {**body, "stream": True})
    assert {event["model"] for event in events(streamed.content)} == {expected}
    assert switchyard.post("/v1/messages", {**body, "max_tokens": 64}).body["model"] == expected


def test_switchyards_own_decision_names_the_choice_and_who_is_next(
    switchyard: HttpCalls, seen: UpstreamStub, default_engine: Engine
) -> None:
    by = "ipr-balanced"
    asked = {"model": f"by-{by}", "messages": turns(PROMPTS[1])}
    reply = switchyard.post("/v1/decision", {"input_format": "openai_chat", "request": asked})
    assert reply.body["selected"]["target"] == chosen(default_engine, PROMPTS[1], by)
    assert {one["target"] for one in reply.body["fallbacks"]} <= set(TARGETS)
    assert seen.seen() == []


def test_decisions_are_counted_by_the_judge(judge: ServerProcess, switchyard: HttpCalls, seen: UpstreamStub) -> None:
    before = judge.metrics()
    for prompt in PROMPTS:
        switchyard.post("/v1/chat/completions", {"model": "by-ipr-cheap", "messages": turns(prompt)})
    counted = judge.counted(before)
    assert counted['ipr_requests_total{path="/v1/chat/completions",status="200",tenant="anybody"}'] == len(PROMPTS)


def test_a_judge_that_cannot_be_reached_fails_the_request(provider: UpstreamStub, tmp_path: Path) -> None:
    from switchyard_rust.server import Server

    path = tmp_path / "routes.toml"
    path.write_text(routes(nobody(), provider.url))
    with Server(str(path), 0) as running:
        body = {"model": "by-ipr-cheap", "messages": turns(PROMPTS[0])}
        assert HttpCalls(running.port).post("/v1/chat/completions", body).status == 502


def test_a_judge_that_answers_something_else_leaves_the_default_target(provider: UpstreamStub, tmp_path: Path) -> None:
    from switchyard_rust.server import Server

    path = tmp_path / "routes.toml"
    path.write_text(routes(provider.url, provider.url))  # which answers in words
    with Server(str(path), 0) as running:
        body = {"model": "by-ipr-cheap", "messages": turns(PROMPTS[0])}
        assert HttpCalls(running.port).post("/v1/chat/completions", body).body["model"] == DEFAULT


def test_what_the_document_shows_is_started_and_decides(provider: UpstreamStub, tmp_path: Path) -> None:
    text = (ROOT / "docs" / "switchyard.md").read_text()
    [routes_shown] = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    [program] = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    asked = {"model": "auto", "messages": turns("What is 17 * 23?")}
    port = free_port()
    with ServerProcess(tmp_path, {"policy": {"tau": 0.2}}) as judge:
        shown = routes_shown.replace("http://127.0.0.1:8000", judge.url).replace("https://api.openai.com", provider.url)
        (tmp_path / "routes.toml").write_text(shown)
        (tmp_path / "serve_switchyard.py").write_text(program.replace("4000", str(port)))
        own = {**os.environ, "OPENAI_API_KEY": "none"}
        command = [sys.executable, "serve_switchyard.py"]
        with subprocess.Popen(command, cwd=tmp_path, env=own, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout is not None
            try:
                assert running.stdout.readline() == f"http://127.0.0.1:{port}\n"
                reply = HttpCalls(port).post("/v1/chat/completions", asked)
                running.send_signal(signal.SIGTERM)
                assert running.wait(20) == 0
            finally:
                running.kill()
    chosen_by_name = f"x-model-router-selected-model: {reply.headers['x-model-router-selected-model']}"
    assert reply.status == 200
    assert f"    {chosen_by_name}\n" in text
