"""This file joins recorded decisions with their scores, each decided again under another policy or bundle, into `LoggedDecisions`.

What cannot be used is left out for a reason, counted. Every reason but one looks at the request and not at the draw, so that what is left
is a log of its own kind of requests; a candidate that failed is told apart.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import Replayed
from ipr_engine.data.score_table import NO_CANDIDATE, Score, ScoreTable
from ipr_engine.data.tables import BadRows
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.logged_decisions import (
    BEYOND,
    FAILED,
    NO_CHANCE,
    NO_ID,
    UNDECIDED,
    UNSCORED,
    Floats,
    LoggedDecisions,
)
from ipr_engine.prompts import parse_request


@dataclass
class _Rows:
    """`_Rows` are the cells of each usable decision, as they are read."""

    models: dict[str, int]
    cells: list[tuple[float, float, float, int, int, int]] = field(default_factory=list)
    predicted: list[npt.NDArray[np.float32]] = field(default_factory=list)
    expected_usd: list[npt.NDArray[np.float32]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    texts: list[str | None] = field(default_factory=list)


def scored_lines(lines: Iterable[bytes], table: ScoreTable, left_out: Counter[str]) -> Iterator[bytes]:
    """Yield the lines of records that have a score, and an empty one in the place of each other: it is not decided again.

    left_out: is told of the others. A line whose id cannot be read goes on as it is.
    """
    for line in lines:
        try:
            id = json.loads(line).get("id")
        except (ValueError, AttributeError, RecursionError):
            yield line
            continue
        if id is None or str(id) not in table:
            left_out[NO_ID if id is None else UNSCORED] += 1
            yield b"\n"
        else:
            yield line


def logged_decisions(
    replays: Iterable[Replayed],
    names: tuple[str, ...],
    table: ScoreTable,
    bad: BadRows,
    file: str,
    left_out: Counter[str],
) -> LoggedDecisions:
    """Join replayed records with their scores.

    Args:
        names: of the bundle that decides now. file: what lines are of.
        bad: collects damaged lines, ids that stand twice, and scores of somebody who is no candidate.
        left_out: the lines that `scored_lines` left out.
    """
    rows = _Rows({name: m for m, name in enumerate(names)})
    refused: Counter[str] = Counter()
    seen: dict[str, tuple[int, int | None]] = {}  # id -> its line, and its row where it is used
    doubled: set[int] = set()
    records = by_figures = 0
    again: Counter[str] = Counter()
    for replayed in replays:
        records += 1
        record, where = replayed.record, f"{file}, line {replayed.line}"
        if record is None:
            bad.add(where, f": {replayed.refused}")
            continue
        id = str(record.id)
        if id in seen:
            first, used = seen[id]
            for line in (first, replayed.line):
                bad.add(
                    f"{file}, line {line}",
                    f": expected each id once, {id!r} stands in line {first} and {replayed.line}",
                )
            doubled |= set() if used is None else {used}
            continue
        seen[id] = replayed.line, None
        score = table.of(id)
        if score is not None and score.model is not None and score.model not in record.candidates:
            bad.add(score.where, f", column 'model': {NO_CANDIDATE}")
            continue
        why = _unusable(record, score, replayed)
        if why is not None:
            again[why] += 1
        elif replayed.outcome is None:
            refused[replayed.refused or ""] += 1
        else:
            assert score is not None
            seen[id] = replayed.line, len(rows.cells)
            by_figures += not replayed.by_heads
            _add(rows, record, replayed, score, id)
    records += left_out.total()
    return _columns(rows, doubled, left_out + again, refused, (records, by_figures))


def _unusable(record: Record, score: Score | None, replayed: Replayed) -> str | None:
    """Return why a record tells nothing of other policies; None where it may."""
    if score is None or math.isnan(score.quality):
        return UNSCORED
    asked = record.exploration
    if asked is None:
        return NO_CHANCE
    if replayed.outcome is None:
        return None
    now = replayed.outcome.model
    if now is None:
        return UNDECIDED
    if now not in {record.candidates[m] for m in asked.among}:
        return BEYOND
    return FAILED if score.model not in (None, asked.model) else None


def _add(rows: _Rows, record: Record, replayed: Replayed, score: Score, id: str) -> None:
    now, asked = replayed.outcome, record.exploration
    assert now is not None
    assert asked is not None
    assert now.model is not None
    logged, target, recorded = (
        rows.models.setdefault(name, len(rows.models)) for name in (asked.model, now.model, str(record.outcome.model))
    )
    rows.cells.append((score.quality, asked.propensity, score.cost_usd, logged, target, recorded))
    rows.predicted.append(now.quality)
    rows.expected_usd.append(now.cost_usd)
    rows.texts.append(_text(record.prompt))
    rows.groups.append(f"of {id}" if score.conversation is None else f"conversation {score.conversation}")


def _text(prompt: Any) -> str | None:
    """Return all texts of the user of a prompt that is kept; None where there is none."""
    if prompt is None:
        return None
    try:
        return parse_request(prompt).encoded
    except InvalidInputError:  # of an earlier release, say: it was decided, and only its text is not known
        return None


def _columns(
    rows: _Rows, doubled: set[int], left_out: Counter[str], refused: Counter[str], counts: tuple[int, int]
) -> LoggedDecisions:
    """Return the rows as columns, without those whose id came again."""
    kept = [row for row in range(len(rows.cells)) if row not in doubled]
    cells = np.array([rows.cells[row] for row in kept], np.float64).reshape(len(kept), 6)
    groups = np.unique([rows.groups[row] for row in kept], return_inverse=True)[1] if kept else np.zeros(0)
    whole = cells[:, 3:].astype(np.int64)
    return LoggedDecisions(
        models=tuple(rows.models),
        scores=cells[:, 0],
        propensity=cells[:, 1],
        logged=whole[:, 0],
        target=whole[:, 1],
        recorded=whole[:, 2],
        predicted=np.clip(np.nan_to_num(_matrix(rows.predicted, kept, len(rows.models))), 0.0, 1.0),
        expected_usd=_matrix(rows.expected_usd, kept, len(rows.models)),
        cost_usd=cells[:, 2],
        texts=tuple(rows.texts[row] for row in kept),
        groups=groups.astype(np.int64),
        left_out=left_out,
        refused=refused,
        records=counts[0],
        by_figures=counts[1],
    )


def _matrix(known: list[npt.NDArray[np.float32]], kept: list[int], models: int) -> Floats:
    """Return (rows, models), NaN where nothing is known."""
    made = np.full((len(kept), models), np.nan)
    for at, row in enumerate(kept):
        made[at, : len(known[row])] = known[row]
    return made
