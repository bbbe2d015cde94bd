"""`write_tables` makes outcome tables of a ledger (docs/outcome-data.md), page by page, and says how each candidate did.

Of several samples of each answer the outcomes are the means, and the scores of the single ones are a table beside them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ipr_engine._files import write_atomically
from ipr_engine.collection.asked_candidate import AskedCandidate
from ipr_engine.collection.bill import TokenUsage, call_usd
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.ledger import PAGE, Ledger, grade_key
from ipr_engine.data.outcome_files import OUTCOMES, PROMPTS, TASK
from ipr_engine.data.outcomes import MEASURES
from ipr_engine.data.repeated_scores import SAMPLE_COLUMNS, SAMPLES
from ipr_engine.data.table_stream import Kind, TableStream, table_stream
from ipr_engine.errors import InvalidInputError
from ipr_engine.grading.label_noise import LabelNoise, label_noise, scores_table
from ipr_engine.grading.quality_map import QualityMap
from ipr_engine.prompts.parse import parse_request

CANDIDATES = "candidates.json"
MOST_FOR_NOISE = 500_000  # samples that are kept in memory, to be taken apart
_PROMPT_COLUMNS: dict[str, Kind] = dict.fromkeys(("prompt_id", "prompt", "split", "dataset", "question_key"), "text")
_OUTCOME_COLUMNS: dict[str, Kind] = {"prompt_id": "text", "model": "text", **dict.fromkeys(MEASURES, "number")}
Grades = Mapping[tuple[bytes, bytes], tuple[float | None, float | None]]
"""(answer, what it was graded by) -> score and raw score."""


class Filed(NamedTuple):
    """A `Filed` is where one grader's grades are found. digest: for `grade_key`. map: its calibration, where it has one."""

    digest: bytes
    map: QualityMap | None = None


class MeasuredCandidate(NamedTuple):
    """A `MeasuredCandidate` is what one candidate did with one prompt.

    Attributes:
        measures: quality, input tokens, output tokens and cost, each the mean over its samples; None where not known.
        samples: the quality of each sample that has one; empty where its owner's label is the outcome.
    """

    name: str
    measures: tuple[float | None, ...]
    samples: tuple[float, ...]


class AnswerRow(NamedTuple):
    """An `AnswerRow` is one answer of a ledger, as its tables need it."""

    key: bytes
    candidate: str
    finish_reason: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: float | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    attempt: int | None

    def priced(self, asked: AskedCandidate, images: int) -> AnswerRow:
        """Return it with what a candidate of the plan pays for it now: the ledger has what was paid, maybe at another price."""
        if self.attempt is None or self.cost_usd is None or self.input_tokens is None or self.output_tokens is None:
            return self
        usage = TokenUsage(
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cached_tokens=self.cached_tokens or 0,
            reasoning_tokens=self.reasoning_tokens or 0,
        )
        return self._replace(cost_usd=call_usd(asked.price, usage, images))


@dataclass
class CandidateSums:
    """A `CandidateSums` sums up how one candidate did.

    Attributes:
        answers: samples that it answered. outcomes: prompts on which it has a quality. truncated, refused: of its answers.
        ungraded: answers without a score that should have one. labels: outcomes that its owner gave.
        quality, cost_usd, output_tokens: sums; priced, counted: of so many.
    """

    answers: int = 0
    outcomes: int = 0
    truncated: int = 0
    refused: int = 0
    ungraded: int = 0
    labels: int = 0
    quality: float = 0.0
    cost_usd: float = 0.0
    priced: int = 0
    output_tokens: int = 0
    counted: int = 0

    def count(self, answer: AnswerRow) -> None:
        """Count one answer."""
        self.answers += 1
        self.truncated += answer.finish_reason == "length"
        self.refused += answer.finish_reason == "content_filter"
        if answer.cost_usd is not None:
            self.cost_usd, self.priced = self.cost_usd + answer.cost_usd, self.priced + 1
        if answer.output_tokens is not None:
            self.output_tokens, self.counted = self.output_tokens + answer.output_tokens, self.counted + 1

    @property
    def mean_quality(self) -> float | None:
        """The mean quality over its outcomes; None where it has none."""
        return self.quality / self.outcomes if self.outcomes else None

    @property
    def mean_cost_usd(self) -> float | None:
        """The mean cost of an answer in USD; None where it is not known."""
        return self.cost_usd / self.priced if self.priced else None

    @property
    def mean_output_tokens(self) -> float | None:
        """The mean output tokens of an answer; None where they are not known."""
        return self.output_tokens / self.counted if self.counted else None


class WrittenTables(NamedTuple):
    """A `WrittenTables` sums up what was written.

    Attributes:
        sums: candidate -> how it did.
        noise: how much of an outcome is the luck of its samples; None where the plan wants one sample, or too few prompts have two of
            every candidate. Of the first prompts, where there are more than some 500,000 samples.
    """

    sums: Mapping[str, CandidateSums]
    noise: LabelNoise | None


def write_tables(
    ledger: Ledger, plan: CollectionPlan, run: int, graded_by: Mapping[str, Filed], folder: Path
) -> WrittenTables:
    """Write prompts.*, outcomes.* and candidates.json of a run's prompts into a folder.

    Where the plan wants several samples, samples.* has the quality of each; an earlier plan's is taken away.

    Args:
        graded_by: name of a grader -> where its grades are found.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sums = {one.name: CandidateSums() for one in plan.asked}
    single: list[tuple[str, str, float]] = []
    asked = {one.name: one for one in plan.asked}
    images_cost = any(one.price.per_image_usd for one in plan.asked)
    prompts, outcomes, samples = (folder / f"{table}.{plan.format}" for table in (PROMPTS, OUTCOMES, SAMPLES))
    columns: dict[str, Kind] = {
        **_PROMPT_COLUMNS,
        **({TASK: "text"} if ledger.do(lambda of: _has_tasks(of, run)) else {}),
    }
    with ExitStack() as stack:
        prompt_table = stack.enter_context(table_stream(prompts, columns))
        table = stack.enter_context(table_stream(outcomes, _OUTCOME_COLUMNS))
        repeated = stack.enter_context(table_stream(samples, SAMPLE_COLUMNS)) if plan.samples > 1 else None
        for page in _pages(ledger, run):
            prompt_table.write(
                {name: [row[name] for row in page] for name in columns}  # columns of the ledger, as they are
            )
            ids = [row["id"] for row in page]
            answers, grades = ledger.do(lambda of, ids=ids: answers_of(of, ids))  # type: ignore[misc]
            images = ledger.do(lambda of, ids=ids: _images(of, ids)) if images_cost else {}  # type: ignore[misc]
            rows: dict[str, list[Any]] = {name: [] for name in _OUTCOME_COLUMNS}
            sample_rows: dict[str, list[Any]] = {name: [] for name in SAMPLE_COLUMNS}
            for row in page:
                filed = graded_by.get(row["grader"] or next(iter(plan.graders), ""))
                labels = plan.by_candidate(json.loads(row["labels"])) if row["labels"] else {}
                of_row = answers.get(row["id"], ())
                scores = {} if filed is None else scores_of(of_row, grades, filed, row["reference"])
                priced = [one.priced(asked[one.candidate], images.get(row["id"], 0)) for one in of_row]
                for one in _measured(plan, priced, labels, None if filed is None else scores, sums):
                    _append(rows, (row["prompt_id"], one.name, *one.measures))
                    for number, quality in enumerate(one.samples):
                        _append(sample_rows, (row["prompt_id"], one.name, number, quality))
            _write(table, rows)
            if repeated is not None:
                _write(repeated, sample_rows)
                if len(single) < MOST_FOR_NOISE:
                    single += zip(*(sample_rows[name] for name in ("prompt_id", "model", "quality")), strict=True)
    if plan.samples == 1:
        samples.unlink(missing_ok=True)
    document = {"date": plan.prices_date, "candidates": [dict(one.entry) for one in plan.asked]}
    write_atomically(folder / CANDIDATES, json.dumps(document, indent=1, ensure_ascii=False).encode() + b"\n")
    return WrittenTables(sums, _noise(single))


def _has_tasks(connection: sqlite3.Connection, run: int) -> bool:
    found = connection.execute("SELECT 1 FROM question WHERE run = ? AND task IS NOT NULL LIMIT 1", (run,))
    return found.fetchone() is not None


def _noise(single: Sequence[tuple[str, str, float]]) -> LabelNoise | None:
    """Take samples apart; None where too few prompts have two samples of every candidate."""
    try:
        return label_noise(scores_table(single)[2])
    except InvalidInputError:
        return None


def _append(rows: Mapping[str, list[Any]], cells: Sequence[Any]) -> None:
    for column, cell in zip(rows.values(), cells, strict=True):
        column.append(cell)


def _write(table: TableStream, rows: Mapping[str, list[Any]]) -> None:
    if rows["model"]:
        table.write(rows)


def answers_of(connection: sqlite3.Connection, questions: Sequence[int]) -> tuple[dict[int, list[AnswerRow]], Grades]:
    """Return prompt's number -> its answers, and (answer, what it was graded by) -> score."""
    found: dict[int, list[AnswerRow]] = {}
    marks = ",".join("?" * len(questions))
    joined = f"FROM cell JOIN answer ON answer.key = cell.key WHERE cell.question IN ({marks})"
    for question, *rest in connection.execute(
        "SELECT cell.question, answer.key, cell.candidate, finish_reason, input_tokens, output_tokens, cost_usd, "
        "cached_tokens, reasoning_tokens, attempt "
        f"{joined} ORDER BY cell.question, cell.candidate, cell.sample",
        questions,
    ):
        found.setdefault(question, []).append(AnswerRow(*rest))
    graded = connection.execute(
        f"SELECT key, grader, score, raw FROM grade WHERE key IN (SELECT answer.key {joined})", questions
    )
    return found, {(key, grader): (score, raw) for key, grader, score, raw in graded}


def _images(connection: sqlite3.Connection, questions: Sequence[int]) -> dict[int, int]:
    """Return prompt's number -> how many images it holds."""
    marks = ",".join("?" * len(questions))
    bodies = connection.execute(f"SELECT id, body FROM question WHERE id IN ({marks})", questions)
    return {number: parse_request(json.loads(body), where="prompt").images for number, body in bodies}


def scores_of(answers: Sequence[AnswerRow], grades: Grades, filed: Filed, reference: str | None) -> dict[bytes, float]:
    """Return answer -> its quality by a grader; calibrated, where there is a calibration."""
    key = grade_key(filed.digest, reference)
    known = {one.key: (one.candidate, *grades[one.key, key]) for one in answers if (one.key, key) in grades}
    if filed.map is None:
        return {answer: score for answer, (_, score, _) in known.items() if score is not None}
    raw = np.array([score if own is None else own for _, score, own in known.values()], dtype=np.float64)
    quality = filed.map(raw, [candidate for candidate, *_ in known.values()])
    return dict(zip(known, quality.tolist(), strict=True))


def _measured(
    plan: CollectionPlan,
    answers: Sequence[AnswerRow],
    labels: Mapping[str, float],
    scores: Mapping[bytes, float] | None,
    sums: Mapping[str, CandidateSums],
) -> Iterator[MeasuredCandidate]:
    """Yield each candidate that answered, or has a label; count what it did in `sums`."""
    for asked in plan.asked:
        own, samples = sums[asked.name], [one for one in answers if one.candidate == asked.name][: plan.samples]
        label = labels.get(asked.name)
        if not samples and label is None:
            continue
        graded = []
        for one in samples:
            own.count(one)
            if plan.counts_as_outcome(one.finish_reason) and scores is not None:
                own.ungraded += one.key not in scores
                graded.append(scores.get(one.key))
        quality = label if label is not None else _mean(graded)
        own.labels += label is not None
        if quality is not None:
            own.outcomes += 1
            own.quality += quality
        measures = [[getattr(one, name) for one in samples] for name in MEASURES[1:]]
        # A label is the prompt's, and says nothing of single samples.
        single = () if label is not None else tuple(one for one in graded if one is not None)
        yield MeasuredCandidate(asked.name, (quality, *map(_mean, measures)), single)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _pages(ledger: Ledger, run: int) -> Iterator[list[dict[str, Any]]]:
    columns = ("id", *_PROMPT_COLUMNS, TASK, "labels", "grader", "reference")
    last = -1
    while True:
        rows = ledger.do(
            lambda of, last=last: of.execute(  # type: ignore[misc]
                f"SELECT {', '.join(columns)} FROM question WHERE run = ? AND id > ? ORDER BY id LIMIT ?",
                (run, last, PAGE),
            ).fetchall()
        )
        if not rows:
            return
        last = rows[-1][0]
        yield [dict(zip(columns, row, strict=True)) for row in rows]
