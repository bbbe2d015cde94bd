"""SDK objects are read as plain fields: pydantic models, dataclasses, whatever has to_dict, or attributes alone.

The tables below say what each type of part and item is: a text, media, a tool's call or output, or nothing that is billed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from ipr_engine.errors import InvalidInputError

_PLAIN = (str, bytes, bytearray, list, tuple, set, frozenset, int, float, bool, type(None), type)


def as_fields(value: object) -> Mapping[str, Any] | None:
    """Return the fields of a mapping or of an SDK's object, one level deep; None for anything else.

    An object without fields of its own that can be listed counts where it has a text `role` or `type`, or holds a
    conversation as `messages` or `input`.
    """
    if isinstance(value, dict):  # mostly so: first, and as it is
        return value
    if isinstance(value, _PLAIN):
        return None
    try:
        return dict(value) if isinstance(value, Mapping) else _fields_of(value)
    except Exception:  # of anyone's property, mapping or to_dict: an object that cannot be read is none of ours
        return None


def _fields_of(value: Any) -> Mapping[str, Any] | None:
    if hasattr(
        type(value), "model_fields"
    ):  # pydantic: fields and extra ones, as they are, without a serialiser's warnings
        return dict(value)
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    for dump in ("model_dump", "to_dict"):
        if callable(getattr(value, dump, None)):
            found = getattr(value, dump)()
            return found if isinstance(found, Mapping) else None
    stated = isinstance(getattr(value, "role", None), str) or isinstance(getattr(value, "type", None), str)
    if stated or isinstance(getattr(value, "messages", None), (list, tuple)) or _has_input(value):
        return dict(_attributes(value))
    return None


def _has_input(value: object) -> bool:
    return isinstance(getattr(value, "input", None), (str, list, tuple))


def _attributes(value: object) -> Iterator[tuple[str, Any]]:
    for name in dir(value):
        if not name.startswith("_"):
            attribute = getattr(value, name, None)  # not vars(): slots and properties count too
            if not callable(attribute):
                yield name, attribute


def to_json(value: object, where: str) -> str:
    """Return a value as JSON text, SDK objects in it as their fields; a text as it is."""
    if isinstance(value, str):
        return value
    problem = ""
    try:
        return json.dumps(value, ensure_ascii=False, default=as_json)
    except (TypeError, ValueError) as error:
        problem = str(error) if isinstance(error, _NotJson) else type(error).__name__
    raise InvalidInputError(f"{where}: expected what JSON can hold, got {kind_of(value)} ({problem})")


class _NotJson(TypeError):
    pass


def as_json(value: object) -> Mapping[str, Any]:
    """Serve json.dumps as its `default`: an SDK's object becomes its fields."""
    found = as_fields(value)
    if found is None:
        raise _NotJson(f"{type(value).__name__} in it")
    return dict(found)


def kind_of(value: object) -> str:
    """Return what a value is, for a message: its type, never its content."""
    if isinstance(value, (list, tuple)):
        return (
            f"an empty {type(value).__name__}" if not value else f"{type(value).__name__} of {type(value[0]).__name__}"
        )
    return "None" if value is None else type(value).__name__


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
SHOWN_AS_JSON = frozenset(
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
NO_TEXT = frozenset(
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
