"""The official Python SDKs of OpenAI and Anthropic work against a gateway as against their own servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal

import pytest

from ipr_engine import Engine, parse_request
from tests.support import skips, upstream_replies
from tests.support.places import ROOT
from tests.support.server_configs import (
    CALLED,
    CHAT,
    EVERY,
    MESSAGES,
    OPENAI,
    PATHS,
    PROMPTS,
    RESPONSES,
    SPEAKERS,
    TEAM_KEY,
    body_of,
)
from tests.support.server_process import ServerProcess
from tests.support.upstream_stub import UpstreamStub

pytest.importorskip("pydantic", reason=skips.SDK)
from pydantic import BaseModel, Field, create_model

openai = pytest.importorskip("openai", reason=skips.SDK)
anthropic = pytest.importorskip("anthropic", reason=skips.SDK)

TURNS: Any = [{"role": "user", "content": PROMPTS[0]}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ASKED: Any = {"role": "user", "content": "What is the weather in Bern?"}


@pytest.fixture
def of_openai(gateway: ServerProcess, upstream: UpstreamStub) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=TEAM_KEY, max_retries=0, timeout=20) as client:
        yield client


@pytest.fixture
def of_anthropic(gateway: ServerProcess, upstream: UpstreamStub) -> Iterator[Any]:
    with anthropic.Anthropic(base_url=gateway.url, api_key=TEAM_KEY, max_retries=0, timeout=20) as client:
        yield client


def served(engine: Engine, form: str, tau: float = 0.2) -> str:
    """Return the model that answers the first prompt, as its endpoint calls it."""
    body = body_of(form, PROMPTS[0])  # with a limit of output tokens for Messages
    name = engine.route(parse_request(body), tau=tau, allowed=SPEAKERS[form]).model
    return CALLED.get(name, name)


class Who(Enum):
    BIG, SMALL = OPENAI


class Sure(BaseModel):
    share: float = Field(ge=0.5, lt=1)
    of: Literal["all"]


class Verdict(BaseModel):
    """A `Verdict` is what a judge is asked for: its enum lies behind a reference."""

    who: Who
    reason: Annotated[str, Field(max_length=8)]
    sure: Sure
    second: Who | None = None


class Verdicts(BaseModel):
    whos: list[Who]
    rank: int = Field(ge=1)


def test_the_judge_fills_a_class_that_the_sdk_parses(of_openai: Any, default_engine: Engine) -> None:
    expected = default_engine.route(PROMPTS[0], tau=0.2, allowed=OPENAI).model
    parse = of_openai.chat.completions.parse
    with pytest.raises(openai.BadRequestError, match="2 of them"):
        parse(model="ipr-judge", messages=TURNS, response_format=Verdict)
    only = create_model("Only", __base__=Verdict, second=(None, None))
    found = parse(model="ipr-judge", messages=TURNS, response_format=only).choices[0].message.parsed
    assert (found.who, found.sure.of, found.sure.share) == (Who(expected), "all", 0.5)
    assert 0 < len(found.reason) <= 8
    several = parse(model="ipr-judge", messages=TURNS, response_format=Verdicts).choices[0].message.parsed
    assert (several.whos, several.rank) == ([Who(expected)], 1)


def test_chat(of_openai: Any, default_engine: Engine) -> None:
    raw = of_openai.chat.completions.with_raw_response.create(model="auto", messages=TURNS)
    answer = raw.parse()
    name = served(default_engine, CHAT)
    assert (answer.model, answer.choices[0].message.content) == (name, f"Answered by {name}.")
    assert raw.headers["x-ipr-candidate"] == name


@pytest.mark.parametrize(
    "controls",
    [{"extra_headers": {"x-ipr-tau": "1"}}, {"extra_body": {"ipr": {"tau": 1}}}, {"metadata": {"ipr": '{"tau": 1}'}}],
)
def test_chat_takes_controls_as_the_sdk_sends_them(of_openai: Any, default_engine: Engine, controls: Any) -> None:
    answer = of_openai.chat.completions.create(model="auto", messages=TURNS, **controls)
    assert answer.model == served(default_engine, CHAT, 1.0)


def test_chat_streams(of_openai: Any, default_engine: Engine) -> None:
    chunks = list(
        of_openai.chat.completions.create(
            model="auto", messages=TURNS, stream=True, stream_options={"include_usage": True}
        )
    )
    name = served(default_engine, CHAT)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == f"Answered by {name}."
    assert {chunk.model for chunk in chunks} == {name}
    assert chunks[-1].usage.total_tokens == 14


@pytest.mark.parametrize("stream", [False, True])
def test_chat_calls_a_tool_and_reads_its_result(of_openai: Any, stream: bool) -> None:
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
    if stream:
        with of_openai.chat.completions.stream(model="auto", messages=[ASKED], tools=[tool]) as events:
            answer = events.get_final_completion()
    else:
        answer = of_openai.chat.completions.create(model="auto", messages=[ASKED], tools=[tool])
    message = answer.choices[0].message
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Bern"})
    turns: Any = [
        ASKED,
        message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.id, "content": "rain"},
    ]
    last = of_openai.chat.completions.create(model="auto", messages=turns, tools=[tool])
    assert last.choices[0].message.content == "The tool said rain."


def test_responses(of_openai: Any, default_engine: Engine) -> None:
    answer = of_openai.responses.create(model="auto", input=PROMPTS[0])
    name = served(default_engine, RESPONSES)
    assert (answer.model, answer.output_text) == (name, f"Answered by {name}.")


def test_responses_stream(of_openai: Any, default_engine: Engine) -> None:
    with of_openai.responses.stream(model="auto", input=PROMPTS[0]) as events:
        text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
        whole = events.get_final_response()
    assert text == whole.output_text == f"Answered by {served(default_engine, RESPONSES)}."


def test_responses_call_a_tool_and_read_its_result(of_openai: Any) -> None:
    tool: Any = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": False}
    first = of_openai.responses.create(model="auto", input=[ASKED], tools=[tool])
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "weather", {"city": "Bern"})
    said = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    turns: Any = [ASKED, call.model_dump(exclude_none=True), said]
    assert of_openai.responses.create(model="auto", input=turns, tools=[tool]).output_text == "The tool said rain."


def test_models_are_listed_and_each_is_told(of_openai: Any) -> None:
    listed = {model.id: model for model in of_openai.models.list()}
    assert {"auto", *OPENAI} <= listed.keys()
    for name, model in listed.items():
        assert of_openai.models.retrieve(name) == model
    with pytest.raises(openai.NotFoundError, match="GET /v1/models lists those that are"):
        of_openai.models.retrieve("no/body")


def test_decisions(of_openai: Any, default_engine: Engine) -> None:
    among = (*OPENAI, EVERY[0])
    question: Any = {
        "type": "choice",
        "name": "who",
        "instructions": "who",
        "choices": [{"value": one} for one in among],
    }
    decision = of_openai.decisions.create(
        model="auto", input=PROMPTS[0], questions=[question], extra_body={"tau": 0.05}
    )
    expected = default_engine.route(PROMPTS[0], tau=0.05, allowed=among)
    (answer,) = decision.answers
    assert (answer.choice, answer.confidence) == (expected.model, 1.0)
    assert decision.model_extra["ipr"]["quality"] == expected.quality
    assert decision.model_extra["ipr"]["tau"] == 0.05


def test_messages(of_anthropic: Any, default_engine: Engine) -> None:
    answer = of_anthropic.messages.create(model="auto", max_tokens=64, messages=TURNS)
    name = served(default_engine, MESSAGES)
    assert (answer.model, answer.content[0].text) == (name, f"Answered by {name}.")


def test_messages_take_a_bearer_token(gateway: ServerProcess, upstream: UpstreamStub) -> None:
    with anthropic.Anthropic(base_url=gateway.url, auth_token=TEAM_KEY, max_retries=0) as client:
        assert client.messages.create(model="auto", max_tokens=64, messages=TURNS).stop_reason == "end_turn"


def test_messages_stream(of_anthropic: Any, default_engine: Engine) -> None:
    with of_anthropic.messages.stream(model="auto", max_tokens=64, messages=TURNS) as events:
        text = "".join(events.text_stream)
        whole = events.get_final_message()
    assert text == whole.content[0].text == f"Answered by {served(default_engine, MESSAGES)}."


@pytest.mark.parametrize("stream", [False, True])
def test_messages_call_a_tool_and_read_its_result(of_anthropic: Any, stream: bool) -> None:
    asked: Any = {"model": "auto", "max_tokens": 64, "tools": [{"name": "weather", "input_schema": PARAMETERS}]}
    if stream:
        with of_anthropic.messages.stream(messages=[ASKED], **asked) as events:
            answer = events.get_final_message()
    else:
        answer = of_anthropic.messages.create(messages=[ASKED], **asked)
    (call,) = answer.content
    assert (answer.stop_reason, call.name, call.input) == ("tool_use", "weather", {"city": "Bern"})
    said = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "rain"}]}
    turns: Any = [ASKED, {"role": "assistant", "content": [call.model_dump(exclude_none=True)]}, said]
    assert of_anthropic.messages.create(messages=turns, **asked).content[0].text == "The tool said rain."


ERRORS: dict[str, tuple[dict[str, Any], str]] = {
    "a wrong control": ({"extra_headers": {"x-ipr-tau": "2"}}, "BadRequestError"),
    "an unknown model": ({"model": "gpt-9"}, "NotFoundError"),
    "a wrong key": ({"extra_headers": {"authorization": "Bearer wrong", "x-api-key": "wrong"}}, "AuthenticationError"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_are_the_sdks_own(of_openai: Any, of_anthropic: Any, case: str) -> None:
    change, kind = ERRORS[case]
    with pytest.raises(getattr(openai, kind)) as of_chat:
        of_openai.chat.completions.create(**{"model": "auto", "messages": TURNS, **change})
    with pytest.raises(getattr(openai, kind)):
        of_openai.responses.create(**{"model": "auto", "input": PROMPTS[0], **change})
    with pytest.raises(getattr(anthropic, kind)) as of_messages:
        of_anthropic.messages.create(**{"model": "auto", "max_tokens": 64, "messages": TURNS, **change})
    assert of_chat.value.body["message"] == of_messages.value.body["error"]["message"]
    assert of_chat.value.type == of_messages.value.body["error"]["type"]


def test_what_an_upstream_says_becomes_the_sdks_error(
    of_openai: Any, of_anthropic: Any, upstream: UpstreamStub
) -> None:
    upstream.fail(EVERY[0], "status", status=429, headers={"retry-after": "1"})
    with pytest.raises(openai.RateLimitError) as of_chat:
        of_openai.chat.completions.create(model=EVERY[0], messages=TURNS)
    assert of_chat.value.response.headers["retry-after"] == "1"
    with pytest.raises(anthropic.RateLimitError):
        of_anthropic.messages.create(model=EVERY[0], max_tokens=64, messages=TURNS)


def test_a_stream_that_breaks_raises(of_openai: Any, of_anthropic: Any, upstream: UpstreamStub) -> None:
    upstream.fail(EVERY[0], "cut")
    with pytest.raises(openai.APIError, match=EVERY[0]):
        list(of_openai.chat.completions.create(model=EVERY[0], messages=TURNS, stream=True))
    with pytest.raises(anthropic.APIError, match=EVERY[0]):
        list(of_anthropic.messages.create(model=EVERY[0], max_tokens=64, messages=TURNS, stream=True))


def test_a_responses_stream_that_breaks_ends_with_an_event_as_the_sdk_types_it(
    of_openai: Any, upstream: UpstreamStub
) -> None:
    upstream.fail(EVERY[0], "cut")
    *before, last = of_openai.responses.create(model=EVERY[0], input=PROMPTS[0], stream=True)
    assert type(last).model_validate(last.model_dump(), strict=True).type == "error"  # it hands the event on
    assert EVERY[0] in last.message
    assert [one.sequence_number for one in (*before, last)] == list(range(len(before) + 1))
    with of_openai.responses.stream(model=EVERY[0], input=PROMPTS[0]) as events:
        assert [one.type for one in events][-1] == "error"
        with pytest.raises(RuntimeError, match=r"response\.completed"):
            events.get_final_response()


CHUNKED = "HTTP/1.1 200 -\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def cut_inside(upstream: UpstreamStub, form: str, inside: int) -> None:
    """Let the next stream end inside of its second event."""
    first, second = (
        event.decode() for event in upstream_replies.events(PATHS[form], body_of(form, model=EVERY[0]))[:2]
    )
    pieces: list[str | float] = [CHUNKED]
    for text in (first, second[:inside]):
        pieces += [f"{len(text):x}\r\n{text}\r\n", 0.05]
    upstream.fail(EVERY[0], "raw", pieces=pieces, times=1)


@pytest.mark.parametrize("inside", [3, 40, 70])
def test_a_stream_that_is_cut_inside_an_event_ends_with_the_sdks_own_error(
    of_openai: Any, of_anthropic: Any, upstream: UpstreamStub, inside: int
) -> None:
    asked: Any = {"model": EVERY[0], "stream": True}
    calls = {
        CHAT: lambda: of_openai.chat.completions.create(messages=TURNS, **asked),
        MESSAGES: lambda: of_anthropic.messages.create(max_tokens=64, messages=TURNS, **asked),
    }
    for form, call in calls.items():
        cut_inside(upstream, form, inside)
        seen = []
        with pytest.raises((openai.APIError, anthropic.APIStatusError), match="broke off"):
            seen.extend(call())
        assert len(seen) == 1, form
    cut_inside(upstream, RESPONSES, inside)
    _, told = of_openai.responses.create(input=PROMPTS[0], **asked)  # an event of its own there, and no exception
    assert (told.type, "broke off" in told.message) == ("error", True)


@pytest.mark.parametrize(("sdk", "form"), [("openai", CHAT), ("anthropic", MESSAGES)])
def test_what_the_document_shows_is_answered(
    gateway: ServerProcess, upstream: UpstreamStub, capsys: pytest.CaptureFixture[str], sdk: str, form: str
) -> None:
    blocks = re.findall(r"```text\n(.*?)```", (ROOT / "docs" / "server.md").read_text(), re.DOTALL)
    [shown] = (block for block in blocks if f"from {sdk} import" in block)
    exec(shown.replace("http://127.0.0.1:8000", gateway.url).replace("KEY", TEAM_KEY), {})
    assert [one["model"] for one in upstream.seen()] == [capsys.readouterr().out.strip()]
    assert upstream.seen()[0]["_path"] == PATHS[form]


def test_a_base_url_with_one_v1_too_few_or_too_many_is_told_so(gateway: ServerProcess) -> None:
    unlike = {"max_retries": 0, "timeout": 20, "api_key": TEAM_KEY}
    with openai.OpenAI(base_url=gateway.url, **unlike) as client:
        with pytest.raises(
            openai.NotFoundError, match="/v1/chat/completions is: give the client a base URL that ends in /v1"
        ):
            client.chat.completions.create(model="auto", messages=TURNS)
        with pytest.raises(openai.NotFoundError, match=r"/v1/responses is: .* that ends in /v1"):
            client.responses.create(model="auto", input=PROMPTS[0])
        with pytest.raises(openai.NotFoundError, match=r"/v1/models is: .* that ends in /v1"):
            client.models.list()
    with (
        anthropic.Anthropic(base_url=f"{gateway.url}/v1", **unlike) as client,
        pytest.raises(anthropic.NotFoundError) as refused,
    ):
        client.messages.create(model="auto", max_tokens=64, messages=TURNS)
    error = refused.value.body
    assert error["type"] == "error"  # as Anthropic writes it
    assert error["error"]["message"] == (
        "the path is not known; /v1/messages is: give the client a base URL without /v1"
    )
