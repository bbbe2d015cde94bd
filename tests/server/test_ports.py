"""A port has one server, an address is this machine's, and no worker outlives the server's own process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ipr_engine.cli import main
from tests.support import skips
from tests.support.http_calls import free_port
from tests.support.server_process import ServerProcess, until

pytest.importorskip("uvicorn", reason=skips.SERVE)


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a server says that does not start."""
    assert main(["serve", *arguments]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "Traceback" not in printed.err
    return printed.err


def test_a_second_server_of_a_port_is_refused(gateway: ServerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"--port: {gateway.port} is in use" in told(capsys, "--port", str(gateway.port))
    assert gateway.get("/health").status == 200


@pytest.mark.parametrize("host", ["no host", "256.0.0.1", "192.0.2.1", "2001:db8::1", "127.0.0.1:8000", ""])
def test_a_host_that_is_no_address_of_this_machine_is_refused(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--host: " in told(capsys, "--host", host, "--port", str(free_port()))


def test_where_it_serves_is_told_once_it_does(gateway: ServerProcess) -> None:
    lines = until(lambda: [line for line in gateway.printed().splitlines() if line.startswith("serving on ")])
    assert lines == [f"serving on http://127.0.0.1:{gateway.port}"]


@pytest.mark.slow
def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {}, "--workers", "2") as server:
        until(lambda: server.all_ready(2), 20.0, server.printed)
        workers = server.workers()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), 20.0, server.printed)
        with pytest.raises(OSError, match=r"refused|reset"):
            server.get("/health")
