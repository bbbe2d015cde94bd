"""A log that nobody reads holds up no request and not the end: lines that do not fit are lost, and counted."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.support import skips
from tests.support.server_process import ServerProcess

pytest.importorskip("uvicorn", reason=skips.SERVE)

from ipr_engine.cli.log_queue import MOST_LINES

HELD = 1000
"""More lines than a pipe holds."""


@pytest.fixture
def unread(tmp_path: Path) -> Iterator[tuple[ServerProcess, int]]:
    """A server whose stderr is a pipe, and the end of it that can be read."""
    server = ServerProcess(tmp_path, {"server": {"log_requests": True}})
    os.mkfifo(server.log)
    pipe = os.open(server.log, os.O_RDWR)
    try:
        with server:
            yield server, pipe
    finally:
        os.close(pipe)


def ask(server: ServerProcess, count: int) -> None:
    asking = HTTPConnection("localhost", server.port, timeout=10)
    for _ in range(count):
        asking.request("POST", "/v1/route", b'{"prompt": "x"}')
        reply = asking.getresponse()
        reply.read()
        assert reply.status == 200
    asking.close()


def test_requests_are_answered_though_nobody_reads_their_lines(unread: tuple[ServerProcess, int]) -> None:
    server, pipe = unread
    ask(server, HELD)
    assert server.get("/health").status == 200
    assert server.metrics()["ipr_log_lines_dropped_total"] == 0
    found = b""
    while found.count(b'"path":"/v1/route"') < HELD:
        found += os.read(pipe, 65536)
    lines = [json.loads(line) for line in found.decode().splitlines() if line.startswith("{")]
    assert [line["status"] for line in lines if line["path"] == "/v1/route"] == HELD * [200]


def test_what_does_not_fit_is_counted_and_the_end_does_not_wait(unread: tuple[ServerProcess, int]) -> None:
    server, _ = unread
    ask(server, MOST_LINES + HELD)
    assert server.metrics()["ipr_log_lines_dropped_total"] > 0
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(15) == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_the_last_lines_are_written_at_the_end(tmp_path: Path, workers: int) -> None:
    with ServerProcess(tmp_path, {"server": {"log_requests": True}}, "--workers", str(workers)) as server:
        for _ in range(20):
            server.post("/v1/route", {"prompt": "x"})
        assert server.get("/ipr/overview").status == 200
    lines = server.printed().splitlines()
    assert len([line for line in lines if '"path":"/v1/route"' in line]) == 20
    assert "/ipr/overview" not in server.printed()
    stopping = [line for line in lines if "stopping: no more requests are taken" in line]
    assert len(stopping) == workers
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO stopping", line) for line in stopping)
    assert [json.loads(line)["status"] for line in lines if line.startswith("{")] == 20 * [200]
