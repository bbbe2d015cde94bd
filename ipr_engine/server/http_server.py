"""`serve` runs an application by uvicorn on a socket: in this process, or in several that share it."""

from __future__ import annotations

import logging
import signal
import socket
from typing import Any

import uvicorn
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from ipr_engine.server.http_connection import HttpConfig, HttpConnection

STOP_S = 30  # a worker that stops may finish what it answers for so long
KEEP_ALIVE_S = (
    75  # longer than the proxies and client pools that are common keep a connection, so that they are who ends it
)
START_S = 60  # of SIGHUP: a worker may import and load for so long before the one that it replaces ends
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
        timeout_worker_healthcheck=START_S,
    )
    if workers > 1:
        _Workers(config, [listening]).run()
        return
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises it once more when it is done
        signal.signal(number, _done)
    uvicorn.Server(config).run([listening])


def _done(number: int, frame: object) -> None:
    """Do nothing: the server has stopped."""


class _Workers(Multiprocess):
    """`_Workers` are processes that share a socket; one that dies is started again."""

    def keep_subprocess_alive(self) -> None:
        """Start another worker for each that has ended.

        Uvicorn's own asks each over a pipe whether it lives, and waits for the answer of one that dies meanwhile.
        """
        for position, worker in enumerate(self.processes):
            if not self.should_exit.is_set() and not worker.process.is_alive():
                worker.kill()
                LOGGER.error("worker %s has died; another begins in its place", worker.pid)
                self.processes[position] = Process(self.config, self.sockets)
                self.processes[position].start()

    def terminate_all(self) -> None:
        for (
            one
        ) in self.sockets:  # whoever comes now is refused, and does not wait for workers that take nobody any more
            one.close()
        super().terminate_all()
