"""The official openai package of JavaScript works against a gateway as against OpenAI's own server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support.places import OPENAI_JS, ROOT
from tests.support.server_configs import CHAT, OPENAI, RESPONSES, SPEAKERS, TEAM_KEY
from tests.support.server_process import ServerProcess
from tests.support.skips import NODE
from tests.support.upstream_stub import UpstreamStub

CLIENT = ROOT / "tests" / "support" / "openai_client.mjs"


@pytest.fixture(scope="module")
def node() -> str:
    found = shutil.which("node")
    if found is None or not (OPENAI_JS / "node_modules" / "openai" / "package.json").exists():
        pytest.skip(NODE)
    return found


def test_chat_responses_streams_tools_and_errors(
    node: str, gateway: ServerProcess, upstream: UpstreamStub, default_engine: Engine
) -> None:
    command = [node, str(CLIENT), str(OPENAI_JS), f"{gateway.url}/v1", TEAM_KEY]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    chat, cheap, responses = (
        default_engine.route("What is 2+2?", tau=tau, allowed=SPEAKERS[form]).model
        for form, tau in ((CHAT, 0.2), (CHAT, 1.0), (RESPONSES, 0.2))
    )
    assert found["chat"] == {"model": chat, "text": f"Answered by {chat}.", "candidate": chat}
    assert found["cheap"] == cheap
    assert found["streamed"] == f"Answered by {chat}."
    assert found["tool"] == {"name": "weather", "arguments": {"city": "Bern"}, "text": "The tool said rain."}
    assert found["responses"] == {"model": responses, "text": f"Answered by {responses}."}
    assert found["responsesStreamed"] == f"Answered by {responses}."
    assert {"auto", *OPENAI} <= set(found["models"])
    kinds = [(error["kind"], error["status"], error["type"]) for error in found["errors"]]
    assert kinds == [
        ("BadRequestError", 400, "invalid_request_error"),
        ("NotFoundError", 404, "not_found_error"),
        ("AuthenticationError", 401, "authentication_error"),
    ]
    assert found["errors"][0]["param"] == "x-ipr-tau"


def test_what_the_document_shows_is_answered(
    node: str, gateway: ServerProcess, upstream: UpstreamStub, tmp_path: Path
) -> None:
    [shown] = re.findall(r"```js\n(.*?)```", (ROOT / "docs" / "server.md").read_text(), re.DOTALL)
    program = tmp_path / "asks.mjs"
    program.write_text(shown.replace("http://127.0.0.1:8000", gateway.url).replace("KEY", TEAM_KEY))
    (tmp_path / "node_modules").symlink_to(OPENAI_JS / "node_modules")
    ran = subprocess.run([node, str(program)], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert [one["model"] for one in upstream.seen()] == [ran.stdout.strip()]
