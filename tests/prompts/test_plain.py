"""A plain request is read by one C++ call; whatever it is, the walk reads the same of it, or refuses it alike."""

from __future__ import annotations

import gc
import pickle
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import InvalidInputError
from ipr_engine._C import plain_request
from ipr_engine._read_only import read_only
from ipr_engine._validate import MOST_TOKENS
from ipr_engine.prompts import BODY, ParsedRequest, is_one_prompt, parse_request
from ipr_engine.prompts.parse import LIMITS, walk_request

USER = {"role": "user", "content": "why"}
SYSTEM = {"role": "system", "content": "be brief"}


class Text(str):
    pass


class Loud(str):
    """A str of somebody's own, which no one may compare while a request is read in C++."""

    def __eq__(self, other: object) -> bool:
        raise AssertionError("compared")

    __hash__ = str.__hash__


class Fields(dict[str, Any]):
    pass


class Turns(list[Any]):
    pass


class Count(int):
    pass


def outcome(read: Any, request: object) -> tuple[Any, ...]:
    """Return what comes of reading a request: every field with its type, in order, or the error."""
    try:
        made = read(request)
    except InvalidInputError as error:
        return "refused", str(error)
    assert type(made) is ParsedRequest
    assert pickle.loads(pickle.dumps(made)) == made
    return "read", [(name, type(value), value, [*map(type, value)] if name == "billed_only" else None)
                    for name, value in vars(made).items()]  # fmt: skip


def plain(request: object) -> ParsedRequest | None:
    return plain_request(request, ParsedRequest, MOST_TOKENS)


PLAIN: list[Any] = [
    "why",
    "",
    "warum ist der Himmel blau? é 日本 😀",
    [USER],
    [USER, {"role": "assistant", "content": ""}, {"role": "user", "content": "and why not?"}],
    {"messages": [USER]},
    {"messages": [USER, SYSTEM, {"role": "developer", "content": "é"}], "max_tokens": 0},
    {"messages": [{"role": "user", "content": ""}, {"content": "why", "role": "user", "name": ["any"]}], "stream": True},
    {"messages": "why"},
    {"prompt": "", "model": "auto", "metadata": {"ipr": {"tau": 0.3}}, "max_tokens": MOST_TOKENS},
    {"prompt": [USER], "suffix": {}},
    {"input": "why", "instructions": "first", "system": "second", "max_output_tokens": 7},
    {"input": [SYSTEM, USER], "max_completion_tokens": 12, "max_tokens": None, "instructions": ""},
    {"messages": None, "input": "why", "prompt": None, **dict.fromkeys((*BODY, "modalities")), "é": 1} | {"input": "why"},
]  # fmt: skip


@pytest.mark.parametrize("request_", PLAIN, ids=str)
def test_a_plain_request_is_read_in_one_call_as_the_walk_reads_it(request_: Any) -> None:
    assert plain(request_) is not None
    assert outcome(parse_request, request_) == outcome(walk_request, request_)
    assert outcome(plain, request_)[0] == "read"
    assert is_one_prompt(request_)
    if isinstance(request_, str):
        assert outcome(ParsedRequest.of_text, request_) == outcome(walk_request, request_)


NOT_PLAIN: list[Any] = [
    None,
    7,
    (USER,),
    [],
    {},
    Loud("why"),
    "\ud800",
    [SYSTEM],
    [{"role": "user", "content": ""}],
    [{"role": "user"}],
    [{"content": "why"}],
    [{"role": Loud("user"), "content": "why"}],
    [{Loud("role"): "user", "content": "why"}],
    [{"role": "user", "content": "why", Loud("x"): 1}],
    [Fields(USER)],
    Turns([USER]),
    [USER, {"role": "tool", "content": "x"}],
    [USER, {"role": "model", "content": "x"}],
    [USER, {**SYSTEM, "refusal": "x"}],
    [USER, {**SYSTEM, "type": "message"}],
    [{"role": "user", "content": [{"type": "text", "text": "why"}]}],
    Fields(messages=[USER]),
    {"messages": [USER], Loud("model"): "auto"},
    {"messages": [USER], "input": "why"},
    {"messages": [USER], "role": None},
    {"messages": [USER], "type": "x"},
    {"messages": [USER], "max_tokens": True},
    {"messages": [USER], "max_tokens": Count(3)},
    {"messages": [USER], "max_tokens": 3.0},
    {"messages": [USER], "max_tokens": -1},
    {"messages": [USER], "max_tokens": MOST_TOKENS + 1},
    {"messages": [USER], "max_tokens": 10**30},
    {"messages": [USER], "max_tokens": 3, "max_completion_tokens": 3},
    {"messages": [USER], "system": [{"type": "text", "text": "x"}]},
    {"messages": [USER], "system": "\udfff"},
    {"messages": [USER], "n": 2},
    {"messages": [USER], "tools": []},
    {"messages": [USER], "text": {}},
    {"input": "why", "previous_response_id": "r"},
]


@pytest.mark.parametrize("request_", NOT_PLAIN, ids=ascii)
def test_every_other_request_is_left_to_the_walk(request_: Any) -> None:
    assert plain(request_) is None
    if type(request_) is str:
        assert outcome(ParsedRequest.of_text, request_) == outcome(walk_request, request_)
    elif not isinstance(request_, str):
        assert outcome(ParsedRequest.of_text, request_)[0] == "refused"


def test_what_is_read_of_the_first_call_is_a_request_like_any_other() -> None:
    made = parse_request({"messages": [SYSTEM, USER], "max_tokens": 5})
    assert made == ParsedRequest("why", ("be brief",), (), {}, 5)
    assert list(vars(made)) == list(vars(ParsedRequest("why")))
    assert made.features is not parse_request("why").features
    assert (made.needs, hash(made)) == (
        ParsedRequest("", max_output_tokens=5).needs,
        hash(ParsedRequest(*vars(made).values())),
    )
    with pytest.raises(AttributeError):
        made.encoded = "another"  # type: ignore[misc]


TAKEN_APART = [
    ParsedRequest("why"),
    ParsedRequest("", ("é", ""), ("image_url",), {}, MOST_TOKENS),
    parse_request({"messages": [SYSTEM, USER], "max_tokens": 5}),
    parse_request([USER, SYSTEM, {"role": "user", "content": ""}, {"role": "user", "content": "\n\né"}]),
]
MADE_OTHERWISE: list[Any] = [
    {"encoded": "\ud800"},
    {"encoded": Loud("why")},
    {"encoded": None},
    {"billed_only": ["x"]},
    {"billed_only": (3,)},
    {"billed_only": (Loud("x"),)},
    {"uncountable": "image"},
    {"features": {"tools": "tools"}},
    {"features": read_only({})},
    {"features": None},
    {"max_output_tokens": True},
    {"max_output_tokens": -1},
    {"max_output_tokens": MOST_TOKENS + 1},
    {"answers": 2},
    {"answers": True},
    {"answers": 10**30},
    {"images": 1},
    {"images": False},
    {"turns": ["why"]},
    {"turns": ("why",)},
    {"turns": ("wh", "y")},
    {"turns": ("why", "")},
    {"turns": ("why", 3)},
    {"encoded": "why\n\nnot", "turns": ("why", "nota")},
    {"encoded": "why\n\nnot", "turns": ("why", Loud("not"))},
]


@pytest.mark.parametrize("request_", TAKEN_APART)
def test_a_request_that_is_taken_apart_is_itself(request_: ParsedRequest) -> None:
    for read in (plain, parse_request, walk_request):
        assert read(request_) is request_


@pytest.mark.parametrize("fields", MADE_OTHERWISE, ids=ascii)
def test_one_that_somebody_made_otherwise_is_checked_by_the_walk(fields: dict[str, Any]) -> None:
    request = ParsedRequest(**{"encoded": "why", **fields})
    assert plain(request) is None
    results = []
    for read in (parse_request, walk_request):
        try:
            results.append(read(request) is request)
        except InvalidInputError as error:
            results.append(str(error))
    assert results[0] == results[1]


def test_one_without_its_fields_is_left_to_the_walk() -> None:
    assert plain(object.__new__(ParsedRequest)) is None
    made = parse_request("why")
    del vars(made)["images"]  # the class has its default
    assert plain(made) is made


def test_tools_beside_messages_are_read_by_the_walk() -> None:
    tool = {"type": "function", "function": {"name": "add"}}
    assert parse_request([USER], tools=[tool]).features == {"tools": "tools"}
    assert parse_request([USER], tools=[]) == parse_request([USER])


SAID = st.sampled_from(["why", "", "é 日本", "be brief", "two\nlines"])
ODD = st.sampled_from(
    [None, "", "why", "\ud800", Text("why"), True, 0, 2, 7.5, 10**30, -1, Count(3), b"x", [], {}, [USER], Turns([USER]), (USER,),
     Fields(USER), ["text"], [{"type": "text", "text": "why"}], {"type": "json_schema"}, {"format": {"type": "json_schema"}}, ["audio"]]
)  # fmt: skip
ROLE = st.sampled_from(["user", "user", "user", "system", "developer", "assistant"])
ANY_ROLE = st.sampled_from(["tool", "function", "model", "critic", "User", "", None, Text("user"), 3])
TURN = st.fixed_dictionaries({"role": ROLE, "content": SAID}, optional={"name": ODD})
ODD_TURN = st.fixed_dictionaries(
    {},
    optional={
        "role": ROLE | ANY_ROLE,
        "content": SAID | ODD,
        "type": st.sampled_from(["message", "text", "reasoning", None, "x"]),
        "tool_calls": ODD,
        "refusal": SAID | ODD,
        "parts": ODD,
        "audio": ODD,
        "reasoning": SAID,
    },
)
TURNS_OF = st.lists(TURN, max_size=4) | st.lists(TURN | ODD_TURN | TURN.map(Fields) | ODD, max_size=4)
SAYS = SAID | TURNS_OF | TURNS_OF.map(Turns) | TURNS_OF.map(tuple) | ODD
LIMIT = st.integers(0, 99) | st.sampled_from([None, MOST_TOKENS, MOST_TOKENS + 1, 2**63, 2**64, -1, True, 4.0, "5"])
LEFT = sorted({*BODY, "modalities", "role", "type", "model", "stream", "é"} - {"messages", "input", "prompt", *LIMITS})
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "messages": SAYS,
        "input": SAYS,
        "prompt": SAYS,
        "system": SAID,
        "instructions": SAID | ODD,
        **dict.fromkeys(LIMITS, LIMIT),
        "model": SAID,
    },
)
STRANGE = st.dictionaries(
    st.sampled_from(LEFT) | st.sampled_from([3, Text("n"), Text("input")]), SAID | ODD, max_size=2
)


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(said=SAYS, limit=st.dictionaries(st.sampled_from(LIMITS), LIMIT, max_size=2), body=BODIES, strange=STRANGE)
def test_both_ways_give_the_same_request_or_the_same_error(said: Any, limit: Any, body: Any, strange: Any) -> None:
    for request in (
        said,
        {"messages": said, **limit},
        {"prompt": said, **limit},
        body,
        {**body, **strange},
        Fields(body),
    ):
        expected = outcome(walk_request, request)
        assert outcome(parse_request, request) == expected
        if plain(request) is not None:
            assert expected[0] == "read"


@pytest.mark.parametrize("name", [*BODY, "modalities", "role", "type"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(value=SAID | ODD | LIMIT)
def test_each_field_that_the_walk_reads_is_known_to_the_short_way(name: str, value: Any) -> None:
    for request in ({"messages": [USER], name: value}, {"input": "why", name: value}, {name: value, "prompt": "why"}):
        assert outcome(parse_request, request) == outcome(walk_request, request)


def test_nothing_of_a_request_is_kept() -> None:
    text, count = "".join(["w", "hy?"]), 10**6
    requests: list[Any] = [
        {"messages": [{"role": "user", "content": text}, {"role": "system", "content": text}], "max_tokens": count},
        {"prompt": text, "max_tokens": count, "instructions": text, "n": 3},  # left to the walk once read
        {"max_tokens": count, "system": text, "messages": [{"role": "user", "content": text}, {"role": "x"}]},
    ]
    before = sys.getrefcount(text), sys.getrefcount(count)
    for _ in range(1000):
        for request in requests:
            plain(request)
    assert (sys.getrefcount(text), sys.getrefcount(count)) == before


def test_garbage_that_changes_a_request_while_it_is_read_leaves_it_whole() -> None:
    class Garbage:
        def __init__(self, body: dict[str, Any]) -> None:
            self.itself, self.body = self, body

        def __del__(self) -> None:
            self.body["messages"].clear()
            self.body.clear()

    thresholds = gc.get_threshold()
    read = set()
    gc.disable()
    try:
        for threshold in range(1, 40):
            body = {
                "messages": [{"role": "user", "content": f"why {threshold}?"} for _ in range(5)],
                "system": "a" * 50,
            }
            gc.collect()
            Garbage(body)
            gc.set_threshold(threshold)
            gc.enable()
            made = plain(body)
            gc.disable()
            read.add(made is not None)
            assert made is None or made == ParsedRequest(
                "\n\n".join([f"why {threshold}?"] * 5), ("a" * 50,), turns=(f"why {threshold}?",) * 5
            )
    finally:
        gc.set_threshold(*thresholds)
        gc.enable()
    assert True in read


@pytest.mark.parametrize("arguments", [(), ("why",), ("why", 3, 4), ("why", ParsedRequest, "x"), ("why", int, 4)])
def test_a_call_that_is_none_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((TypeError, AttributeError)):
        plain_request(*arguments)
