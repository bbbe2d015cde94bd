"""The study of the forest on generated outcomes: its page; Holm's adjustment."""

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from ipr_engine.data.prompt_edits import EDITS
from studies import forest
from tests.support import skips
from tests.support.training_data import write_source


def test_holm_adjusts_in_order_and_never_lowers_a_p():
    from studies.equal_cost import holm, two_sided

    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert two_sided(np.array([1.0, *[1.0] * 99])) == pytest.approx(0.02)
    assert two_sided(np.array([0.0, *[-1.0, 1.0] * 50])) == 1.0


def test_the_page_has_areas_costs_and_edits_of_a_source(tmp_path):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    models, tasks = ["large", "middle", "small"], ["prove it", "what is the code"]
    write_source(tmp_path / "cascade9", models, tasks, rows_per_split=130)
    out = tmp_path / "out"
    assert main(["study", "forest", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "20"]) == 0
    figures = json.loads((out / "forest.json").read_text())
    assert set(figures["area"]["cascade9"]) == {"caps", "forest", forest.BLIND, "k-means"}
    assert set(figures["cost"]["cascade9"]["forest"]) == {"0.99", "0.98", "0.95"}
    assert set(figures["edits"]["cascade9"]["forest"]) == set(EDITS)
    assert "pooled" in (out / "forest.md").read_text()
    assert (out / "forest.png").stat().st_size > 10_000
