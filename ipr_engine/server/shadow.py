"""A `Shadow` decides beside by another bundle, and never serves: metrics tell how its choices differ."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ipr_engine.engine import Engine
from ipr_engine.errors import IprError
from ipr_engine.server.decided import Decided
from ipr_engine.server.policy_book import PolicyBook, over
from ipr_engine.server.refusal import Refusal
from ipr_engine.server.server_config import ServerConfig, ShadowBundle
from ipr_engine.server.server_metrics import ServerMetrics
from ipr_engine.serving import AsyncEngine


class Shadow:
    """A `Shadow` compares what another bundle would have chosen, after the request has its decision.

    Attributes:
        engine: of the other bundle.
        problem: why it could not decide of late; None where it could.
    """

    def __init__(self, shadow: ShadowBundle, config: ServerConfig, metrics: ServerMetrics) -> None:
        """Load the bundle.

        Raises:
            BundleError: it cannot be loaded. InvalidInputError: an option of its policy does not fit it.
        """
        self.engine = AsyncEngine(Engine.load(shadow.bundle))
        self.problem: str | None = None
        self._book = PolicyBook(self.engine.engine, replace(config, policy=over(config.policy, shadow.policy)))
        self._metrics = metrics
        self._most = shadow.waiting
        self._tasks: set[asyncio.Task[None]] = set()

    def compare(self, decided: Decided, prompt: Any, given: Mapping[str, Any]) -> None:
        """Decide the same request beside, in a task of its own."""
        if len(self._tasks) >= self._most:
            self._metrics.shadow("left_out").inc()
            return
        task = asyncio.get_running_loop().create_task(self._compare(decided, prompt, given))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _compare(self, decided: Decided, prompt: Any, given: Mapping[str, Any]) -> None:
        question, metrics = decided.question, self._metrics
        try:
            asked = await self._book.of(question.tenant, question.model, question.form, question.controls)
            other = await self.engine.route(prompt, asked.policy, **given)
        except (IprError, Refusal) as error:
            metrics.shadow("failed").inc()
            said = str(error)
            if said != self.problem:
                self.problem = said
                logging.getLogger(__name__).warning("the shadow bundle could not decide a request: %s", said)
            return
        self.problem = None
        chosen = decided.decision
        if other.model == chosen.model:
            metrics.shadow("same").inc()
            return
        metrics.shadow("other").inc()
        # what the shadow's own heads predict of both candidates: figures of two bundles are not comparable
        names = other.bundle.names
        if chosen.model in names:
            m = names.index(chosen.model)
            metrics.shadow_cost.inc(other.cost_usd - other.usd_of(m))
            metrics.shadow_quality.inc(other.quality - float(other.qualities[m]))

    async def close(self) -> None:
        """Leave what still waits, and close the engine."""
        for task in self._tasks:
            task.cancel()
        await self.engine.close()
