"""This file reads the turns of a conversation and their parts: chat messages, and the items that OpenAI Responses has beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.objects import (
    ANTHROPIC_TOOLS,
    CALLS,
    ITEMS,
    MEDIA,
    NO_TEXT,
    OUTPUTS,
    PARTS,
    REASONING,
    REASONINGS,
    ROLES,
    SHOWN_AS_JSON,
    STRUCTURED_PARTS,
    TEXTS,
    WITHOUT_TEXT,
    as_fields,
    kind_of,
    to_json,
)
from ipr_engine.prompts.parsed import checked_text

BETWEEN = "\n\n"  # the texts that are encoded as one
MOST_PLACE = 256
"""Characters of a place from which on what lies deeper is not named: each of many parts would copy it."""


class Found:
    """A `Found` collects what a request holds while it is read.

    Attributes:
        user, other: texts of the user, one a message, and every other one of the conversation.
        definitions: texts that are no part of the conversation: tools, schemas.
        uncountable, features: those of `ParsedRequest`.
        images: how many the conversation holds.
        asked: whether there is something to answer: a user's turn, or a tool's result.
    """

    __slots__ = ("asked", "definitions", "features", "images", "other", "uncountable", "user")

    def __init__(self) -> None:
        self.user: list[str] = []
        self.other: list[str] = []
        self.definitions: list[str] = []
        self.uncountable: list[str] = []
        self.features: dict[str, str] = {}
        self.images = 0
        self.asked = False

    def need(self, feature: str, kind: str) -> None:
        self.features.setdefault(feature, kind)

    def media(self, kind: str) -> None:
        self.need(MEDIA[kind], kind)
        self.uncountable.append(kind)
        self.images += MEDIA[kind] == "vision"


def is_there(value: object) -> bool:
    """Return whether a field holds something: neither None nor an empty text or list."""
    return value is not None and not (isinstance(value, (str, list, tuple)) and not value)


def read_content(found: Found, content: object, where: str, texts: list[str]) -> None:
    """Read a message's content (None, a text, or parts); texts of the one who speaks go to `texts`."""
    if content is None:  # an assistant message that only calls tools
        return
    if isinstance(content, str):
        texts.append(checked_text(content, where))
        return
    if not isinstance(content, (list, tuple)):
        raise InvalidInputError(f"{where}: expected a string or a list of parts, got {kind_of(content)}")
    for number, part in enumerate(content):
        _read_part(found, part, f"{where}[{number}]", texts)


def _read_part(found: Found, part: object, where: str, texts: list[str]) -> None:
    fields = as_fields(part)
    kind = None if fields is None else fields.get("type")
    if fields is None or not isinstance(kind, str):
        raise InvalidInputError(
            f"{where}: expected a part such as {{'type': 'text', 'text': ...}}, got {kind_of(part)}"
            + ("" if fields is None else f" with type {kind_of(kind)}")
        )
    if kind in TEXTS:
        name = TEXTS[kind]
        own = texts if kind in ("text", "input_text", "output_text") else found.other
        own.append(checked_text(fields.get(name), f"{where}[{name!r}]"))
    elif kind in MEDIA:
        found.media(kind)
    elif kind == "document":
        read_document(found, fields, where)
    elif kind == "search_result":
        read_tree(found, {name: fields.get(name) for name in ("title", "source", "content")}, where)
    elif kind == "tool_result":
        found.asked = True
        found.need("tools", kind)
        read_content(found, fields.get("content"), f"{where}['content']", found.other)
    elif kind in STRUCTURED_PARTS:
        if kind in ANTHROPIC_TOOLS:
            found.need("tools", kind)
        read_tree(found, fields, where)
    else:
        raise unknown_type(where, "part", kind, PARTS)


def read_document(found: Found, fields: Mapping[str, Any], where: str) -> None:
    """Read Anthropic's document: its text where the request holds it, else a file."""
    for name in ("title", "context"):
        if fields.get(name) is not None:
            found.other.append(checked_text(fields[name], f"{where}[{name!r}]"))
    source = as_fields(fields.get("source"))
    kind = None if source is None else source.get("type")
    if source is not None and kind == "text":
        found.other.append(checked_text(source.get("data"), f"{where}['source']['data']"))
    elif source is not None and kind == "content":
        read_content(found, source.get("content"), f"{where}['source']['content']", found.other)
    else:
        found.need("files", "document")
        found.uncountable.append("document")


def read_tree(found: Found, value: object, where: str) -> None:
    """Bill every text below a part whose inner form is its tool's own; images and files in it count as what they are."""
    fields = as_fields(value)
    if isinstance(value, str):
        found.other.append(checked_text(value, where))
    elif isinstance(value, (list, tuple)):
        for item in value:
            read_tree(found, item, where)
    elif fields is not None:
        kind = fields.get("type")
        if kind == "document":
            read_document(found, fields, where)
        elif isinstance(kind, str) and kind in MEDIA:
            found.media(kind)
        else:
            for name, item in fields.items():
                if name in NO_TEXT or item is None:
                    continue
                here = f"{where}[{shown_name(str(name))}]" if len(where) < MOST_PLACE else where
                if name in SHOWN_AS_JSON:
                    found.other.append(checked_text(to_json(item, here), here))
                else:
                    read_tree(found, item, here)
    elif value is not None and not isinstance(value, bool):
        found.other.append(to_json(value, where))


def shown_name(name: str) -> str:
    """Return the name of a type or role, for a message; its length alone where it is none, but text in the wrong place."""
    return repr(name) if re.fullmatch(r"[A-Za-z0-9_.:-]{1,60}", name) else f"a text of {len(name)} characters"


def unknown_type(where: str, what: str, kind: str, known: Iterable[str]) -> InvalidInputError:
    """Return the error for a type that is not known here: what it costs and needs cannot be told, so it is not passed over."""
    return InvalidInputError(
        f"{where}['type']: unknown {what} type {shown_name(kind)}: what it costs and needs cannot be told; leave it out, or give its "
        f"text as type 'text'; known: {', '.join(sorted(known))}"
    )


def is_message(value: object) -> bool:
    """Return whether a value is a message or an item: it has a role or a type, or nothing else that is known."""
    fields = as_fields(value)
    if fields is None or "messages" in fields:
        return False
    return "role" in fields or "type" in fields or not ("input" in fields or "prompt" in fields)


def read_turns(found: Found, turns: Sequence[object], where: str) -> None:
    """Read a conversation into `found`, turn by turn."""
    for number, turn in enumerate(turns):
        here = f"{where}[{number}]"
        fields = as_fields(turn)
        if fields is None:
            raise InvalidInputError(
                f"{here}: expected a message such as {{'role': 'user', 'content': ...}}, got {kind_of(turn)}{_of_sdk(turn)}"
            )
        kind = fields.get("type")
        # a message may carry a type, its own or one unknown here; the types of ITEMS make an item of Responses
        if kind is None or (isinstance(kind, str) and (kind == "message" or (kind not in ITEMS and "role" in fields))):
            _read_message(found, fields, here, turn)
        else:
            _read_item(found, fields, kind, here)


def _of_sdk(turn: object) -> str:
    """Return what to do about an object of an SDK that is no message; "" for plain JSON types."""
    if isinstance(turn, (Mapping, str, list, tuple, int, float, type(None))):
        return ""
    return f" in a {type(turn).__name__}; give an SDK's message itself, not what holds it"


def _read_message(found: Found, message: Mapping[str, Any], where: str, turn: object) -> None:
    role = message.get("role")
    if not isinstance(role, str):
        raise InvalidInputError(
            f"{where}['role']: expected a string such as 'user', got {kind_of(role)}{_of_sdk(turn)}"
        )
    if role not in ROLES:
        raise InvalidInputError(f"{where}['role']: expected one of {', '.join(ROLES)}, got {shown_name(role)}")
    content = message.get("content")
    said = is_there(content)
    if not said and is_there(message.get("parts")):  # of other APIs: unread it would be billed to nobody
        raise InvalidInputError(
            f"{where}['parts']: expected what is said in 'content', got it in 'parts'; give it there"
        )
    if role in ("tool", "function") or (role == "user" and said):
        found.asked = True
    if role in ("tool", "function"):
        found.need("tools", f"role {role}")
    if role == "user":
        parts: list[str] = []
        read_content(found, content, f"{where}['content']", parts)
        if parts:
            found.user.append(parts[0] if len(parts) == 1 else BETWEEN.join(parts))
    else:
        read_content(found, content, f"{where}['content']", found.other)
    if (
        len(message) == 2 and "content" in message
    ):  # a role and its content, as most messages are: nothing else is looked for
        return
    for name in ("tool_calls", "function_call"):
        if is_there(message.get(name)):
            found.need("tools", name)
            read_tree(found, message[name], f"{where}[{name!r}]")
    if message.get("refusal") is not None:
        found.other.append(checked_text(message["refusal"], f"{where}['refusal']"))
    if message.get("audio") is not None:  # an answer that was spoken, by its id
        found.media("audio")
    reasoning = next((name for name in REASONINGS if is_there(message.get(name))), None)
    if reasoning is not None:
        read_tree(found, message[reasoning], f"{where}[{reasoning!r}]")


def _read_item(found: Found, item: Mapping[str, Any], kind: object, where: str) -> None:
    if not isinstance(kind, str):
        raise InvalidInputError(f"{where}['type']: expected a string such as 'message', got {kind_of(kind)}")
    if kind in CALLS or kind in OUTPUTS:
        found.need("tools", kind)
        if kind in OUTPUTS:
            found.asked = True
        if kind in ("function_call_output", "custom_tool_call_output"):
            read_content(found, item.get("output"), f"{where}['output']", found.other)
        else:
            read_tree(found, item, where)
    elif kind in REASONING:
        read_tree(found, item, where)
    elif kind in MEDIA and kind in ITEMS:
        found.media(kind)
    elif kind == "item_reference":
        found.uncountable.append(kind)
        found.asked = True
    elif kind not in WITHOUT_TEXT:
        if kind in PARTS:
            raise InvalidInputError(
                f"{where}: expected a message, got a part of type {kind!r}; put it into a message's content"
            )
        raise unknown_type(where, "item", kind, ITEMS)
