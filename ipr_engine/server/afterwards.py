"""An `Afterwards` does what no client waits for once the reply that it belongs to has left: counting, and keeping for the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from ipr_engine._faults import fault


class Afterwards:
    """An `Afterwards` is for the tasks of one event loop; before the loop answers another request, what waits is done."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def __call__(self, work: Callable[..., object], *arguments: Any) -> None:
        """Do this once the running task lets others go on."""
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.done)
        self._waiting.append((work, arguments))

    def done(self) -> None:
        """Do all that waits."""
        waiting, self._waiting = self._waiting, []
        for work, arguments in waiting:
            try:
                work(*arguments)
            except Exception as error:  # what else waits is done
                logging.getLogger(__name__).error("counting failed: %s", fault(error))
