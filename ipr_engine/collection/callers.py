"""A `Caller` sends one request to one provider, once: by OpenAI's SDK to whatever speaks chat completions, or by LiteLLM's."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Mapping
from typing import Any, Protocol

from ipr_engine._extras import need
from ipr_engine.collection.bounded_reply import PACKING, UnreadReplyError, bounded_session, read_bounded
from ipr_engine.collection.provider import NO_KEY, OPENAI, Provider
from ipr_engine.collection.reply import Answered, Failed, read_reply, without_secrets

CONNECT_S = 15.0


class Caller(Protocol):
    """A `Caller` sends requests of one provider."""

    async def ask(self, body: Mapping[str, Any]) -> Answered | Failed:
        """Return what one request got; it is sent once, and nothing of it is raised or logged."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


def make_caller(name: str, provider: Provider) -> Caller:
    """Return the caller of a provider. name: what the plan calls it.

    Raises:
        InvalidInputError: its key cannot be had.
        BackendUnavailableError: its SDK is missing; says what to install.
    """
    key = provider.key(f"providers.{name}")
    return _LiteLLMCaller(provider, key) if provider.sdk == "litellm" else _OpenAICaller(provider, key)


class _OpenAICaller:
    """A caller by OpenAI's SDK, without its retries: every attempt is a call that may be billed."""

    def __init__(self, provider: Provider, key: str) -> None:
        openai = need("openai", "asking candidates", "collect")
        need("aiohttp", "asking candidates", "collect")
        self._key = key
        logging.getLogger("openai._base_client").disabled = True  # at the level DEBUG it writes prompts
        self._openai, self._timeout_s = openai, provider.limits.timeout_s
        timeout = openai.Timeout(self._timeout_s, connect=min(CONNECT_S, self._timeout_s))
        self._client = openai.AsyncOpenAI(
            base_url=provider.base_url or OPENAI,
            api_key=key,
            max_retries=0,
            timeout=timeout,
            default_headers={"Accept-Encoding": "identity", **provider.headers},
            http_client=openai.DefaultAioHttpClient(
                timeout=timeout, follow_redirects=False, event_hooks={"response": [_read_bounded]}
            ),
        )
        # The SDK takes these from its own environment variables, for every base_url.
        self._client.organization = self._client.project = None
        # A server without a key gets none.
        self._options = {"headers": {"Authorization": openai.Omit()}} if key == NO_KEY else {}

    async def ask(self, body: Mapping[str, Any]) -> Answered | Failed:
        return without_secrets(await self._ask(body), self._key, body)

    async def _ask(self, body: Mapping[str, Any]) -> Answered | Failed:
        openai = self._openai
        try:
            async with asyncio.timeout(self._timeout_s):
                content = await self._client.post(
                    "/chat/completions", body=dict(body), cast_to=bytes, options=self._options
                )
        except TimeoutError:
            return Failed(reason="timeout", retry=True)
        except openai.APIStatusError as error:
            reply = error.response
            return read_reply(reply.status_code, reply.headers, reply.content)
        except openai.APIConnectionError as error:  # time-outs among them
            return _not_connected(error)
        except UnreadReplyError as error:
            return Failed(reason=error.args[0])
        except (
            Exception
        ):  # what a library makes of bytes that are no HTTP has many classes, and its texts repeat the bytes
            return Failed(reason="not_http", retry=True)
        return read_reply(200, {}, content)

    async def close(self) -> None:
        await self._client.close()


class _LiteLLMCaller:
    """A caller by LiteLLM's SDK, without its retries and its telemetry."""

    def __init__(self, provider: Provider, key: str) -> None:
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else its import fetches a table of prices
        self._litellm = need("litellm", "asking candidates by LiteLLM", "litellm")
        self._aiohttp = need("aiohttp", "asking candidates by LiteLLM", "litellm")
        self._session: Any = None  # is made in the loop that asks
        self._litellm.telemetry = False
        self._litellm.suppress_debug_info = True
        self._litellm.drop_params = False  # a parameter that is not taken is told, not dropped
        self._key, self._timeout_s = key, provider.limits.timeout_s
        self._given: dict[str, Any] = {"timeout": self._timeout_s, "num_retries": 0, "max_retries": 0}
        if key != NO_KEY or provider.base_url is not None:  # without an address LiteLLM looks for a key itself
            self._given["api_key"] = key
        if provider.base_url is not None:
            self._given["api_base"] = provider.base_url
        if provider.headers:
            self._given["extra_headers"] = dict(provider.headers)

    async def ask(self, body: Mapping[str, Any]) -> Answered | Failed:
        return without_secrets(await self._ask(body), self._key, body)

    async def _ask(self, body: Mapping[str, Any]) -> Answered | Failed:
        try:
            async with asyncio.timeout(self._timeout_s):
                if self._session is None:
                    self._session = bounded_session(self._aiohttp)
                reply = await self._litellm.acompletion(**body, **self._given, shared_session=self._session)
                content = reply.model_dump_json(warnings=False).encode()
        except TimeoutError:
            return Failed(reason="timeout", retry=True)
        except Exception as error:  # what LiteLLM raises has as many classes as providers; a status is what they share
            return self._failed(error)
        return read_reply(200, {}, content)

    def _failed(self, error: Exception) -> Answered | Failed:
        unread = _unread(error)
        if unread is not None:
            return Failed(reason=unread)
        status = getattr(error, "status_code", None)
        kind = type(error).__name__
        if kind in ("Timeout", "APITimeoutError"):
            return Failed(reason="timeout", retry=True)
        if kind == "APIConnectionError" or not isinstance(status, int):
            return Failed(reason=f"litellm {kind}", retry=kind == "APIConnectionError")
        headers = getattr(getattr(error, "response", None), "headers", None) or {}
        code = "content_filter" if kind == "ContentPolicyViolationError" else _code(error)
        told = json.dumps({"error": {"code": code}}).encode()
        return read_reply(max(status, 400), {key.lower(): value for key, value in dict(headers).items()}, told)

    async def close(self) -> None:
        await self._litellm.close_litellm_async_clients()
        if self._session is not None:
            await self._session.close()


def _unread(error: BaseException | None) -> str | None:
    """Return why a reply was not read to its end, where that is what an error came of."""
    while error is not None:
        if isinstance(error, UnreadReplyError):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


def _code(error: BaseException | None) -> str | None:
    """Return the code that a provider gave an error: LiteLLM's own class may have a number there, what caused it the text."""
    while error is not None:
        body = getattr(error, "body", None)
        told = [getattr(error, "code", None), body.get("code") if isinstance(body, dict) else None]
        for code in told:
            if isinstance(code, str) and not code.isdigit():
                return code
        error = error.__cause__ or error.__context__
    return None


async def _read_bounded(response: Any) -> None:
    """Read a reply of the SDK's HTTP client within the bound."""
    whole = await read_bounded(response.aiter_raw(), response.headers.pop(PACKING, None))
    await response.aclose()
    response.__init__(response.status_code, headers=response.headers, content=whole, request=response.request)


def _not_connected(error: BaseException | None) -> Failed:
    """Return the failure of a connection, by the first cause that tells one; one that never stood carries no bill."""
    while error is not None:
        if any(kind.__name__ == "ClientConnectorError" for kind in type(error).__mro__):
            return Failed(reason="no_connection", billed=False, retry=True)
        if type(error).__name__ in ("ServerDisconnectedError", "ClientOSError", "ClientPayloadError"):
            return Failed(reason="connection_lost", retry=True)
        if isinstance(error, TimeoutError):
            return Failed(reason="timeout", retry=True)
        error = error.__cause__ or error.__context__
    return Failed(reason="connection_failed", retry=True)
