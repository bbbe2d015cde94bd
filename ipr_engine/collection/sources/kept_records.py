"""`KeptRecords` reads the prompts that our own decision records keep (docs/formats.md), in clear or under the owner's key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record
from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.errors import RecordError


class KeptRecords:
    """A `KeptRecords` reads the records of one source."""

    def __init__(self, source: PromptSource, report: SourceReport) -> None:
        """Begin.

        Raises:
            InvalidInputError: the key cannot be read.
        """
        self._report = report
        self._key = None if source.key is None else OwnerKey.load(source.key)

    def rows(self, record: Mapping[str, Any], offset: int | None) -> Iterator[AskedRow]:
        """Yield the request of a record that keeps one; the others are counted.

        Raises:
            UnaskableError: the record is damaged.
            KeyMismatchError: it was sealed under another key.
        """
        problem, read = "", None
        try:
            read = Record.from_line(json.dumps(record))
            if read.sealed is not None and self._key is not None:
                read = read.opened(self._key)
        except RecordError as error:
            problem = str(error)
        if read is None or problem:
            raise UnaskableError(problem)
        prompt, task = read.prompt, None if read.task is None else read.task.name
        if prompt is None:
            sealed = read.sealed is not None and self._key is None
            self._report.note(
                "records that are sealed: give the owner's key (key: owner.key)"
                if sealed
                else "records without a prompt: they were written without keep_prompts"
            )
        elif isinstance(prompt, str):
            yield AskedRow(request={"messages": [{"role": "user", "content": prompt}]}, task=task)
        elif isinstance(prompt, list):
            yield AskedRow(request={"messages": prompt}, task=task)
        elif isinstance(prompt, Mapping):
            yield AskedRow(request=prompt, task=task)
        else:
            raise UnaskableError("prompt: expected a text, messages or a request")

    def end(self) -> Iterator[AskedRow]:
        return iter(())
