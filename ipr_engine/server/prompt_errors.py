"""`refused_prompt` tells what is wrong with a prompt by the fields of the request that its client sent."""

from __future__ import annotations

import re
from typing import Any

from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts import TURNS
from ipr_engine.server.decided import AskedRequest
from ipr_engine.server.refused import RefusedError, refused_as

WHOLE = "body"
"""What errors call a request where they concern more than one of its fields."""
_PLACE = re.compile(r"prompt((?:\[\d+\]|\['[\w.-]+'\])*)(?=[.:\[])")


def refused_prompt(error: InvalidInputError, question: AskedRequest, whole: str | None = None) -> RefusedError:
    """Return how a request ends whose prompt is wrong: `messages[0].content` in place of `prompt['messages'][0]['content']`.

    whole: what an error is about that names no field; None: the one field that holds the prompt, or the body.
    """
    if whole is None:
        body: Any = question.prompt
        is_one = bool(question.within) or sum(body.get(name) is not None for name in TURNS) == 1
        whole = said_in(question) if is_one else WHOLE
    refused, place = refused_as(error), _PLACE.match(str(error))
    if place is None:
        return refused
    parts = re.sub(r"\['([\w.-]+)'\]", r".\1", place.group(1))
    where = f"{question.within}{parts}".lstrip(".") or whole
    message = f"{where}{str(error)[place.end() :]}"
    return RefusedError(refused.status, message, None if where == WHOLE else where, why=refused.why)


def said_in(question: AskedRequest) -> str:
    """Return the field that holds what is decided on."""
    body: Any = question.prompt
    return question.within or next((name for name in TURNS if body.get(name) is not None), WHOLE)
