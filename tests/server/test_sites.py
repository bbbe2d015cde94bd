"""A page of another site, and a name that was made to mean this machine, get nothing; probes are asked by address."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.local_server import LocalServer
from tests.support.server_configs import CHAT, MESSAGES, PATHS, RESPONSES, body_of
from tests.support.server_process import ServerProcess

pytest.importorskip("uvicorn", reason=skips.SERVE)
FOREIGN: dict[str, dict[str, str]] = {
    "another host": {"host": "attacker.example"},
    "a host that begins alike": {"host": "localhost.attacker.example"},
    "no host": {"host": ""},
    "another origin": {"origin": "https://attacker.example"},
    "another port of this machine": {"origin": "http://localhost:9999"},
    "a page without an origin": {"origin": "null"},
    "another site": {"sec-fetch-site": "cross-site"},
}
OWN: dict[str, dict[str, str]] = {
    "its name": {},
    "its name and port": {"host": "localhost:8000"},
    "its own page": {"host": "localhost:8000", "origin": "http://localhost:8000", "sec-fetch-site": "same-origin"},
    "typed in": {"sec-fetch-site": "none"},
}
READ = ("/", "/metrics", "/ipr/overview", "/v1/models")
POSTED = {
    "/v1/route": {"prompt": "hi"},
    "/v1/decisions": {"input": "hi", "questions": [{"type": "predicate", "name": "hard"}]},
    **{PATHS[form]: body_of(form) for form in (CHAT, RESPONSES, MESSAGES)},
}


@pytest.fixture
def server(engine: Engine) -> Iterator[LocalServer]:
    with LocalServer(engine, {"policy": {"rule": "minmax"}, "server": {"hosts": ["localhost"]}}) as made:
        yield made


@pytest.mark.parametrize("case", FOREIGN)
def test_what_is_foreign_gets_nothing(server: LocalServer, case: str) -> None:
    for path in READ:
        assert (server.get(path, FOREIGN[case]).status, path) == (403, path)
    for path, body in POSTED.items():
        reply = server.post(path, body, FOREIGN[case])
        assert (reply.status, reply.body["error"]["type"]) == (403, "permission_error")
    counted = [n for n in server.metrics() if n.startswith("ipr_decisions_total")]
    assert counted == []


@pytest.mark.parametrize("case", OWN)
def test_what_is_its_own_is_answered(server: LocalServer, case: str) -> None:
    assert {server.get(path, OWN[case]).status for path in READ} == {200}
    assert server.post("/v1/route", POSTED["/v1/route"], OWN[case]).status == 200


@pytest.mark.parametrize("case", FOREIGN)
def test_probes_answer_whoever_asks(server: LocalServer, case: str) -> None:
    assert {server.get(path, FOREIGN[case]).status for path in ("/health", "/ready")} == {200}


def test_a_server_on_loopback_takes_its_names_alone(gateway: ServerProcess) -> None:
    for headers in ({"host": "attacker.example"}, {"origin": "https://attacker.example"}):
        assert {gateway.get(path, headers).status for path in ("/", "/metrics", "/v1/models")} == {403}
        assert gateway.post(PATHS[CHAT], body_of(CHAT), headers).status == 403
        assert {gateway.get(path, headers).status for path in ("/health", "/ready")} == {200}
    own = {"host": f"localhost:{gateway.port}", "origin": f"http://localhost:{gateway.port}"}
    assert gateway.post(PATHS[CHAT], body_of(CHAT), own).status == 200
