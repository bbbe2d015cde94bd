"""`open_sources` looks at each source once: its files, its layout, and which files of a batch hold answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.openai_batches import BatchAnswers, OpenAIBatches, is_batch_answer
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.collection.sources.source_layouts import READERS, RowReader, recognised, require_heeded
from ipr_engine.collection.sources.source_records import SourceFile, records_of, source_files
from ipr_engine.errors import InvalidInputError


class OpenSource(NamedTuple):
    """An `OpenSource` is a source whose files and layout are known.

    Attributes:
        source: what the plan states. files: those that hold requests, in order. layout: of all of them.
        answers: of a batch, to its requests.
    """

    source: PromptSource
    files: tuple[SourceFile, ...]
    layout: str
    answers: BatchAnswers

    def reader(self, report: SourceReport) -> RowReader:
        """Return what reads its records, in order, from the first one."""
        if self.layout == "openai-batch":
            return OpenAIBatches(self.source, report, self.answers)
        made: RowReader = READERS[self.layout](self.source, report)
        return made


class Placed(NamedTuple):
    """A `Placed` is one row with where it stands, for errors.

    Attributes:
        source: its place among the sources. where: its file and row.
    """

    source: int
    where: str
    row: AskedRow | UnaskableError


def open_sources(sources: Sequence[PromptSource]) -> list[OpenSource]:
    """Return the sources with their files and layouts. Files of a batch's answers go with the requests of their source, or the one before.

    Raises:
        InvalidInputError: a file is not there, its layout is not known, an option has no effect on it, or answers are without requests.
    """
    opened: list[OpenSource] = []
    for source in sources:
        files = source_files(source.path)
        layout = source.layout if source.layout != "auto" else _layout(source, files)
        require_heeded(source, layout)
        asking, answering = tuple(files), []
        if layout == "openai-batch":
            answering = [file for file in files if _holds_answers(file)]
            asking = tuple(file for file in files if file not in answering)
        if asking:
            opened.append(OpenSource(source, asking, layout, BatchAnswers(answering)))
        elif opened and opened[-1].layout == layout:
            before = opened.pop()
            if len(before.answers):
                raise InvalidInputError(
                    f"{source.path}: {before.source.path} has answers already; give each its own source"
                )
            opened.append(before._replace(answers=BatchAnswers(answering)))
        else:
            raise InvalidInputError(
                f"{source.path}: holds answers of a batch without what was asked; give the file of its requests before it"
            )
    return opened


def placed_rows(opened: Sequence[OpenSource], report: SourceReport) -> Iterator[Placed]:
    """Yield every row of the sources, in order, and what is no row and why."""
    for number, one in enumerate(opened):
        reader = one.reader(report)
        where = ""
        for file in one.files:
            for record in records_of(file):
                where = f"{file.name}, row {record.number}"
                if isinstance(record.value, UnaskableError):
                    yield Placed(number, where, record.value)
                    continue
                try:
                    for row in reader.rows(record.value, record.offset):
                        yield Placed(number, f"{where}{row.part}", row)
                except UnaskableError as error:
                    yield Placed(number, where, error)
        for row in reader.end():
            yield Placed(number, f"{one.files[-1].name}, before its end{row.part}", row)


def _layout(source: PromptSource, files: Sequence[SourceFile]) -> str:
    """Return the layout of a source by the first record that can be read."""
    for file in files:
        for record in records_of(file):
            if not isinstance(record.value, UnaskableError):
                return recognised(record.value, source, f"{file.name}, row {record.number}")
    return "table"


def _holds_answers(file: SourceFile) -> bool:
    first = next((record.value for record in records_of(file) if not isinstance(record.value, UnaskableError)), None)
    return first is not None and is_batch_answer(first)
