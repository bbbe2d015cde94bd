"""A `ServerProcess` is `ipr serve` in a process, on loopback, with the config that a test writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.support.http_calls import HttpCalls, free_port
from tests.support.places import ROOT

START_S = 60.0


class ServerProcess(HttpCalls):
    """A `ServerProcess` runs as long as its `with` lasts.

    Attributes:
        log: the file of what it prints.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any],
        *arguments: str,
        environment: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        files: str | None = None,
    ) -> None:
        """Write the config, which is JSON and so YAML.

        headers: of every call. files: how many it may open, as SOFT:HARD of prlimit.
        """
        super().__init__(free_port(), headers)
        folder.mkdir(parents=True, exist_ok=True)
        written = folder / "config.yaml"
        written.write_text(json.dumps(config))
        self.log = folder / "server.log"
        self._command = [sys.executable, "-m", "ipr_engine", "serve", "--config", str(written), *arguments]
        if files is not None:
            self._command = ["prlimit", f"--nofile={files}", *self._command]
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})}

    def __enter__(self) -> ServerProcess:
        command = [*self._command, "--port", str(self.port)]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environment, cwd=ROOT)
        until(self._is_ready, START_S, self.printed)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            for pid in (*self.workers(), self.process.pid):
                os.kill(pid, signal.SIGKILL)
            self.process.wait()

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.printed()[-2000:]
        try:
            return self.get("/ready").status == 200
        except OSError:
            return False

    def printed(self) -> str:
        return self.log.read_text(errors="replace")

    def workers(self) -> list[int]:
        """Return the pids of the worker processes, as the system lists them: children that serve."""
        found = []
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"resource_tracker" not in command:
                found.append(int(pid))
        return found

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics: name and labels, as they are written there -> value."""
        return self.get("/metrics").samples

    def all_ready(self, workers: int, status: int = 200) -> bool:
        """Return whether so many workers run and serve a bundle, and `/ready` of whichever answers has the status."""
        try:
            serving = sum(value for name, value in self.metrics().items() if name.startswith("ipr_serving_bundle"))
            statuses = {self.get("/ready").status for _ in range(8)}
        except OSError:  # a worker that was killed had taken the connection
            return False
        return len(self.workers()) == serving == workers and statuses == {status}

    def counted(self, before: Mapping[str, float]) -> dict[str, float]:
        """Return by how much samples have grown since, of those that have."""
        return {
            name: value - before.get(name, 0.0)
            for name, value in self.metrics().items()
            if value != before.get(name, 0.0)
        }


def until(holds: Callable[[], Any], seconds: float = 10.0, said: Callable[[], str] = str) -> Any:
    """Return what holds, once it does; fail, and tell what was said, when it does not in time."""
    end = time.monotonic() + seconds
    while True:
        found = holds()
        if found:
            return found
        assert time.monotonic() < end, f"not within {seconds:g} s; {said()[-2000:]}"
        time.sleep(0.02)
