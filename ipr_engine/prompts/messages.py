"""This module reads the turns of a conversation: chat messages, and the items that OpenAI Responses has beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.objects import as_fields, kind_of
from ipr_engine.prompts.parsed import checked_text
from ipr_engine.prompts.parts import (
    MEDIA,
    PARTS,
    REASONING,
    Found,
    is_there,
    read_content,
    read_tree,
    shown_name,
    unknown_type,
)

ROLES = ("system", "developer", "user", "assistant", "tool", "function", "model", "critic", "discriminator", "unknown")
CALLS = (
    "function_call",
    "custom_tool_call",
    "file_search_call",
    "computer_call",
    "web_search_call",
    "tool_search_call",
    "code_interpreter_call",
    "local_shell_call",
    "shell_call",
    "apply_patch_call",
    "mcp_call",
    "mcp_list_tools",
    "mcp_approval_request",
    "additional_tools",
    "program",
)
OUTPUTS = (
    "function_call_output",
    "custom_tool_call_output",
    "computer_call_output",
    "tool_search_output",
    "local_shell_call_output",
    "shell_call_output",
    "apply_patch_call_output",
    "mcp_approval_response",
    "program_output",
)
WITHOUT_TEXT = ("compaction_trigger", "configuration_update")
ITEMS = ("message", *CALLS, *OUTPUTS, *REASONING, *WITHOUT_TEXT, "image_generation_call", "item_reference")
# The same reasoning under the names that servers give it: the first that is there is read.
REASONINGS = ("reasoning_details", "thinking_blocks", "reasoning_content", "reasoning")


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
    if not is_there(content) and is_there(message.get("parts")):  # of other APIs: unread it would be billed to nobody
        raise InvalidInputError(
            f"{where}['parts']: expected what is said in 'content', got it in 'parts'; give it there"
        )
    if role in ("tool", "function") or (role == "user" and is_there(content)):
        found.asked = True
    if role in ("tool", "function"):
        found.need("tools", f"role {role}")
    read_content(found, content, f"{where}['content']", found.user if role == "user" else found.other)
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
