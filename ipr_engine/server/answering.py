"""An `Answering` is one endpoint as ASGI calls it: it knows who asks, bounds how many do, tells what went wrong, and counts every reply."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from time import perf_counter

from ipr_engine._faults import fault
from ipr_engine.decision.reply_headers import header_value
from ipr_engine.errors import IprError
from ipr_engine.server.asking_site import check_site
from ipr_engine.server.exchange import Exchange, Message, Receive, Send
from ipr_engine.server.refused import CLIENT_LEFT, ClientGoneError, RefusedError, ReplyCutError, refused_as
from ipr_engine.server.request_formats import RequestFormat
from ipr_engine.server.server_config import Tenant
from ipr_engine.server.server_state import ServerState
from ipr_engine.server.tenants import ANYBODY
from ipr_engine.server.told import Told

PROBES = ("/health", "/ready")
OVERVIEW = "/ipr/overview"  # an open page asks every three seconds: no line of the log tells of it where it is answered


class Answering:
    """An `Answering` answers the requests of one path."""

    def __init__(
        self,
        state: ServerState,
        path: str,
        handler: Callable[[Exchange, Tenant, Told], Awaitable[None]],
        form: RequestFormat,
        *,
        open_to_all: bool = False,
        plain: Callable[[Message], Told | None] | None = None,
    ) -> None:
        """Keep who answers.

        Args:
            path: by which requests are counted. form: how errors look.
            open_to_all: no key is asked for, and no bound of requests holds.
            plain: answers a request in one step, and returns what is told of it, or None where it has left it; None: nobody does.
        """
        self._state = state
        self._path = path
        self._handler = handler
        self._form = form
        self._open = open_to_all
        self._plain = plain

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        state, begun = self._state, perf_counter()
        answered = None if self._plain is None else self._plain(scope)
        if answered is not None:
            state.decider.afterwards(self._count, answered, HTTPStatus.OK.value, perf_counter() - begun)
            return
        exchange, told = Exchange(scope, receive, send, state.patience), Told(self._path)
        if self._open:
            try:
                await self._answered(exchange, told, ANYBODY)
            finally:
                state.decider.afterwards(self._count_status, told, exchange.status)
            return
        state.in_flight += 1
        try:
            if state.spans is None:
                await self._answered(exchange, told)
            else:
                with state.spans.of(exchange, told):
                    await self._answered(exchange, told)
        finally:
            state.in_flight -= 1
            state.decider.afterwards(self._count, told, exchange.status, perf_counter() - begun)

    def _count_status(self, told: Told, status: int | None) -> int:
        counted = status if status is not None and not told.left else CLIENT_LEFT
        self._state.metrics.requests(told.path, told.tenant, str(counted)).inc()
        return counted

    def _count(self, told: Told, status: int | None, took_s: float) -> None:
        state, counted = self._state, self._count_status(told, status)
        state.metrics.request_s(told.path).observe(took_s)
        if state.logs_requests and not (told.path == OVERVIEW and counted == HTTPStatus.OK):
            state.log(told, counted, took_s)

    async def _answered(self, exchange: Exchange, told: Told, tenant: Tenant | None = None) -> None:
        """Answer, whatever happens. tenant: who asks; None: the key tells."""
        try:
            refused = await self._tried(exchange, told, tenant)
            if refused is not None:  # said out of reach of the error behind it, whose text may hold a prompt
                told.refused = refused.why
                await self._refuse(exchange, refused)
        except ClientGoneError:
            told.left = True

    async def _tried(self, exchange: Exchange, told: Told, tenant: Tenant | None) -> RefusedError | None:
        """Answer; return how the request is refused where it is."""
        state = self._state
        try:
            if tenant is None:
                tenant = state.tenants.of(exchange.headers)
                told.tenant, told.tags = tenant.name, tenant.tags
            if told.path not in PROBES:  # those are asked by address
                check_site(exchange.named, state.hosts)
            if state.in_flight > state.most_in_flight and not self._open:
                raise RefusedError(503, "too many requests at the same time", headers={"retry-after": "1"})
            if not state.begun and not self._open:
                raise state.not_begun()
            await self._handler(exchange, tenant, told)
        except RefusedError as refused:
            return refused
        except ClientGoneError:
            told.left = True
        except ReplyCutError:
            exchange.break_off()
        except asyncio.CancelledError:  # the server stops and waits no longer
            if not exchange.is_of_own_server:
                raise
            return None if exchange.ended else RefusedError(503, "the server stops", headers={"retry-after": "1"})
        except IprError as error:
            return refused_as(error)
        except Exception as error:
            logging.getLogger(__name__).error("%s failed: %s", told.path, fault(error))
            return RefusedError(500, f"the server failed: {type(error).__name__}; its log tells where")
        return None

    async def _refuse(self, exchange: Exchange, refused: RefusedError) -> None:
        if exchange.status is not None:  # the reply has begun: it can only break off
            exchange.break_off()
            return
        headers = [(name.encode(), header_value(value).encode()) for name, value in refused.headers.items()]
        found = self._form.error(refused.status, refused.message, refused.param)
        await exchange.json_reply(refused.status, found, headers)
