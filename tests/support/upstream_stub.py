"""A provider to send requests to: a small HTTP server in a process of its own, of the standard library alone.

It answers OpenAI's chat completions, Responses and completions, Anthropic's Messages (whole and streamed) and embeddings for any
model; the answer names the model. A test tells it over HTTP which model fails and how, and reads what it was asked:

    with UpstreamStub() as upstream:
        upstream.fail("big", "status", status=503, times=2)
        ...  # requests to f"{upstream.url}/v1/chat/completions"
        assert [one["model"] for one in upstream.seen()] == ["big", "big", "small"]
"""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.places import ROOT
from tests.support.upstream_replies import events, reply

FAILURES = ("status", "close", "hang", "cut", "stall", "pace", "pad", "raw")
"""An error status; the connection closed without an answer; nothing for `seconds`, then closed; a reply cut in its middle (a stream
after two events); a stream that waits there for `seconds`; `seconds` before each piece; a whole reply with `size` bytes more;
`pieces`, then closed."""


class UpstreamStub:
    """An `UpstreamStub` runs the server as long as its `with` lasts.

    Attributes:
        url: the address, http://127.0.0.1:PORT; the API stands under /v1.
        failed: models that were told to fail since the last `reset`.
    """

    def __init__(self, port: int = 0) -> None:
        """Name the port; 0 takes any that is free."""
        self.port = port
        self.url = ""
        self.failed: set[str] = set()

    def __enter__(self) -> UpstreamStub:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process, again after a `stop` on the port of before; returns when it listens."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.upstream_stub", str(self.port)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
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

    def fail(self, model: str, how: str, *, times: int | None = None, **what: Any) -> None:
        """Let requests to a model fail from now on, `times` of them (None: all); `how` is one of FAILURES.

        what: `status` (500), `headers` and `message` of an error; `seconds` (30) of "hang", "stall" and "pace"; `size` of "pad"; `pieces`
            of "raw": texts are sent as they are (latin-1), and for numbers it waits so many seconds.
        """
        assert how in FAILURES, how
        self.failed.add(model)
        self._control({"fail": model, "how": how, "times": times, "status": 500, "seconds": 30.0, **what})

    def reset(self) -> None:
        """Forget failures and what was seen."""
        self.failed.clear()
        self._control({"reset": True})

    def seen(self) -> list[dict[str, Any]]:
        """Return the bodies of all requests since the start or the last `reset`, failed ones included, in their order.

        Each has the request's headers under "_headers", in lower case, its path under "_path", its text under "_text", and under
        "_ended" how it ended: None while it lasts, "whole", "failed" (as it was told), or "left" where the client closed the
        connection before.
        """
        found: list[dict[str, Any]] = self._control({})
        return found

    def _control(self, order: dict[str, Any]) -> Any:
        request = urllib.request.Request(f"{self.url}/control", json.dumps(order).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.loads(answer.read())


class _LeftError(Exception):
    """The client closed its connection."""


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
            return [dict(one) for one in self.seen]

    def asked(self, body: dict[str, Any]) -> dict[str, Any]:
        """Note a request; return how it fails, nothing where it does not."""
        with self.lock:
            self.seen.append(body)
            failure = self.failures.get(str(body.get("model", "")))
            if failure is None or failure["times"] == 0:
                return {}
            if failure["times"] is not None:
                failure["times"] -= 1
            return failure


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    state = _State()

    def do_GET(self) -> None:
        self._reply(200, {"object": "list", "data": []})

    def do_POST(self) -> None:
        text = self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(text)
        if self.path == "/control":
            self._reply(200, self.state.ordered(body))
            return
        headers = {name.lower(): value for name, value in self.headers.items()}
        noted = {**body, "_headers": headers, "_path": self.path, "_text": text.decode(), "_ended": None}
        failure = self.state.asked(noted)
        try:
            ended = self._answer(body, failure)
        except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
            ended = "failed"  # a provider refuses what is malformed
            self._reply(400, {"error": {"message": type(error).__name__, "type": "invalid_request_error"}})
        except (_LeftError, OSError):
            ended = "left"
            self.close_connection = True
        with self.state.lock:
            noted["_ended"] = ended

    def _answer(self, body: dict[str, Any], failure: dict[str, Any]) -> str:
        """Answer, or fail as told; return how it ended."""
        how = failure.get("how")
        if how in ("hang", "pace"):
            self._wait(failure["seconds"])
        for piece in failure["pieces"] if how == "raw" else ():
            if isinstance(piece, str):
                self.wfile.write(piece.encode("latin-1"))
            else:
                self._wait(piece)
        if how in ("close", "hang", "raw"):
            self.close_connection = True
            return "failed"
        if how == "status":
            message = failure.get("message", "told to fail")
            error = {"message": message, "type": "server_error", "param": None, "code": None}
            self._reply(failure["status"], {"error": error}, failure.get("headers", {}))
            return "failed"
        if body.get("stream"):
            return self._stream(body, failure)
        found = reply(self.path.partition("?")[0], body)
        if found is None:
            self._reply(404, {"error": {"message": f"no {self.path} here", "type": "invalid_request_error"}})
            return "failed"
        if how == "pad":
            found["padding"] = "x" * failure["size"]
        self._reply(200, found, cut=how == "cut")
        return "failed" if how == "cut" else "whole"

    def _reply(self, status: int, document: Any, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        content = json.dumps(document).encode()
        said = {"content-type": "application/json", "content-length": str(len(content)), **(headers or {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in said.items())
        if cut:
            content, self.close_connection = content[: len(content) // 2], True
        # one send: two would wait for a delayed acknowledgement
        self.wfile.write(f"HTTP/1.1 {status} -\r\n{head}\r\n".encode() + content)

    def _stream(self, body: dict[str, Any], failure: dict[str, Any]) -> str:
        # in chunks: the end of a connection would look like the end of the reply
        self.wfile.write(b"HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        how = failure.get("how")
        for number, event in enumerate(events(self.path.partition("?")[0], body)):
            if how == "cut" and number == 2:
                self.close_connection = True
                return "failed"
            if (how == "pace" and number) or (how == "stall" and number == 2):
                self._wait(failure["seconds"])
            self.wfile.write(f"{len(event):x}\r\n".encode() + event + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
        return "whole"

    def _wait(self, seconds: float) -> None:
        """Wait, and find out meanwhile whether the client leaves."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            readable, _, _ = select.select([self.connection], [], [], left)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                raise _LeftError
            if readable:
                time.sleep(0.01)  # a next request already, which has to wait

    def log_message(self, *_: object) -> None:
        """Write nothing: what is asked is read by `seen`."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Write nothing: a client that closes its connection between two requests is no error."""


if __name__ == "__main__":
    server = _Server(("127.0.0.1", int(sys.argv[1])), _Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()
