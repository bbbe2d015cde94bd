"""OTLP/JSON of calls: spans and events of today's conventions and of earlier ones, as OpenTelemetry's own packages wrote them."""

from __future__ import annotations

import json
import shutil

import pytest

from ipr_engine.collection.sources import PromptSource, SourceReport, read_questions
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import LOGS, questions, said, write_lines


def spans(*each):
    """One line of OTLP/JSON: spans as (attributes, events)."""
    made = [
        {"traceId": "5b8e", "spanId": f"{number:04x}", "attributes": pairs(attributes), "events": list(events)}
        for number, (attributes, *events) in enumerate(each)
    ]
    return {"resourceSpans": [{"scopeSpans": [{"spans": made}]}]}


def pairs(attributes):
    def value(plain):
        if isinstance(plain, bool):
            return {"boolValue": plain}
        if isinstance(plain, int):
            return {"intValue": str(plain)}
        return {"doubleValue": plain} if isinstance(plain, float) else {"stringValue": plain}

    return [{"key": key, "value": value(plain)} for key, plain in attributes.items()]


def event(name, **attributes):
    return {"name": name, "attributes": pairs({key.replace("__", "."): value for key, value in attributes.items()})}


CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.request.model": "gpt-4o",
    "gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "Why?"}]}]),
    "gen_ai.output.messages": json.dumps(
        [{"role": "assistant", "parts": [{"type": "text", "content": "So."}], "finish_reason": "length"}]
    ),
    "gen_ai.usage.input_tokens": 5,
}


@pytest.mark.parametrize("name", ["genai_spans.jsonl", "genai_operation_events.jsonl"])
def test_messages_on_spans_and_on_operation_events_become_questions(name):
    first, second = questions(LOGS / name)
    assert said(first) == [("system", "Be brief."), ("user", "What is 17 * 23?")]
    assert first.body["tools"] == [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
    ]
    answer = first.answers["gpt-4o-mini"]
    assert (answer.text, answer.finish_reason, answer.input_tokens, answer.output_tokens) == ("391", "stop", 14, 2)
    assert (answer.seconds is None) == (name == "genai_operation_events.jsonl")
    assert [role for role, _ in said(second)] == ["user", "assistant", "tool"]
    (call,) = second.body["messages"][1]["tool_calls"]
    assert (call["id"], json.loads(call["function"]["arguments"])) == ("call_1", {"city": "Paris"})
    assert second.body["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "rain"}


def test_events_of_earlier_conventions_find_the_span_that_names_their_model(tmp_path):
    for name in ("genai_spans_of_1_28.jsonl", "genai_events_of_1_28.jsonl"):
        shutil.copy(LOGS / name, tmp_path)
    first, second = questions(tmp_path)
    assert said(first) == [("system", "Be brief."), ("user", "What is 17 * 23?")]
    answer = first.answers["gpt-4o-mini"]
    assert (answer.text, answer.finish_reason, answer.input_tokens) == ("391", "stop", 14)
    assert second.body["messages"][1:] == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "get", "arguments": "{}"}}],
        },
        {"role": "tool", "content": "rain", "tool_call_id": "call_1"},
    ]


def test_events_without_their_spans_are_questions_without_answers():
    report = SourceReport()
    found = questions(LOGS / "genai_events_of_1_28.jsonl", report)
    assert [q.answers for q in found] == [{}, {}]
    assert "calls without the name of their model, of which the request alone is taken (2 times)" in report.lines


def test_spans_without_captured_content_are_told(tmp_path):
    with pytest.raises(InvalidInputError, match=r"did not capture content \(2 times\)"):
        questions(LOGS / "genai_spans_of_1_28.jsonl")


def test_events_of_a_span_are_read_as_its_messages(tmp_path):
    told = event("gen_ai.user.message", gen_ai__event__content='{"content": "Why?"}')
    choice = event(
        "gen_ai.choice",
        gen_ai__event__content='{"finish_reason": "stop", "message": {"role": "assistant", "content": "So."}}',
    )
    plain = event("gen_ai.user.message", content="How?")
    file = write_lines(
        tmp_path / "o.jsonl",
        [
            spans(({"gen_ai.system": "az", "gen_ai.request.model": "m"}, told, choice)),
            spans(({"gen_ai.system": "az"}, plain)),
        ],
    )
    first, second = questions(file)
    assert (first.prompt, first.answers["m"].text, second.prompt) == ("Why?", "So.", "How?")


def test_an_attribute_a_field_is_read_as_openllmetry_wrote_them(tmp_path):
    attributes = {
        "gen_ai.system": "OpenAI",
        "gen_ai.request.model": "gpt-4o",
        "llm.request.type": "chat",
        "gen_ai.prompt.0.role": "user",
        "gen_ai.prompt.0.content": '[{"type": "text", "text": "Weather?"}]',
        "gen_ai.prompt.1.role": "assistant",
        "gen_ai.prompt.1.tool_calls.0.id": "c1",
        "gen_ai.prompt.1.tool_calls.0.name": "get",
        "gen_ai.prompt.1.tool_calls.0.arguments": "{}",
        "gen_ai.prompt.10.role": "user",
        "gen_ai.prompt.10.content": "And?",
        "gen_ai.prompt.2.role": "tool",
        "gen_ai.prompt.2.tool_call_id": "c1",
        "gen_ai.prompt.2.content": "rain",
        "llm.request.functions.0.name": "get",
        "llm.request.functions.0.parameters": '{"type": "object"}',
        "gen_ai.completion.0.role": "assistant",
        "gen_ai.completion.0.content": "It rains.",
        "gen_ai.completion.0.finish_reason": "stop",
        "gen_ai.usage.prompt_tokens": 12,
    }
    filtered = {**attributes, "gen_ai.prompt.10.content": "Why?", "gen_ai.completion.0.content": "FILTERED"}
    first, second = questions(write_lines(tmp_path / "o.jsonl", [spans((attributes,), (filtered,))]))
    assert said(first) == [
        ("user", [{"type": "text", "text": "Weather?"}]),
        ("assistant", None),
        ("tool", "rain"),
        ("user", "And?"),
    ]
    function = {"name": "get", "arguments": "{}"}
    assert first.body["messages"][1]["tool_calls"] == [{"id": "c1", "type": "function", "function": function}]
    assert first.body["tools"] == [{"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}]
    assert (first.answers["gpt-4o"].text, first.answers["gpt-4o"].input_tokens) == ("It rains.", 12)
    assert second.answers == {}


def test_an_evaluation_of_a_call_is_its_label(tmp_path):
    scored = event("gen_ai.evaluation.result", gen_ai__evaluation__name="good", gen_ai__evaluation__score__value=4.0)
    other = event("gen_ai.evaluation.result", gen_ai__evaluation__name="fast", gen_ai__evaluation__score__value=1.0)
    file = write_lines(tmp_path / "o.jsonl", [spans((CHAT, scored))])
    assert questions(file, scale=(1.0, 5.0))[0].labels == {"gpt-4o": 0.75}
    with pytest.raises(InvalidInputError, match="expected a number from 0 to 1, got 4"):
        questions(file)
    file = write_lines(tmp_path / "o.jsonl", [spans((CHAT, scored, other))])
    with pytest.raises(InvalidInputError, match="holds the scores 'fast', 'good'; say with score"):
        questions(file)
    assert questions(file, score="fast")[0].labels == {"gpt-4o": 1.0}


def test_spans_that_are_no_chat_are_counted_and_a_bad_one_hides_no_other(tmp_path):
    report = SourceReport()
    line = spans(
        ({"http.route": "/"},),
        ({"gen_ai.operation.name": "execute_tool"},),
        ({**CHAT, "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "text", "con'},),
        ({**CHAT, "gen_ai.input.messages": '[{"role": "user", "parts": [{"type": "file", "file_id": "f"}]}]'},),
        (CHAT,),
    )
    (found,) = questions(write_lines(tmp_path / "o.jsonl", [line]), report, skip_bad_rows=True)
    assert (found.answers["gpt-4o"].text, found.answers["gpt-4o"].finish_reason) == ("So.", "length")
    assert len(report.bad) == 2
    assert "row 1, span 3: expected JSON in gen_ai.input.messages" in report.bad.summary
    assert "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT" in report.bad.summary
    assert "row 1, span 4: messages[0].parts[0]: a part of type 'file'" in report.bad.summary
    assert report.lines[:2] == ["spans of other operations than chat", "spans that are no call of a model"]


@pytest.mark.parametrize(
    ("attribute", "told"),
    [
        ({"gen_ai.request.previous_response.id": "resp_1"}, "continues a conversation"),
        ({"gen_ai.output.type": "json"}, "asks for 'json', whose format spans do not tell"),
    ],
)
def test_a_request_of_which_a_part_is_not_captured_is_refused(tmp_path, attribute, told):
    with pytest.raises(InvalidInputError, match=told):
        questions(write_lines(tmp_path / "o.jsonl", [spans(({**CHAT, **attribute},))]))


def test_tools_that_were_not_captured_are_told():
    report = SourceReport()
    questions(LOGS / "genai_spans.jsonl", report)
    assert report.lines == [
        "calls of tools that were not captured (gen_ai.tool.definitions), which are asked without them"
    ]


def test_images_are_passed_on(tmp_path):
    parts = [
        {"type": "text", "content": "What is it?"},
        {"type": "uri", "modality": "image", "uri": "https://host/private.png"},
        {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "aGk="},
    ]
    attributes = {**CHAT, "gen_ai.input.messages": json.dumps([{"role": "user", "parts": parts}])}
    (found,) = questions(write_lines(tmp_path / "o.jsonl", [spans((attributes,))]))
    assert [part["type"] for part in found.body["messages"][0]["content"]] == ["text", "image_url", "image_url"]
    assert found.body["messages"][0]["content"][2]["image_url"]["url"] == "data:image/png;base64,aGk="


@pytest.mark.parametrize(
    "line",
    [
        {"resourceSpans": 3},
        {"resourceSpans": [3, {"scopeSpans": [{"spans": [None, {"attributes": [None, {"key": 3}, {"key": "a"}]}]}]}]},
        {
            "resourceLogs": [
                {"scopeLogs": [{"logRecords": [{"eventName": ["gen_ai"], "body": 3}, {"eventName": "gen_ai.choice"}]}]}
            ]
        },
        spans(({**CHAT, "gen_ai.input.messages": "3"},)),
        spans(({**CHAT, "gen_ai.input.messages": "[3]"},)),
        spans(({**CHAT, "gen_ai.input.messages": '[{"role": 3, "parts": [3]}]'},)),
        spans(({**CHAT, "gen_ai.tool.definitions": '[{"type": "web_search"}]'},)),
        spans(({**CHAT, "gen_ai.system_instructions": '{"a": 1}'},)),
        {
            "resourceSpans": [
                {
                    "scopeSpans": [
                        {
                            "spans": [
                                {
                                    "attributes": [{"key": "gen_ai.x", "value": {"intValue": "9" * 5000}}],
                                    "status": 3,
                                    "events": 3,
                                }
                            ]
                        }
                    ]
                }
            ]
        },
    ],
)
def test_a_hostile_line_is_refused_or_passed_over(tmp_path, line):
    file = write_lines(tmp_path / "o.jsonl", [spans((CHAT,)), line])
    assert [q.prompt for q in questions(file, skip_bad_rows=True)] == ["Why?"]


def test_calls_that_wait_for_their_span_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("ipr_engine.collection.sources.opentelemetry_calls._MOST_OPEN", 3)
    rows = [
        {
            "resourceLogs": [
                {
                    "scopeLogs": [
                        {
                            "logRecords": [
                                {
                                    "traceId": f"{n}",
                                    "spanId": "1",
                                    "eventName": "gen_ai.user.message",
                                    "body": {"kvlistValue": {"values": pairs({"content": f"q{n}"})}},
                                }
                            ]
                        }
                    ]
                }
            ]
        }
        for n in range(9)
    ]
    found = read_questions(PromptSource(path=str(write_lines(tmp_path / "o.jsonl", rows))))
    assert [q.prompt for q in found] == [f"q{n}" for n in range(9)]
