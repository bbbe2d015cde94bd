"""`parse_request`: what of an LLM request is encoded, what is only billed, and what it needs."""

import pickle

import pytest

import ipr_engine
from ipr_engine.prompts import ParsedRequest, is_one_prompt, parse_request

USER = {"role": "user", "content": "why"}
CALL = {"id": "c1", "type": "function", "function": {"name": "write_file", "arguments": '{"path": "a"}'}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def in_user(*parts):
    return [{"role": "user", "content": [{"type": "text", "text": "why"}, *parts]}]


def test_a_string_is_encoded_as_it_is():
    assert parse_request(" a\nb ") == ParsedRequest(" a\nb ")
    assert ipr_engine.parse_request is parse_request


def test_user_texts_are_encoded_in_order_and_the_rest_is_billed():
    prompt = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "text", "text": "third"}]},
        {"role": "developer", "content": "note"},
    ]
    parsed = parse_request(prompt)
    assert parsed == ParsedRequest(
        "first\n\nsecond\n\nthird", ("be brief", "reply", "note"), turns=("first", "second\n\nthird")
    )
    assert parse_request(parsed) is parsed
    assert "turns=2" in repr(parsed)


def test_turns_are_told_of_several_messages_of_the_user_alone():
    image = {"role": "user", "content": [{"type": "image_url"}]}
    result = {"role": "user", "content": [{"type": "tool_result", "content": "42"}]}
    for one in ("why", [USER], [image, USER, result], [{"role": "assistant", "content": "since"}, USER]):
        assert parse_request(one).turns == ()
    for alone in (
        [{"role": "system", "content": "describe"}, {"role": "assistant", "content": "what"}, image],
        [image],
    ):
        assert parse_request(alone).turns == ()
    assert parse_request({"input": [USER, result, image, USER]}).turns == (USER["content"],) * 2


@pytest.mark.parametrize(
    ("message", "billed"),
    [
        ({"content": None, "tool_calls": [CALL]}, ["write_file", '{"path": "a"}']),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "sh", "input": "ls"}}]}, ["sh", "ls"]),
        ({"content": None, "function_call": {"name": "f", "arguments": "{}"}}, ["f", "{}"]),
        ({"content": None, "function_call": {"name": "f", "arguments": {"é": 1}}}, ["f", '{"é": 1}']),
        ({"content": "ok", "reasoning_content": "since"}, ["ok", "since"]),
        ({"content": "ok", "reasoning": "since"}, ["ok", "since"]),
        ({"content": "ok", "reasoning_details": [{"type": "reasoning.text", "text": "since"}]}, ["ok", "since"]),
        ({"content": "ok", "reasoning": "since", "reasoning_details": [{"text": "since"}]}, ["ok", "since"]),
        ({"content": None, "refusal": "no"}, ["no"]),
        ({"content": [{"type": "refusal", "refusal": "no"}]}, ["no"]),
        ({"content": [{"type": "output_text", "text": "17", "annotations": [{"url": "u"}]}]}, ["17"]),
        ({"content": [{"type": "thinking", "thinking": "hm", "signature": "s" * 99}]}, ["hm"]),
        ({"content": [{"type": "redacted_thinking", "data": "QUJD"}]}, ["QUJD"]),
        ({"content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"x": [1, None]}}]}, ["f", '{"x": [1, null]}']),
        ({"content": [{"type": "server_tool_use", "id": "t", "name": "web", "input": {}}]}, ["web", "{}"]),
        (
            {"content": [{"type": "web_search_tool_result", "tool_use_id": "t", "content": [
                {"type": "web_search_result", "title": "T", "url": "U", "encrypted_content": "E"}]}]},
            ["T", "U", "E"],
        ),
        (
            {"content": [{"type": "code_execution_tool_result", "content": {
                "type": "code_execution_result", "stdout": "out", "stderr": "", "return_code": 3, "content": []}}]},
            ["out", "", "3"],
        ),
        ({"content": [{"type": "compaction", "content": "short", "encrypted_content": "E"}]}, ["short", "E"]),
    ],
)  # fmt: skip
def test_what_an_assistant_did_is_billed(message, billed):
    parsed = parse_request([USER, {"role": "assistant", **message}])
    assert parsed.encoded == "why"
    assert sorted(parsed.billed_only) == sorted(billed)


@pytest.mark.parametrize(
    ("part", "billed"),
    [
        ({"type": "tool_result", "tool_use_id": "t", "content": "391"}, ("391",)),
        ({"type": "tool_result", "tool_use_id": "t"}, ()),
        ({"type": "tool_result", "content": [{"type": "text", "text": "391"}]}, ("391",)),
        ({"type": "tool_result", "content": [{"type": "tool_reference", "tool_name": "f"}]}, ("f",)),
        ({"type": "document", "title": "T", "source": {"type": "text", "data": "words"}}, ("T", "words")),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "w"}]}}, ("w",)),
        (
            {"type": "search_result", "title": "T", "source": "S", "content": [{"type": "text", "text": "w"}]},
            ("T", "S", "w"),
        ),
    ],
)
def test_what_a_user_hands_over_is_billed_and_is_not_the_question(part, billed):
    parsed = parse_request(in_user(part))
    assert parsed.encoded == "why"
    assert parsed.billed_only == billed
    assert not parsed.uncountable


@pytest.mark.parametrize(
    ("part", "feature"),
    [
        ({"type": "image_url", "image_url": {}}, "vision"),
        ({"type": "input_image", "file_id": "f"}, "vision"),
        ({"type": "image", "source": {}}, "vision"),
        ({"type": "input_audio", "input_audio": {}}, "audio"),
        ({"type": "file", "file": {"file_id": "f"}}, "files"),
        ({"type": "input_file", "file_id": "f"}, "files"),
        ({"type": "document", "source": {"type": "base64", "data": ""}}, "files"),
        ({"type": "document", "source": {"type": "url", "url": "u"}}, "files"),
        ({"type": "container_upload", "file_id": "f"}, "files"),
        ({"type": "video_url", "video_url": {}}, "video"),
        ({"type": "tool_result", "content": [{"type": "image", "source": {}}]}, "vision"),
        ({"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": {}}]}}, "vision"),
        ({"type": "web_fetch_tool_result", "content": {"type": "web_fetch_result", "content": {
            "type": "document", "source": {"type": "base64", "data": "A" * 99}}}}, "files"),
    ],
)  # fmt: skip
def test_what_is_no_text_needs_a_feature_and_cannot_be_counted(part, feature):
    parsed = parse_request(in_user(part))
    assert feature in parsed.features
    assert len(parsed.uncountable) == 1
    assert not any("AAAA" in text for text in parsed.billed_only)


def test_items_of_openai_responses_are_read():
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "why"}]},
        {
            "type": "reasoning",
            "id": "r",
            "summary": [{"type": "summary_text", "text": "sum"}],
            "encrypted_content": "E",
        },
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "out"}]},
        {"type": "custom_tool_call", "name": "sh", "input": "ls"},
        {"type": "custom_tool_call_output", "output": "a.txt"},
        {"type": "code_interpreter_call", "code": "1+1", "outputs": [{"type": "logs", "logs": "2"}]},
        {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": "so", "stderr": "se"}]},
        {"type": "mcp_call", "name": "m", "arguments": "{}", "output": "mo"},
        {"type": "additional_tools", "role": "developer", "tools": [{"name": "late"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "since"}]},
    ]
    parsed = parse_request({"input": items, "instructions": "be brief", "max_output_tokens": 64})
    assert parsed.encoded == "why"
    json_of_tools = '[{"name": "late"}]'
    assert sorted(parsed.billed_only) == sorted(
        [
            json_of_tools,
            "be brief",
            "sum",
            "E",
            "f",
            "{}",
            "out",
            "sh",
            "ls",
            "a.txt",
            "1+1",
            "2",
            "so",
            "se",
            "m",
            "{}",
            "mo",
            "since",
        ]
    )
    assert parsed.max_output_tokens == 64
    assert set(parsed.features) == {"tools"}
    assert parse_request(items).billed_only == parsed.billed_only[1:]


@pytest.mark.parametrize(
    "body",
    [
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": "why", "previous_response_id": "r"},
        {"input": "why", "conversation": {"id": "c"}},
        {"prompt": {"id": "p", "variables": {}}},
    ],
)
def test_what_the_server_keeps_cannot_be_counted(body):
    assert parse_request(body).uncountable


def test_a_whole_request_brings_its_system_text_tools_schemas_and_limit():
    body = {
        "model": "m",
        "system": [{"type": "text", "text": "be brief"}],
        "messages": [USER],
        "tools": [TOOL],
        "functions": [{"name": "old"}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "s"}},
        "max_completion_tokens": 32,
        "temperature": 0,
    }
    parsed = parse_request(body)
    assert parsed == ParsedRequest(
        "why",
        (
            "be brief",
            '{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}',
            '{"name": "old"}',
            '{"type": "json_schema", "json_schema": {"name": "s"}}',
        ),
        (),
        {"tools": "tools"},
        32,
    )
    beside = parse_request([USER], tools=[TOOL])
    assert beside.billed_only == parsed.billed_only[1:2]
    assert "tools" in beside.features
    assert not parse_request([USER], tools=[]).features
    assert parse_request({"input": "why", "text": {"format": {"type": "json_schema", "schema": {}}}}).billed_only
    assert not parse_request({"input": "why", "text": {"format": {"type": "text"}}}).billed_only
    assert parse_request({"prompt": "why", "max_tokens": 5}) == ParsedRequest("why", max_output_tokens=5)


def test_without_a_text_of_the_user_every_other_text_is_encoded_and_billed_once():
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
    alone = parse_request([{"role": "system", "content": "describe"}, image])
    assert (alone.encoded, alone.billed_only, alone.uncountable) == ("describe", (), ("image_url",))
    assert parse_request([image]).encoded == ""
    after = parse_request(
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "17"}], "tools": [TOOL]}
    )
    assert after.encoded == "17"
    assert len(after.billed_only) == 1


def test_what_is_parsed_shows_no_text_and_can_be_pickled():
    parsed = parse_request(
        {"messages": [USER, {"role": "system", "content": "secret"}], "tools": [TOOL], "max_tokens": 9}
    )
    assert "secret" not in repr(parsed)
    assert "why" not in repr(parsed)
    assert pickle.loads(pickle.dumps(parsed)) == parsed
    assert hash(parsed) == hash(parse_request(parsed))


@pytest.mark.parametrize(
    ("value", "one"),
    [
        ("why", True),
        ([USER], True),
        ((USER,), True),
        ({"messages": [USER]}, True),
        (ParsedRequest("why"), True),
        ([{"type": "function_call_output", "output": "x"}], True),
        ([USER, 7], True),
        ([object(), USER], True),
        (["why"], False),
        ([[USER]], False),
        ([{"messages": [USER]}], False),
        ([ParsedRequest("why")], False),
        ([], False),
        (None, False),
        (7, False),
    ],
)
def test_a_conversation_is_told_from_a_list_of_prompts(value, one):
    assert is_one_prompt(value) is one


def test_an_answer_that_is_to_be_spoken_needs_a_candidate_that_speaks():
    assert dict(parse_request({"messages": [USER], "modalities": ["text", "audio"]}).features) == {
        "audio": "modalities"
    }
    assert not parse_request({"messages": [USER], "modalities": ["text"]}).features
