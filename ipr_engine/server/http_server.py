"""`serve` runs an application by uvicorn on a socket: in this process, or in several that share it."""

from __future__ import annotations

import logging
import signal
import socket
from time import monotonic
from typing import Any

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from ipr_engine.server.http_connection import HttpConfig, HttpConnection

STOP_S = 30  # a worker that stops may finish what it answers for so long
KEEP_ALIVE_S = 75  # longer than common proxies and client pools keep a connection, so that they are who ends it
PAUSE_S = 1.0  # between two workers that are started in place of others
LOGGER = logging.getLogger(__name__)


def serve(application: Any, listening: socket.socket, workers: int = 1) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is being answered.

    Args:
        application: what `ipr_engine.server.app` made; for several workers what makes it, in each of them, and can be pickled.
        listening: is bound; it is closed in the end.
    """
    config = HttpConfig(
        application,
        factory=workers > 1,
        http=HttpConnection,
        loop="uvloop",
        ws="none",
        lifespan="on",
        interface="asgi3",
        workers=workers,
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    if workers > 1:
        _Workers(config, [listening]).run()
        return
    server = uvicorn.Server(config)

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn takes over, and raises it once more when it is done
        signal.signal(number, stop)
    server.run([listening])


class _Workers(Multiprocess):
    """`_Workers` are processes that share a socket; one that dies is started again."""

    _not_before = 0.0

    def keep_subprocess_alive(self) -> None:
        """Start another worker for each that has ended.

        Uvicorn's own asks each over a pipe whether it lives, and waits for the answer of one that dies meanwhile.
        """
        for position, worker in enumerate(self.processes):
            if not self.should_exit.is_set() and not worker.process.is_alive() and monotonic() >= self._not_before:
                self._not_before = monotonic() + PAUSE_S
                worker.kill()
                LOGGER.error("worker %s has died; another begins in its place", worker.pid)
                self.processes[position] = Process(self.config, self.sockets)
                self.processes[position].start()

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
