"""A `RecordMaker` makes the record of an answer, and writes it: what a recorder of a service does in its own thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ipr_engine.audit.record import Record
from ipr_engine.audit.record_writer import RecordWriter, prompt_copy, record_ids
from ipr_engine.audit.row_record import row_records, unpredicted_record
from ipr_engine.decision.decision import Row
from ipr_engine.serving.queueing import QueuedRequest, Recordable, RecordWish


class RecordMaker:
    """A `RecordMaker` is the writer of one recorder, with what it asks of records."""

    def __init__(self, writer: RecordWriter) -> None:
        self._writer = writer

    @property
    def keep_prompts(self) -> bool:
        return self._writer.keep_prompts

    def check_id(self, id: object) -> None:
        """Refuse what a record cannot be called."""
        record_ids((id,), 1)

    def copied(self, prompt: Any) -> Any:
        """Return the prompt as a record holds it, whatever its caller does to it meanwhile."""
        return prompt_copy(prompt)

    def record(self, request: QueuedRequest, answer: Recordable) -> Record:
        """Return the record of an answer, without id and prompt."""
        if isinstance(answer.record, Record):
            return answer.record
        loaded, decisions, writer = answer.loaded, answer.decisions, self._writer
        assert loaded is not None
        if decisions is None:
            given = request.billed_tokens is not None
            return unpredicted_record(loaded, answer.row, request.text.needs, bill_given=given)
        made_on = decisions.made_on
        assert made_on is not None
        record_of = row_records(loaded, decisions, made_on, writer.min_words)
        # What is not asked for never gets into the record.
        return record_of(answer.at, x=made_on.x[answer.at] if writer.keep_x else None, degraded=answer.degraded)

    def line(self, record: Record, wish: RecordWish, row: Row) -> bytes:
        """Return the line of a record with its id and prompt, and with who is asked by chance. row: the answer."""
        exploration = None if wish.draw is None else wish.draw.of(row)
        return self._writer.line(replace(record, id=wish.id, prompt=wish.prompt, exploration=exploration))

    def can_be_replayed(self, record: Record) -> bool:
        return self._writer.can_be_replayed(record)

    def write_each(self, lines: Sequence[bytes]) -> list[Exception | None]:
        return self._writer.write_each(lines)

    def close(self) -> None:
        self._writer.close()

    def after_fork(self) -> None:
        self._writer.after_fork()
