"""`asked` has h2load (Debian's nghttp2-client) ask one URL, and returns what each request took."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from ipr_engine.errors import BackendUnavailableError


class Load(NamedTuple):
    """A `Load` says how a URL is asked: so many requests over so many connections, `rate` a second in all (0: at once)."""

    requests: int
    clients: int = 1
    rate: float = 0.0


def available() -> bool:
    return shutil.which("h2load") is not None


class Reply(NamedTuple):
    """A `Reply` is one reply as h2load saw it: its HTTP status, and microseconds until its end."""

    status: int
    us: int


def asked(url: str, body: bytes, load: Load, headers: tuple[str, ...] = ()) -> list[int]:
    """Return microseconds of every request until the end of its reply.

    Raises:
        BackendUnavailableError: h2load is missing. RuntimeError: a reply was no 200, or did not come.
    """
    found = replies(url, body, load, headers)
    bad = [reply.status for reply in found if reply.status != 200]
    if bad or len(found) != load.requests:
        raise RuntimeError(f"{url}: {len(found)} of {load.requests} replies, {len(bad)} of them no 200 ({bad[:3]})")
    return [reply.us for reply in found]


def replies(url: str, body: bytes, load: Load, headers: tuple[str, ...] = ()) -> list[Reply]:
    """Return every reply that came, whatever its status.

    Raises:
        BackendUnavailableError: h2load is missing. RuntimeError: it failed.
    """
    if not available():
        raise BackendUnavailableError("h2load is missing: apt-get install nghttp2-client")
    with tempfile.TemporaryDirectory() as folder:
        data, log = Path(folder, "body"), Path(folder, "log")
        data.write_bytes(body)
        command = ["h2load", "--h1", "-n", str(load.requests), "-c", str(load.clients), "-m", "1", "-t", "1"]
        command += ["-d", str(data), "-H", "content-type: application/json", f"--log-file={log}"]
        for header in headers:
            command += ["-H", header]
        if load.rate:
            command.append(f"--rps={load.rate / load.clients:g}")
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"h2load failed: {done.stderr[-500:]}")
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    return [Reply(int(row[1]), int(row[2])) for row in rows]
