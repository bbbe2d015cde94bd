"""The leave-one-candidate-out study, on a generated source."""

from __future__ import annotations

import json

import pytest

from ipr_engine.cli import main
from studies import leave_one_out
from tests.support.bundles import WORDS
from tests.support.training_data import write_source

pytest.importorskip("matplotlib", reason="needs extra [eval]: plots")


def test_every_method_is_measured_for_every_candidate_and_size(tmp_path, monkeypatch):
    monkeypatch.setattr(leave_one_out, "SIZES", (30,))
    monkeypatch.setattr(leave_one_out, "DRAWS", 1)
    write_source(tmp_path / "data" / "routerbench_sub", ["a", "b"], list(WORDS))
    out = tmp_path / "out"
    assert main(["study", "add_model", "--outcomes", str(tmp_path / "data"), "--out", str(out)]) == 0
    found = json.loads((out / "add_model.json").read_text())["routerbench_sub"]
    assert (found["sizes"], found["models"]) == ([30, 80], ["a", "b"])
    for method in leave_one_out.METHODS:
        assert all(0 < score < 1 for row in found["brier"][method] for score in row)
        assert len(found["areas"][method]) == 2
    assert (out / "add_model.png").read_bytes().startswith(b"\x89PNG")
    page = (out / "add_model.md").read_text()
    assert all(f"| {method} |" in page for method in leave_one_out.METHODS)
