"""The record of hostile requests counts what a real server counts."""

import importlib

import pytest

from tests.support import skips
from tests.support.places import ROOT

pytest.importorskip("uvicorn", reason=skips.SERVE)


def test_every_hostile_request_is_accounted_for(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    line, faults = importlib.import_module("benchmarks.server.hostile").hostile(tmp_path, 300)
    assert faults == []
    assert (line["requests"], line["accounted"], line["told_in_log"]) == (300, True, 0)
    assert {"200", "400"} <= line["replies"].keys()
