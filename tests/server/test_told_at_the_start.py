"""What a server tells at its start of its bundle: who answers unsupported prompts, and which tasks its heads tell apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.local_server import LocalServer
from tests.support.task_bundles import TASKS, make_task_bundle

pytest.importorskip("uvicorn", reason=skips.SERVE)

RULE = "prompts of support below 0.02 go to gemini-3.5-flash, unless a policy says otherwise"
ENDPOINT = {"base_url": "http://127.0.0.1:9/v1", "formats": ["openai-chat"]}


def told(engine: Engine, config: dict[str, Any]) -> list[str]:
    with LocalServer(engine, config) as made:
        return made.state.summary()


@pytest.mark.parametrize(("upstream", "warned"), [(None, False), ("gemini-3.5-flash", False), ("gpt-5.5", True)])
def test_who_answers_unsupported_prompts_is_told_and_that_it_has_no_upstream(
    upstream: str | None, warned: bool
) -> None:
    config = {} if upstream is None else {"endpoints": {"one": ENDPOINT}, "upstreams": {upstream: "one"}}
    lines = told(Engine.load("default-2026"), {"policy": {"tau": 0.2}, **config})
    assert RULE in lines
    assert any(line.startswith("warning: gemini-3.5-flash has no upstream") for line in lines) is warned


def test_the_tasks_of_a_bundle_are_told(tmp_path: Path) -> None:
    lines = told(Engine.load(make_task_bundle(tmp_path)), {"policy": {"tau": 0.2}})
    assert f"tasks told apart: {', '.join(map(ascii, sorted(TASKS)))}" in lines
    assert not any("of support below" in line for line in lines)
