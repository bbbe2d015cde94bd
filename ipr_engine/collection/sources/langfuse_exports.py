"""`LangfuseExports` reads what Langfuse exports: observations as JSON, JSONL, CSV or Parquet, and traces with their observations in them.

The layouts: langfuse.com/docs, "Blob storage export field reference" (snake_case), the public API's `Observation` and the export of
the user interface (camelCase; its scores are columns of their own, in CSV objects are JSON text).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ipr_engine.collection.question import LoggedAnswer
from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.logged_reply import amount, logged_answer, seconds_between
from ipr_engine.collection.sources.owner_labels import ScoreChoice
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.collection.sources.stated_task import task_of_metadata
from ipr_engine.collection.sources.strict_json import json_or_text
from ipr_engine.data.tables import shown_cell
from ipr_engine.prompts import kind_of

_NUMBERS = ("NUMERIC", "BOOLEAN", None)  # types of scores that are numbers
_ASKED = ("messages", "input")


class LangfuseExports:
    """A `LangfuseExports` reads the records of one source."""

    def __init__(self, source: PromptSource, report: SourceReport) -> None:
        self._source = source
        self._report = report
        self._choice = ScoreChoice(source)

    def rows(self, record: Mapping[str, Any], offset: int | None) -> Iterator[AskedRow | UnaskableError]:
        """Yield what each generation of a record asked and was answered, or why it is no request; other observations are counted."""
        inside = json_or_text(record.get("observations"))
        if not isinstance(inside, list):
            yield from self._observation(record, {}, "")
            return
        scores = _scores(record.get("scores"))
        generations = [one for one in inside if isinstance(one, Mapping) and one.get("type") == "GENERATION"]
        for place, observation in enumerate(inside, start=1):
            if isinstance(observation, Mapping):
                # a score of the whole trace is one of its answer where it has one answer
                own = scores if len(generations) == 1 else {}
                yield from self._observation(observation, own, f", observation {place}")

    def end(self) -> Iterator[AskedRow]:
        return iter(())

    def _observation(
        self, record: Mapping[str, Any], scores: Mapping[str, Any], part: str
    ) -> Iterator[AskedRow | UnaskableError]:
        kind = record.get("type")
        if kind is not None and kind != "GENERATION":
            self._report.note(f"Langfuse observations that are no generation: {shown_cell(kind)}")
            return
        try:
            asked = self._asked(record, scores, part)
        except UnaskableError as error:
            yield UnaskableError(str(error), part)
        else:
            yield asked

    def _asked(self, record: Mapping[str, Any], scores: Mapping[str, Any], part: str) -> AskedRow:
        """Return what a generation asked and was answered."""
        asked = json_or_text(record.get("input"))
        if asked is None and "value" in record and "name" in record:
            raise UnaskableError("is a score of Langfuse; give the observations, with their scores in them")
        request = _request(asked, record)
        model = _first(record, "model", "providedModelName", "provided_model_name")
        quality = self._choice.quality({**scores, **self._own_scores(record)})
        answers: dict[str, LoggedAnswer] = {}
        labels: dict[str, float] = {}
        if isinstance(model, str) and model:
            model = self._source.models.get(model, model)
            answer = self._answer(record)
            if answer is not None:
                answers[model] = answer
            if quality is not None:
                labels[model] = quality
        elif quality is not None:
            self._report.note("scores of generations that name no model")
        task = task_of_metadata(record.get("metadata"))
        return AskedRow(request=request, part=part, labels=labels, answers=answers, task=task)

    def _own_scores(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scores of an observation: in `scores`, and the column of the score that is stated."""
        found = _scores(record.get("scores"))
        if self._source.score is not None and self._source.score in record:
            found[self._source.score] = json_or_text(record[self._source.score])
        return found

    def _answer(self, record: Mapping[str, Any]) -> LoggedAnswer | None:
        if record.get("level") == "ERROR":
            self._report.note("failed generations, of which the request alone is taken")
            return None
        counts = _sums(_first(record, "usageDetails", "usage_details", "usage"))
        costs = _sums(_first(record, "costDetails", "cost_details"))
        total = _first(record, "totalCost", "total_cost", "calculatedTotalCost")
        cost = costs.get("total") if total is None else total
        seconds = seconds_between(_first(record, "startTime", "start_time"), _first(record, "endTime", "end_time"))
        usage = {
            "input_tokens": counts.get("input", _first(record, "inputUsage", "promptTokens")),
            "output_tokens": counts.get("output", _first(record, "outputUsage", "completionTokens")),
        }
        answer = logged_answer(json_or_text(record.get("output")), usage, cost_usd=cost, seconds=seconds)
        if answer is None:
            self._report.note("generations without a text as their output, of which the request alone is taken")
        return answer


def _request(asked: Any, record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request of a generation's input: a request, messages, one message, or a text."""
    tools = _tools(json_or_text(_first(record, "toolDefinitions", "tool_definitions")))
    if isinstance(asked, str) and asked:
        return {"messages": [{"role": "user", "content": asked}], **tools}
    if isinstance(asked, list):
        return {"messages": asked, **tools}
    if isinstance(asked, Mapping) and any(asked.get(name) for name in _ASKED):
        return {**tools, **asked}
    if isinstance(asked, Mapping) and "role" in asked:
        return {"messages": [asked], **tools}
    if asked in (None, ""):
        raise UnaskableError("has no input: it was not captured, or not exported (field group io)")
    raise UnaskableError(f"input: expected messages, a request that has them, or a text, got {kind_of(asked)}")


def _tools(definitions: Any) -> dict[str, Any]:
    """Return tools that stand beside the input: name -> its definition as JSON text."""
    if not isinstance(definitions, Mapping) or not definitions:
        return {}
    tools = []
    for name, definition in definitions.items():
        told = json_or_text(definition)
        told = told if isinstance(told, Mapping) else {}
        parameters = json_or_text(told.get("parameters"))
        described = {"description": told["description"]} if told.get("description") else {}
        schema = {"parameters": parameters} if isinstance(parameters, Mapping) else {}
        tools.append({"type": "function", "function": {"name": name, **described, **schema}})
    return {"tools": tools}


def _scores(value: Any) -> dict[str, Any]:
    """Return name -> its values, of scores as a list of objects or as one object; those that are no numbers are none."""
    given = json_or_text(value)
    if isinstance(given, Mapping):
        return {str(name): one for name, one in given.items() if not isinstance(one, (str, Mapping))}
    found: dict[str, Any] = {}
    for score in given if isinstance(given, list) else ():
        if isinstance(score, Mapping) and isinstance(score.get("name"), str):
            kind = score.get("dataType", score.get("data_type"))
            if kind in _NUMBERS and score.get("value") is not None:
                found.setdefault(score["name"], []).append(score["value"])
    return found


def _sums(details: Any) -> dict[str, float]:
    """Return `input`, `output` and `total` of usage or costs: of kinds that are told apart, such as input_cached_tokens, the sums."""
    given = json_or_text(details)
    if not isinstance(given, Mapping):
        return {}
    found: dict[str, float] = {}
    for name, value in given.items():
        side = next((side for side in ("input", "output", "total") if str(name).startswith(side)), None)
        count = amount(value)
        if side is not None and count is not None:
            found[side] = found.get(side, 0.0) + count
    if "total" not in found and found:
        found["total"] = sum(found.values())
    return found


def _first(record: Mapping[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) not in (None, "", {})), None)
