"""The learning curves on generated outcomes: nested parts, their page."""

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies import learning
from tests.support import skips
from tests.support.training_data import write_source


def test_parts_are_nested_and_keep_copies_of_a_question_together():
    keys = tuple(f"question {i % 70}" for i in range(200))
    parts = [set(learning.nested_part(keys, share, 3).tolist()) for share in (0.1, 0.4, 1)]
    assert parts[0] < parts[1] < parts[2] == set(range(200))
    for part in parts:
        inside = {keys[i] for i in part}
        assert part == {i for i in range(200) if keys[i] in inside}
    assert not np.array_equal(learning.nested_part(keys, 0.4, 3), learning.nested_part(keys, 0.4, 4))


def test_a_page_has_every_estimator_at_every_size_that_can_be_fitted(tmp_path, monkeypatch):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    monkeypatch.setattr(learning, "SEEDS", 2)
    write_source(
        tmp_path / "cascade9", ["large", "middle", "small"], ["prove it", "what is the code"], rows_per_split=130
    )
    out = tmp_path / "out"
    arguments = ["study", "learning", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "20"]
    assert main(arguments) == 0
    figures = json.loads((out / "learning.json").read_text())["cascade9"]
    assert set(figures) == set(learning.ESTIMATORS)
    for points in figures.values():
        assert set(points) == {"65", "130"}  # smaller shares would leave folds without an outcome
        assert len(points["65"]["areas_by_order"]) == 2
        assert len(points["130"]["areas_by_order"]) == 1
    assert (out / "learning.png").stat().st_size > 10_000
