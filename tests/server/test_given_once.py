"""A control that stands twice in a body is refused, wherever it stands; what only looks like one is let be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.local_server import LocalServer
from tests.support.path_rows import make_path_bundle

pytest.importorskip("uvicorn", reason=skips.SERVE)

TWICE = [
    ('{"prompt": "hi", "ipr": {"tau": 0.1, "tau": 0.9}}', "ipr.tau"),
    ('{"prompt": "hi", "ipr" : {"tau": 0.1, "exclude": [], "t\\u0061u": 0.9}}', "ipr.tau"),
    ('{"prompt": "hi", "ipr": {"tau": 0.1}, "ipr": {"tau": 0.9}}', "ipr"),
    ('{"prompt": "hi", "metadata": {"ipr": {"tau": 0.1, "tau": 0.1}}}', "metadata.ipr.tau"),
    ('{"prompt": "hi", "metadata": {"ipr": {"tau": 0.1}, "ipr": {}}}', "metadata.ipr"),
    ('{"prompt": "hi", "metadata": {"ipr": {"tau": 0.1}}, "metadata": {"a": "b"}}', "metadata"),
    ('{"prompt": "hi", "metadata": {"ipr": {}}, "ipr": {"tau": 0.1, "tau": 0.1}}', "ipr.tau"),
    ('{"prompt": "hi", "\\u0069pr": {"tau": 0.1}, "ipr": {"tau": 0.9}}', "ipr"),
    ('{"prompt": "hi", "\\u0069pr": {"tau": 0.1, "tau": 0.9}}', "ipr.tau"),
    ('{"prompt": "hi", "m\\u0065tadata": {"i\\u0070r": {"tau": 0.1, "tau": 0.9}}}', "metadata.ipr.tau"),
    ('{"prompt": "hi", "ipr": {"cost_weights": {"usd": 1, "usd": 2}}}', "ipr.cost_weights.usd"),
]
ONCE = [
    '{"prompt": "say \\"ipr\\": {\\"tau\\": 0.1, \\"tau\\": 0.9}", "ipr": {"tau": 0.1}}',
    '{"prompt": "hi", "ipr": {"tau": 0.1}, "metadata": {"ipr": {"exclude": []}}}',
    '{"prompt": "hi", "tools": [{"ipr": {"a": 1, "a": 2}}], "ipr": {"tau": 0.1}}',
    '{"prompt": "hi", "user": "ipr"}',
    '{"prompt": "hi \\u0069", "\\u0069pr": {"tau": 0.1}}',
    '{"prompt": "hi", "user": {"ipr": ' + 900 * "[" + 900 * "]" + '}, "seed": [' + 300 * "9" + "]}",
    '{"prompt": "ipr", "ipr": null}',
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    folder: Path = tmp_path_factory.mktemp("once")
    with LocalServer(Engine(make_path_bundle(folder / "bundle", rows=40)), {}) as serving:
        yield serving


@pytest.mark.parametrize(("body", "param"), TWICE)
def test_a_control_given_twice_is_refused(server: LocalServer, body: str, param: str) -> None:
    reply = server.send("POST", "/v1/route", [body.encode()])
    assert (reply.status, reply.body["error"]["param"]) == (400, param)
    assert "twice" in reply.body["error"]["message"]


@pytest.mark.parametrize("body", ONCE)
def test_what_is_given_once_is_taken(server: LocalServer, body: str) -> None:
    reply = server.send("POST", "/v1/route", [body.encode()])
    assert reply.status == 200, reply.content
