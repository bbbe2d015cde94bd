"""Files that run out are the server's own lack: it raises its limit, fits its own to it, tells it, and blames no upstream."""

from __future__ import annotations

import resource
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ipr_engine.server.open_files import AGAIN_S, RESERVE, SPARE, Lack, fitted, lacks_files
from ipr_engine.server.server_config import Endpoint, ServerConfig, ServerLimits, ServerOptions
from tests.support.http_calls import Reply
from tests.support.server_configs import CHAT, OPENAI, PATHS, body_of
from tests.support.server_process import ServerProcess, until
from tests.support.upstream_stub import UpstreamStub

HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


def gateway(url: str, **server: Any) -> dict[str, Any]:
    return {
        "endpoints": {"stub": {"base_url": f"{url}/v1", "formats": [CHAT]}},
        "upstreams": dict.fromkeys(OPENAI, "stub"),
        "server": server,
    }


def limits(server: ServerProcess) -> tuple[int, int]:
    return resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)


def open_files(server: ServerProcess) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def lowest_free(server: ServerProcess) -> int:
    """Return the number that the next file gets, once those of connections that have ended are closed."""
    time.sleep(0.5)
    taken = {int(path.name) for path in Path(f"/proc/{server.process.pid}/fd").iterdir()}
    return next(number for number in range(len(taken) + 1) if number not in taken)


def asked(server: ServerProcess) -> Reply:
    return server.post(PATHS[CHAT], body_of(CHAT))


def test_the_soft_limit_is_raised_to_the_hard_one(tmp_path: Path) -> None:
    with UpstreamStub() as upstream, ServerProcess(tmp_path, gateway(upstream.url), files="256:6000") as server:
        assert limits(server) == (6000, 6000)
        assert "open files" not in server.printed()
        with ExitStack() as held:
            for _ in range(400):  # more than the soft limit was
                held.enter_context(server.connection())
            assert asked(server).status == 200


def test_what_one_process_may_not_open_bounds_connections_and_requests_and_is_said(tmp_path: Path) -> None:
    with UpstreamStub() as upstream, ServerProcess(tmp_path, gateway(upstream.url), files="256:440") as server:
        said = next(line for line in server.printed().splitlines() if line.startswith("open files: 440"))
        connections = int(said.partition("; connections: ")[2].split()[0])
        assert 50 < connections < 150
        with ExitStack() as held:
            for _ in range(250):
                held.enter_context(server.connection())
            assert asked(server).status == 200  # the idle made room
            assert open_files(server) < 440 - RESERVE
        assert "run out" not in server.printed()


def test_files_that_run_out_are_no_fault_of_an_upstream(tmp_path: Path) -> None:
    with UpstreamStub() as upstream, ServerProcess(tmp_path, gateway(upstream.url)) as server:
        connection = server.connection()
        connection.sendall(HEALTH)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        before = limits(server)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (lowest_free(server), before[1]))
        body = b'{"model": "auto", "messages": [{"role": "user", "content": "What is 2+2?"}]}'
        head = f"POST {PATHS[CHAT]} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
        for _ in range(3):
            connection.sendall(head.encode() + body)
            reply = connection.recv(65536)
            assert reply.startswith(b"HTTP/1.1 503 "), reply
            assert b"retry-after: 1" in reply
            assert b"too many connections" in reply
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, before)
        connection.close()
        assert asked(server).status == 200
        until(lambda: "open files run out" in server.printed())  # a thread writes it
        assert server.printed().count("open files run out") == 1
        counted = server.metrics()
        attempts = {name: value for name, value in counted.items() if name.startswith("ipr_upstream_attempts")}
        assert list(attempts.values()) == [1.0]
        assert 'outcome="ok"' in next(iter(attempts))
        assert {counted[name] for name in counted if name.startswith("ipr_upstream_up")} == {1.0}


def test_whoever_connects_when_files_run_out_finds_room_made_by_the_idle_and_the_log_says_so(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {}) as server:
        before = limits(server)
        most = lowest_free(server) + RESERVE + 5
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (most, before[1]))
        with ExitStack() as held:
            for _ in range(2 * most):
                one = held.enter_context(server.connection())
                one.settimeout(5)
                one.sendall(HEALTH)
                assert one.recv(4096).startswith(b"HTTP/1.1 200")
        until(lambda: server.printed().count("open files run out") == 1, said=server.printed)
        assert server.get("/health").status == 200


def test_a_lack_that_others_bring_about_is_told_and_workers_go_on_sharing_after_it(tmp_path: Path) -> None:
    with ServerProcess(tmp_path, {}, "--workers", "2") as server:
        until(lambda: server.all_ready(2), 20.0, server.printed)
        before = [(pid, resource.prlimit(pid, resource.RLIMIT_NOFILE)) for pid in server.workers()]
        for pid, (_, hard) in before:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        until(lambda: server.printed().count("open files run out") == 2, said=server.printed)
        for pid, limit in before:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)
        for _ in range(5):
            assert server.post("/v1/route", {"prompt": "hi"}).status == 200

        def decided() -> float:
            return sum(value for name, value in server.metrics().items() if name.startswith("ipr_decisions_total"))

        until(lambda: {decided() for _ in range(8)} == {5})  # whichever worker is asked


def test_each_address_of_upstreams_may_have_a_connection_of_each_request() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    places = ("http://a/v1", "http://b/v1", "http://b/v2")
    config = ServerConfig(
        endpoints={f"e{i}": Endpoint(base_url=place, formats=("openai-chat",)) for i, place in enumerate(places)},
        upstreams={f"m{i}": f"e{i}" for i in range(len(places))},
        server=ServerOptions(limits=ServerLimits(requests=100, connections=200)),
    )
    beside = len(list(Path("/proc/self/fd").iterdir())) + SPARE
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (beside + 450, before[1]))
        assert fitted(config) == (config, [])
        resource.setrlimit(resource.RLIMIT_NOFILE, (beside + 300, before[1]))
        fitting, said = fitted(config)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    held = fitting.server.limits
    assert 50 < held.requests < 100
    assert held.connections // 2 == held.requests
    assert "to 2 addresses" in said[0]
    assert f"requests: {held.requests} hold" in said[0]


def test_a_name_that_is_not_known_is_no_lack_of_files() -> None:
    assert not lacks_files(socket.gaierror(socket.EAI_NONAME, "not known"))
    assert not lacks_files(ConnectionRefusedError(111, "refused"))
    assert lacks_files(OSError(24, "Too many open files"))


def test_a_lack_is_told_once_and_anew_after_a_while(monkeypatch: Any, caplog: Any) -> None:
    times = [1000.0, 1030.0, 1080.0, 1080.0 + AGAIN_S]
    lack = Lack()
    monkeypatch.setattr("ipr_engine.server.open_files.monotonic", iter(times).__next__)
    for _ in times:
        lack.seen()
    assert len(caplog.records) == 2
