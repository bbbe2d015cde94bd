"""`parse_request` takes one LLM request apart, for the engine, the servers and the command line alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from ipr_engine._C import plain_request
from ipr_engine._validate import MOST_TOKENS, shown
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.objects import as_fields, kind_of, to_json
from ipr_engine.prompts.parsed import ParsedRequest, checked_text
from ipr_engine.prompts.turns import BETWEEN, Found, is_message, is_there, read_content, read_turns

Prompt: TypeAlias = str | Sequence[Any] | Mapping[str, Any] | ParsedRequest

TURNS = ("messages", "input", "prompt")
LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")
SYSTEM = ("system", "instructions")
KEPT_BY_SERVER = ("previous_response_id", "conversation")  # OpenAI Responses: the conversation before
ANSWERS = ("n", "best_of")  # how many answers are made: the second, of OpenAI completions, more than are returned
MOST_ANSWERS = 1024
FORMATS = ("response_format", "output_format", "text", "output_config")
_FORMATS = frozenset(FORMATS)
# fields of a request that are read
BODY = (*TURNS, *SYSTEM, "tools", "functions", *FORMATS, *LIMITS, *ANSWERS, *KEPT_BY_SERVER)
EXPECTED = "a string, a non-empty list of chat messages, or a whole request with 'messages' or 'input'"


def parse_request(request: object, *, tools: Sequence[Any] | None = None, where: str = "prompt") -> ParsedRequest:
    """Take one LLM request apart: which text is encoded, which is billed, and what a candidate must have to answer it.

        >>> request = parse_request({"messages": [{"role": "user", "content": "Why?"}], "max_tokens": 64})
        >>> request.encoded, request.max_output_tokens
        ('Why?', 64)

    Args:
        request: a string; messages of OpenAI chat completions or Anthropic Messages, or input items of OpenAI Responses; or the
            whole body of such a request, a mapping with "messages", "input" or "prompt", whose "system", "instructions",
            "tools", "functions", schemas, limit of output tokens and number of answers ("n") are read too. SDK objects (pydantic
            models, dataclasses, whatever has to_dict, or attributes) may stand for mappings.
        tools: tool definitions beside messages, as `tools=` of an SDK; billed as the JSON text they are.
        where: what errors call the request.
    Raises:
        InvalidInputError: something is not of that form, or of a type unknown here; the place is named, never the content.
    """
    if tools is None:  # a plain request, as most are, is read by one C++ call
        plain = plain_request(request, ParsedRequest, MOST_TOKENS)
        if plain is not None:
            return plain
    return walk_request(request, tools=tools, where=where)


def walk_request(request: object, *, tools: Sequence[Any] | None = None, where: str = "prompt") -> ParsedRequest:
    """Do as `parse_request` does, part by part: what is not plain, and what is wrong."""
    if isinstance(request, ParsedRequest):
        if tools is not None:
            raise InvalidInputError("tools: this request is taken apart already; pass them with the request itself")
        return _checked(request, where)
    found = Found()
    limit: int | None = None
    answers = 1
    too_deep = False
    try:
        if not _read_said(found, request, where):
            limit, answers = _read_body(found, request, where, tools)
        _read_tools(found, tools, "tools")
    except RecursionError:
        too_deep = True
    if too_deep:
        raise InvalidInputError(f"{where}: expected parts nested less deeply than Python can follow")
    return _finished(found, limit, answers, where)


def is_one_prompt(value: object) -> bool:
    """Return whether a value is one prompt; else it is a list of them, or no prompt at all.

    A list is one conversation where its first item is a message or an item of OpenAI Responses; where the first item is
    nothing known, any other may tell.
    """
    if type(value) is dict or isinstance(value, (str, ParsedRequest)):
        return True
    if not isinstance(value, (list, tuple)):
        return as_fields(value) is not None
    for item in value:
        if type(item) is dict and "role" in item:
            return True
        if isinstance(item, (str, list, tuple, ParsedRequest)) or is_body(item):
            return False
        if is_message(item):
            return True
    return False


def is_body(value: object) -> bool:
    """Return whether a value is a whole request: it has turns, and is no message or item itself."""
    fields = as_fields(value)
    if fields is None or is_message(fields):
        return False
    for name in TURNS:  # noqa: SIM110  any() takes three times as long
        if fields.get(name) is not None:
            return True
    return False


def _read_body(found: Found, request: object, where: str, tools: object) -> tuple[int | None, int]:
    """Read a whole request; return its limit of output tokens and its number of answers."""
    body = as_fields(request)
    if body is None or not is_body(body):
        what = kind_of(request)
        if body is not None:
            stated = "role" in body or "type" in body
            what = "one message; put it into a list" if stated else f"{what} without any of them"
        raise InvalidInputError(f"{where}: expected {EXPECTED}, got {what}")
    given = [name for name in TURNS if body.get(name) is not None and not _is_template(body, name)]
    if len(given) > 1:
        raise InvalidInputError(f"{where}: expected one of {', '.join(TURNS)}, got {' and '.join(given)}")
    if tools is not None and is_there(body.get("tools")):
        raise InvalidInputError("tools: the request has tools of its own; give them once")
    for name in SYSTEM:
        if name in body:  # where it is not, naming its place would take longer than reading it
            read_content(found, body[name], f"{where}[{name!r}]", found.other)
    for name in given:
        turns, here = body[name], f"{where}[{name!r}]"
        if not _read_said(found, turns, here):
            raise InvalidInputError(f"{here}: expected a string or a non-empty list of messages, got {kind_of(turns)}")
    kept = KEPT_BY_SERVER if given in ([], ["input"]) else ()
    for name in ("prompt", *kept):
        if body.get(name) is not None and name not in given:
            found.uncountable.append(name)
            found.asked = True
    for name in ("tools", "functions"):
        if name in body:
            _read_tools(found, body[name], f"{where}[{name!r}]")
    if "modalities" in body:
        _read_modalities(found, body["modalities"], f"{where}['modalities']")
    if not _FORMATS.isdisjoint(body):
        for schema in _schemas(body):
            found.definitions.append(checked_text(to_json(schema, where), where))
    return _limit(body, where), _answers(body, where)


def _read_said(found: Found, said: object, where: str) -> bool:
    """Read what the user says, a string or a non-empty list of messages; False where it is neither."""
    if isinstance(said, str):
        found.user.append(checked_text(said, where))
        found.asked = True
    elif isinstance(said, (list, tuple)) and said:
        read_turns(found, said, where)
    else:
        return False
    return True


def _is_template(body: Mapping[str, Any], name: str) -> bool:
    """Return whether the field is OpenAI's reference to a prompt kept on the server."""
    return name == "prompt" and as_fields(body[name]) is not None


def _read_tools(found: Found, tools: object, where: str) -> None:
    if tools is None:
        return
    if not isinstance(tools, (list, tuple)):
        raise InvalidInputError(f"{where}: expected a list of tool definitions, got {kind_of(tools)}")
    for number, tool in enumerate(tools):
        here = f"{where}[{number}]"
        if as_fields(tool) is None:
            raise InvalidInputError(f"{here}: expected a tool definition, an object of JSON, got {kind_of(tool)}")
        found.need("tools", "tools")
        found.definitions.append(checked_text(to_json(tool, here), here))


def _read_modalities(found: Found, modalities: object, where: str) -> None:
    """Note what the answer is to be, beside text: OpenAI's chat completions."""
    if modalities is None:
        return
    if not isinstance(modalities, (list, tuple)) or any(one not in ("text", "audio") for one in modalities):
        got = kind_of(modalities) if not isinstance(modalities, (list, tuple)) else "a list with something else"
        raise InvalidInputError(f"{where}: expected a list of 'text' and 'audio', got {got}")
    if "audio" in modalities:
        found.need("audio", "modalities")


def _schemas(body: Mapping[str, Any]) -> list[object]:
    """Return the forms of the answer that the model is shown: OpenAI's response_format and text.format, Anthropic's output formats."""
    formats = [body.get("response_format"), body.get("output_format")]
    formats += [(as_fields(body.get(name)) or {}).get("format") for name in ("text", "output_config")]
    found = [as_fields(form) for form in formats]
    return [form for form in found if form is not None and form.get("type") == "json_schema"]


def _limit(body: Mapping[str, Any], where: str) -> int | None:
    given = [name for name in LIMITS if body.get(name) is not None]
    if not given:
        return None
    for name in given:
        _check_limit(body[name], f"{where}[{name!r}]")
    limit: int = body[given[0]]
    if any(body[name] != limit for name in given[1:]):
        raise InvalidInputError(f"{where}: expected one limit of output tokens, got {' and '.join(given)} that differ")
    return limit


def _answers(body: Mapping[str, Any], where: str) -> int:
    """Return how many answers are made and billed."""
    most = 1
    for name in ANSWERS:
        if body.get(name) is not None:
            _check_answers(body[name], f"{where}[{name!r}]")
            most = max(most, body[name])
    return most


def _check_answers(value: object, where: str) -> None:
    if type(value) is not int or not 1 <= value <= MOST_ANSWERS:
        got = shown(value) if isinstance(value, (int, float)) else kind_of(value)
        raise InvalidInputError(f"{where}: expected a whole number of answers from 1 to {MOST_ANSWERS}, got {got}")


def _check_limit(value: object, where: str) -> None:
    if type(value) is int and 0 <= value <= MOST_TOKENS:
        return
    got = shown(value) if isinstance(value, (int, float)) else kind_of(value)
    raise InvalidInputError(f"{where}: expected a whole number of tokens >= 0, got {got}")


def _checked(request: ParsedRequest, where: str) -> ParsedRequest:
    """Return the request, which anyone may have made; InvalidInputError where its fields are not what they are said to be."""
    checked_text(request.encoded, f"{where}.encoded")
    for name in ("billed_only", "uncountable", "turns"):
        texts = getattr(request, name)
        if not isinstance(texts, tuple):
            raise InvalidInputError(f"{where}.{name}: expected a tuple of strings, got {kind_of(texts)}")
        for number, text in enumerate(texts):
            checked_text(text, f"{where}.{name}[{number}]")
    if request.turns and (len(request.turns) == 1 or BETWEEN.join(request.turns) != request.encoded):
        raise InvalidInputError(
            f"{where}.turns: expected none, or several texts that a blank line each joins to encoded"
        )
    features = request.features
    if not isinstance(features, Mapping) or not all(
        isinstance(part, str) for pair in features.items() for part in pair
    ):
        raise InvalidInputError(
            f"{where}.features: expected feature -> part that needs it, strings, got {kind_of(features)}"
        )
    if request.max_output_tokens is not None:
        _check_limit(request.max_output_tokens, f"{where}.max_output_tokens")
    _check_answers(request.answers, f"{where}.answers")
    if type(request.images) is not int or request.images < 0:
        raise InvalidInputError(f"{where}.images: expected a whole number of images >= 0, got {shown(request.images)}")
    return request


def _finished(found: Found, limit: int | None, answers: int, where: str) -> ParsedRequest:
    if not found.asked:
        raise InvalidInputError(f"{where}: expected at least one user message with text, got none")
    if not found.user and not found.other and not found.uncountable:
        raise InvalidInputError(f"{where}: expected at least one message with text, got none")
    spoken, rest = (found.user, found.other) if found.user else (found.other, [])
    return ParsedRequest(
        BETWEEN.join(spoken),
        (*rest, *found.definitions),
        tuple(found.uncountable),
        found.features,
        limit,
        answers,
        found.images,
        tuple(found.user) if len(found.user) > 1 else (),
    )
