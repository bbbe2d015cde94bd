"""`ipr serve` serves decisions over HTTP, and with upstreams passes requests on."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import sys
import tempfile
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from ipr_engine._extras import need
from ipr_engine.cli.options import add_bundle_options, add_policy_options, given_options, load_keywords
from ipr_engine.errors import InvalidInputError

if TYPE_CHECKING:
    from ipr_engine.server import ServerConfig

LOOPBACK = ("localhost", "127.0.0.1", "::1")
STOP_S = 30  # a worker that stops may finish what it answers for so long


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
    granian, http = need("granian", "ipr serve", "serve"), need("granian.http", "ipr serve", "serve")
    config = _config(arguments)
    make = partial(_application, arguments.bundle, load_keywords(arguments), config)
    with tempfile.TemporaryDirectory(prefix="ipr-serve-") as shared:
        if (
            arguments.workers > 1
        ):  # prometheus_client reads it when it is imported: the counts of workers are summed there
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared
        _tell(make().state.ipr.summary())  # what is wrong is told here, before a worker starts
        if not _is_loopback(arguments.host) and not config.tenants:
            _tell([f"{arguments.host} is open to other machines, and no tenants are configured: anybody may ask"])
        multiprocessing.set_start_method("spawn", force=True)  # an encoder's threads do not come along into a fork
        limits = config.server.limits
        server = granian.Granian(
            "ipr_engine.server:app",
            address=arguments.host,
            port=arguments.port,
            interface="asgi",
            workers=arguments.workers,
            websockets=False,
            http="1",
            backpressure=2 * limits.requests,  # connections; what is over `requests` is refused with 503
            http1_settings=http.HTTP1Settings(
                max_buffer_size=limits.head_bytes, header_read_timeout=int(1e3 * limits.head_s)
            ),
            respawn_failed_workers=True,
            workers_kill_timeout=STOP_S,
            log_level="warning",
        )
        _tell([f"serving on http://{arguments.host}:{arguments.port}"])
        server.serve(target_loader=make, wrap_loader=False)
    return 0


def _config(arguments: argparse.Namespace) -> ServerConfig:
    """Return the config of the files, with the policy of the flags."""
    from ipr_engine.server import ServerConfig, read_config  # the extra [serve]; other commands do without

    files = [path for path in (arguments.upstreams, arguments.config) if path is not None]
    config = read_config(*files) if files else ServerConfig()
    policy = given_options(arguments)
    if policy and config.policy:
        raise InvalidInputError(f"--{next(iter(policy)).replace('_', '-')}: the config has a policy too; give it once")
    server = replace(config.server, log_requests=True) if arguments.log_requests else config.server
    if _is_loopback(arguments.host) and not server.hosts:
        server = replace(server, hosts=(*LOOPBACK, arguments.host))
    return replace(config, policy=policy or config.policy, server=server)


def _application(bundle: str | None, options: dict[str, Any], config: ServerConfig) -> Any:
    """Return the application of one process; called again in every worker."""
    from ipr_engine.server import app

    logging.basicConfig(format="%(message)s", level=logging.INFO)
    return app(bundle, config, **options)


def _tell(lines: list[str]) -> None:
    for line in lines:
        print(line, file=sys.stderr, flush=True)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
