"""A worker that hangs is replaced, one that is slow is not, and signals are taken from the first moment on."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.support.http_calls import HttpCalls, free_port
from tests.support.places import ROOT
from tests.support.server_process import ServerProcess, until

HANGS_S = 3.0
IMPATIENT = f"""
import sys
from ipr_engine.server import worker_processes
worker_processes.HANGS_S = {HANGS_S}
worker_processes.ENDS_S = -27.0  # of the 30 seconds before
from ipr_engine.cli import main
sys.exit(main())
"""
STUCK = f"""
import socket, sys, time
from starlette.routing import Route
from ipr_engine.server import app, worker_processes
from ipr_engine.server.http_server import serve

async def stuck(request):
    time.sleep(60)  # lets other threads run, as native code may

def make():
    made = app()
    made.router.routes.insert(0, Route("/stuck", stuck))
    return made

if __name__ == "__main__":
    worker_processes.HANGS_S = {HANGS_S}
    serve(make, socket.create_server(("127.0.0.1", int(sys.argv[1]))), 2)
"""
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Impatient(ServerProcess):
    """An `Impatient` is a server of two workers that takes one for hung sooner."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, {}, "--workers", "2")
        self._command[1:3] = ["-c", IMPATIENT]

    def __enter__(self) -> Impatient:
        super().__enter__()
        until(lambda: self.all_ready(2), 20.0, self.printed)
        return self


class InTerminal(ServerProcess):
    """An `InTerminal` is a server that leads a terminal, as one that a shell has become by `exec`."""

    def __init__(self, folder: Path, config: dict[str, object], *arguments: str, before: tuple[str, ...] = ()) -> None:
        super().__init__(folder, config, *arguments)
        self._before = before

    def __enter__(self) -> InTerminal:
        self._ours, theirs = pty.openpty()

        def lead() -> None:
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

        command = [*self._before, *self._command, "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=self._environment, cwd=self.log.parent,
            start_new_session=True, preexec_fn=lead,
        )  # fmt: skip
        os.close(theirs)
        until(self._is_ready, 60.0)
        return self

    def printed(self) -> str:
        return "(in its terminal)"

    def close_terminal(self) -> None:
        """Close it; the system sends SIGHUP to who leads it and to all who run in it."""
        self.pids = [self.process.pid, *self.workers()]
        os.close(self._ours)

    def begun(self) -> Callable[[], int]:
        """Send the head of a request; return what sends its body and returns the status of the reply."""
        body = b'{"prompt": "What is 2+2?"}'
        connection = socket.create_connection(("127.0.0.1", self.port), 30)
        head = b"POST /v1/route HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: %d\r\n\r\n"
        connection.sendall(head % len(body))
        assert connection.recv(4096).startswith(b"HTTP/1.1 100 ")  # its body is waited for

        def rest() -> int:
            with connection:
                time.sleep(0.5)
                connection.sendall(body)
                return int(connection.recv(1 << 16).split()[1])

        return rest


def test_a_worker_that_hangs_is_replaced_and_one_that_is_slow_is_not(tmp_path: Path) -> None:
    with Impatient(tmp_path) as server:
        slow, hung = server.workers()
        os.kill(slow, signal.SIGSTOP)
        time.sleep(HANGS_S / 4)
        os.kill(slow, signal.SIGCONT)
        until(lambda: server.all_ready(2), 20.0, server.printed)
        time.sleep(2 * HANGS_S)  # what it was silent for adds to nothing
        assert server.workers() == [slow, hung]
        assert "another begins" not in server.printed()

        os.kill(hung, signal.SIGSTOP)
        until(lambda: hung not in server.workers(), HANGS_S + 10, server.printed)
        until(lambda: slow in server.workers() and server.all_ready(2), 20.0, server.printed)
        assert f"worker {hung} has not answered for " in server.printed()


def answers(server: HttpCalls) -> bool:
    try:
        return server.get("/health").status == 200
    except OSError:
        return False


def test_a_worker_whose_event_loop_alone_stands_still_is_replaced(tmp_path: Path) -> None:
    script, port = tmp_path / "stuck.py", free_port()
    script.write_text(STUCK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, str(script), str(port)], stderr=subprocess.PIPE, env=environment, cwd=tmp_path
    ) as process:
        try:
            server = HttpCalls(port)
            until(lambda: answers(server), 20.0)
            begun = time.monotonic()
            with pytest.raises((OSError, HTTPException)):
                server.get("/stuck")
            assert HANGS_S - 1 < time.monotonic() - begun < HANGS_S + 10
            assert server.get("/health").status == 200
        finally:
            process.terminate()
        assert b"has not answered for " in process.stderr.read()  # type: ignore[union-attr]
        assert process.wait(20) == 0


def test_a_server_that_stood_still_with_its_workers_keeps_them(tmp_path: Path) -> None:
    with Impatient(tmp_path) as server:
        workers = server.workers()
        everybody = (server.process.pid, *workers)
        for pid in everybody:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * HANGS_S)
        for pid in everybody:
            os.kill(pid, signal.SIGCONT)
        time.sleep(HANGS_S)
        assert server.workers() == workers


def test_a_worker_that_hangs_does_not_keep_the_server_from_stopping(tmp_path: Path) -> None:
    with Impatient(tmp_path) as server:
        hung = server.workers()[0]
        os.kill(hung, signal.SIGSTOP)
        server.process.terminate()
        assert server.process.wait(15) == 0
        assert f"worker {hung} does not stop and is killed" in server.printed()


def started(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """Return a server that only begins, in a group of its own, as of a terminal."""
    command = [sys.executable, "-m", "ipr_engine", "serve", "--port", str(free_port()), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=ROOT, start_new_session=True)


def takes(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    """Return whether the process has said what it does at a signal, as the system tells; Python says it of SIGINT alone."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (number - 1) & 1)


def ended(process: subprocess.Popen[bytes]) -> str:
    """Return what it wrote, once it has ended as it should."""
    _, said = process.communicate(timeout=30)
    assert process.returncode == 0, said.decode()
    assert b"Traceback" not in said
    assert b"interrupted" not in said
    return said.decode()


@pytest.mark.parametrize("how", STOPS)
def test_who_is_asked_to_stop_while_the_bundle_loads_does(tmp_path: Path, how: signal.Signals) -> None:
    process = started(tmp_path)
    until(lambda: takes(process, signal.SIGTERM))
    process.send_signal(how)
    assert ended(process) == ""


@pytest.mark.parametrize("wait_s", [0.0, 0.002])
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("how", STOPS)
def test_who_is_asked_to_stop_right_after_the_first_line_does(
    tmp_path: Path, how: signal.Signals, workers: str, wait_s: float
) -> None:
    process = started(tmp_path, "--workers", workers)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"bundle ")
    time.sleep(wait_s)
    if how is not signal.SIGTERM:
        os.killpg(process.pid, how)  # a terminal's goes to the workers, too
    else:
        process.send_signal(how)
    ended(process)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_closes_ends_the_server_once_all_is_answered(tmp_path: Path, workers: int) -> None:
    with InTerminal(tmp_path, {}, "--workers", str(workers)) as server:
        until(lambda: server.all_ready(workers) if workers > 1 else True, 20.0)
        answered = server.begun()
        server.close_terminal()
        assert answered() == 200
        assert server.process.wait(20) == 0
        for pid in server.pids:
            assert not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_under_nohup_a_terminal_that_closes_changes_nothing(tmp_path: Path, workers: int) -> None:
    with InTerminal(tmp_path, {}, "--workers", str(workers), before=("nohup",)) as server:
        until(lambda: server.all_ready(workers) if workers > 1 else True, 20.0)
        server.close_terminal()
        time.sleep(2.0)
        assert server.post("/v1/route", {"prompt": "What is 2+2?"}).status == 200
        server.process.terminate()
        assert server.process.wait(20) == 0
