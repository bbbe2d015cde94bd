"""The soak tells how a stream ended by what came of it."""

import importlib
import json

import pytest

from tests.support.http_calls import nobody
from tests.support.places import ROOT
from tests.support.server_configs import CHAT, PATHS, body_of
from tests.support.skips import SERVE
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("aiohttp", reason=SERVE)

CHUNK = b'data: {"choices": []}\n\n'
ERROR = b'data: {"error": {"message": "broke off"}}\n\n'
ENDS = {
    "its last event": (CHUNK + b"data: [DONE]\n\n", "whole"),
    "an error event": (CHUNK + ERROR, "told"),
    "an error event after half an event": (CHUNK + CHUNK[:9] + b"\n\n" + ERROR, "broken"),
    "half an event": (CHUNK + CHUNK[:9], "broken"),
    "nothing more": (CHUNK, "broken"),
    "nothing at all": (b"", "broken"),
}


@pytest.fixture
def read(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.server.streams")


@pytest.mark.parametrize("case", ENDS)
def test_an_end_is_told_by_the_events(read, case):
    content, end = ENDS[case]
    assert read.end_of(content) == end


def test_every_stream_that_is_asked_for_is_told(read):
    h2load = importlib.import_module("benchmarks.server.h2load")
    body = json.dumps(body_of(CHAT, model="one", stream=True)).encode()
    with UpstreamStub() as upstream:
        url = upstream.url + PATHS[CHAT]
        upstream.fail("one", "cut", times=2)
        found = read.streams(url, body, h2load.Load(7, 3, 50.0))
    assert sorted((one.status, one.end) for one in found) == [(200, "broken")] * 2 + [(200, "whole")] * 5
    refused = read.streams(nobody(), body, h2load.Load(1))
    assert [(one.status, one.end) for one in refused] == [(0, "broken")]
