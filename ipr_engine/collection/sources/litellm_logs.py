"""`LiteLLMLogs` reads LiteLLM's logs: its StandardLoggingPayload as callbacks, S3 and GCS get it, and rows of its table of spends.

The layouts, of litellm 1.110: `StandardLoggingPayload` in litellm/types/utils.py, `LiteLLM_SpendLogs` in litellm/proxy/schema.prisma.
A spend row holds the request in `proxy_server_request` (`messages` in earlier releases), where `store_prompts_in_spend_logs` was on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ipr_engine.collection.sources.asked_row import AskedRow, SourceReport, UnaskableError
from ipr_engine.collection.sources.logged_reply import amount, logged_answer, seconds_between
from ipr_engine.collection.sources.prompt_source import PromptSource
from ipr_engine.collection.sources.stated_task import task_of_metadata
from ipr_engine.collection.sources.strict_json import json_or_text, maybe_json
from ipr_engine.data.tables import shown_cell
from ipr_engine.request.controls import TASK_HEADER, text_of_header

_ANTHROPIC = "anthropic_messages"
_FORMAT_TOOL = "json_tool_call"  # RESPONSE_FORMAT_TOOL_NAME of litellm/constants.py
_CHAT = ("completion", "acompletion", _ANTHROPIC)
_RESPONSES = ("responses", "aresponses")


class LiteLLMLogs:
    """A `LiteLLMLogs` reads the records of one source."""

    def __init__(self, source: PromptSource, report: SourceReport) -> None:
        self._source = source
        self._report = report

    def rows(self, record: Mapping[str, Any], offset: int | None) -> Iterator[AskedRow]:
        """Yield what one call asked and was answered; calls of other kinds are counted.

        Raises:
            UnaskableError: the request is not in it.
        """
        call = record.get("call_type") or "completion"
        if not isinstance(call, str) or call not in (*_CHAT, *_RESPONSES):
            self._report.note(f"LiteLLM calls that are no chat: {shown_cell(call)}")
            return
        model = record.get("model")
        answer = self._answer(record)
        answers = {}
        if answer is not None and isinstance(model, str) and model:
            answers[self._source.models.get(model, model)] = answer
        yield AskedRow(request=_request(record, call), answers=answers, task=_task(record))

    def end(self) -> Iterator[AskedRow]:
        return iter(())

    def _answer(self, record: Mapping[str, Any]) -> Any:
        if record.get("status") == "failure":
            self._report.note("failed calls, of which the request alone is taken")
            return None
        usage = {"input_tokens": record.get("prompt_tokens"), "output_tokens": record.get("completion_tokens")}
        cost = record.get("response_cost", record.get("spend"))
        milliseconds = amount(record.get("request_duration_ms"))
        seconds = seconds_between(record.get("startTime"), record.get("endTime"))
        if seconds is None and milliseconds is not None:
            seconds = milliseconds / 1000
        cached = str(record.get("cache_hit")).lower() == "true"  # nothing was paid, nor waited for
        answer = logged_answer(
            json_or_text(record.get("response")),
            usage,
            cost_usd=None if cached else cost,
            seconds=None if cached else seconds,
        )
        if answer is None:
            self._report.note("calls without a text as their answer, of which the request alone is taken")
        return answer


def _request(record: Mapping[str, Any], call: str) -> Mapping[str, Any]:
    """Return the request of a call, from wherever this release of LiteLLM put it."""
    sent = maybe_json(record.get("proxy_server_request"), "JSON in proxy_server_request")
    if isinstance(sent, Mapping) and isinstance(sent.get("body"), Mapping):  # with its url, method and headers
        sent = sent["body"]
    if isinstance(sent, Mapping) and (sent.get("messages") or sent.get("input")):
        return sent
    said = json_or_text(record.get("messages"))
    if isinstance(said, Mapping) and said.get("messages"):
        said = said["messages"]
    if not said:
        raise UnaskableError("holds no messages: prompts were not stored (store_prompts_in_spend_logs)")
    parameters = maybe_json(record.get("model_parameters"), "JSON in model_parameters")
    settings = dict(parameters) if isinstance(parameters, Mapping) else {}
    tools = settings.get("tools")
    if isinstance(tools, list) and any(_name(tool) == _FORMAT_TOOL for tool in tools):
        raise UnaskableError("tools: LiteLLM logged a response_format as the tool that it made of it for one provider")
    if call not in _RESPONSES:
        messages = [{"role": "user", "content": said}] if isinstance(said, str) else said
        if call == _ANTHROPIC and not _begins_with_system(messages):
            raise UnaskableError(
                "may lack its system prompt: of Anthropic Messages, LiteLLM logs one only where it is a text"
            )
        return {**settings, "messages": messages}
    # of a Response, LiteLLM logs the input as messages; the rest of the request is told again in what came back
    came = json_or_text(record.get("response"))
    told = came if isinstance(came, Mapping) and isinstance(came.get("output"), list) else {}
    if "instructions" not in settings and "instructions" not in told:
        raise UnaskableError(
            "may lack its instructions: of OpenAI Responses, LiteLLM logs them with the response alone"
        )
    again = {
        name: told.get(name)
        for name in ("instructions", "previous_response_id", "tools", "tool_choice", "text")
        if name not in settings
    }
    return {**settings, **again, "input": said}


def _task(record: Mapping[str, Any]) -> Any:
    """Return what a caller told the proxy that the call is for: by a header, or in its metadata; a request has its own besides."""
    sent = json_or_text(record.get("proxy_server_request"))
    headers = json_or_text(sent.get("headers")) if isinstance(sent, Mapping) else None
    for name, text in headers.items() if isinstance(headers, Mapping) else ():
        if str(name).lower() == TASK_HEADER and isinstance(text, str):
            return text_of_header(text.strip())
    metadata = json_or_text(record.get("metadata"))
    if not isinstance(metadata, Mapping):
        return None
    asked = task_of_metadata(metadata.get("requester_metadata"))
    return task_of_metadata(metadata) if asked is None else asked


def _begins_with_system(messages: Any) -> bool:
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, Mapping) and first.get("role") == "system"


def _name(tool: Any) -> Any:
    """Return the name of a tool, in OpenAI's form or Anthropic's."""
    function = tool.get("function", tool) if isinstance(tool, Mapping) else None
    return function.get("name") if isinstance(function, Mapping) else None
