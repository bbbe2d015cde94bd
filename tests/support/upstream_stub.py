"""A provider to send requests to: a small HTTP server in a process of its own, of the standard library alone.

It answers OpenAI's chat completions (whole and streamed), Responses, completions and embeddings for any model; the answer names
the model. A test tells it over HTTP which model fails and how, and reads what it was asked:

    with UpstreamStub() as upstream:
        upstream.fail("big", "status", status=503, times=2)
        ...  # requests to f"{upstream.url}/v1/chat/completions"
        assert [one["model"] for one in upstream.seen()] == ["big", "big", "small"]
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WORDS = ("Answered", " by", " {model}", ".")
USAGE = {"prompt_tokens": 10, "completion_tokens": len(WORDS), "total_tokens": 10 + len(WORDS)}
FAILURES = ("status", "close", "hang", "cut")
"""An error status; the connection closed without an answer; nothing for `seconds`; a stream cut after its first word."""


class UpstreamStub:
    """An `UpstreamStub` runs the server as long as its `with` lasts.

    Attributes:
        url: the address, http://127.0.0.1:PORT; the API stands under /v1.
    """

    def __init__(self, port: int = 0) -> None:
        """Name the port; 0 takes any that is free."""
        self.port = port
        self.url = ""

    def __enter__(self) -> UpstreamStub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, again after a `stop` on the port of before; returns when it listens."""
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve()), str(self.port)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        """End the process: from now on nobody listens there."""
        self._process.terminate()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def fail(self, model: str, how: str, *, status: int = 500, times: int | None = None, seconds: float = 30.0) -> None:
        """Let requests to a model fail from now on, `times` of them (None: all); `how` is one of FAILURES."""
        assert how in FAILURES, how
        self._control({"fail": model, "how": how, "status": status, "times": times, "seconds": seconds})

    def reset(self) -> None:
        """Forget failures and what was seen."""
        self._control({"reset": True})

    def seen(self) -> list[dict[str, Any]]:
        """Return the bodies of all requests since the start or the last `reset`, failed ones included, in their order.

        Each has the request's headers under "_headers", in lower case, and its path under "_path".
        """
        return self._control({})

    def _control(self, order: dict[str, Any]) -> Any:
        request = urllib.request.Request(f"{self.url}/control", json.dumps(order).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


class _State:
    """What the server's threads share."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.seen: list[dict[str, Any]] = []
        self.failures: dict[str, dict[str, Any]] = {}

    def ordered(self, order: dict[str, Any]) -> list[dict[str, Any]]:
        with self.lock:
            if "fail" in order:
                self.failures[order["fail"]] = order
            if order.get("reset"):
                self.failures.clear()
                self.seen.clear()
            return list(self.seen)

    def asked(self, body: dict[str, Any]) -> dict[str, Any] | None:
        """Note a request; return how it fails, or None."""
        with self.lock:
            self.seen.append(body)
            failure = self.failures.get(body.get("model", ""))
            if failure is None or failure["times"] == 0:
                return None
            if failure["times"] is not None:
                failure["times"] -= 1
            return failure


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state = _State()

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": []})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.path == "/control":
            self._reply(200, self.state.ordered(body))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        failure = self.state.asked({**body, "_headers": headers, "_path": self.path})
        how = failure["how"] if failure is not None else None
        if failure is not None and how == "hang":
            time.sleep(failure["seconds"])
        if how in ("close", "hang"):
            self.close_connection = True
        elif failure is not None and how == "status":
            error = {"message": "told to fail", "type": "server_error", "param": None, "code": None}
            self._reply(failure["status"], {"error": error})
        elif self.path.endswith("/embeddings"):
            self._reply(200, _embeddings(body))
        elif self.path.endswith("/responses"):
            self._reply(200, _response(body))
        elif self.path.endswith("/chat/completions"):
            if body.get("stream"):
                self._stream(body, cut=how == "cut")
            else:
                self._reply(200, _completion(body))
        elif self.path.endswith("/completions"):
            choice = {"index": 0, "text": _said(body), "finish_reason": "stop", "logprobs": None}
            self._reply(200, {**_head(body, "text_completion"), "choices": [choice], "usage": USAGE})
        else:
            self._reply(404, {"error": {"message": f"no {self.path} here", "type": "invalid_request_error"}})

    def _reply(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        head = f"HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
        self.wfile.write(head.encode() + content)  # one send: two would wait for a delayed acknowledgement

    def _stream(self, body: dict[str, Any], *, cut: bool) -> None:
        self.wfile.write(b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n")
        self.close_connection = True
        for number, delta in enumerate(_deltas(body)):
            if cut and number == 2:
                return
            finish = delta.pop("finish", None)
            chunk = {**_head(body, "chat.completion.chunk"), "choices": [_choice("delta", delta, finish)]}
            self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *_: object) -> None:
        """Write nothing: what is asked is read by `seen`."""


def _head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-stub", "object": kind, "created": 1, "model": body["model"]}


def _choice(name: str, content: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return {"index": 0, name: content, "finish_reason": finish}


def _said(body: dict[str, Any]) -> str:
    return "".join(WORDS).format(model=body["model"])


def _tool_call(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return a call of the request's first tool; None where it has none."""
    tools = body.get("tools")
    if not tools:
        return None
    name = tools[0]["function"]["name"]
    return {"id": "call_stub", "index": 0, "type": "function", "function": {"name": name, "arguments": "{}"}}


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    call = _tool_call(body)
    message: dict[str, Any] = {"role": "assistant", "content": None if call else _said(body)}
    if call:
        message["tool_calls"] = [call]
    choices = [_choice("message", message, "tool_calls" if call else "stop")]
    return {**_head(body, "chat.completion"), "choices": choices, "usage": USAGE}


def _deltas(body: dict[str, Any]) -> list[dict[str, Any]]:
    call = _tool_call(body)
    if call:
        return [{"role": "assistant", "tool_calls": [call]}, {"finish": "tool_calls"}]
    words = [{"content": word.format(model=body["model"])} for word in WORDS]
    return [{"role": "assistant", "content": ""}, *words, {"finish": "stop"}]


def _response(body: dict[str, Any]) -> dict[str, Any]:
    text = {"type": "output_text", "text": _said(body), "annotations": []}
    message = {"type": "message", "id": "msg_stub", "role": "assistant", "status": "completed", "content": [text]}
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": len(WORDS),
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 10 + len(WORDS),
    }
    made = {"id": "resp_stub", "object": "response", "created_at": 1, "status": "completed", "model": body["model"]}
    settings = {"error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "tools": []}
    settings |= {"parallel_tool_calls": True, "temperature": 1.0, "tool_choice": "auto", "top_p": 1.0}
    return {**made, **settings, "output": [message], "usage": usage}


def _embeddings(body: dict[str, Any]) -> dict[str, Any]:
    data = [{"object": "embedding", "index": 0, "embedding": [0.0, 1.0]}]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return {"object": "list", "model": body["model"], "data": data, "usage": usage}


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


if __name__ == "__main__":
    server = _Server(("127.0.0.1", int(sys.argv[1])), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
