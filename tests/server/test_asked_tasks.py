"""What a request says it is for reaches the heads, by a header or in the body; the reply and the metrics tell whether they know it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.asgi_calls import AsgiApp, AsgiReply
from tests.support.both_ways import HOST, ROUTE, as_json, ready
from tests.support.task_bundles import TASKS, make_task_bundle

pytest.importorskip("orjson", reason=skips.SERVE)
from ipr_engine.server import app
from ipr_engine.server.server_config import make_config

PROMPT = "what is the story"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_task_bundle(tmp_path_factory.mktemp("tasks"))


def asked(
    folder: Path, config: dict[str, Any], *requests: tuple[bytes, tuple[tuple[bytes, bytes], ...]]
) -> list[AsgiReply]:
    """Return the replies to bodies with headers, and last that of /metrics."""

    async def ask() -> list[AsgiReply]:
        async with AsgiApp(app(folder, make_config({"policy": {"tau": 0.2}, **config}))) as application:
            await ready(application)
            made = [
                await application.call("POST", ROUTE, [HOST, *headers], [body], shortly=True)
                for body, headers in requests
            ]
            return [*made, await application.call("GET", "/metrics", [HOST], [])]

    return asyncio.run(ask())


@pytest.mark.parametrize("task", [*TASKS, "unheard of"])
def test_a_header_and_the_body_decide_as_the_engine(folder: Path, task: str) -> None:
    header = ((b"x-ipr-task", task.encode()),)
    bodies = as_json({"prompt": PROMPT, "ipr": {"task": task}}), as_json({"prompt": PROMPT})
    *replies, metrics = asked(folder, {}, (bodies[0], ()), (bodies[1], header), (bodies[1], ()))
    engine = Engine.load(folder)
    for reply in replies[:2]:
        found, own = json.loads(reply.content), engine.route(PROMPT, tau=0.2, task=task)
        assert (found["model"], found["quality"], found["task"]) == (own.model, own.quality, task)
        assert found["task_known"] is (task in TASKS)
        assert not reply.plainly
    assert replies[2].plainly  # who says nothing of a task is decided in one step
    assert "task" not in json.loads(replies[2].content)
    text = metrics.content.decode()
    known = task in TASKS
    assert f'tasks_total{{task="known"}} {2 * known}\n' in text
    assert f'tasks_total{{task="unknown"}} {2 - 2 * known}\n' in text
    assert 'tasks_total{task="none"} 1\n' in text
    assert task not in text


@pytest.mark.parametrize("task", ["", "x" * 201, 7, ["sql"], {"name": "sql"}])
def test_what_is_no_task_is_refused_by_its_place(folder: Path, task: Any) -> None:
    reply, _ = asked(folder, {}, (as_json({"prompt": PROMPT, "ipr": {"task": task}}), ()))
    assert reply.status == 400
    assert json.loads(reply.content)["error"]["param"] == "ipr.task"


def test_a_task_outside_of_ipr_is_refused(folder: Path) -> None:
    reply, _ = asked(folder, {}, (as_json({"prompt": PROMPT, "task": "sql"}), ()))
    assert reply.status == 400
    assert "put it under ipr" in json.loads(reply.content)["error"]["message"]


def test_a_tenant_may_be_kept_from_naming_tasks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_TASKS", "k" * 40)
    config = {"tenants": [{"name": "a", "keys_env": ["TEST_TASKS"], "controls": ["tau"]}]}
    key = (b"authorization", b"Bearer " + b"k" * 40)
    reply, _ = asked(folder, config, (as_json({"prompt": PROMPT}), (key, (b"x-ipr-task", b"sql"))))
    assert (reply.status, json.loads(reply.content)["error"]["param"]) == (403, "x-ipr-task")


def test_half_a_surrogate_pair_in_a_task_reads_as_u_fffd_and_so_as_no_known_one(folder: Path) -> None:
    body = b'{"prompt": "%s", "ipr": {"task": "%s\\ud800"}}' % (PROMPT.encode(), sorted(TASKS)[0].encode())
    reply, _ = asked(folder, {}, (body, ()))
    found = json.loads(reply.content)
    assert (reply.status, found["task"], found["task_known"]) == (200, f"{sorted(TASKS)[0]}\ufffd", False)
