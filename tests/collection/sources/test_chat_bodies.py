"""Requests of other APIs become chat completions where both say the same; what cannot be asked of another is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine.collection.sources.asked_row import UnaskableError
from ipr_engine.collection.sources.chat_body import chat_body

ASK = [{"role": "user", "content": "Why?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"city": "Paris"}'}}


def body(**request):
    return chat_body(request).body


def test_how_a_model_is_called_is_left_out_and_what_it_is_asked_stays():
    request = {
        "model": "m",
        "messages": ASK,
        "max_tokens": 5,
        "temperature": 0,
        "stream": True,
        "user": "u",
        "tools": [FUNCTION],
        "tool_choice": "auto",
        "response_format": {"type": "json_object"},
        "stop": ["\n"],
        "seed": None,
        "surprise": 1,
    }
    made = chat_body(request)
    assert made.body == {
        name: request[name] for name in ("messages", "tools", "tool_choice", "response_format", "stop")
    }
    assert made.left_out == ("'surprise'",)
    assert made.encoded == "Why?"


def test_what_caches_a_prompt_makes_no_other_prompt():
    marked = [{"role": "user", "content": [{"type": "text", "text": "Why?", "cache_control": {"type": "ephemeral"}}]}]
    plain = [{"role": "user", "content": [{"type": "text", "text": "Why?"}], "cache_control": {"type": "ephemeral"}}]
    assert chat_body({"messages": marked}).digest == chat_body({"messages": plain}).digest


def test_anthropic_messages_become_a_chat():
    made = body(
        model="claude",
        max_tokens=5,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        tools=[{"name": "f", "input_schema": SCHEMA}],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        stop_sequences=["END"],
        thinking={"type": "enabled", "budget_tokens": 1024},
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Weather?"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
                ],
            },
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "c1", "name": "f", "input": {"city": "Paris"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "rain"}]},
                    {"type": "text", "text": "And?"},
                ],
            },
        ],
    )
    assert made == {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Weather?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}], "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]},
            {"role": "user", "content": [{"type": "text", "text": "And?"}]},
        ],
        "tools": [FUNCTION],
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "stop": ["END"],
    }


def test_messages_of_chat_beside_tools_of_anthropic_keep_what_they_say():
    messages = [
        *ASK,
        {"role": "assistant", "content": [{"type": "text", "text": "Let me see."}], "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "rain"}]},
    ]
    assert body(messages=messages, tools=[{"name": "f", "input_schema": SCHEMA}])["messages"] == messages


def test_responses_become_a_chat():
    made = body(
        model="gpt",
        instructions="Be brief.",
        input=[
            {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
            {
                "type": "function_call",
                "call_id": "c1",
                "name": "f",
                "arguments": '{"city": "Paris"}',
                "id": "fc",
                "status": "completed",
            },
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {
                "type": "message",
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "And?"},
                    {"type": "input_image", "image_url": "https://host/a.png", "detail": "low"},
                ],
            },
        ],
        tools=[{"type": "function", "name": "f", "parameters": SCHEMA}],
        tool_choice={"type": "function", "name": "f"},
        text={"format": {"type": "json_schema", "name": "n", "schema": SCHEMA, "strict": True}, "verbosity": "low"},
        max_output_tokens=5,
        store=False,
    )
    assert made == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "rain"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "And?"},
                    {"type": "image_url", "image_url": {"url": "https://host/a.png", "detail": "low"}},
                ],
            },
        ],
        "tools": [FUNCTION],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA, "strict": True}},
    }


def part(**fields):
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, fields]}]}


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        ({"input": "a", "previous_response_id": "r"}, "previous_response_id: continues a conversation"),
        ({"input": "a", "conversation": {"id": "c"}}, "conversation: continues"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "type 'reasoning' has no form"),
        ({"input": [{"type": "item_reference", "id": "i"}]}, "type 'item_reference' has no form"),
        ({"input": "a", "tools": [{"type": "web_search"}]}, "a tool that OpenAI runs"),
        ({"input": "a", "prompt": {"id": "p"}}, "prompt: names a prompt"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "type 'input_file'"),
        ({"input": 3}, "input: expected a text or a list"),
        ({"instructions": [{}], "input": "a"}, "instructions: expected a text"),
        ({"messages": ASK, "web_search_options": {}} | {"web_search_options": {"a": 1}}, "has the provider search"),
        ({"messages": ASK, "audio": {"voice": "a"}, "modalities": ["text", "audio"]}, "audio: asks for sound"),
        ({"messages": ASK, "modalities": ["text", "audio"]}, "modalities: asks for more than text"),
        ({"messages": ASK, "input": "a"}, "input: has both"),
        ({"messages": ASK, "system": "s", "mcp_servers": [{}]}, "mcp_servers: has no form"),
        ({"messages": ASK, "system": "s", "stop_sequences": list("abcde")}, "chat completions take 4, got 5"),
        ({"messages": ASK, "system": [{"type": "image"}]}, "system: only text"),
        (
            {"messages": ASK, "tools": [{"name": "f", "input_schema": {}}, {"type": "web_search_20250305"}]},
            "that Anthropic runs",
        ),
        (part(type="document", source={}), "type 'document' has no form"),
        (part(type="thinking", thinking="t"), "type 'thinking' has no form"),
        (part(type="tool_result", tool_use_id="c", content="x"), "after a text has no form"),
        (part(type="image", source={"type": "file", "file_id": "f"}), "an image of 'file'"),
        (part(type="file", file={"file_id": "f"}), "names a file that one provider keeps"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result", "is_error": True}]}]},
            "the error of a tool",
        ),
        ({"messages": [{"role": "model", "content": "a"}]}, "messages[0].role: expected one of system"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "request: "),
        ({}, "messages: expected a list of messages"),
    ],
)
def test_what_no_other_candidate_can_be_asked_is_refused_with_the_reason(request_, told):
    with pytest.raises(UnaskableError) as found:
        chat_body(request_)
    assert told in str(found.value)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=4)
    | st.sampled_from(["user", "text", "function", "tool_use", "image"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "source", "file", "function", "name"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
FIELDS = [
    "messages",
    "input",
    "instructions",
    "system",
    "tools",
    "tool_choice",
    "text",
    "stop_sequences",
    "modalities",
    "thinking",
]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
def test_any_request_is_read_or_refused(request_):
    try:
        made = chat_body(request_)
    except UnaskableError:
        return
    assert chat_body(made.body).digest == made.digest
