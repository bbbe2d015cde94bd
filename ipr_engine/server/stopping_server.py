"""A `StoppingServer` is uvicorn's server, which says when it stops."""

from __future__ import annotations

import logging
import socket

import uvicorn


class StoppingServer(uvicorn.Server):
    """A `StoppingServer` tells its log when it takes no more requests, and how many it finishes."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        waiting = self.config.loaded_app.state.ipr.in_flight
        logging.getLogger(__name__).info(
            "stopping: no more requests are taken; %d under way are finished first", waiting
        )
        await super().shutdown(sockets)
