"""Servers run in processes of their own, on ports of loopback that are free; each is ended by its own id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or ""
READY_S = 90.0
STOP_S = 15.0


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str], ready: str, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server until it answers at `ready`, and end it afterwards. environment: set beside that of this process.

    Raises:
        RuntimeError: it ended, or did not answer in time; what it said is in `log`.
    """
    with log.open("wb") as said:
        settings = {**os.environ, **(environment or {})}
        server = subprocess.Popen(command, stdout=said, stderr=said, cwd=ROOT, env=settings)
    try:
        end = time.monotonic() + READY_S
        while not _answers(ready):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{' '.join(command)} does not serve:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)
        yield server
    finally:
        if server.poll() is None:
            server.send_signal(signal.SIGINT)
            try:
                server.wait(STOP_S)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def asgi(target: str, port: int) -> list[str]:
    """Return the command that serves an ASGI application of this checkout."""
    command = [sys.executable, "-m", "uvicorn", target, "--loop", "uvloop", "--http", "httptools"]
    return [*command, "--log-level", "warning", "--no-access-log", "--timeout-keep-alive", "75", "--port", str(port)]


def stub(port: int) -> list[str]:
    """Return the command of an upstream that answers at once."""
    return asgi("benchmarks.server.stub:stub", port)


def nginx(port: int, upstream: int, folder: Path) -> list[str]:
    """Return the command of an nginx that passes every request on."""
    places = "; ".join(
        f"{kind}_temp_path {folder}/{kind}" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    passed_on = "proxy_pass http://upstream; proxy_http_version 1.1; proxy_set_header Connection '';"
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err; events {{}}\n"
        f"http {{ access_log off; {places}; upstream upstream {{ server 127.0.0.1:{upstream}; keepalive 8; }}\n"
        f"server {{ listen 127.0.0.1:{port}; location / {{ {passed_on} }} }} }}\n"
    )
    return [NGINX, "-c", str(config)]


def emptied(port: int) -> list[str]:
    """Return the command of `ipr serve` with an empty route."""
    return [sys.executable, "-m", "benchmarks.server.emptied", str(port)]


def ipr_serve(port: int, *flags: str) -> list[str]:
    """Return the command of `ipr serve`."""
    return [sys.executable, "-m", "ipr_engine", "serve", "--port", str(port), *flags]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=1) as reply:
            return bool(reply.status < 500)
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False
