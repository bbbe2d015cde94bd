"""`ipr serve` serves decisions over HTTP, and with upstreams passes requests on."""

from __future__ import annotations

import argparse
import errno
import logging
import os
import socket
import sys
import tempfile
from dataclasses import replace
from functools import partial
from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from pathlib import Path
from threading import Thread
from time import sleep
from typing import TYPE_CHECKING, Any

from ipr_engine._extras import need
from ipr_engine.cli.log_queue import LogFormat, LogQueue
from ipr_engine.cli.options import add_bundle_options, add_policy_options, given_options, load_keywords
from ipr_engine.cli.serve_places import files_of_keys, flag_of, named_as_bundle, named_by_files, named_by_flags
from ipr_engine.cli.stopping import Stopping
from ipr_engine.errors import BundleError, InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.server import ServerConfig

BACKLOG = 2048  # connections that wait to be accepted
METRICS_FOLDERS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "serve",
        help="serve decisions over HTTP; with --upstreams, answers",
        description="Serve decisions over HTTP (/v1/route). With --upstreams it is a gateway too: OpenAI chat completions and "
        "Responses and Anthropic Messages are passed on to the candidate that is chosen for each. docs/server.md says what may "
        "stand in the files. Policy flags are the default of every request.",
    )
    parser.add_argument("--upstreams", metavar="FILE", help="YAML: endpoints, and where each candidate answers")
    parser.add_argument(
        "--config", metavar="FILE", help="YAML: everything else (models, tenants, records, shadow, server)"
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to bind to (default 127.0.0.1: this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="port (default 8000)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default 1)")
    parser.add_argument(
        "--log-requests", action="store_true", help="one line of JSON a request on stderr, without its text"
    )
    add_policy_options(parser)
    add_bundle_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    if arguments.workers < 1:
        raise InvalidInputError(f"--workers: expected at least 1, got {arguments.workers}")
    if not 0 < arguments.port < 65536:
        raise InvalidInputError(f"--port: expected 1 to 65535, got {arguments.port}")
    need("uvicorn", "ipr serve", "serve")
    with Stopping() as stopping:
        _serve(arguments, stopping)
    return 0


def _serve(arguments: argparse.Namespace, stopping: Stopping) -> None:
    from ipr_engine.server.http_server import serve
    from ipr_engine.server.open_files import fitted, raise_limit

    raise_limit()
    listening = _bound(arguments.host, arguments.port)
    config, said = fitted(_config(arguments))
    with tempfile.TemporaryDirectory(prefix="ipr-serve-") as shared:
        served = Path(shared, "served")
        make = partial(_application, arguments.bundle, load_keywords(arguments), config, served, os.getpid())
        for name in METRICS_FOLDERS:  # one that is inherited may hold what others counted, or this server before
            os.environ.pop(name, None)
        if arguments.workers > 1:
            # prometheus_client reads it when it is imported: the counts of workers are summed there
            os.environ[METRICS_FOLDERS[0]] = shared
        given = given_options(arguments)
        with named_by_flags(given), named_by_files(_files(arguments)):
            made = make()  # what is wrong is told here, before a worker starts
        _tell([*made.state.ipr.summary(), *said])
        if not _is_loopback(arguments.host) and not config.tenants:
            _tell([f"{arguments.host} is open to other machines, and no tenants are configured: anybody may ask"])
        Thread(target=_tell_ready, args=(arguments.host, arguments.port), daemon=True).start()
        if not stopping.asked:
            serve(made if arguments.workers == 1 else make, listening, arguments.workers)


def _bound(host: str, port: int) -> socket.socket:
    """Return a socket of the address. Who connects before the server begins waits until it does."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise InvalidInputError(f"--host: expected an address of this machine, got {host!r} ({error})") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise InvalidInputError(f"--port: {port} is in use; stop the other server, or give another port") from None
        raise InvalidInputError(f"--host: cannot bind to {host}: {error.strerror}") from None
    return bound


def _tell_ready(host: str, port: int) -> None:
    """Say where the server serves, once it answers."""
    reached = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    while True:
        asking = HTTPConnection(reached, port, timeout=1)
        try:
            asking.request("GET", "/health")
            asking.getresponse()
            break
        except (OSError, HTTPException):
            sleep(0.05)
        finally:
            asking.close()
    _tell([f"serving on http://{f'[{host}]' if ':' in host else host}:{port}"])


def _config(arguments: argparse.Namespace) -> ServerConfig:
    """Return the config of the files, with the policy of the flags."""
    from ipr_engine.server import ServerConfig, read_config  # the extra [serve]; other commands do without

    files = _files(arguments)
    config = read_config(*files) if files else ServerConfig()
    policy = given_options(arguments)
    if policy and config.policy:
        file = files_of_keys(files)["policy"]
        raise InvalidInputError(f"{flag_of(next(iter(policy)))}: {file} has a policy too; give it once")
    server = replace(config.server, log_requests=True) if arguments.log_requests else config.server
    if _is_loopback(arguments.host) and not server.hosts:
        server = replace(server, hosts=(*LOOPBACK, arguments.host))
    with named_by_flags(policy):
        return replace(config, policy=policy or config.policy, server=server)


def _files(arguments: argparse.Namespace) -> list[str]:
    return [path for path in (arguments.upstreams, arguments.config) if path is not None]


def _application(bundle: str | None, options: dict[str, Any], config: ServerConfig, served: Path, parent: int) -> Any:
    """Return the application of one process; called again in every worker.

    Args:
        served: tells the bundle that served last; a worker that begins where CURRENT cannot be served takes that one.
        parent: the process that starts workers.
    """
    from ipr_engine.engine import Engine
    from ipr_engine.server import app

    lines = _log_beside()
    try:
        with named_as_bundle(bundle):
            engine = Engine.load(bundle, **options)
        made = app(engine, config, follow=bundle)
    except (BundleError, InvalidInputError) as error:
        if not served.exists():
            raise
        logging.getLogger(__name__).error("%s; the bundle of before serves in this worker, too", error)
        made = app(served.read_text(), config, follow=bundle, **options)
    if lines is not None:
        lines.lost = made.state.ipr.metrics.log_dropped.inc
    made.state.ipr.served = served
    made.state.ipr.owns_process = True
    if made.state.ipr.spans is not None:
        made.state.ipr.spans.send()
    if os.getpid() != parent:
        made.state.ipr.parent = parent
    return made


def _log_beside() -> LogQueue | None:
    """Write the log of this process to stderr, in a thread; None where a log is set up already, or stderr is no file."""
    from ipr_engine.server.server_state import REQUEST_LOG

    log = logging.getLogger()
    if log.handlers:
        return None
    try:
        made = LogQueue(sys.stderr.fileno())
    except (AttributeError, OSError):  # it is closed, or stands for one
        logging.basicConfig(level=logging.INFO)
        log.handlers[0].setFormatter(LogFormat(REQUEST_LOG))
        return None
    made.setFormatter(LogFormat(REQUEST_LOG))
    log.addHandler(made)
    log.setLevel(logging.INFO)
    return made


def _tell(lines: list[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
