"""The study of graders: cases are read as recorded, labels calibrate, repeated answers are taken apart, its page is whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies import grading
from studies.grading_cases import JUDGES, judge_cases, verifier_cases
from tests.support import skips
from tests.support.seeds import seeded

for package in ("sklearn", "matplotlib"):
    pytest.importorskip(package, reason=skips.EVAL)
pyarrow = pytest.importorskip("pyarrow", reason=skips.PYARROW)

MODELS = {"weak": 0.3, "fair": 0.5, "good": 0.8}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """60 prompts, three models: two judges, the second stricter; answers that hold the right one or do not; three samples."""
    from pyarrow import parquet

    made, rng = tmp_path_factory.mktemp("responses"), seeded("grading study")
    ratings, answers, samples = [], [], []
    for i in range(60):
        for model, mean in MODELS.items():
            both = {"prompt_id": f"p{i}", "model": model}
            truth = float(np.clip(rng.normal(mean, 0.2), 0, 1))
            kind = float(np.clip(truth**0.5 + rng.normal(0, 0.03), 0, 1))
            for rater, value in zip(JUDGES.values(), (kind, truth), strict=True):
                ratings.append({**both, "rater": rater, "rating": value})
            right = rng.random() < mean
            answers.append(
                {
                    **both,
                    "response": f"It is {'Prague' if right else 'Rome'}.",
                    "target": "Prague",
                    "rating": float(right),
                }
            )
            samples += [{**both, "sample": n, "rating": float(rng.random() < mean)} for n in range(3)]
    for source, name, rows in (
        (
            "shaberi",
            "ratings",
            [*ratings, {"prompt_id": "p0", "model": "other", "rater": "a third judge", "rating": 1.0}],
        ),
        ("czech_simpleqa", "responses", answers),
        ("misguided", "responses", samples),
    ):
        (made / source).mkdir()
        parquet.write_table(pyarrow.Table.from_pylist(rows), made / source / f"{name}.parquet")
    return made


def test_each_judge_is_the_grader_once_and_the_truth_once(folder):
    one, other = judge_cases(folder / "shaberi")
    assert len(one.labels) == 180  # what both have rated
    np.testing.assert_array_equal(one.raw, other.labels)
    assert one.raw.mean() > one.labels.mean()


def test_verifiers_grade_the_recorded_answers(folder):
    contains, overlap = verifier_cases(folder / "czech_simpleqa")
    np.testing.assert_array_equal(contains.raw, contains.labels)
    assert ((overlap.raw == 1) == (overlap.labels == 1)).all()


def test_the_page_has_every_case_and_calibration_beats_raw_grades(folder, tmp_path, monkeypatch):
    for name, value in {"PROMPTS": (25, 40), "SEEDS": 2, "LEAST_REST": 10}.items():
        monkeypatch.setattr(grading, name, value)
    assert main(["study", "grading", "--outcomes", str(folder), "--out", str(tmp_path)]) == 0
    page = (tmp_path / "grading.md").read_text()
    for heading in (
        "shaberi: GPT-4.1, truth GPT-5.1",
        "czech_simpleqa: overlap, truth GPT-4o",
        "One sample: misguided",
    ):
        assert f"## {heading}" in page
    assert "nan" not in page
    figures = json.loads((tmp_path / "grading.json").read_text())
    ece = {way: np.mean(of["ece"]) for way, of in figures["shaberi: GPT-4.1, truth GPT-5.1"]["40"].items()}
    assert ece["with a shift a model"] < ece["as it is"]
    assert figures["misguided"]["samples"] == 3
    assert (tmp_path / "grading.png").stat().st_size > 10_000
