"""The study of families with a forest: both ways of holding out, and no fit that has seen a row's question or dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studies import family_forest
from studies.family_forest import IN, OUT
from tests.support import skips
from tests.support.study_sources import make_study, write_study_source

for module in ("pyarrow", "sklearn", "matplotlib"):
    pytest.importorskip(module, reason=skips.EVAL)

LLAMAS = ("llama3.2-1b", "llama3.2-3b", "llama3.1-70b", "llama3.1-405b")
ROWS = {(split, dataset): 40 for split in ("train", "test") for dataset in "abc"}


def test_the_page_has_both_ways_of_holding_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    def seen(x, width, source, folds):
        fitted.append((source, folds))
        return crossed(x, width, source, folds)

    crossed = family_forest.predict_by_folds
    monkeypatch.setattr(family_forest, "predict_by_folds", seen)
    write_study_source(tmp_path / "in" / "cascade9", (*LLAMAS, "gpt-4o"), ROWS)
    page, figures, plot = family_forest.run(make_study(tmp_path / "in", tmp_path / "out"))
    found = json.loads(figures.read_text())
    assert set(found) >= {IN, OUT}
    assert set(found[IN]) == set(found[OUT]) == {"cascade9, Llama"}
    assert "mean over sources" in page.read_text()
    assert plot.stat().st_size > 10_000
    source, by_dataset = fitted[-1]
    assert len({(fold, dataset) for fold, dataset in zip(by_dataset, source.datasets, strict=True)}) == 3


def test_two_datasets_are_too_few_to_hold_one_out(tmp_path: Path) -> None:
    write_study_source(tmp_path / "in" / "cascade9", LLAMAS, {key: 40 for key in ROWS if key[1] != "c"})
    page, figures, _ = family_forest.run(make_study(tmp_path / "in", tmp_path / "out"))
    assert json.loads(figures.read_text())[OUT] == {}
    assert "one dataset or two" in page.read_text()
