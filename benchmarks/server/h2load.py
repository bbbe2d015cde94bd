"""`asked` has h2load (Debian's nghttp2-client) ask one URL, and returns what each request took."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

from ipr_engine.errors import BackendUnavailableError


class Load(NamedTuple):
    """A `Load` says how a URL is asked: so many requests over so many connections, each at most `rate` a second (0: at once)."""

    requests: int
    clients: int = 1
    rate: float = 0.0


def available() -> bool:
    return shutil.which("h2load") is not None


def asked(url: str, body: bytes, load: Load, headers: tuple[str, ...] = ()) -> list[int]:
    """Return microseconds of every request until the end of its reply.

    Raises:
        BackendUnavailableError: h2load is missing. RuntimeError: a reply was no 200.
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
            command.append(f"--rps={load.rate:g}")
        done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"h2load failed: {done.stderr[-500:]}")
        rows = [line.split("\t") for line in log.read_text().splitlines()]
    bad = [row[1] for row in rows if row[1] != "200"]
    if bad or len(rows) != load.requests:
        raise RuntimeError(f"{url}: {len(rows)} of {load.requests} replies, {len(bad)} of them no 200 ({bad[:3]})")
    return [int(row[2]) for row in rows]
