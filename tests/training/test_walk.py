"""The walk of `ipr train`: how many files of the package run between outcomes and a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.training_data import train, write_source
from tests.support.walks import recorded_walk

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")
pytest.importorskip("pyarrow", reason="needs extra [train]: a source in Parquet")

# 56 and 19 before the rooms were rebuilt. What is beyond the room reads tables, embeds, and writes and checks a bundle:
# it is counted so that it cannot grow unseen.
MOST, MOST_OF_THE_ROOM = 44, 10  # an estimator a file


def test_training_walks_through_few_files(tmp_path: Path) -> None:
    source = write_source(tmp_path / "made", ["a", "b", "c"], ["why", "how does it go", "prove that x", "write code"])
    prices = {"family": "f", "provider": "p", "input_usd_per_1m": 1.0, "output_usd_per_1m": 2.0}
    candidates = tmp_path / "candidates.json"
    candidates.write_text(json.dumps({"date": "2026-11-24", "candidates": [{"name": n, **prices} for n in "abc"]}))

    def call() -> None:
        train(
            source,
            candidates,
            tmp_path / "root",
            name="t",
            created="2026-11-24",
            estimator="plain",
            allow_constant=True,
        )

    with recorded_walk() as walk:
        call()  # imports, and tables that are made once
        walk.clear()
        call()
    assert len(walk.files) <= MOST, str(walk)
    assert len([file for file in walk.files if file.startswith("training/")]) <= MOST_OF_THE_ROOM, str(walk)
