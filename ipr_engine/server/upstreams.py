"""An `Upstreams` asks candidates: one HTTP client, and for each candidate its address, its key and its health."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ipr_engine._extras import need
from ipr_engine.decision.reply_headers import header_value
from ipr_engine.documents.provider_checks import key_in_environment
from ipr_engine.server.health import Health, Turn
from ipr_engine.server.open_files import LACK, lacks_files
from ipr_engine.server.passed_request import PassedRequest
from ipr_engine.server.refused import CLIENT_LEFT, RefusedError
from ipr_engine.server.refused_keys import BUSY, REFUSALS, RefusedKeys
from ipr_engine.server.reply_reading import (
    end_with_connection,
    is_coded,
    is_cut,
    is_readable,
    lasts_until_closed,
    passed_back,
    retry_after,
)
from ipr_engine.server.request_formats import MESSAGES
from ipr_engine.server.request_text import field_text
from ipr_engine.server.server_config import Endpoint, ServerConfig, Upstream

FAILING = frozenset({*BUSY, *REFUSALS, CLIENT_LEFT})
"""Statuses that, as every one from 500 on, are the upstream's fault or its load, or the server's own key: the next candidate is asked."""
SAYING_S, MOST_SAID = 1.0, 65536  # of what a failing upstream says
SSE, JSON, CLOSE = "text/event-stream", "application/json", "close"


class UpstreamFailedError(Exception):
    """An attempt failed before its first byte, so that another candidate may be asked.

    Attributes:
        outcome: "connect", "timeout", "broken" or "status_<code>".
        retry_after_s: how long the upstream asks to be left alone.
        reply: what it said, where it said something.
    """

    def __init__(self, outcome: str, retry_after_s: float | None = None, reply: WholeReply | None = None) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.retry_after_s = retry_after_s
        self.reply = reply

    @property
    def may_be_the_request(self) -> bool:
        """Return whether it says nothing of the upstream: with a 403 some refuse a key, and others what a prompt asks for."""
        return self.outcome == "status_403" and self.retry_after_s is None


class StreamCutError(Exception):
    """A stream broke after its first byte."""


@dataclass(frozen=True, slots=True)
class WholeReply:
    """A `WholeReply` is an upstream's reply, kept whole."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


@dataclass(frozen=True, slots=True)
class StreamedReply:
    """A `StreamedReply` is an upstream's reply whose first piece is there.

    Attributes:
        pieces: that one and the rest, as they come.
        events: they are server-sent events that can be read, and more of them can be added.
        until_closed: only the end of the connection ends them, so that a break looks like an end.
        close: ends the connection where the pieces were not read to their end; may always be called.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    pieces: AsyncIterator[bytes]
    events: bool
    until_closed: bool
    close: Callable[[], object]


Reply = WholeReply | StreamedReply


class Target:
    """A `Target` is one candidate as it is asked: who, where, with which key.

    Attributes:
        candidate: its name in the bundle. model: what its endpoint calls it.
        formats: what it speaks. health: whether it is worth asking. told: the headers of a reply that name it.
        key_place: where the config names its key.
    """

    def __init__(self, candidate: str, upstream: Upstream, endpoint: Endpoint, health: Health) -> None:
        """Read the key from the environment.

        Raises:
            InvalidInputError: the variable is not set, or holds what cannot be sent.
        """
        self.candidate = candidate
        self.model = candidate if upstream.model is None else upstream.model
        self.told = [
            (b"x-ipr-candidate", header_value(candidate).encode()),
            (b"x-ipr-model", header_value(self.model).encode()),
        ]
        self.formats = endpoint.formats
        self.health = health
        self.timeouts = endpoint.timeouts
        self._base = endpoint.base_url.rstrip("/")
        set_by: Mapping[Any, Mapping[str, Any]] = upstream.body
        self._fields: dict[str, dict[str, bytes]] = {
            form: {
                name: field_text(name, value) for name, value in {"model": self.model, **set_by.get(form, {})}.items()
            }
            for form in endpoint.formats
        }
        self._headers = {name.lower(): value for name, value in endpoint.headers.items()}
        self._key_header = None if endpoint.api_key_header is None else endpoint.api_key_header.lower()
        self._key = None
        self.key_place = f"endpoints.{upstream.endpoint}.api_key_env"
        if endpoint.api_key_env is not None:
            self._key = key_in_environment(self.key_place, endpoint.api_key_env)

    def url(self, request: PassedRequest) -> str:
        url = self._base + request.form.upstream_path
        return f"{url}?{request.query}" if request.query else url

    def body(self, request: PassedRequest) -> bytes:
        """Return the body for this candidate: the client's, with the model's name and what the config sets."""
        return request.text.with_fields(self._fields[request.form.name])

    def headers(self, request: PassedRequest) -> dict[str, str]:
        """Return the headers of an attempt: those of the client that are passed on, the config's, and the key."""
        form, sent = request.form, request.headers_for(self.candidate)
        sent |= {"content-type": "application/json", "accept-encoding": "identity", **self._headers}
        if form is MESSAGES:
            sent.setdefault("anthropic-version", "2023-06-01")
        if self._key is not None:
            name = self._key_header or ("x-api-key" if form is MESSAGES else "authorization")
            sent[name] = f"Bearer {self._key}" if name == "authorization" else self._key
        return sent


class Upstreams:
    """An `Upstreams` holds the targets of a server, and the HTTP client that asks them.

    Attributes:
        targets: candidate -> how it is asked. refused_keys: whose upstream refuses the server's own key.
    """

    def __init__(self, config: ServerConfig) -> None:
        """Make the targets; nothing is connected before `open`.

        Raises:
            InvalidInputError: a key is not in the environment.
        """
        self._reply_bytes = config.server.limits.reply_bytes
        self._client: Any = None
        self.refused_keys = RefusedKeys()
        self.targets: dict[str, Target] = {}
        for candidate in config.upstreams:
            upstream = config.upstream(candidate)
            health = Health(config.server.cool_down)
            self.targets[candidate] = Target(candidate, upstream, config.endpoints[upstream.endpoint], health)

    async def open(self) -> None:
        """Make the client, in the event loop that uses it."""
        aiohttp = need("aiohttp", "a gateway", "serve")
        from ipr_engine.server.kept_connections import IS_KEPT, KeptConnections

        self._is_kept = IS_KEPT
        self._client_error, self._not_connected = aiohttp.ClientError, aiohttp.ClientConnectorError
        self._disconnected = (
            aiohttp.ServerDisconnectedError,
            aiohttp.ClientOSError,  # the request could not be written
            aiohttp.ClientConnectionResetError,
        )
        self._errors = (aiohttp.ClientError, OSError)
        self._payload_error = aiohttp.ClientPayloadError
        self._connect_errors = (aiohttp.ClientConnectorError, aiohttp.ClientConnectionResetError, ConnectionError)
        self._connecting = {
            target: aiohttp.ClientTimeout(total=None, connect=target.timeouts.connect_s)  # the name, TCP and TLS
            for target in self.targets.values()
        }
        self._client = aiohttp.ClientSession(
            connector=KeptConnections(),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept", "accept-encoding"),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def ask(self, target: Target, turn: Turn, request: PassedRequest) -> Reply:
        """Ask one candidate, and return its reply once nothing can be asked of another: whole, or from its first piece on.

        turn: its health hears of the head of an answer; of a stream, whose head comes before anything is known, of the first piece.
        Raises:
            UpstreamFailedError: no byte of an answer came; another may be asked.
            RefusedError: 503, this process can open no connection.
        """
        timeouts = target.timeouts
        response = None
        try:
            async with asyncio.timeout(timeouts.until_first_byte(request.streamed)):
                response = await self._sent(target, request)
                end_with_connection(response, self._payload_error)
                passed = passed_back(response.headers)
                status = response.status
                if status in REFUSALS or self.refused_keys.statuses:
                    self.refused_keys.answered(target.candidate, status, target.key_place)
                if status in FAILING or 500 <= status < 600:
                    # of the server's own key the client gets no text, and no 499, by which one is counted that left
                    said = (
                        None
                        if status in REFUSALS or status == CLIENT_LEFT
                        else await _said(response, passed, self._errors)
                    )
                    raise UpstreamFailedError(f"status_{status}", retry_after(response.headers), said)
                if 300 <= status < 400:  # redirects are not followed, and their place is not told
                    raise UpstreamFailedError(f"status_{status}")
                # no server may pass such a status on, and nobody asked for another coding than chunks
                if not 200 <= status < 600 or is_coded(response.headers):
                    raise UpstreamFailedError("broken")
                content = response.content
                kind = response.headers.get("content-type", "").lower()
                events, readable = kind.startswith(SSE), is_readable(response.headers)
                until_closed = lasts_until_closed(response)
                if not events:
                    target.health.answers(turn)
                if not events and (response.content_length or 0) <= self._reply_bytes:
                    kept = bytearray()
                    while piece := await content.readany():
                        kept += piece
                        if len(kept) > self._reply_bytes:
                            pieces = self._pieces(response, bytes(kept), timeouts.idle_s)
                            return StreamedReply(status, passed, pieces, False, until_closed, response.close)
                    response.release()
                    doubtful = until_closed and readable and kind.startswith(JSON)
                    if status < 300 and (not kept or (doubtful and await asyncio.to_thread(is_cut, kept))):
                        raise UpstreamFailedError("broken")
                    return WholeReply(status, passed, bytes(kept))
                first = await content.readany()
                if events and not first:
                    raise UpstreamFailedError("broken")
                target.health.answers(turn)
                pieces = self._pieces(response, first, timeouts.idle_s)
                return StreamedReply(status, passed, pieces, events and readable, until_closed, response.close)
        except UpstreamFailedError:
            _drop(response)
            raise
        except TimeoutError as error:
            _drop(response)
            # the only one of the client itself is that of connecting
            raise UpstreamFailedError("connect" if isinstance(error, self._client_error) else "timeout") from None
        except self._connect_errors as error:
            _drop(response)
            if lacks_files(error):
                LACK.seen()
                raise RefusedError(503, "the server has too many connections", headers={"retry-after": "1"}) from None
            raise UpstreamFailedError("connect") from None
        except self._errors:
            _drop(response)
            raise UpstreamFailedError("broken") from None
        except asyncio.CancelledError:
            _drop(response)
            raise

    async def _sent(self, target: Target, request: PassedRequest) -> Any:
        """Return the response of a request, once its head is there."""
        url = target.url(request)
        arguments = {
            "data": target.body(request),
            "headers": target.headers(request),
            "allow_redirects": False,
            "timeout": self._connecting[target],
        }
        try:
            response = await self._client.post(url, **arguments)
        except self._not_connected:
            raise
        except self._disconnected:  # without a word, as a kept one does that the upstream just closed: once more
            return await self._client.post(url, **arguments)
        # a 408 written before this request came there, to a connection that was idle for too long
        closes = response.headers.get("connection", "").lower() == CLOSE
        if not (response.status == 408 and closes and self._is_kept.get()):
            return response
        response.close()
        return await self._client.post(url, **arguments)

    def _pieces(self, response: Any, first: bytes, idle_s: float) -> AsyncIterator[bytes]:
        return _rest(response, first, idle_s, self._errors)


async def _said(response: Any, passed: list[tuple[bytes, bytes]], errors: tuple[type[Exception], ...]) -> WholeReply:
    """Return what a failing upstream says; without a body where that is long, comes late or cannot be read."""
    kept = bytearray()
    try:
        async with asyncio.timeout(SAYING_S):
            while piece := await response.content.readany():
                kept += piece
                if len(kept) > MOST_SAID:
                    kept.clear()
                    break
    except _broken(errors):
        kept.clear()
    if is_coded(response.headers):
        kept.clear()
    return WholeReply(response.status, passed, bytes(kept))


async def _rest(
    response: Any, first: bytes, idle_s: float, errors: tuple[type[Exception], ...]
) -> AsyncIterator[bytes]:
    """Yield the first piece, then what comes, as it comes; closing the iterator closes the connection."""
    whole = False
    try:
        if first:
            yield first
            while True:
                async with asyncio.timeout(idle_s):
                    piece = await response.content.readany()
                if not piece:
                    break
                yield piece
        whole = True
    except _broken(errors):
        raise StreamCutError from None
    finally:
        if whole:
            response.release()
        else:
            response.close()


def _broken(errors: tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return (*errors, TimeoutError)


def _drop(response: Any) -> None:
    if response is not None:
        response.close()
