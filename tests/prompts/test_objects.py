"""Objects of SDKs in the place of mappings."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import ParsedRequest, is_one_prompt, parse_request

USER = {"role": "user", "content": "why"}


class Bare:
    """What has nothing but attributes."""

    role, content = "assistant", "391"

    def to_json(self):
        raise AssertionError("not asked for")


@dataclass
class Data:
    role: str
    content: object


class Pydantic:
    """What pydantic offers: fields by name, and the object as pairs."""

    model_fields = frozenset(("role", "content"))

    def __init__(self, **values):
        self.values = values

    def __iter__(self):
        return iter(self.values.items())


class Dumps:
    def __init__(self, **values):
        self.values = values

    def to_dict(self):
        return self.values


@pytest.mark.parametrize(
    "message",
    [
        Bare(),
        SimpleNamespace(role="assistant", content="391"),
        Data("assistant", "391"),
        Pydantic(role="assistant", content=[Pydantic(type="text", text="391")]),
        Dumps(role="assistant", content="391"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_objects_of_sdks_stand_for_mappings(message):
    conversation = [USER, message, USER]
    assert is_one_prompt(conversation)
    assert parse_request(conversation) == ParsedRequest("why\n\nwhy", ("391",), turns=("why", "why"))
    assert is_one_prompt([message, USER])
    assert not is_one_prompt([conversation, conversation])


def test_tools_may_be_objects_and_hold_some():
    tool = Pydantic(type="function", function=Pydantic(name="add"))
    assert parse_request([USER], tools=[tool]).billed_only == ('{"type": "function", "function": {"name": "add"}}',)
    block = Pydantic(type="tool_use", name="f", input=Pydantic(x=1))
    assert '{"x": 1}' in parse_request([USER, {"role": "assistant", "content": [block]}]).billed_only


def test_what_holds_a_message_is_told_by_its_type_and_place():
    with pytest.raises(InvalidInputError, match=r"prompt\[1\].*Pydantic; give an SDK's message itself"):
        parse_request([USER, Pydantic(choices=[])])
    with pytest.raises(InvalidInputError, match=r"prompt\[1\]: expected a message .* got object in a object"):
        parse_request([USER, object()])


class Broken:
    role = "user"

    @property
    def content(self):
        raise RuntimeError("my secret prompt")


def test_an_object_that_cannot_be_read_is_no_message():
    with pytest.raises(InvalidInputError) as caught:
        parse_request([USER, Broken()])
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


class BrokenMapping(Mapping):
    def __getitem__(self, name):
        raise RuntimeError("my secret prompt")

    def __iter__(self):
        return iter(["role"])

    def __len__(self):
        return 1


@pytest.mark.parametrize(
    "request_",
    [
        BrokenMapping(),
        [USER, BrokenMapping()],
        [{"role": "user", "content": [BrokenMapping()]}],
        {"messages": [USER], "tools": [BrokenMapping()]},
    ],
)
def test_a_mapping_that_cannot_be_read_is_refused_without_what_its_error_says(request_):
    with pytest.raises(InvalidInputError) as caught:
        parse_request(request_)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None
