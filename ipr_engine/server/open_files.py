"""Connections are files to the system, which bounds how many a process opens: the server's limits are made to fit, and a lack is told."""

from __future__ import annotations

import errno
import logging
import os
import resource
from dataclasses import replace
from math import inf
from time import monotonic
from urllib.parse import urlsplit

from ipr_engine.server.server_config import ServerConfig

SPARE = 256
"""Files beside those connections: of ones that linger, of the loop, names that are looked up, records, metrics, a bundle swapped in."""
RESERVE, LAST = 32, 16
"""Where fewer are left, an idle connection makes room for another; where fewer than the second, one that finds no room is refused, too, so
that requests that are being answered can reach their upstreams."""
AGAIN_S = 60.0
"""A lack that was not seen for so long is told anew."""
LACKS = frozenset({errno.EMFILE, errno.ENFILE})
LOGGER = logging.getLogger(__name__)


def raise_limit() -> None:
    """Raise this process's limit of open files to what it may be, for its workers, too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # unlimited by name, and beyond what the system can
            LOGGER.warning("the limit of open files stays at %d: %d is refused", soft, hard)


def fitted(config: ServerConfig) -> tuple[ServerConfig, list[str]]:
    """Return the config with no more connections and requests than one process may have files for, and what is to be told of it."""
    limits, most = config.server.limits, resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    left = most - _open_now() - SPARE
    # each request may have a connection to an upstream, and those of before are kept for a while
    addresses = len({urlsplit(endpoint.base_url).netloc for endpoint in config.endpoints.values()})
    needed = limits.connections + limits.requests * addresses
    if most == resource.RLIM_INFINITY or needed <= left:
        return config, []
    share = max(0.0, left / needed)
    connections, requests = max(1, int(limits.connections * share)), max(1, int(limits.requests * share))
    said = (
        f"open files: {most} are allowed here (ulimit -n), too few for connections: {limits.connections} and requests: {limits.requests}, "
        f"to {addresses} addresses of upstreams; connections: {connections} and requests: {requests} hold in each process"
    )
    fitting = replace(limits, connections=connections, requests=requests)
    return replace(config, server=replace(config.server, limits=fitting)), [said]


def lacks_files(error: BaseException) -> bool:
    """Return whether this is why a connection could not be made: it says so, or is of a name, whose errors do not."""
    code = getattr(error, "errno", None)
    return code in LACKS or ((code is None or code < 0) and has_none_left())


def left_after(descriptor: int) -> float:
    """Return how many more files can be opened at least, where this one was the last: the system gives the lowest that is free."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return inf if most == resource.RLIM_INFINITY else most - 1 - descriptor


class Lack:
    """A `Lack` of files is told once, until it was not seen for a while."""

    def __init__(self) -> None:
        self._seen = -AGAIN_S

    def seen(self) -> None:
        before, self._seen = self._seen, monotonic()
        if self._seen - before >= AGAIN_S:
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            LOGGER.error(
                "open files run out: %d of %d are open (ulimit -n); idle connections are closed, others and requests refused with 503",
                _open_now(),
                most,
            )


LACK = Lack()
"""Of this process: its files are everybody's."""


def _open_now() -> int:
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:  # no /proc, or no file left to look by
        return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def has_none_left() -> bool:
    """Return whether no file can be opened now."""
    try:
        os.close(os.open("/", os.O_RDONLY))
    except OSError as error:
        return error.errno in LACKS
    return False
