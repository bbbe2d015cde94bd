"""Every promise that can be kept on real outcomes, on every source below --outcomes DIR."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ipr_engine.data import load_outcomes, split_outcomes, write_outcomes
from ipr_engine.data.outcome_files import find_sources
from ipr_engine.data.outcomes import MIN_KEY, normalised
from tests.support import skips
from tests.support.outcome_data import assert_same


def test_every_source_loads_splits_and_survives_a_round_trip(request, tmp_path):
    folder = request.config.getoption("--outcomes")
    if folder is None:
        pytest.skip(skips.OUTCOMES)
    pytest.importorskip("pyarrow", reason=skips.PYARROW)
    sources = find_sources(folder)
    assert sources, f"--outcomes {folder}: no outcome data below it"
    for path in sources:
        check(path, tmp_path)


def check(path: Path, tmp_path: Path) -> None:
    outcomes = load_outcomes(path)
    quality = outcomes.quality[outcomes.covered]
    assert ((quality >= 0) & (quality <= 1)).all()
    done, report = split_outcomes(outcomes, {"train": 0.7, "val": 0.1, "test": 0.2})
    for texts in (
        [normalised(prompt) for prompt in done.prompts],
        [k if len(k) >= MIN_KEY else "" for k in done.question_keys],
    ):
        held: dict[str, str] = {}
        for text, name in zip(texts, done.splits, strict=True):
            assert not text or held.setdefault(text, name) == name
    for name, share in (("train", 0.7), ("val", 0.1), ("test", 0.2)):
        assert abs(report.rows[name] / len(outcomes) - share) < 0.02
    assert report.largest < 0.02 * len(outcomes) + 50
    train, test = done.of_split("train"), done.of_split("test")
    assert len(train.without_questions_of(test)) == len(train)
    first = outcomes.take(np.arange(min(500, len(outcomes))))
    for form in ("csv", "jsonl", "parquet"):
        assert_same(load_outcomes(write_outcomes(first, tmp_path / path.name / form, format=form)), first)
