"""What a server replies is read strictly; a reason repeats nothing that it said."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipr_engine.collection.bill import TokenUsage
from ipr_engine.collection.reply import Answered, Failed, read_reply, wait_asked


def completion(**changed):
    made = {
        "model": "m-2026",
        "choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2},
    }
    return json.dumps(made | changed).encode()


def test_an_answer_is_read_with_what_is_billed():
    usage = {
        "prompt_tokens": 9,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 4},
        "completion_tokens_details": {"reasoning_tokens": 3},
    }
    read = read_reply(200, {}, completion(usage=usage))
    assert read == Answered(
        text="Yes.",
        finish_reason="stop",
        usage=TokenUsage(input_tokens=9, output_tokens=5, cached_tokens=4, reasoning_tokens=3),
        model="m-2026",
    )


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ({"content": None}, ""),
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        (
            {"content": None, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
            '{"tool_calls": [{"name": "f", "arguments": "{}"}]}',
        ),
    ],
)
def test_an_answer_s_text_is_found(message, text):
    assert read_reply(200, {}, completion(choices=[{"message": message, "finish_reason": "stop"}])).text == text


@pytest.mark.parametrize(
    ("choice", "finish"),
    [
        ({"message": {"content": None, "refusal": "No."}, "finish_reason": "stop"}, "content_filter"),
        ({"message": {"content": "x"}, "finish_reason": "max_tokens"}, "length"),
        ({"message": {"content": "x"}, "finish_reason": None}, None),
        ({"message": {"content": "x"}, "finish_reason": "A secret, told."}, None),
    ],
)
def test_how_an_answer_ended_is_one_word(choice, finish):
    assert read_reply(200, {}, completion(choices=[choice])).finish_reason == finish


@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_tokens": -1, "completion_tokens": 2},
        {"prompt_tokens": 1.5, "completion_tokens": 2},
        {"prompt_tokens": "7", "completion_tokens": 2},
        {"prompt_tokens": True, "completion_tokens": 2},
        {"prompt_tokens": 1e300, "completion_tokens": 2},
        {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}},
        [],
    ],
)
def test_a_usage_that_cannot_be_billed_is_no_answer(usage):
    assert read_reply(200, {}, completion(usage=usage)).reason == "wrong_usage"


def test_a_usage_of_no_input_is_none():
    assert read_reply(200, {}, completion(usage={"prompt_tokens": 0, "completion_tokens": 0})).usage is None


@given(status=st.integers(100, 599), content=st.binary(max_size=200))
def test_no_bytes_raise(status, content):
    assert isinstance(read_reply(status, {}, content), (Answered, Failed))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "choices",
                        "message",
                        "content",
                        "usage",
                        "error",
                        "code",
                        "prompt_tokens",
                        "completion_tokens",
                        "tool_calls",
                        "function",
                    ]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_json_raises(document):
    assert isinstance(read_reply(200, {}, json.dumps(document).encode()), (Answered, Failed))
    assert isinstance(read_reply(400, {}, json.dumps({"error": document}).encode()), (Answered, Failed))


def test_an_error_s_message_is_in_no_reason():
    told = json.dumps({"error": {"message": "secret prompt sk-123", "code": "secret prompt", "type": "invalid"}})
    failed = read_reply(400, {}, told.encode())
    assert failed == Failed(reason="http_400 invalid", status=400, billed=False)


def test_a_wait_is_read_in_seconds_milliseconds_or_as_a_date():
    assert wait_asked({"retry-after": "2.5"}, 0) == 2.5
    assert wait_asked({"retry-after-ms": "250", "retry-after": "9"}, 0) == 0.25
    assert wait_asked({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 10.0) == pytest.approx(20.0)
    assert wait_asked({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, 100.0) == 0.0
    for nothing in ("soon", "nan", "inf", ""):
        assert wait_asked({"retry-after": nothing}, 0) is None


@pytest.mark.parametrize(
    ("word", "told"),
    [("MAX_TOKENS", "length"), ("model_length", "length"), ("SAFETY", "content_filter"), ("STOP", "stop"), (5, None)],
)
def test_how_an_answer_ended_is_told_in_one_set_of_words(word, told):
    choice = {"message": {"content": "x"}, "finish_reason": word}
    assert read_reply(200, {}, json.dumps({"choices": [choice]}).encode()).finish_reason == told
