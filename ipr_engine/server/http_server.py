"""`serve` runs an application by uvicorn on a socket: in this process, or in several that share it."""

from __future__ import annotations

import logging
import signal
import socket
from typing import Any

from ipr_engine.server.http_connection import HttpConfig, HttpConnection
from ipr_engine.server.stopping_server import StoppingServer
from ipr_engine.server.worker_processes import WorkerProcesses

STOP_S = 30  # a worker that stops may finish what it answers for so long
KEEP_ALIVE_S = 75  # longer than common proxies and client pools keep a connection, so that they are who ends it


def serve(application: Any, listening: socket.socket, workers: int = 1) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP (a closed terminal, unless nohup ignores it), then finish what is being answered.

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
        WorkerProcesses(config, [listening]).run()
        return
    server = StoppingServer(config)

    def stop(number: int, frame: object) -> None:
        server.should_exit = True

    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn takes over, and raises it once more when it is done
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, stop)
    server.run([listening])
