"""A `WorkerProcesses` is the workers of `ipr serve`: they share a socket, and one that dies or hangs is started again."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
from multiprocessing import resource_tracker
from time import monotonic
from typing import Any

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from ipr_engine.server.stopping_server import StoppingServer

HANGS_S = 30.0
"""A worker whose event loop did nothing for so long hangs. The slowest decision that a body's limit allows takes less."""
STARTS_S = 600.0
"""So long one may take to load its bundle, whose native code may hold the interpreter all the while."""
LOOK_S = 1.0
"""The most that one look counts: where this process stood still meanwhile, the workers may have, too."""
PAUSE_S = 1.0
"""Between two workers that are started in place of others."""
ENDS_S = 15.0
"""A worker that stops is waited for so long after the time in which it may finish what it answers."""
TICKS = 10
OF_TERMINAL = (signal.SIGINT, signal.SIGHUP)
"""What a terminal sends to every process in it: at Ctrl-C, and once it is closed."""
LOGGER = logging.getLogger(__name__)


class BeatingServer(StoppingServer):
    """A `BeatingServer` tells every second that its event loop goes round."""

    def __init__(self, config: uvicorn.Config, beats: Any) -> None:
        super().__init__(config)
        self._beats = beats
        os.set_blocking(beats.fileno(), False)  # where nobody reads, nothing waits

    async def on_tick(self, counter: int) -> bool:
        if counter % TICKS == 0:
            with contextlib.suppress(OSError):  # full, or the other side has gone
                self._beats.send_bytes(b"")
        return bool(await super().on_tick(counter))


class WorkerProcess(Process):
    """A `WorkerProcess` is one worker, as its parent sees it.

    Attributes:
        silent_s: for how long it has not been heard.
    """

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        super().__init__(config, sockets)
        self.silent_s = 0.0
        self._limit_s = STARTS_S

    def start(self) -> None:
        resource_tracker.ensure_running()  # else it begins below, and lets signals through
        # of a terminal: they go to all processes, and one that only begins would end by itself
        before = signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINAL)
        try:
            super().start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def target(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve, in the worker's own process."""
        for number in OF_TERMINAL:  # its parent ends it; SIGINT the server takes over
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OF_TERMINAL)
        self.server.run(sockets)

    @functools.cached_property
    def server(self) -> uvicorn.Server:
        return BeatingServer(self.config, self.child_conn)

    def hangs(self, passed_s: float) -> bool:
        """Return whether it has been silent for too long; it never waits for an answer, which one that dies would not give."""
        self.silent_s += passed_s
        while self.parent_conn.poll():
            self.parent_conn.recv_bytes()
            self.silent_s, self._limit_s = 0.0, HANGS_S
        return self.silent_s > self._limit_s


class WorkerProcesses(Multiprocess):
    """A `WorkerProcesses` starts the workers, watches over them, and ends them."""

    _not_before = 0.0
    _looked = 0.0

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket]) -> None:
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        super().__init__(config, sockets)
        if ignored:  # as nohup has it
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def init_processes(self) -> None:
        self._looked = monotonic()
        self.processes += [self._started() for _ in range(self.processes_num)]

    def _started(self) -> WorkerProcess:
        worker = WorkerProcess(self.config, self.sockets)
        worker.start()
        return worker

    def keep_subprocess_alive(self) -> None:
        """Start another worker for each that has ended or hangs."""
        now = monotonic()
        passed_s, self._looked = min(now - self._looked, LOOK_S), now
        for position, worker in enumerate(self.processes):
            lives = worker.process.is_alive()
            if lives and not worker.hangs(passed_s):
                continue
            if self.should_exit.is_set() or now < self._not_before:
                continue
            self._not_before = now + PAUSE_S
            worker.kill()
            worker.process.join(PAUSE_S)  # one that the kernel holds does not end at once
            what = f"has not answered for {worker.silent_s:.0f} s and is killed" if lives else "has died"
            LOGGER.error("worker %s %s; another begins in its place", worker.pid, what)
            self.processes[position] = self._started()

    def handle_hup(self) -> None:
        """Stop, as at SIGTERM; uvicorn would replace one worker after the other, and hear nobody meanwhile."""
        self.should_exit.set()

    def handle_ttin(self) -> None:
        """Do nothing: the number of workers stays."""

    def handle_ttou(self) -> None:
        """Do nothing: the number of workers stays."""

    def terminate_all(self) -> None:
        # whoever comes now is refused, and does not wait for workers that take nobody any more
        for one in self.sockets:
            one.close()
        super().terminate_all()

    def join_all(self) -> None:
        """Wait until all have ended; one that hangs is killed."""
        latest = monotonic() + self.config.timeout_graceful_shutdown + ENDS_S
        for worker in self.processes:
            worker.process.join(max(0.0, latest - monotonic()))
            if worker.process.is_alive():
                LOGGER.error("worker %s does not stop and is killed", worker.pid)
                worker.process.kill()
                worker.process.join(PAUSE_S)  # one that the kernel holds does not end at once
