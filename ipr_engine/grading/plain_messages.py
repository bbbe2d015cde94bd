"""`plain_messages` gives the messages of a request as roles and texts, which is what chat templates and judges read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipr_engine.grading.grade import UngradableError


def plain_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the messages of a request, each with one text as its content; other keys stay.

    Raises:
        UngradableError: there are none, or one has a part that is no text.
    """
    messages = body.get("messages")
    if not isinstance(messages, (list, tuple)) or not messages:
        raise UngradableError("the request has no messages")
    return [_plain(message) for message in messages]


def _plain(message: Any) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise UngradableError("a message is no object")
    content = message.get("content")
    if isinstance(content, (list, tuple)):
        if not all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
            raise UngradableError("a message has parts that are no text")
        content = "".join(str(part.get("text", "")) for part in content)
    return {**message, "content": content or ""}
