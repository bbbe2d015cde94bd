"""The study of buying a part of an outcome table, on generated outcomes."""

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies import acquisition
from tests.support import skips
from tests.support.training_data import write_source


def test_a_page_sets_chosen_cells_beside_random_ones_at_the_same_dollars(tmp_path, monkeypatch):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    monkeypatch.setattr(acquisition, "SEEDS", 2)
    monkeypatch.setattr(acquisition, "SHARES", {0.6: (acquisition.WHOLE, acquisition.CELLS, acquisition.CHOSEN)})
    monkeypatch.setattr(acquisition, "CALLS", 0.7)
    write_source(
        tmp_path / "cascade9", ["large", "middle", "small"], ["prove it", "what is the code"], rows_per_split=150
    )
    out = tmp_path / "out"
    arguments = ["study", "acquisition", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "0"]
    assert main(arguments) == 0
    figures = json.loads((out / "acquisition.json").read_text())["cascade9"]["0.6"]
    assert set(figures) == {acquisition.WHOLE, acquisition.CELLS, acquisition.CHOSEN}
    for arm in figures.values():
        assert len(arm["gains"]) == 2
        assert np.max(arm["dollars"]) <= 0.6
    assert np.max(figures[acquisition.CHOSEN]["calls"]) <= 0.7
    assert (out / "acquisition.png").stat().st_size > 10_000
