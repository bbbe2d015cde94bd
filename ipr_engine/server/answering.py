"""An `Answering` is one endpoint as ASGI calls it: it knows who asks, bounds how many do, tells what went wrong, and counts every reply."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from time import perf_counter
from traceback import format_tb

from ipr_engine.decision.reply_headers import header_value
from ipr_engine.errors import IprError
from ipr_engine.server.exchange import Exchange, Message, Receive, Send
from ipr_engine.server.refused import ClientGoneError, RefusedError, ReplyCutError, refused_as
from ipr_engine.server.request_formats import RequestFormat
from ipr_engine.server.server_config import Tenant
from ipr_engine.server.server_state import ServerState
from ipr_engine.server.tenants import ANYBODY
from ipr_engine.server.told import Told

LEFT = 499
"""The status by which a request is counted whose client left first."""
PROBES = ("/health", "/ready")
_CROSS_SITE = b"cross-site"


class Answering:
    """An `Answering` answers the requests of one path."""

    def __init__(
        self,
        state: ServerState,
        handler: Callable[[Exchange, Tenant, Told], Awaitable[None]],
        form: RequestFormat,
        *,
        open_to_all: bool = False,
    ) -> None:
        """Keep who answers. form: how errors look. open_to_all: no key is asked for, and no bound of requests holds."""
        self._state = state
        self._handler = handler
        self._form = form
        self._open = open_to_all

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        exchange, told = Exchange(scope, receive, send, self._state.patience), Told(scope["path"])
        if self._open:
            await self._answered_to_all(exchange, told)
            return
        state, begun = self._state, perf_counter()
        metrics = state.metrics
        state.in_flight += 1
        try:
            with state.span(exchange, told):
                await self._answered(exchange, told)
        finally:
            state.in_flight -= 1
            took = perf_counter() - begun
            status = exchange.status if exchange.status is not None and not told.left else LEFT
            metrics.requests(told.path, told.tenant, str(status)).inc()
            metrics.request_s(told.path).observe(took)
            if state.logs_requests:
                state.log(told, status, took)

    def _check_site(self, exchange: Exchange) -> None:
        """Refuse what a page of another site sends, and what asks for another host."""
        hosts, host, origin = self._state.hosts, exchange.header(b"host"), exchange.header(b"origin")
        if exchange.header(b"sec-fetch-site") == _CROSS_SITE or (origin and origin.partition(b"://")[2] != host):
            raise RefusedError(403, "a page of another site may not ask this server")
        if hosts and _host(host) not in hosts:
            raise RefusedError(403, "host: is not one that this server answers to; see server.hosts of its config")

    async def _answered_to_all(self, exchange: Exchange, told: Told) -> None:
        try:
            if told.path not in PROBES:  # those are asked by address
                self._check_site(exchange)
            await self._answer(exchange, ANYBODY, told)
        except RefusedError as refused:
            await self._refuse(exchange, refused)
        finally:
            status = LEFT if exchange.status is None else exchange.status
            self._state.metrics.requests(told.path, told.tenant, str(status)).inc()

    async def _answered(self, exchange: Exchange, told: Told) -> None:
        state = self._state
        try:
            tenant = state.tenants.of(exchange.headers)
            told.tenant, told.tags = tenant.name, tenant.tags
            self._check_site(exchange)
            if state.in_flight > state.config.server.limits.requests:
                raise RefusedError(503, "too many requests at the same time", headers={"retry-after": "1"})
            await self._answer(exchange, tenant, told)
        except RefusedError as refused:
            await self._refuse(exchange, refused)

    async def _answer(self, exchange: Exchange, tenant: Tenant, told: Told) -> None:
        try:
            await self._handler(exchange, tenant, told)
        except RefusedError:
            raise
        except ClientGoneError:
            told.left = True
        except ReplyCutError:
            raise ConnectionAbortedError("the reply broke off") from None
        except IprError as error:
            raise refused_as(error) from None
        except Exception as error:
            # the error's own text may hold a prompt: its kind and place are told alone
            place = "".join(format_tb(error.__traceback__))
            logging.getLogger(__name__).error("%s failed: %s\n%s", told.path, type(error).__name__, place)
            if exchange.status is not None:
                raise ConnectionAbortedError("the reply broke off") from None
            raise RefusedError(500, f"the server failed: {type(error).__name__}; its log tells where") from None

    async def _refuse(self, exchange: Exchange, refused: RefusedError) -> None:
        if exchange.status is not None:  # the reply has begun: it can only break off
            raise ConnectionAbortedError("the reply broke off") from None
        headers = [(name.encode(), header_value(value).encode()) for name, value in refused.headers.items()]
        found = self._form.error(refused.status, refused.message, refused.param)
        await exchange.json_reply(refused.status, found, headers)


def _host(header: bytes | None) -> bytes:
    """Return the name of a Host header, without its port."""
    if header is None:
        return b""
    if header.startswith(b"["):
        return header[1:].partition(b"]")[0]
    return header.partition(b":")[0].lower()
