"""`open_sources` looks at each source once: its files, its layout, and which files of a batch hold answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.kept_records import KeptRecords
from ipr_engine.collection.sources.langfuse_exports import LangfuseExports
from ipr_engine.collection.sources.litellm_logs import LiteLLMLogs
from ipr_engine.collection.sources.openai_batches import BatchAnswers, OpenAIBatches, is_batch_answer
from ipr_engine.collection.sources.opentelemetry_calls import OpenTelemetryCalls
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.collection.sources.source_layouts import recognised, require_heeded
from ipr_engine.collection.sources.source_records import SourceFile, records_of, source_files
from ipr_engine.collection.sources.table_rows import TableRows
from ipr_engine.errors import InvalidInputError


class RowReader(Protocol):
    """A `RowReader` reads the records of one source, in order."""

    def rows(self, record: Mapping[str, Any], offset: int | None) -> Iterator[AskedRow | UnaskableError]: ...

    def end(self) -> Iterator[AskedRow | UnaskableError]: ...


_READERS: Mapping[str, Any] = {
    "table": TableRows,
    "litellm": LiteLLMLogs,
    "langfuse": LangfuseExports,
    "opentelemetry": OpenTelemetryCalls,
    "ipr-records": KeptRecords,
}


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
        made: RowReader = _READERS[self.layout](self.source, report)
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


def placed_rows(opened: Sequence[OpenSource], report: SourceReport, records: dict[Path, int]) -> Iterator[Placed]:
    """Yield every row of the sources, in order, and what is no row and why.

    records: file -> how many of its records are read; of a file that is not there all are, and their number is noted.
    """
    for number, one in enumerate(opened):
        reader = one.reader(report)
        where = ""
        for file in one.files:
            known, count = records.get(file.path), 0
            for count, record in enumerate(islice(records_of(file), known), start=1):  # noqa: B007  read after the loop
                where = f"{file.name}, row {record.number}"
                if isinstance(record.value, UnaskableError):
                    yield Placed(number, where, record.value)
                    continue
                try:
                    for row in reader.rows(record.value, record.offset):
                        yield Placed(number, f"{where}{row.part}", row)
                except UnaskableError as error:
                    yield Placed(number, where, error)
            records.setdefault(file.path, count)
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
