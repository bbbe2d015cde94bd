"""What `parse_request` refuses, and that its errors hold no text of a prompt."""

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import ParsedRequest, parse_request

USER = {"role": "user", "content": "why"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


def in_user(*parts):
    return [{"role": "user", "content": [{"type": "text", "text": "why"}, *parts]}]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, r"prompt: expected a string, a non-empty list of chat messages, or a whole request .* got None"),
        (7, r"prompt: .* got int"),
        (b"bytes", r"prompt: .* got bytes"),
        ([], r"prompt: .* got an empty list"),
        ({}, r"prompt: .* got dict without any of them"),
        ({"text": "why"}, r"prompt: .* got dict without any of them"),
        (USER, r"prompt: .* got one message; put it into a list"),
        ({"messages": []}, r"prompt\['messages'\]: expected .* got an empty list"),
        ({"messages": [USER], "input": "x"}, r"expected one of messages, input, prompt, got messages and input"),
        ({"prompt": ["a"]}, r"prompt\['prompt'\]\[0\]: expected a message .* got str"),
        ([{"content": "x"}], r"prompt\[0\]\['role'\]: expected a string"),
        ([{"role": "User", "content": "x"}], r"prompt\[0\]\['role'\]: expected one of .*, got 'User'"),
        ([{"role": "system", "content": "x"}], r"at least one user message"),
        ([{"role": "system", "content": "x"}, {"role": "user"}], r"at least one user message"),
        ([{"role": "user", "content": 3}], r"prompt\[0\]\['content'\]: expected a string or a list of parts, got int"),
        ([{"role": "user", "content": ["x"]}], r"prompt\[0\]\['content'\]\[0\]: expected a part"),
        ([{"role": "user", "content": [{"type": 3}]}], r"\[0\]: expected a part .* with type int"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"\['text'\]: expected a string, got None"),
        (in_user({"type": "hologram"}), r"prompt\[0\]\['content'\]\[1\]\['type'\]: unknown part type 'hologram'.*known: .*text"),
        ([USER, {"type": "hologram_call"}], r"prompt\[1\]\['type'\]: unknown item type 'hologram_call'"),
        ([USER, {"type": "text", "text": "x"}], r"prompt\[1\]: expected a message, got a part of type 'text'; put it"),
        ([USER, {"type": 3}], r"prompt\[1\]\['type'\]: expected a string"),
        ({"messages": [USER], "tools": {}}, r"prompt\['tools'\]: expected a list of tool definitions, got dict"),
        ({"messages": [USER], "tools": [len]}, r"prompt\['tools'\]\[0\]: expected a tool definition.* got builtin_function"),
        ({"messages": [USER], "tools": [{"f": len}]}, r"prompt\['tools'\]\[0\]: expected what JSON can hold"),
        ({"messages": [USER], "max_tokens": -1}, r"prompt\['max_tokens'\]: expected a whole number of tokens >= 0, got -1"),
        ({"messages": [USER], "max_tokens": True}, r"prompt\['max_tokens'\]: expected a whole number"),
        ({"messages": [USER], "max_tokens": "9"}, r"prompt\['max_tokens'\]: .* got str"),
        ({"messages": [USER], "max_tokens": 1, "max_completion_tokens": 2}, r"one limit of output tokens"),
        ("\ud800", r"prompt: expected Unicode text, got a lone surrogate"),
        ([USER, {"role": "assistant", "content": "\ud800"}], r"prompt\[1\]\['content'\]: expected Unicode text"),
        ([USER, {"role": "assistant", "tool_calls": [{"name": "\ud800"}]}], r"prompt\[1\]\['tool_calls'\]"),
        ({"messages": [USER], "tools": [{"name": "\ud800"}]}, r"prompt\['tools'\]\[0\]: expected Unicode text"),
    ],
)  # fmt: skip
def test_a_bad_prompt_is_named(prompt, message):
    with pytest.raises(InvalidInputError, match=message):
        parse_request(prompt)


@pytest.mark.parametrize("name", ["type", "role", "content"])
@pytest.mark.parametrize("value", [np.ones(2), np.array(["a", "b"]), {1, 2}, float("nan"), len, object()], ids=range(6))
def test_values_that_are_no_json_are_named_by_their_type(name, value):
    with pytest.raises(InvalidInputError, match=rf"prompt\[1\]\['{name}'\]: expected .*, got {type(value).__name__}"):
        parse_request([USER, {"role": "assistant", "content": "since", name: value}])


def test_text_in_the_place_of_a_name_is_not_shown():
    for prompt in (in_user({"type": "my secret prompt"}), [{"role": "my secret prompt", "content": "x"}]):
        with pytest.raises(InvalidInputError, match="a text of 16 characters") as caught:
            parse_request(prompt)
        assert "secret" not in str(caught.value)


def test_a_part_nested_without_end_is_refused():
    deep = {}
    for _ in range(100_000):
        deep = {"x": deep}
    for part in ({"type": "tool_use", "name": "f", "input": deep}, {"type": "mcp_tool_result", "content": deep}):
        with pytest.raises(InvalidInputError, match="nested less deeply"):
            parse_request([USER, {"role": "assistant", "content": [part]}])
    loop = {}
    loop["x"] = loop
    with pytest.raises(InvalidInputError, match="JSON can hold"):
        parse_request([USER], tools=[loop])


def test_tools_are_given_once():
    with pytest.raises(InvalidInputError, match="give them once"):
        parse_request({"messages": [USER], "tools": [TOOL]}, tools=[TOOL])
    with pytest.raises(InvalidInputError, match="taken apart already"):
        parse_request(parse_request("why"), tools=[TOOL])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"encoded": 5}, r"prompt.encoded: expected a string, got int"),
        ({"encoded": "a\ud800"}, r"prompt.encoded: .* lone surrogate"),
        ({"billed_only": "why"}, r"prompt.billed_only: expected a tuple of strings, got str"),
        ({"billed_only": (5,)}, r"prompt.billed_only\[0\]: expected a string, got int"),
        ({"uncountable": ["image"]}, r"prompt.uncountable: expected a tuple of strings, got list of str"),
        ({"features": {"tools"}}, r"prompt.features: expected feature -> part that needs it, strings, got set"),
        ({"features": {"tools": 1}}, r"prompt.features: expected .* got dict"),
        ({"max_output_tokens": 5.5}, r"prompt.max_output_tokens: expected a whole number of tokens >= 0, got 5.5"),
        ({"max_output_tokens": -5}, r"prompt.max_output_tokens: .* got -5"),
        ({"max_output_tokens": 10**30}, r"prompt.max_output_tokens: .* got 10+"),
        ({"turns": ["why"]}, r"prompt.turns: expected a tuple of strings, got list of str"),
        (
            {"turns": ("why", "not")},
            r"prompt.turns: expected none, or several texts that a blank line each joins to encoded",
        ),
    ],
)
def test_a_parsed_request_that_somebody_made_is_checked(fields, message):
    with pytest.raises(InvalidInputError, match=message):
        parse_request(ParsedRequest(**{"encoded": "why", **fields}))


@pytest.mark.parametrize(
    "turn", [{"role": "model"}, {"role": "user", "content": ""}, {"role": "user", "content": None}]
)
def test_a_turn_of_another_api_is_not_passed_over(turn):
    with pytest.raises(InvalidInputError, match=r"prompt\[1\]\['parts'\]: expected what is said in 'content'"):
        parse_request([USER, turn | {"parts": [{"text": "a long text"}]}])


@pytest.mark.parametrize(
    ("limit", "got"),
    [
        pytest.param(10**5000, "a value of type int", id="more digits than Python writes"),
        pytest.param(10**400, r"10+\.\.\.", id="400 digits"),
        (-1, "-1"),
        (1.5, "1.5"),
    ],
)
def test_a_limit_that_is_no_count_is_shown_in_short(limit, got):
    with pytest.raises(
        InvalidInputError, match=rf"prompt\['max_tokens'\]: expected a whole number of tokens >= 0, got {got}$"
    ):
        parse_request({"messages": [USER], "max_tokens": limit})


@pytest.mark.parametrize("modalities", ["audio", ["text", "smell"], [1], {"audio": True}])
def test_a_modality_that_is_none_is_refused(modalities):
    with pytest.raises(InvalidInputError, match=r"prompt\['modalities'\]: expected a list of 'text' and 'audio', got"):
        parse_request({"messages": [USER], "modalities": modalities})
