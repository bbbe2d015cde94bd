"""`OpenTelemetryCalls` reads calls of models out of OTLP/JSON, a batch of spans or log records a line, as file exporters write it.

The layouts, of OpenTelemetry's semantic conventions for generative AI: `gen_ai.input.messages` and `gen_ai.output.messages` on spans or
on the event `gen_ai.client.inference.operation.details` (1.37 and later), and an event a message (`gen_ai.user.message`,
`gen_ai.choice`, ...; 1.28 to 1.36), as log records or as events of a span. Attributes of OpenLLMetry: indexed_attributes.py.
OTLP/JSON: opentelemetry.io/docs/specs/otlp.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

from ipr_engine.collection.question import LoggedAnswer
from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.genai_messages import chat_messages, chat_tools, reply_of
from ipr_engine.collection.sources.indexed_attributes import PROMPTS, indexed_reply, indexed_request
from ipr_engine.collection.sources.logged_reply import amount, logged_answer
from ipr_engine.collection.sources.otlp_values import attributes_of, listed, value_of
from ipr_engine.collection.sources.owner_labels import ScoreChoice
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.collection.sources.strict_json import maybe_json
from ipr_engine.data.tables import shown_cell

_CHATS = ("chat", "generate_content", None)  # operations; old instrumentations name none
_DETAILS = "gen_ai.client.inference.operation.details"
_EVALUATION = "gen_ai.evaluation.result"
_CHOICE = "gen_ai.choice"
_ROLE_OF = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
}
_MOST_OPEN = 20_000  # calls whose span or messages are still to come


class _Call:
    """A `_Call` is what is known of one call so far: the attributes of its span, its messages, its answer and its scores."""

    __slots__ = ("attributes", "choice", "failed", "messages", "part", "scores", "seconds", "spanned")

    def __init__(self, part: str) -> None:
        self.part = part
        self.attributes: dict[str, Any] = {}
        self.messages: list[Any] = []
        self.choice: Any = None
        self.scores: dict[str, Any] = {}
        self.seconds: float | None = None
        self.failed = False
        self.spanned = False

    @property
    def told(self) -> bool:
        """Return whether it is known what was asked."""
        told = self.attributes
        return bool(self.messages) or "gen_ai.input.messages" in told or any(name.startswith(PROMPTS) for name in told)


class OpenTelemetryCalls:
    """An `OpenTelemetryCalls` reads the records of one source."""

    def __init__(self, source: PromptSource, report: SourceReport) -> None:
        self._source = source
        self._report = report
        self._choice = ScoreChoice(source)
        # (trace, span) -> the call, of spans without messages and of messages without their span
        self._open: OrderedDict[tuple[str, str], _Call] = OrderedDict()

    def rows(self, record: Mapping[str, Any], offset: int | None) -> Iterator[AskedRow | UnaskableError]:
        """Yield what each call of a record asked and was answered, or why it is no request; spans of other kinds are counted."""
        count = 0
        for resource in listed(record.get("resourceSpans")):
            for scope in listed(resource.get("scopeSpans")):
                for span in listed(scope.get("spans")):
                    count += 1
                    yield from self._span(span, f", span {count}")
        count = 0
        for resource in listed(record.get("resourceLogs")):
            for scope in listed(resource.get("scopeLogs")):
                for log in listed(scope.get("logRecords")):
                    count += 1
                    yield from self._log(log, f", log record {count}")

    def end(self) -> Iterator[AskedRow | UnaskableError]:
        """Yield the calls whose span did not come; count the spans whose messages did not."""
        while self._open:
            yield from self._closed(self._open.popitem(last=False)[1])

    def _span(self, span: Mapping[str, Any], part: str) -> Iterator[AskedRow | UnaskableError]:
        attributes = attributes_of(span)
        if not any(name.startswith("gen_ai.") for name in attributes):
            self._report.note("spans that are no call of a model")
            return
        if attributes.get("gen_ai.operation.name") not in _CHATS:
            self._report.note("spans of other operations than chat")
            return
        key = str(span.get("traceId")), str(span.get("spanId"))
        call = self._open.pop(key, None) or _Call(part)
        call.spanned = True
        call.attributes = {**call.attributes, **attributes}
        start, end = amount(span.get("startTimeUnixNano")), amount(span.get("endTimeUnixNano"))
        call.seconds = None if start is None or end is None else amount((end - start) / 1e9)
        status = span.get("status")
        code = status.get("code") if isinstance(status, Mapping) else None
        call.failed = code in (2, "STATUS_CODE_ERROR") or "error.type" in attributes
        for event in listed(span.get("events")):
            _take_event(call, event.get("name"), attributes_of(event), None)
        yield from self._closed(call) if call.told else self._kept(key, call)

    def _log(self, log: Mapping[str, Any], part: str) -> Iterator[AskedRow | UnaskableError]:
        attributes = attributes_of(log)
        name = log.get("eventName") or attributes.get("event.name")
        if not isinstance(name, str) or not name.startswith("gen_ai."):
            self._report.note("log records that are no event of a call")
            return
        key = str(log.get("traceId")), str(log.get("spanId"))
        if name == _EVALUATION and key not in self._open:
            self._report.note("scores whose call is not known")
            return
        call = self._open.pop(key, None) or _Call(part)
        _take_event(call, name, attributes, value_of(log.get("body")))
        whole = (call.spanned and call.choice is not None) or name == _DETAILS
        yield from self._closed(call) if whole and call.told else self._kept(key, call)

    def _kept(self, key: tuple[str, str], call: _Call) -> Iterator[AskedRow | UnaskableError]:
        """Keep a call that is not whole yet; where there are too many, the oldest is closed."""
        self._open[key] = call
        if len(self._open) > _MOST_OPEN:
            yield from self._closed(self._open.popitem(last=False)[1])

    def _closed(self, call: _Call) -> Iterator[AskedRow | UnaskableError]:
        if not call.told:
            self._report.note("calls without messages: their instrumentation did not capture content")
            return
        try:
            asked = self._asked(call)
        except UnaskableError as error:
            yield UnaskableError(str(error), call.part)
        else:
            yield asked

    def _asked(self, call: _Call) -> AskedRow:
        """Return what a call asked and was answered."""
        told = call.attributes
        if told.get("gen_ai.request.previous_response.id"):
            raise UnaskableError(
                "continues a conversation that one provider keeps, which no other candidate can be asked"
            )
        form = told.get("gen_ai.output.type")
        if form not in (None, "text"):
            raise UnaskableError(f"asks for {shown_cell(form)}, whose format spans do not tell")
        messages = list(call.messages)
        if "gen_ai.input.messages" in told:
            messages = chat_messages(_json_of(told, "gen_ai.input.messages"), self._report)
        if "gen_ai.system_instructions" in told:
            parts = _json_of(told, "gen_ai.system_instructions")
            messages = [*chat_messages([{"role": "system", "parts": parts}], self._report), *messages]
        request: dict[str, Any] = {"messages": messages} if messages else indexed_request(told)
        if "gen_ai.tool.definitions" in told:
            request["tools"] = chat_tools(_json_of(told, "gen_ai.tool.definitions"))
        if "tools" not in request and any("tool_calls" in message for message in request["messages"]):
            self._report.note(
                "calls of tools that were not captured (gen_ai.tool.definitions), which are asked without them"
            )
        model = told.get("gen_ai.request.model") or told.get("gen_ai.response.model")
        quality = self._choice.quality(call.scores)
        answers: dict[str, LoggedAnswer] = {}
        labels: dict[str, float] = {}
        if isinstance(model, str) and model:
            model = self._source.models.get(model, model)
            answer = self._answer(call)
            if answer is not None:
                answers[model] = answer
            if quality is not None:
                labels[model] = quality
        else:
            self._report.note("calls without the name of their model, of which the request alone is taken")
        return AskedRow(request=request, part=call.part, labels=labels, answers=answers)

    def _answer(self, call: _Call) -> LoggedAnswer | None:
        if call.failed:
            self._report.note("failed calls, of which the request alone is taken")
            return None
        told = call.attributes
        reply = call.choice or indexed_reply(told)
        if "gen_ai.output.messages" in told:
            reply = reply_of(_json_of(told, "gen_ai.output.messages"))
        usage = {
            "input_tokens": told.get("gen_ai.usage.input_tokens", told.get("gen_ai.usage.prompt_tokens")),
            "output_tokens": told.get("gen_ai.usage.output_tokens", told.get("gen_ai.usage.completion_tokens")),
        }
        answer = logged_answer(reply, usage, seconds=call.seconds)
        if answer is None:
            self._report.note("calls without a text as their answer, of which the request alone is taken")
        return answer


def _json_of(attributes: Mapping[str, Any], name: str) -> Any:
    """Return an attribute that is a list, as one or as JSON text; an attribute that was cut at a limit is no JSON."""
    try:
        return maybe_json(attributes[name], f"JSON in {name}")
    except UnaskableError as error:
        raise UnaskableError(f"{error}; attributes are cut at OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT") from None


def _take_event(call: _Call, name: Any, attributes: Mapping[str, Any], body: Any) -> None:
    """Add what an event tells to its call. body: of a log record; an event of a span has its content in an attribute, or is attributes."""
    if name == _DETAILS:
        call.attributes = {**attributes, **call.attributes}
        return
    if name == _EVALUATION:
        score, value = attributes.get("gen_ai.evaluation.name"), attributes.get("gen_ai.evaluation.score.value")
        if isinstance(score, str) and value is not None:
            call.scores[score] = value
        return
    content = attributes.get("gen_ai.event.content")
    said = body if isinstance(body, Mapping) else maybe_json_object(content) or attributes
    if name == _CHOICE and call.choice is None:
        message = maybe_json_object(said.get("message"))
        call.choice = {"choices": [{"finish_reason": said.get("finish_reason"), "message": message or said}]}
    elif isinstance(name, str) and name in _ROLE_OF:
        kept = {key: said[key] for key in ("content", "tool_calls", "name") if said.get(key) is not None}
        role = said.get("role") if isinstance(said.get("role"), str) else _ROLE_OF[name]
        by_id = {"tool_call_id": said.get("id")} if role == "tool" else {}
        if kept:
            call.messages.append({"role": role, **kept, **by_id})


def maybe_json_object(value: Any) -> Mapping[str, Any] | None:
    """Return an object, or what JSON text holds, as a mapping; None where it is none."""
    try:
        found = maybe_json(value)
    except UnaskableError:
        return None
    return found if isinstance(found, Mapping) else None
