"""A `PassedRequest` is what of a client's request goes on to whichever candidate is asked: never its key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from urllib.parse import unquote_plus

from ipr_engine.server.exchange import Exchange
from ipr_engine.server.long_body import read_beside
from ipr_engine.server.request_formats import RequestFormat
from ipr_engine.server.request_text import RequestText
from ipr_engine.server.server_config import Tenant

PASSED_ON = frozenset(
    {b"accept", b"anthropic-version", b"anthropic-beta", b"openai-beta", b"user-agent", b"x-request-id", b"traceparent",
     b"tracestate"}
)  # fmt: skip
"""Headers of a client that its upstream gets as they are."""
_OF_A_KEY = re.compile(r"key|token|secret|auth|pass|sig|cred|code", re.IGNORECASE)
_SENDABLE = re.compile(r'[!-"$-~]+')


@dataclass(frozen=True, slots=True)
class PassedRequest:
    """A `PassedRequest` is the part of one request that is the same for all candidates.

    Attributes:
        form: its format. text: its body. headers: that go on. query: of its URL, as far as it goes on.
        streamed: it asks for a stream. idempotency: its idempotency-key, and whose that is; None without one.
    """

    form: RequestFormat
    text: RequestText
    headers: Mapping[str, str]
    query: str
    streamed: bool
    idempotency: tuple[str, str] | None

    @classmethod
    async def of(
        cls, exchange: Exchange, tenant: Tenant, form: RequestFormat, body: Mapping[str, Any]
    ) -> PassedRequest:
        """Make that of a request. body: what its JSON says."""
        raw = exchange.text
        text = await read_beside(RequestText, raw) if exchange.is_long else RequestText(raw)
        headers = passed_on(exchange.headers)
        key = exchange.named.get(b"idempotency-key")
        idempotency = None if key is None else (tenant.name, key.decode("latin-1"))
        return cls(form, text, headers, passed_query(exchange.query), bool(body.get("stream")), idempotency)

    def headers_for(self, candidate: str) -> dict[str, str]:
        """Return the headers for one candidate.

        Another one gets another body, and tenants share an account: each has an idempotency-key of its own, the same at each retry.
        """
        if self.idempotency is None:
            return dict(self.headers)
        own = "\0".join((*self.idempotency, candidate))
        return {**self.headers, "idempotency-key": sha256(own.encode()).hexdigest()}


def passed_on(client: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers of a client that its upstream gets; one in several lines is one of several values.

    What is not UTF-8 stays out: aiohttp writes headers as UTF-8, and would write other bytes than came.
    """
    sent: dict[bytes, bytes] = {}
    for name, value in client:
        if name in PASSED_ON:
            sent[name] = b"%b, %b" % (sent[name], value) if name in sent else value
    found = {}
    for name, value in sent.items():
        try:
            found[name.decode()] = value.decode()
        except UnicodeDecodeError:
            continue
    return found


def passed_query(query: bytes) -> str:
    """Return a query without what is named as a key is, and what no URL holds: a client's key is for this server alone."""
    if not query:
        return ""
    parts = [part for part in query.decode("latin-1").split("&") if _SENDABLE.fullmatch(part)]
    return "&".join(part for part in parts if not _OF_A_KEY.search(unquote_plus(part.partition("=")[0])))
