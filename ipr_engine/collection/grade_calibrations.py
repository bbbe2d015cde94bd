"""`calibrate_graders` makes the raw scores of a plan's graders qualities, by the labels that its prompts come with."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.graded_pages import pages_of_gradable
from ipr_engine.collection.ledger import Ledger, grade_key
from ipr_engine.collection.plan_graders import PlanGrader
from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.grader_calibration import GraderCalibration, calibrate_grader


def calibrate_graders(
    ledger: Ledger,
    plan: CollectionPlan,
    run: int,
    graders: Mapping[str, PlanGrader],
    filed: Mapping[str, bytes],
    folder: Path,
) -> tuple[dict[str, GraderCalibration], dict[str, str]]:
    """Return grader -> its calibration, and grader -> why it has none, of those that the plan wants calibrated.

    Each calibration is written beside the tables, as grader-NAME.json.

    Args:
        filed: name -> what its grades are filed under.
    """
    made: dict[str, GraderCalibration] = {}
    lacking: dict[str, str] = {}
    for name, one in graders.items():
        if not one.calibrate:
            continue
        rows = _labelled(ledger, plan, run, name, filed[name])
        try:
            made[name] = calibrate_grader(
                np.array([raw for raw, *_ in rows]),
                np.array([label for _, label, *_ in rows]),
                groups=[group for *_, group, _ in rows],
                models=[model for *_, model in rows],
                grader=filed[name].hex(),
                seed=plan.seed,
            )
        except InvalidInputError as error:
            lacking[name] = str(error)
            (folder / f"grader-{name}.json").unlink(missing_ok=True)  # of an earlier run
            continue
        made[name].write(folder / f"grader-{name}.json")
    return made, lacking


def _labelled(
    ledger: Ledger, plan: CollectionPlan, run: int, grader: str, filed: bytes
) -> list[tuple[float, float, str, str]]:
    """Return raw score, label, question and candidate of the graded answers whose candidate has a label there."""
    found = []
    for page in pages_of_gradable(ledger, plan, run, grader):
        ids = list({one.question for one in page})
        labels, grades = ledger.do(lambda of, ids=ids: (_labels(of, ids), _grades(of, ids)))  # type: ignore[misc]
        for one in page:
            given, key = labels.get(one.question, ({}, ""))[0], grade_key(filed, one.reference)
            label = plan.by_candidate(given).get(one.candidate)
            raw = grades.get((one.key, key))
            if label is not None and raw is not None:
                found.append((raw, label, labels[one.question][1], one.candidate))
    return found


def _labels(connection: sqlite3.Connection, ids: list[int]) -> dict[int, tuple[dict[str, float], str]]:
    marks = ",".join("?" * len(ids))
    rows = connection.execute(
        f"SELECT id, labels, coalesce(question_key, prompt_id) FROM question WHERE id IN ({marks}) AND labels IS NOT NULL",
        ids,
    )
    return {number: (json.loads(labels), group) for number, labels, group in rows}


def _grades(connection: sqlite3.Connection, ids: list[int]) -> dict[tuple[bytes, bytes], float]:
    marks = ",".join("?" * len(ids))
    rows = connection.execute(
        "SELECT grade.key, grade.grader, coalesce(raw, score) FROM grade WHERE key IN "
        f"(SELECT key FROM cell WHERE question IN ({marks}))",
        ids,
    )
    return {(key, grader): raw for key, grader, raw in rows}
