"""The table of what Claude candidates save: a row a source, prices where none are recorded, nothing saved where nothing can be."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies.claude_table import MORE, read_priced
from tests.support import skips
from tests.support.study_sources import write_study_source

for package, reason in (("pyarrow", skips.PYARROW), ("threadpoolctl", skips.TRAIN)):
    pytest.importorskip(package, reason=reason)

ROWS = {("train", "one"): 60, ("test", "two"): 60}


def test_a_source_without_costs_is_priced_by_its_tokens(tmp_path):
    made = write_study_source(tmp_path / "scale_sql", MORE["scale_sql"], ROWS, priced=False)
    outcomes, prompts, keys = read_priced(tmp_path, "scale_sql", MORE["scale_sql"])
    assert len(prompts) == len(keys) == outcomes.rows == len(made)
    for m, per_million in ((0, 5 + 25), (3, 3 + 15), (5, 1 + 5)):  # as many tokens are read as written
        expected = made.input_tokens[:, made.models.index(MORE["scale_sql"][m])] * per_million / 1e6
        np.testing.assert_allclose(outcomes.cost[:, m], expected)


def test_the_page_has_a_row_a_source_beside_the_papers_figure(tmp_path):
    for name in ("swe_bash24", "scale_sql"):
        write_study_source(tmp_path / name, MORE[name][::-1], ROWS, priced=name != "scale_sql")
    out = tmp_path / "out"
    assert main(["study", "claude", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "20"]) == 0
    figures = json.loads((out / "claude.json").read_text())["cross_fitted"]
    assert set(figures) == {"swe_bash24", "scale_sql"}
    for own in figures.values():
        for line in ("hull", "router"):
            saved = [own[line][share]["value"] for share in ("1", "0.99", "0.98", "0.95")]
            assert saved == sorted(saved)
            assert 0 <= saved[0] <= saved[-1] < 1
        assert set(own["other_half"]) == {"1", "0.98"}
    page = (out / "claude.md").read_text()
    assert "43.9%" in page
    assert page.count("| swe_bash24 |") == 1
