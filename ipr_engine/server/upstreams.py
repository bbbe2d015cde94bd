"""An `Upstreams` asks candidates: one HTTP client, and for each candidate its address, its key and its health."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from time import time
from typing import Any

from ipr_engine._extras import need
from ipr_engine.decision.reply_headers import header_value
from ipr_engine.server.config_checks import key_in_environment
from ipr_engine.server.health import Health
from ipr_engine.server.json_text import json_text
from ipr_engine.server.open_files import LACK, lacks_files
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.refused_keys import BUSY, REFUSALS, RefusedKeys
from ipr_engine.server.request_formats import MESSAGES, RequestFormat
from ipr_engine.server.server_config import Endpoint, ServerConfig, Upstream

PASSED_ON = frozenset(
    {b"accept", b"anthropic-version", b"anthropic-beta", b"openai-beta", b"idempotency-key", b"user-agent", b"x-request-id",
     b"traceparent", b"tracestate"}
)  # fmt: skip
"""Headers of a client that its upstream gets; its key is not among them."""
PASSED_BACK = frozenset(
    {"content-type", "content-encoding", "request-id", "x-request-id", "retry-after", "openai-processing-ms", "openai-version",
     "cf-ray"}
)  # fmt: skip
"""Headers of an upstream that the client gets, and all that begin with one of `LIMITS_PASSED_BACK`."""
LIMITS_PASSED_BACK = ("x-ratelimit-", "anthropic-ratelimit-")
FAILED = frozenset({*BUSY, *REFUSALS})
"""Statuses that, as every one from 500 on, are the upstream's fault or its load, or the server's own key: the next candidate is asked."""
SAYING_S, MOST_SAID = 1.0, 65536  # of what a failing upstream says
_NOTHING: Mapping[str, Any] = {}
SSE, JSON = "text/event-stream", "application/json"


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
        self._set: Mapping[Any, Mapping[str, Any]] = upstream.body
        self._headers = {name.lower(): value for name, value in endpoint.headers.items()}
        self._key_header = None if endpoint.api_key_header is None else endpoint.api_key_header.lower()
        self._key = None
        self.key_place = f"endpoints.{upstream.endpoint}.api_key_env"
        if endpoint.api_key_env is not None:
            self._key = key_in_environment(self.key_place, endpoint.api_key_env)

    def url(self, form: RequestFormat) -> str:
        return self._base + form.upstream_path

    def body(self, form: RequestFormat, body: Mapping[str, Any]) -> bytes:
        """Return the body for this candidate: the client's, with the model's name and what the config sets."""
        return json_text({**body, "model": self.model, **self._set.get(form.name, _NOTHING)})

    def headers(self, form: RequestFormat, client: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
        """Return the headers of an attempt: those of the client that are passed on, the config's, and the key."""
        sent = {name.decode("latin-1"): value.decode("latin-1") for name, value in client if name in PASSED_ON}
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
        self._client_error, self._not_connected = aiohttp.ClientError, aiohttp.ClientConnectorError
        self._disconnected = (
            aiohttp.ServerDisconnectedError,
            aiohttp.ClientOSError,  # the request could not be written
            aiohttp.ClientConnectionResetError,
        )
        self._errors = (aiohttp.ClientError, OSError)
        self._connect_errors = (aiohttp.ClientConnectorError, aiohttp.ClientConnectionResetError, ConnectionError)
        self._connecting = {
            target: aiohttp.ClientTimeout(total=None, sock_connect=target.timeouts.connect_s)
            for target in self.targets.values()
        }
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=30, ttl_dns_cache=30),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("user-agent", "accept", "accept-encoding"),
        )

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def ask(
        self, target: Target, form: RequestFormat, body: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]
    ) -> Reply:
        """Ask one candidate, and return its reply once nothing can be asked of another: whole, or from its first piece on.

        Raises:
            UpstreamFailedError: no byte of an answer came; another may be asked.
            RefusedError: 503, this process can open no connection.
        """
        timeouts = target.timeouts
        response = None
        try:
            async with asyncio.timeout(timeouts.first_byte_s if body.get("stream") else timeouts.whole_s):
                response = await self._sent(target, form, body, headers)
                passed = _passed_back(response.headers)
                status = response.status
                if status in REFUSALS or self.refused_keys.statuses:
                    self.refused_keys.answered(target.candidate, status, target.key_place)
                if status in FAILED or 500 <= status < 600:
                    # of the server's own key the client gets no text
                    said = None if status in REFUSALS else await _said(response, passed, self._errors)
                    raise UpstreamFailedError(f"status_{status}", _retry_after(response.headers), said)
                if 300 <= status < 400:  # redirects are not followed, and their place is not told
                    raise UpstreamFailedError(f"status_{status}")
                if not 200 <= status < 600:  # no server may pass it on
                    raise UpstreamFailedError("broken")
                content = response.content
                kind = response.headers.get("content-type", "").lower()
                events, readable = kind.startswith(SSE), _is_readable(response.headers)
                until_closed = _lasts_until_closed(response)
                if not events and (response.content_length or 0) <= self._reply_bytes:
                    kept = bytearray()
                    while piece := await content.readany():
                        kept += piece
                        if len(kept) > self._reply_bytes:
                            pieces = self._pieces(response, bytes(kept), timeouts.idle_s)
                            return StreamedReply(status, passed, pieces, False, until_closed, response.close)
                    response.release()
                    doubtful = until_closed and readable and kind.startswith(JSON)
                    if status < 300 and (not kept or (doubtful and await asyncio.to_thread(_is_cut, kept))):
                        raise UpstreamFailedError("broken")
                    return WholeReply(status, passed, bytes(kept))
                first = await content.readany()
                if events and not first:
                    raise UpstreamFailedError("broken")
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

    async def _sent(
        self, target: Target, form: RequestFormat, body: Mapping[str, Any], headers: Iterable[tuple[bytes, bytes]]
    ) -> Any:
        """Return the response of a request, once its head is there."""
        arguments = {
            "data": target.body(form, body),
            "headers": target.headers(form, headers),
            "allow_redirects": False,
            "timeout": self._connecting[target],
        }
        try:
            return await self._client.post(target.url(form), **arguments)
        except self._not_connected:
            raise
        except self._disconnected:  # as a kept connection does that the upstream just closed: once more
            return await self._client.post(target.url(form), **arguments)

    def _pieces(self, response: Any, first: bytes, idle_s: float) -> AsyncIterator[bytes]:
        return _rest(response, first, idle_s, self._errors)


async def _said(
    response: Any, passed: list[tuple[bytes, bytes]], errors: tuple[type[Exception], ...]
) -> WholeReply | None:
    """Return what a failing upstream says, as far as it is short and comes soon; None where it does not come whole."""
    kept = bytearray()
    try:
        async with asyncio.timeout(SAYING_S):
            while piece := await response.content.readany():
                kept += piece
                if len(kept) > MOST_SAID:
                    return None
    except _broken(errors):
        return None
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


def _lasts_until_closed(response: Any) -> bool:
    """Return whether a reply says neither its length nor, by chunks, where it ends."""
    chunked = "chunked" in response.headers.get("transfer-encoding", "").lower()
    return not chunked and response.content_length is None


def _is_readable(headers: Mapping[str, str]) -> bool:
    """Return whether a reply is not compressed, as it was asked for."""
    return headers.get("content-encoding", "identity").lower() == "identity"


def _is_cut(body: bytearray) -> bool:
    """Return whether this is no whole JSON: what is unusual, NaN say, may stand in it."""
    try:
        json.loads(body)
    except ValueError:
        return True
    except RecursionError:
        return False
    return False


def _broken(errors: tuple[type[Exception], ...]) -> tuple[type[Exception], ...]:
    return (*errors, TimeoutError)


def _drop(response: Any) -> None:
    if response is not None:
        response.close()


def _passed_back(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    kept = []
    for name, value in headers.items():
        low = name.lower()
        known = low in PASSED_BACK or low.startswith(LIMITS_PASSED_BACK)
        if known and value.isascii() and value.isprintable():  # no server may pass on another
            kept.append((low.encode(), value.encode()))
    return kept


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a retry-after header, or until the day it states; None where there is none."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = max(0.0, parsedate_to_datetime(said).timestamp() - time())
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < float("inf") else None
