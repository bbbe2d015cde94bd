"""Answers of the real SDKs, put back into a conversation as their guides do (extra [sdk])."""

import pytest

from ipr_engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import parse_request
from tests.support import skips

openai = pytest.importorskip("openai", reason=skips.SDK)
anthropic = pytest.importorskip("anthropic", reason=skips.SDK)

USER = {"role": "user", "content": "why"}


@pytest.fixture(scope="module")
def completion():
    call = {"id": "c", "type": "function", "function": {"name": "calc", "arguments": '{"x": 1}'}}
    message = {"role": "assistant", "content": None, "reasoning_content": "since", "tool_calls": [call]}
    choice = {"finish_reason": "tool_calls", "index": 0, "message": message}
    return openai.types.chat.ChatCompletion.model_validate(
        {"id": "x", "choices": [choice], "created": 1, "model": "m", "object": "chat.completion"}
    )


@pytest.fixture(scope="module")
def response():
    output = [
        {
            "type": "reasoning",
            "id": "r",
            "summary": [{"type": "summary_text", "text": "sum"}],
            "encrypted_content": "E",
        },
        {"type": "function_call", "id": "f", "call_id": "c", "name": "calc", "arguments": "{}"},
        {
            "type": "message",
            "id": "m",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "since", "annotations": []}],
        },
    ]
    return openai.types.responses.Response.model_validate(
        {"id": "x", "created_at": 1, "model": "m", "object": "response", "output": output}
        | {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
    )


@pytest.fixture(scope="module")
def message():
    content = [
        {"type": "thinking", "thinking": "hm", "signature": "s" * 99},
        {"type": "redacted_thinking", "data": "QUJD"},
        {"type": "text", "text": "since"},
        {"type": "tool_use", "id": "t", "name": "calc", "input": {"x": [1, 2]}},
    ]
    return anthropic.types.Message.model_validate(
        {"id": "x", "content": content, "model": "m", "role": "assistant", "stop_reason": "tool_use", "type": "message"}
        | {"usage": {"input_tokens": 1, "output_tokens": 2}}
    )


def test_a_chat_completion_message_is_billed_with_its_calls_and_reasoning(completion):
    conversation = [USER, completion.choices[0].message, {"role": "tool", "tool_call_id": "c", "content": "42"}]
    parsed = parse_request(conversation)
    assert (parsed.encoded, sorted(parsed.billed_only)) == ("why", ["42", "calc", "since", '{"x": 1}'])
    assert Engine.load().route(conversation, tau=0.2).billed_tokens > 6


def test_output_items_of_a_response_are_billed(response):
    answer = {"type": "function_call_output", "call_id": "c", "output": "17"}
    parsed = parse_request({"input": [USER, *response.output, answer], "instructions": "be brief"})
    assert parsed.encoded == "why"
    assert sorted(parsed.billed_only) == sorted(["be brief", "sum", "E", "calc", "{}", "since", "17"])


def test_content_blocks_of_a_message_are_billed_and_so_is_the_message(message):
    for turn in ({"role": "assistant", "content": message.content}, message):
        parsed = parse_request([USER, turn])
        assert sorted(parsed.billed_only) == sorted(["hm", "QUJD", "since", "calc", '{"x": [1, 2]}'])
        assert set(parsed.features) == {"tools"}


def test_what_holds_the_message_is_refused_by_its_type(completion, response):
    for turn, name in (
        (completion, "ChatCompletion"),
        (completion.choices[0], "Choice"),
        (response, "Response"),
    ):
        with pytest.raises(InvalidInputError, match=rf"prompt\[1\].* in a {name}; give an SDK's message itself"):
            parse_request([USER, turn])
