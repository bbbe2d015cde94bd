"""`serve` runs an application by uvicorn on a socket: in this process, or in several that share it."""

from __future__ import annotations

import logging
import signal
import socket
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from ipr_engine.server.http_connection import HttpConfig, HttpConnection

STOP_S = 30  # a worker that stops may finish what it answers for so long
KEEP_ALIVE_S = (
    75  # longer than the proxies and client pools that are common keep a connection, so that they are who ends it
)
START_S = 60  # a worker may import and load for so long before it is taken for hung
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
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S,
        timeout_worker_healthcheck=START_S,
    )
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
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
        before = {process.pid for process in self.processes}
        super().keep_subprocess_alive()
        ended = before - {process.pid for process in self.processes}
        if ended:
            LOGGER.error(
                "worker %s has died; another begins in its place", ", ".join(map(str, sorted(filter(None, ended))))
            )

    def terminate_all(self) -> None:
        for (
            one
        ) in self.sockets:  # whoever comes now is refused, and does not wait for workers that take nobody any more
            one.close()
        super().terminate_all()
