"""What a prompt is: a string, or chat messages. What of it is encoded, and what is only billed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, TypeGuard

from ipr_engine.errors import InvalidInputError

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = str | Sequence[Message]


# What a candidate must have to read a part of this type (OpenAI's and Anthropic's names).
PART_FEATURES = {"image_url": "vision", "image": "vision", "input_image": "vision", "input_audio": "audio"}


class PromptText(NamedTuple):
    """A prompt taken apart.

    Attributes:
        encoded: all user-role text parts in order, joined by blank lines; what the encoder sees.
        billed_only: every other text part (system, assistant, tool); tokenised for the bill alone.
        non_text: kinds of the parts whose tokens cannot be counted here ("image_url", ...).
    """

    encoded: str
    billed_only: tuple[str, ...] = ()
    non_text: tuple[str, ...] = ()


def is_messages(value: object) -> TypeGuard[Sequence[Message]]:
    return isinstance(value, (list, tuple)) and len(value) > 0 and all(isinstance(item, Mapping) for item in value)


def split_prompt(prompt: object, where: str = "prompt") -> PromptText:
    """Take one prompt apart; `where` names it in errors, e.g. "prompts[3]"."""
    if isinstance(prompt, str):
        return PromptText(prompt)
    if not is_messages(prompt):
        raise InvalidInputError(f"{where}: expected a string or a non-empty list of chat messages, got {_kind(prompt)}")
    encoded: list[str] = []
    billed_only: list[str] = []
    non_text: list[str] = []
    for number, message in enumerate(prompt):
        here = f"{where}[{number}]"
        role = message.get("role")
        if not isinstance(role, str):
            raise InvalidInputError(f"{here}['role']: expected a string such as 'user', got {_kind(role)}")
        texts = encoded if role == "user" else billed_only
        for part in _parts(message.get("content"), here):
            if isinstance(part, str):
                texts.append(part)
            else:
                non_text.append(part.kind)
    if not encoded:
        raise InvalidInputError(f"{where}: expected at least one user message with text, got none")
    return PromptText("\n\n".join(encoded), tuple(billed_only), tuple(non_text))


class _NonText(NamedTuple):
    kind: str


def _parts(content: object, here: str) -> list[str | _NonText]:
    if content is None:  # an assistant message that only calls tools
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, (list, tuple)):
        raise InvalidInputError(f"{here}['content']: expected a string or a list of parts, got {_kind(content)}")
    parts: list[str | _NonText] = []
    for number, part in enumerate(content):
        if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
            raise InvalidInputError(
                f"{here}['content'][{number}]: expected a part such as {{'type': 'text', 'text': ...}}, got {_kind(part)}"
            )
        if part["type"] != "text":
            parts.append(_NonText(part["type"]))
        elif isinstance(part.get("text"), str):
            parts.append(part["text"])
        else:
            raise InvalidInputError(
                f"{here}['content'][{number}]['text']: expected a string, got {_kind(part.get('text'))}"
            )
    return parts


def _kind(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return (
            f"an empty {type(value).__name__}" if not value else f"{type(value).__name__} of {type(value[0]).__name__}"
        )
    return "None" if value is None else type(value).__name__
