"""A `Shadow` decides beside by another bundle, and never serves: metrics tell how its choices differ."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from time import monotonic
from typing import Any, cast

from ipr_engine.errors import IprError
from ipr_engine.request.route_request import RequestOptions
from ipr_engine.server.decided import Decided
from ipr_engine.server.policy_book import PolicyBook
from ipr_engine.server.refused import RefusedError, refused_as
from ipr_engine.server.server_config import ServerConfig
from ipr_engine.server.server_engine import PolicyMaker, ServerEngine
from ipr_engine.server.server_metrics import ServerMetrics
from ipr_engine.server.told import MOST_USD

TELL_AGAIN_S = 3600.0
"""The same reason is told in the log so seldom."""
MOST_REASONS = 32
"""Reasons that are told within that time."""


class Shadow:
    """A `Shadow` compares what another bundle would have chosen, after the request has its decision.

    Attributes:
        engine: of the other bundle. book: its policies.
        problem: why it could not decide of late; None where it could.
    """

    def __init__(self, engine: ServerEngine, maker: PolicyMaker, config: ServerConfig, metrics: ServerMetrics) -> None:
        """Compare by `engine`, whose policies `maker` compiles. config: of the server; it has a shadow."""
        assert config.shadow is not None
        self.engine = engine
        self.problem: str | None = None
        self.book = PolicyBook(maker, config, config.shadow.policy)
        self._metrics = metrics
        self._most = config.shadow.waiting
        self._tasks: set[asyncio.Task[None]] = set()
        self._told: dict[str, float] = {}  # reason -> when, the oldest first

    def compare(self, decided: Decided, prompt: Any, given: RequestOptions) -> None:
        """Decide the same request beside, in a task of its own."""
        if len(self._tasks) >= self._most:
            self._metrics.shadow("left_out").inc()
            return
        task = asyncio.get_running_loop().create_task(self._compare(decided, prompt, given))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self, decided: Decided, prompt: Any, given: RequestOptions) -> None:
        question, metrics = decided.question, self._metrics
        try:
            asked = await self.book.of(question)
            other = await self.engine.route(prompt, asked.policy, **self._known(given))
        except (IprError, RefusedError) as error:
            metrics.shadow("failed").inc()
            refused = refused_as(error) if isinstance(error, IprError) else error
            self.cannot_decide(refused.why)  # its message may repeat what the request made up
            return
        except Exception as error:  # its text may hold a prompt; nobody waits for this task
            metrics.shadow("failed").inc()
            self.cannot_decide(type(error).__name__)
            return
        self.problem = None
        chosen = decided.decision
        if other.model == chosen.model:
            metrics.shadow("same").inc()
            return
        metrics.shadow("other").inc()
        if "extra_usd" in given:  # as in what is counted of those that serve: nobody spends them
            return
        # what the shadow's own heads predict of both candidates: figures of two bundles are not comparable
        names = other.bundle.names
        if chosen.model in names:
            m = names.index(chosen.model)
            cost, quality = other.cost_usd - other.usd_of(m), other.quality - float(other.qualities[m])
            if abs(cost) <= MOST_USD and math.isfinite(quality):
                metrics.shadow_cost.inc(cost)
                metrics.shadow_quality.inc(quality)

    def cannot_decide(self, why: str) -> None:
        """Tell why a request cannot be decided, each reason once an hour; requests that can be may come in between."""
        self.problem, now = why, monotonic()
        while self._told and next(iter(self._told.values())) < now - TELL_AGAIN_S:
            del self._told[next(iter(self._told))]
        if why not in self._told and len(self._told) < MOST_REASONS:
            self._told[why] = now
            logging.getLogger(__name__).warning("the shadow bundle cannot decide a request: %s", why)

    def _known(self, given: RequestOptions) -> RequestOptions:
        """Return what is given of a prompt, without what concerns candidates alone that this bundle lacks."""
        if not any(isinstance(value, Mapping) for value in given.values()):
            return given
        known = {name.casefold() for name in self.engine.bundle.names}
        found = {
            option: {name: one for name, one in value.items() if name.casefold() in known}
            if isinstance(value, Mapping)
            else value
            for option, value in given.items()
        }
        return cast(RequestOptions, found)

    async def close(self) -> None:
        """Leave what still waits, and close the engine."""
        for task in self._tasks:
            task.cancel()
        await self.engine.close()
