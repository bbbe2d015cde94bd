"""Metrics of several workers are read while one of them begins."""

from __future__ import annotations

from pathlib import Path
from threading import Timer

import pytest

from tests.support import skips

pytest.importorskip("prometheus_client", reason=skips.SERVE)


@pytest.mark.parametrize("begun", [b"", b"\x08", b"\xff\xff\x00\x00" + 60 * b"\x00"])
def test_a_file_in_the_middle_of_being_made_is_read_again(
    begun: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ipr_engine.server.server_metrics import SHARED, ServerMetrics

    metrics = ServerMetrics()
    monkeypatch.setenv(SHARED, str(tmp_path))
    file = tmp_path / "counter_4194304.db"  # of a worker that begins
    file.write_bytes(begun)
    timer = Timer(0.1, lambda: file.write_bytes(b"\x08" + 4095 * b"\x00"))
    timer.start()
    assert b"ipr_" in metrics.text([])
    assert metrics.samples() == []
    timer.join()
