"""The type of a part decides what of it is text, which feature it needs, and whether its tokens can be counted.

The types are those of OpenAI chat completions, OpenAI Responses and Anthropic Messages, with what common servers add.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.objects import as_fields, kind_of, to_json
from ipr_engine.prompts.parsed import checked_text

# Parts that are one text: type -> its field.
TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
    "thinking": "thinking",
    "redacted_thinking": "data",
    "summary_text": "text",
    "reasoning_text": "text",
    "tool_reference": "tool_name",
}
# Parts that only a candidate with this feature reads, and whose tokens cannot be counted here.
MEDIA = {
    **dict.fromkeys(("image_url", "image", "input_image", "computer_screenshot", "image_generation_call"), "vision"),
    **dict.fromkeys(("input_audio", "audio_url", "audio", "output_audio"), "audio"),
    **dict.fromkeys(("file", "input_file", "container_upload"), "files"),
    **dict.fromkeys(("video_url", "video", "input_video"), "video"),
}
# Parts that are texts in fields of their own, all billed.
REASONING = ("reasoning", "compaction")
ANTHROPIC_TOOLS = (
    "tool_use",
    "server_tool_use",
    "mcp_tool_use",
    "mcp_tool_result",
    "mcp_tool_listing",
    "web_search_tool_result",
    "web_fetch_tool_result",
    "code_execution_tool_result",
    "bash_code_execution_tool_result",
    "text_editor_code_execution_tool_result",
    "tool_search_tool_result",
    "advisor_tool_result",
    "tool_addition",
    "tool_removal",
)
STRUCTURED_PARTS = (*REASONING, *ANTHROPIC_TOOLS, "fallback")
PARTS = (*TEXTS, *MEDIA, "document", "search_result", "tool_result", *STRUCTURED_PARTS)

# Fields that a model is shown as JSON, keys and all.
_AS_JSON = frozenset(
    (
        "input",
        "arguments",
        "tools",
        "tool",
        "action",
        "actions",
        "operation",
        "parameters",
        "input_schema",
        "tool_changes",
    )
)
# Fields that are no text of the conversation: names of things, states, what a client keeps for itself.
_NO_TEXT = frozenset(
    (
        "type",
        "id",
        "call_id",
        "tool_use_id",
        "status",
        "role",
        "cache_control",
        "caller",
        "index",
        "signature",
        "fingerprint",
        "container_id",
        "approval_request_id",
        "citations",
        "annotations",
        "logprobs",
        "transformations",
        "phase",
        "prompt_cache_breakpoint",
        "execution",
        "environment",
        "created_by",
        "acknowledged_safety_checks",
        "pending_safety_checks",
        "format",
        "file_id",
        "page_age",
        "error_code",
    )
)


class Found:
    """A `Found` collects what a request holds while it is read.

    Attributes:
        user, other: texts of the user, and every other one of the conversation.
        definitions: texts that are no part of the conversation: tools, schemas.
        uncountable, features: as of ParsedRequest.
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
                if name in _NO_TEXT or item is None:
                    continue
                here = f"{where}[{shown_name(str(name))}]"
                if name in _AS_JSON:
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
