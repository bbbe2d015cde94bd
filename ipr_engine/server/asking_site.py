"""`check_site` refuses what a page of another site sends, and what asks for another host."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache

from ipr_engine.server.refused import RefusedError

SITE = (b"origin", b"sec-fetch-site")
"""The headers by which a browser tells whose page asks."""
_CROSS_SITE = b"cross-site"


def check_site(named: Mapping[bytes, bytes], hosts: Collection[bytes]) -> None:
    """Refuse a request that a page of another site makes a browser send.

    named: the first header of each name. hosts: that this server answers to; empty: any.

    Raises:
        RefusedError: 403.
    """
    host, origin = named.get(b"host"), named.get(b"origin")
    if named.get(b"sec-fetch-site") == _CROSS_SITE or (origin and origin.partition(b"://")[2] != host):
        raise RefusedError(403, "a page of another site may not ask this server")
    if hosts and _name(host) not in hosts:
        raise RefusedError(403, "host: is not one that this server answers to; see server.hosts of its config")


@lru_cache(maxsize=128)
def _name(host: bytes | None) -> bytes:
    """Return the name of a Host header, without its port."""
    if host is None:
        return b""
    if host.startswith(b"["):
        return host[1:].partition(b"]")[0]
    return host.partition(b":")[0].lower()
