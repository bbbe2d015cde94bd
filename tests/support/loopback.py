"""Plain requests to a server on this machine, by the standard library alone."""

from __future__ import annotations

import json
from http.client import HTTPConnection
from typing import Any


def ask(port: int, method: str, path: str, body: object = None) -> tuple[int, str]:
    """Return status and text of one answer. body: bytes as they are, anything else as JSON."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        sent = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, sent, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def post(port: int, path: str, body: object) -> tuple[int, Any]:
    """Return status and JSON of the answer to a JSON body."""
    status, text = ask(port, "POST", path, body)
    return status, json.loads(text)
