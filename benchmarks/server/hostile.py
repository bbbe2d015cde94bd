"""python -m benchmarks.server.hostile [--requests N] [--record]: requests that no client should send, over HTTP, to a gateway.

Real requests of every endpoint are changed at random: bodies, controls, headers, methods, lengths; some clients leave in the
middle. Told are the statuses of all replies beside what /metrics counted, what was no reply, and memory. Every reply below is
looked at: a 5xx, a connection that ends without a reply, or a key or prompt in the server's log is a fault.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from tests.support.hostile_requests import CANARY, Hostile, HostileRequests
from tests.support.http_calls import free_port
from tests.support.server_configs import KEYS, gateway_config
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

from ..harness.machine import recorded
from ..harness.results import FOLDER, Line, append, as_json
from .soak import resident_mib

CLIENTS = 8
ROUND = 5000  # requests between two looks at the memory
WAIT_S = 30.0
SEED = 20
OF_HTTP = (b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade")
LEFT, NO_REPLY, NO_HTTP = "left", "none", "400 of HTTP"
NOT_COUNTED = ("/ready", "/health", "/metrics")  # asked by the one who counts, too


@dataclass
class Seen:
    """A `Seen` holds what came of the requests so far, and the first faults.

    Attributes:
        replies: status -> how many; `LEFT` of clients that left, `NO_HTTP` of what is no HTTP, and `NO_REPLY`.
    """

    replies: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def add(self, request: Hostile, found: str, reply: bytes) -> None:
        with self.lock:
            self.replies[found] += 1
            if (found == NO_REPLY or found.startswith("5")) and len(self.faults) < 20:
                self.faults.append(f"{request.method} {request.path}: {reply[:200]!r}")


def main() -> int:
    """Send them, and print the line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.server.hostile", description=__doc__)
    parser.add_argument("--requests", type=int, default=100_000, help="how many (default 100000)")
    parser.add_argument(
        "--record", action="store_true", help="append the line to benchmarks/results/server_hostile.jsonl"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found, faults = hostile(Path(folder), arguments.requests)
    line = recorded(found, f"python -m benchmarks.server.hostile {' '.join(sys.argv[1:])}".strip())
    print(as_json(line))
    for fault in faults:
        print(fault, file=sys.stderr)
    if arguments.record:
        append(FOLDER / "server_hostile.jsonl", [line])
    return 0 if line["accounted"] and not faults and not line["told_in_log"] else 1


def hostile(folder: Path, count: int) -> tuple[Line, list[str]]:
    """Return the line, and what was wrong."""
    seen, memory = Seen(), []
    with UpstreamStub() as provider:
        config = gateway_config(provider.url, f"http://127.0.0.1:{free_port()}")
        config["server"]["limits"] |= {"body_bytes": 1 << 20}
        with ServerProcess(folder, config, environment=KEYS) as server:
            before = server.metrics()
            requests = iter(HostileRequests(SEED).one, None)
            for begin in range(0, count, ROUND):
                _round(server.port, requests, min(ROUND, count - begin), seen)
                provider.reset()
                memory.append(resident_mib(server.process.pid))
                print(
                    f"{min(count, begin + ROUND)} requests, {dict(seen.replies)}, {memory[-1]:.1f} MiB", file=sys.stderr
                )
            time.sleep(1.0)
            counted = _counted(server.counted(before))
            log = server.printed()
    replies = dict(sorted(seen.replies.items()))
    # who left may be counted as such, or as refused before that was seen; or not at all, where no whole head came
    beside = {status: counted[status] - replies.get(status, 0) for status in {*counted, *filter(str.isdigit, replies)}}
    line = {
        "op": "server_hostile",
        "requests": sum(replies.values()),
        "seed": SEED,
        "clients": CLIENTS,
        "replies": replies,
        "counted": {status: counted[status] for status in sorted(counted)},
        "accounted": min(beside.values()) >= 0 and sum(beside.values()) <= replies.get(LEFT, 0),
        "told_in_log": sum(secret in log for secret in (CANARY, *KEYS.values())),
        "memory_mib_first": round(memory[0], 1),
        "memory_mib_settled": round(memory[len(memory) // 5], 1),
        "memory_mib_last": round(memory[-1], 1),
    }
    return line, seen.faults


def _round(port: int, requests: Iterator[Hostile], count: int, seen: Seen) -> None:
    """Send so many requests, some at the same time."""
    lock, left = Lock(), [count]

    def ask() -> None:
        while True:
            with lock:
                if not left[0]:
                    return
                left[0] -= 1
                request = next(requests)
                while request.path in NOT_COUNTED:
                    request = next(requests)
            seen.add(request, *one(port, request))

    with ThreadPoolExecutor(CLIENTS) as clients:
        for asking in [clients.submit(ask) for _ in range(CLIENTS)]:
            asking.result()


def one(port: int, request: Hostile) -> tuple[str, bytes]:
    """Send one request on a connection of its own; return the status of its reply, and its bytes."""
    chunked, body = len(request.pieces) > 1, b"".join(request.pieces)
    lines = [f"{request.method} {request.path} HTTP/1.1".encode("latin-1", "replace")]
    lines += [
        name + b": " + (b"localhost" if name == b"host" else value)
        for name, value in request.headers
        if name.lower() not in OF_HTTP
    ]
    length = len(body) + (5 if request.leaves else 0)
    lines.append(b"transfer-encoding: chunked" if chunked else b"content-length: %d" % length)
    lines.append(b"connection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as client:
        try:
            client.sendall(b"\r\n".join(lines))
            for piece in filter(None, request.pieces):
                client.sendall(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
            if request.leaves:
                return LEFT, b""
            if chunked:
                client.sendall(b"0\r\n\r\n")
        except OSError:
            pass  # refused before all of it was sent: the reply tells
        reply = _until_end(client)
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", reply)
    if status is None:
        return NO_REPLY, reply
    is_http = not (status[1] == b"400" and b"text/plain" in reply.partition(b"\r\n\r\n")[0])
    return (status[1].decode() if is_http else NO_HTTP), reply


def _until_end(client: socket.socket) -> bytes:
    reply = b""
    try:
        while piece := client.recv(1 << 16):
            reply += piece
    except OSError:
        pass
    return reply


def _counted(figures: dict[str, float]) -> Counter[str]:
    """Return status -> replies that /metrics counts."""
    found: Counter[str] = Counter()
    for name, value in figures.items():
        matched = re.match(r'ipr_requests_total\{path="([^"]*)",status="(\d+)"', name)
        if matched and matched[1] not in NOT_COUNTED:
            found[matched[2]] += round(value)
    return found


if __name__ == "__main__":
    sys.exit(main())
