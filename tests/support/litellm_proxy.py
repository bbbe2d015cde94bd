"""A `LiteLLMProxy` is LiteLLM's own proxy in a process, on loopback, with a config and modules that a test writes."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.places import ROOT

START_S = 180.0  # a machine shared with others took 30
KEY = "sk-of-the-tests-alone-4f6d1c"


@dataclass(frozen=True)
class Reply:
    """A `Reply` is an HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def body(self) -> Any:
        return json.loads(self.text)

    @property
    def events(self) -> list[Any]:
        """Return the events of a stream; the last one is the text [DONE]."""
        lines = [line.removeprefix("data: ") for line in self.text.splitlines() if line.startswith("data: ")]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]


class LiteLLMProxy:
    """A `LiteLLMProxy` runs as long as its `with` lasts.

    Attributes:
        port: where it listens. log: the file of what it prints.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], modules: Mapping[str, str]) -> None:
        """Write the config, which is JSON and so YAML, and the modules beside it."""
        self.config = folder / "config.yaml"
        self.config.write_text(json.dumps({**config, "general_settings": {"master_key": KEY}}))
        for name, text in modules.items():
            (folder / name).write_text(text)
        self.log = folder / "proxy.log"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    def __enter__(self) -> LiteLLMProxy:
        command = [str(Path(sys.executable).parent / "litellm"), "--config", str(self.config)]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "PYTHONPATH": str(ROOT)}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=self.config.parent)
        end = time.monotonic() + START_S
        while not self._listens():
            assert self._process.poll() is None, self.printed()[-1500:]
            assert time.monotonic() < end, self.printed()[-1500:]
            time.sleep(0.2)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _listens(self) -> bool:
        try:
            return self.get("/health/liveliness").status == 200
        except OSError:
            return False

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPConnection]:
        """Open a connection, for one request or several."""
        opened = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            yield opened
        finally:
            opened.close()

    def get(self, path: str) -> Reply:
        with self.connection() as over:
            return _send(over, "GET", path, None, {})

    def post(
        self,
        path: str,
        body: Mapping[str, Any],
        headers: Mapping[str, str] | None = None,
        over: http.client.HTTPConnection | None = None,
    ) -> Reply:
        content, told = json.dumps(body).encode(), dict(headers or {})
        if over is not None:
            return _send(over, "POST", path, content, told)
        with self.connection() as own:
            return _send(own, "POST", path, content, told)

    def chat(
        self,
        model: str,
        content: Any,
        headers: Mapping[str, str] | None = None,
        over: http.client.HTTPConnection | None = None,
        **body: Any,
    ) -> Reply:
        """Ask for a chat completion; content: of the one user message."""
        messages = [{"role": "user", "content": content}]
        return self.post("/v1/chat/completions", {"model": model, "messages": messages, **body}, headers, over)


def _send(
    over: http.client.HTTPConnection, method: str, path: str, body: bytes | None, headers: dict[str, str]
) -> Reply:
    told = {"authorization": f"Bearer {KEY}", "content-type": "application/json", **headers}
    over.request(method, path, body, told)
    answer = over.getresponse()
    text = answer.read().decode()
    return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
