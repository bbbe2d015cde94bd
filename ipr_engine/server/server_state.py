"""A `ServerState` is what one worker holds: the engine, its policies, upstreams, tenants, metrics, and what runs beside requests."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from ipr_engine._validate import shown_each
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.load import CURRENT
from ipr_engine.bundle.origin import prior_of
from ipr_engine.errors import InvalidInputError
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.server.config_checks import placed
from ipr_engine.server.decided import AskedRequest
from ipr_engine.server.decider import Decider
from ipr_engine.server.open_files import LACK, has_none_left
from ipr_engine.server.patience import Patience
from ipr_engine.server.policy_book import PolicyBook, speakers
from ipr_engine.server.reach_lines import reach_lines
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.request_formats import FORMATS
from ipr_engine.server.server_config import ServerConfig, leading_name, place_of
from ipr_engine.server.server_engine import DecisionRecorder, PolicyMaker, ServerEngine
from ipr_engine.server.server_metrics import ServerMetrics, WorkerCounters
from ipr_engine.server.shadow import Shadow
from ipr_engine.server.spans import Spans
from ipr_engine.server.tenants import ANYBODY, Tenants
from ipr_engine.server.told import Told
from ipr_engine.server.upstreams import Upstreams
from ipr_engine.watch import Watch

SHARE_S = 1.0  # seconds between two times that a worker leaves its engine's counters for the others
NOT_BEGUN = (
    "this application was not started: whatever it is mounted in enters its lifespan, by "
    "`async with application.router.lifespan_context(application)` in its own (docs/server.md)"
)
REQUEST_LOG = "ipr_engine.server.requests"


class ServerState:
    """A `ServerState` is one worker's.

    Attributes:
        config, engine, decider, metrics, tenants: of the server. upstreams, shadow: None without.
        patience: with which bodies are awaited. in_flight: requests that are being answered; at most `most_in_flight`.
        logs_requests: whether each gets a line. spans: None without.
        hosts: of the header Host; empty for any. parent: the process whose end ends this worker; None for none.
        begun: whether the application's lifespan has been entered. owns_process: whether the process serves this application alone.
        served: a file that is told which bundle serves, for a worker that begins where CURRENT cannot be served.
    """

    def __init__(
        self,
        engine: ServerEngine,
        maker: PolicyMaker,
        config: ServerConfig,
        *,
        root: Path | None = None,
        recorder: DecisionRecorder | None = None,
        shadow: tuple[ServerEngine, PolicyMaker] | None = None,
    ) -> None:
        """Check that the config fits the bundle, and compile what it names.

        Args:
            engine: what decides. maker: compiles its policies.
            root: the bundle's root, to be followed; None for none.
            recorder: decides in place of `engine`, where decisions are recorded.
            shadow: engine and maker of the bundle that decides beside.
        Raises:
            InvalidInputError: the config does not fit.
        """
        self.config = config
        self.parent: int | None = None
        self.served: Path | None = None
        self.owns_process = False
        self.engine = engine
        self.metrics = ServerMetrics()
        self.tenants = Tenants(config.tenants)
        self.patience = Patience(config.server.limits.body_s)
        self.in_flight = 0
        self.hosts = frozenset(host.lower().encode() for host in config.server.hosts)
        self.logs_requests = config.server.log_requests
        self._log = logging.getLogger(REQUEST_LOG)
        self._root = root if root is not None and config.server.follow_s > 0 and (root / CURRENT).exists() else None
        self.begun = False
        self._told_not_begun = False
        self._warm = False
        self._problem: str | None = None  # why it is not ready
        self._share_problem: str | None = None
        self._watch: Watch | None = None
        self._workers = WorkerCounters()
        with placed("server.spans"):
            self.spans = Spans() if config.server.spans else None
        self.most_in_flight = config.server.limits.requests
        known = dict.fromkeys([*engine.bundle.names, *(shadow[0].bundle.names if shadow is not None else ())])
        unknown = [name for name in config.upstreams if name not in known]
        if unknown:
            names = ", ".join(known)
            raise InvalidInputError(f"upstreams.{unknown[0]}: the bundle has no such candidate; known: {names}")
        self.shadow = None if shadow is None else Shadow(*shadow, config, self.metrics)
        beside = None if self.shadow is None else self.shadow.compare
        self.decider = Decider(engine, maker, config, self.metrics, recorder=recorder, beside=beside)
        self.upstreams = Upstreams(config) if config.upstreams else None
        self._open_to: dict[tuple[str, str], tuple[str, ...]] = {}  # (tenant, model) -> candidates
        self._check_policies(self.decider.book)
        if self.shadow is not None:
            self._check_shadow(self.shadow)

    def _check_policies(self, book: PolicyBook) -> None:
        """Compile every model's policy for every tenant once, so that what is wrong is told at the start."""
        for tenant in (ANYBODY, *self.config.tenants):
            for model in self.config.models:
                try:
                    asked = book.compile(AskedRequest(None, NO_CONTROLS, tenant, model))
                    self._open_to[tenant.name, model] = asked.policy.allowed
                except InvalidInputError as error:
                    option, _, why = str(error).partition(": ")
                    # where no level of options leaves anybody out, upstreams do
                    place = "upstreams" if option == "policy" else place_of(self.config, tenant, model, option)
                    raise InvalidInputError(f"{place}: {why}") from None

    def _check_shadow(self, shadow: Shadow) -> None:
        """Refuse a policy of the shadow's own that is wrong. What else its bundle cannot decide is told, since it never serves."""
        config = self.config
        own: Mapping[str, Any] = {} if config.shadow is None else config.shadow.policy
        for tenant in (ANYBODY, *config.tenants):
            for model in config.models:
                try:
                    shadow.book.compile(AskedRequest(None, NO_CONTROLS, tenant, model))
                except InvalidInputError as error:
                    option, _, why = str(error).partition(": ")
                    if own.get(leading_name(option)) is not None:
                        raise InvalidInputError(f"shadow.policy.{option}: {why}") from None
                    place = place_of(config, tenant, model, option)
                    shadow.cannot_decide(f"{place}: {why}")
                    return

    def not_begun(self) -> RefusedError:
        """Return how a request ends where nobody has entered the application's lifespan; the log tells it once."""
        if not self._told_not_begun:
            self._told_not_begun = True
            logging.getLogger(__name__).error("%s", NOT_BEGUN)
        return RefusedError(503, NOT_BEGUN)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve, and close afterwards. It warms up meanwhile: until then `/ready` says no, and requests get 503."""
        self.begun = True
        async with contextlib.AsyncExitStack() as stack:
            if self.spans is not None:
                await stack.enter_async_context(self.spans.running())
            if self.upstreams is not None:
                await self.upstreams.open()
                stack.push_async_callback(self.upstreams.close)
            if self.shadow is not None:
                stack.push_async_callback(self.shadow.close)
            stack.push_async_callback(self.engine.close)
            stack.push_async_callback(self.decider.close)
            beside = [asyncio.ensure_future(self._warm_up()), asyncio.ensure_future(self._share())]
            if self.parent is not None:  # one of several workers takes requests once it is warm: others may be
                await asyncio.wait(beside[:1])
            try:
                yield
            finally:
                self._warm = False
                for task in beside:
                    task.cancel()
                await asyncio.gather(*beside, return_exceptions=True)
                self.decider.afterwards.done()
                if self._watch is not None:
                    await asyncio.to_thread(self._watch.close)
                self._workers.write(self.engine.counters())
                self.decider.recent.share()
                if self.owns_process:
                    await asyncio.to_thread(_flush_log)

    async def _warm_up(self) -> None:
        try:
            if self.shadow is not None:
                await self.shadow.engine.start()
            await self.engine.start()
            self._tell_served()  # before a swap: the config was checked against this one
            if self._root is not None:
                self._watch = await self._follow(self._root)
        except Exception as error:
            self._problem = (
                f"{type(error).__name__}; the log tells why"  # anybody may read it, and a text may hold a path
            )
            logging.getLogger(__name__).error("the server does not become ready: %s: %s", type(error).__name__, error)
            return
        if self.owns_process:  # what is loaded stays, and is not looked through again
            gc.collect()
            gc.freeze()
        self._warm = True

    async def _follow(self, root: Path) -> Watch:
        return await self.engine.watch(
            root,
            interval_s=self.config.server.follow_s,
            on_swap=self._swapped,
            on_error=lambda _: self.metrics.swap_failed(),
            allow_other_encoder=True,  # nobody keeps embeddings of a server: it takes texts and gives decisions
        )

    def _swapped(self, _: Bundle) -> None:
        """Say that requests fail, where the config's own policies do not suit the bundle that was put in place."""
        try:
            self._check_policies(self.decider.book)
        except InvalidInputError as error:
            self._problem = str(error)
            self.metrics.swap_failed()
            logging.getLogger(__name__).error("the config does not suit the bundle that serves now: %s", error)
        else:
            self._problem = None
            self._tell_served()

    def _tell_served(self) -> None:
        if self.served is not None and self.engine.bundle.path is not None:
            made = self.served.with_suffix(f".{os.getpid()}")
            made.write_text(str(self.engine.bundle.path))
            made.replace(self.served)

    async def _share(self) -> None:
        while True:
            self._tell_gauges()
            if has_none_left():  # then a server may lose whoever connects without a word
                LACK.seen()
            else:
                self._write_counts()
            if self.parent is not None and os.getppid() != self.parent:  # killed: nobody would stop this worker
                logging.getLogger(__name__).error("the server's own process has ended, so this worker does")
                os.kill(os.getpid(), signal.SIGTERM)
                self.parent = None
            await asyncio.sleep(SHARE_S)

    def _write_counts(self) -> None:
        """Leave what was counted for the other workers; where that fails, a disk that is full, say, it is tried again."""
        try:
            self._workers.write(self.engine.counters())
            self.decider.recent.share()
        except OSError as error:
            if str(error) != self._share_problem:
                logging.getLogger(__name__).error("this worker's counts cannot be left for the others: %s", error)
            self._share_problem = str(error)
        else:
            self._share_problem = None

    def _tell_gauges(self) -> None:
        """Set what is so now."""
        self.metrics.in_flight.set(self.in_flight)
        if self.upstreams is not None:
            for target in self.upstreams.targets.values():
                self.metrics.up(target.candidate).set(target.health.state)

    async def metrics_text(self) -> bytes:
        """Return all metrics, of all workers; files are read in a thread."""
        self.decider.afterwards.done()
        self._tell_gauges()
        own = self.engine.counters()
        return await asyncio.to_thread(lambda: self.metrics.text(self._workers.all(own)))

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Return whether requests are taken, and what is known of it."""
        ready = self._warm and self._problem is None
        found: dict[str, Any] = {"ready": ready, "bundle": self.engine.bundle.hash}
        problem = self._problem if self.begun else NOT_BEGUN
        if problem is not None:
            found["problem"] = problem
        if self._watch is not None and self._watch.last_error is not None:
            found["swap"] = f"CURRENT is not served: {type(self._watch.last_error).__name__}; the log tells why"
        if self.decider.record_problem is not None:
            found["records"] = self.decider.record_problem
        if self.upstreams is not None:
            found["upstreams"] = {name: target.health.state for name, target in self.upstreams.targets.items()}
            if self.upstreams.refused_keys.statuses:
                found["refused_keys"] = dict(self.upstreams.refused_keys.statuses)
        if self.shadow is not None:
            found["shadow"] = {"bundle": self.shadow.engine.bundle.hash, "problem": self.shadow.problem}
        return ready, found

    def summary(self) -> list[str]:
        """Return what is told at the start: the bundle, and who speaks which format."""
        bundle = self.engine.bundle
        lines = [f"bundle {bundle.hash[:16]}, {len(bundle.names)} candidates"]
        priors = [name for name in bundle.names if prior_of(bundle, name) is not None]
        if priors:
            lines.append(f"priors, no outcomes of their own: {', '.join(priors)}")
        said = bundle.unsupported
        if said is not None:
            lines.append(
                f"prompts of support below {said.min_support:g} go to {said.model}, unless a policy says otherwise"
            )
        if bundle.tasks:
            lines.append(f"tasks told apart: {shown_each(sorted(bundle.tasks))}")
        records = self.config.records
        if records is not None and records.keep_prompts and records.key is None:
            lines.append(f"records: prompts are kept in clear in {records.path}; a key seals them (ipr key)")
        if self.config.exploration:
            lines.append(
                f"exploration: {self.config.exploration:.3g} of requests are asked of a candidate that chance draws"
            )
        if self.upstreams is None:
            return [*lines, "no upstreams: a decision server"]
        spoken = speakers(self.config, bundle.names)
        if said is not None and said.model not in spoken:
            lines.append(
                f"warning: {said.model} has no upstream: where a policy names nobody else (--min-support, --unsupported), the best "
                "single candidate of those left answers, whatever it costs"
            )
        for name in bundle.names:
            lines.append(f"  {name}: {' '.join(spoken[name]) if name in spoken else 'no upstream, never chosen'}")
        for form in FORMATS.values():
            masked = [name for name in bundle.names if form.name not in spoken.get(name, ())]
            lines.append(f"{form.path}: {len(bundle.names) - len(masked)} of {len(bundle.names)} candidates")
        return [*lines, *reach_lines(self.config, self._open_to, spoken)]

    def log(self, told: Told, status: int, took_s: float) -> None:
        """Write the line of a request: JSON, without text of a prompt."""
        line = {"at": round(told.begun, 3), "status": status, "ms": round(1e3 * took_s, 3), **told.fields()}
        self._log.info(orjson.dumps(line).decode())


def _flush_log() -> None:
    """Have the lines of this process written that wait: a worker ends by a signal."""
    for handler in logging.getLogger().handlers:
        handler.flush()
