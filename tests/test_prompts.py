"""What of a prompt is encoded, what is only billed, and what is refused."""

import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import split_prompt


def test_a_string_is_encoded_as_it_is():
    assert split_prompt(" a\nb ") == (" a\nb ", (), ())


def test_user_texts_are_encoded_in_order_and_the_rest_is_billed():
    prompt = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "reply"},
        {"role": "user", "content": [{"type": "text", "text": "second"}, {"type": "text", "text": "third"}]},
        {"role": "tool", "content": "result"},
    ]
    assert split_prompt(prompt) == ("first\n\nsecond\n\nthird", ("be brief", "reply", "result"), ())


def test_parts_that_are_not_text_are_reported():
    prompt = [
        {"role": "user", "content": [{"type": "text", "text": "what is this"}, {"type": "image_url", "image_url": {}}]}
    ]
    assert split_prompt(prompt) == ("what is this", (), ("image_url",))


def test_an_assistant_message_without_content_is_allowed():
    assert split_prompt([{"role": "user", "content": "x"}, {"role": "assistant", "content": None}]).encoded == "x"


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (None, r"prompt: expected a string or a non-empty list of chat messages, got None"),
        (7, r"prompt: .* got int"),
        (b"bytes", r"prompt: .* got bytes"),
        ([], r"prompt: .* got an empty list"),
        ([{"content": "x"}], r"prompt\[0\]\['role'\]: expected a string"),
        ([{"role": "system", "content": "x"}], r"at least one user message"),
        ([{"role": "user", "content": 3}], r"prompt\[0\]\['content'\]: expected a string or a list of parts, got int"),
        ([{"role": "user", "content": ["x"]}], r"prompt\[0\]\['content'\]\[0\]: expected a part"),
        ([{"role": "user", "content": [{"type": "text"}]}], r"\['text'\]: expected a string, got None"),
    ],
)
def test_a_bad_prompt_is_named(prompt, message):
    with pytest.raises(InvalidInputError, match=message):
        split_prompt(prompt)
