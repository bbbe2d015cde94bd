"""`OpenAIBatches` reads OpenAI's batch files: the requests (custom_id, method, url, body) with the answers (custom_id, response) to them.

A custom_id is of a call in its batch: each model's call has another one, and two batches may have the same. So it is no id of a prompt.

The layouts: platform.openai.com/docs, "Batch API"; `BatchRequestInput` and `BatchRequestOutput` of the API reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

from ipr_engine.collection.question import LoggedAnswer
from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.logged_reply import logged_answer
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.collection.sources.source_records import SourceFile, line_at, records_of
from ipr_engine.data.tables import shown_cell
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import kind_of

_URLS = ("/chat/completions", "/responses")  # of OpenAI below /v1, of Azure not


def is_batch_answer(record: Mapping[str, Any]) -> bool:
    return "custom_id" in record and "body" not in record and ("response" in record or "error" in record)


class BatchAnswers:
    """`BatchAnswers` find the answer to a request in files of answers; of each they hold where it is, not what it says.

    Attributes:
        unread: how many lines are no answer.
    """

    def __init__(self, files: Sequence[SourceFile]) -> None:
        """Look through files of answers.

        Raises:
            InvalidInputError: a file is not plain JSON lines.
        """
        self.unread = 0
        self._places: dict[str, tuple[SourceFile, int]] = {}
        for file in files:
            for record in records_of(file):
                if record.offset is None:
                    raise InvalidInputError(
                        f"{file.name}: answers of a batch are looked up by line; give a plain .jsonl"
                    )
                value = record.value
                if isinstance(value, Mapping) and isinstance(value.get("custom_id"), str):
                    self._places.setdefault(value["custom_id"], (file, record.offset))
                else:
                    self.unread += 1

    def unasked(self, asked: Set[str]) -> int:
        """Return how many answers are to none of these requests."""
        return len(self._places.keys() - asked)

    def response(self, custom_id: str) -> Any:
        """Return the body of the response to a request; None where there is none, or an error."""
        found = self._places.get(custom_id)
        line = None if found is None else line_at(*found)
        response = line.get("response") if isinstance(line, Mapping) else None
        if not isinstance(response, Mapping) or response.get("status_code", 200) != 200:
            return None
        return response.get("body")

    def __len__(self) -> int:
        return len(self._places)


class OpenAIBatches:
    """An `OpenAIBatches` reads the requests of one source."""

    def __init__(self, source: PromptSource, report: SourceReport, answers: BatchAnswers) -> None:
        """Begin. answers: to the requests of this source."""
        self._source = source
        self._report = report
        self._answers = answers
        self._asked: set[str] = set()

    def rows(self, record: Mapping[str, Any], offset: int | None) -> Iterator[AskedRow]:
        """Yield the one prompt of a request, with the answer to it.

        Raises:
            UnaskableError: it is no request of a chat.
        """
        custom_id, body, url = record.get("custom_id"), record.get("body"), record.get("url")
        if not isinstance(custom_id, str) or not custom_id:
            raise UnaskableError(f"custom_id: expected a text, got {shown_cell(custom_id)}")
        if not isinstance(body, Mapping):
            raise UnaskableError(f"body: expected a request, got {kind_of(body)}")
        if url is not None and not (isinstance(url, str) and url.endswith(_URLS)):
            raise UnaskableError(f"url: expected one that ends in {' or '.join(_URLS)}, got {shown_cell(url)}")
        if custom_id in self._asked:
            raise UnaskableError(
                f"custom_id: expected one of its own for each request of a batch, {shown_cell(custom_id)} is there twice; "
                "batches that number alike are given as a source each"
            )
        self._asked.add(custom_id)
        answer = self._answer(custom_id)
        model = body.get("model")
        answers: dict[str, LoggedAnswer] = {}
        if answer is not None and isinstance(model, str) and model:
            answers[self._source.models.get(model, model)] = answer
        yield AskedRow(request=body, answers=answers)

    def end(self) -> Iterator[AskedRow]:
        """Count the answers that no request was given for."""
        if self._answers.unread:
            self._report.note("lines among the answers of a batch that are no answer", self._answers.unread)
        if unasked := self._answers.unasked(self._asked):
            self._report.note("answers of a batch to requests that are not there", unasked)
        return iter(())

    def _answer(self, custom_id: str) -> LoggedAnswer | None:
        if not len(self._answers):
            return None
        answer = logged_answer(self._answers.response(custom_id), {})
        if answer is None:
            self._report.note("requests of a batch without a text as their answer, of which the request alone is taken")
        return answer
