"""`import_records` joins decision records with scores by id: production becomes outcome data, one outcome a prompt.

The outcome is that of the candidate that was asked: the policy's choice, the one that chance drew, or who answered in its place where the
score says so. Prompts are the records' own, or those of a table with columns id and prompt, which goes before them.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record
from ipr_engine.data.importers.outcome_builder import HINT, SourceBuilder
from ipr_engine.data.outcomes import Outcomes, source_name
from ipr_engine.data.score_table import NO_CANDIDATE, Score, ScoreTable
from ipr_engine.data.table_files import read_table
from ipr_engine.data.tables import BadRows
from ipr_engine.errors import InvalidInputError, KeyMismatchError, RecordError
from ipr_engine.prompts import ParsedRequest, parse_request


@dataclass
class JoinReport:
    """A `JoinReport` counts what came of records and scores.

    Attributes:
        records: lines that hold one. joined: those that became outcomes. explored: of these, the ones that chance sent elsewhere.
        unscored: records without a score. strangers: scores without a record. without_id: records that nothing can be joined to.
        undecided: scored records in which nobody was chosen. without_prompt: scored records whose prompt is nowhere. sealed: of these,
            the ones that a key would open. conversations: joined records with several turns of a user, which are one text here.
    """

    records: int = 0
    joined: int = 0
    explored: int = 0
    unscored: int = 0
    strangers: int = 0
    without_id: int = 0
    undecided: int = 0
    without_prompt: int = 0
    sealed: int = 0
    conversations: int = 0

    def to_dict(self) -> dict[str, int]:
        return asdict(self)

    @property
    def notice(self) -> str:
        """Return what is told of it, in one line."""
        said = {
            "without a score": self.unscored,
            "without an id": self.without_id,
            "in which nobody was chosen": self.undecided,
            "without a prompt": self.without_prompt,
        }
        left = "".join(f", {count:,} {what}" for what, count in said.items() if count)
        sealed = f" ({self.sealed:,} sealed: give --key)" if self.sealed else ""
        strangers = f"; {self.strangers:,} scores of no record" if self.strangers else ""
        turns = (
            f"; {self.conversations:,} hold several turns of a user, which are one text of the table, as a bundle of "
            "--conversation all encodes them"
            if self.conversations
            else ""
        )
        return f"{self.joined:,} of {self.records:,} records joined, {self.explored:,} of them explored{left}{sealed}{strangers}{turns}"


def import_records(
    path: Path,
    *,
    scores: Path,
    prompts: Path | None = None,
    key: OwnerKey | str | os.PathLike[str] | bytes | None = None,
    bad: BadRows | None = None,
    report: JoinReport | None = None,
) -> Outcomes:
    """Join the records of a log with their scores.

    Args:
        path: records, one a line. scores: a table as `ScoreTable` reads it. prompts: a table of id and prompt; None takes the records'.
        key: opens prompts that are sealed in the records.
        bad: as for `import_wide`; damaged lines, ids that stand twice and scores out of range are bad. report: is filled.
    Raises:
        InvalidInputError: rows are bad and not to be skipped, nothing joins, or no joined record has a prompt.
        KeyMismatchError: a record was sealed under another key.
    """
    bad, report = BadRows() if bad is None else bad, JoinReport() if report is None else report
    opener = None if key is None else OwnerKey.load(key)
    table, texts = ScoreTable(scores, bad), {} if prompts is None else _prompts(prompts, bad)
    builder = SourceBuilder(source_name(path), bad)
    found = _read(path, table, bad, report)
    times = Counter(id for _, id, _ in found)
    for where, id, record in found:
        if times[id] > 1:
            bad.add(where, f": expected each id once, {id!r} stands {times[id]} times: whose score is it?")
            table.of(id)
            continue
        score = table.of(id)
        if record is None or score is None:
            report.unscored += 1
        elif (asked := asked_of(record)) is None:
            report.undecided += 1
        else:
            at, prompt = texts.get(id) or (where, _opened(record, opener, where).prompt)
            if prompt is None:
                report.without_prompt += 1
                report.sealed += opener is None and record.sealed is not None
            elif (parsed := _add(builder, at, record, score, asked, prompt)) is not None:
                report.joined += 1
                report.conversations += len(parsed.turns) > 1
                report.explored += record.exploration is not None and record.exploration.model != record.outcome.model
    report.strangers = table.strangers
    if not report.joined:
        bad.refuse("" if bad.skip else HINT)
        raise InvalidInputError(_nothing(path, table, report))
    return builder.build()


def asked_of(record: Record) -> str | None:
    """Return the candidate that was asked: the one that chance drew, else the policy's choice; None where nobody was chosen."""
    return record.outcome.model if record.exploration is None else record.exploration.model


def _read(path: Path, table: ScoreTable, bad: BadRows, report: JoinReport) -> list[tuple[str, str, Record | None]]:
    """Return what errors call each line that has an id, the id, and the record, where it has a score: a log is longer than its scores."""
    found: list[tuple[str, str, Record | None]] = []
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                where = f"{path.name}, line {number}"
                report.records += 1
                try:
                    record = Record.from_line(line)
                except RecordError as error:
                    bad.add(where, f": {error}")
                    continue
                if record.id is None:
                    report.without_id += 1
                else:
                    id = str(record.id)
                    found.append((where, id, record if id in table else None))
    except OSError as error:
        raise InvalidInputError(f"source: cannot read {path}: {error.strerror}") from None
    return found


def _opened(record: Record, key: OwnerKey | None, where: str) -> Record:
    if key is None or record.sealed is None:
        return record
    try:
        return record.opened(key)
    except (KeyMismatchError, RecordError) as error:
        error.args = (f"{where}: {error}",)
        raise


def _add(
    builder: SourceBuilder, where: str, record: Record, score: Score, asked: str, prompt: Any
) -> ParsedRequest | None:
    """Add one record's prompt and outcome; return the prompt as it was read, None where one of them is not good."""
    id = str(record.id)
    try:
        parsed = parse_request(prompt)
    except InvalidInputError as error:
        builder.bad.add(where, f": {error}")
        return None
    model = asked if score.model is None else score.model
    if model not in record.candidates:
        builder.bad.add(score.where, f", column 'model': {NO_CANDIDATE}")
        return None
    # turns of one conversation stay together in splits and folds
    key = None if score.conversation is None else sha256(f"conversation {score.conversation}".encode()).hexdigest()
    builder.add_prompt(id, parsed.encoded, where=where, key=key, task=None if record.task is None else record.task.name)
    quality = None if score.quality != score.quality else score.quality
    builder.add_outcome(id, model, quality, where=score.where, **score.measures)
    return parsed


def _prompts(path: Path, bad: BadRows) -> dict[str, tuple[str, Any]]:
    """Return id -> what errors call its row, and the prompt, a text or a request."""
    table = read_table(path, bad)
    table.require(("id", "prompt"))
    ids = table.text("id")
    times = Counter(ids)
    found: dict[str, tuple[str, Any]] = {}
    for row, (id, prompt) in enumerate(zip(ids, table.values("prompt"), strict=True)):
        if not id:
            table.complain(row, "id", "expected the id of a record, it is missing")
        elif times[id] > 1:
            table.complain(row, "id", f"expected each id once, {id!r} stands {times[id]} times")
        elif prompt is not None:
            found[id] = table.where(row), prompt
    return found


def _nothing(path: Path, table: ScoreTable, report: JoinReport) -> str:
    if report.without_prompt:
        sealed = (
            "give the key that seals them (--key)"
            if report.sealed
            else "write records with keep_prompts, or give --prompts"
        )
        return f"{path.name}: none of {report.without_prompt:,} scored records has a prompt; {sealed}"
    return (
        f"{table.name}: none of its {len(table):,} ids is that of a record of {path.name} ({report.records:,} records, "
        f"{report.without_id:,} without an id); an id is `id` of /v1/route's reply, or the header x-ipr-decision-id"
    )
