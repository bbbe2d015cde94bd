"""A `RefusedError` ends a request with a status and a message that its client can act on."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ipr_engine.errors import DeadlineError, InvalidInputError, IprError, NotServingError, OverloadError, RowError
from ipr_engine.request.wrong_control import WrongControlError

CLIENT_LEFT = 499
"""The status by which a request is counted whose client left first; no reply has it."""
_PLACE = re.compile(r"(?:x-|(?:metadata\.)?ipr\.|metadata\.)?[\w-]*")  # without the part of its value


class RefusedError(Exception):
    """A `RefusedError` is an error of one HTTP request.

    Attributes:
        status: of HTTP. message: what is wrong and what to do; it holds no text of a prompt and no key.
        param: the control or field that is wrong. headers: of the reply.
        why: what a log tells: fixed words, and names of the config and the bundle; nothing that the request made up.
    """

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        why: str | None = None,
    ) -> None:
        """Keep what is told. why: None where the message itself repeats nothing of the request."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = dict(headers or {})
        self.why = message if why is None else why


class ClientGoneError(Exception):
    """The client closed its connection: nobody waits for an answer."""


class ReplyCutError(Exception):
    """A reply broke off after it had begun: its connection ends, so that its client sees it."""


def refused_as(error: IprError) -> RefusedError:
    """Return how a request ends whose decision failed."""
    message = str(error)
    if isinstance(error, WrongControlError):
        return RefusedError(403 if error.forbidden else 400, message, error.control, why=_why_wrong(error))
    if isinstance(error, InvalidInputError):
        name, colon, _ = message.partition(":")
        why = "prompt: cannot be decided" if message.startswith("prompt") else "the request cannot be decided"
        return RefusedError(400, message, name if colon and name.replace("_", "").isalnum() else None, why=why)
    if isinstance(error, RowError):
        return RefusedError(400, f"prompt: could not be decided: {', '.join(error.reasons)}", "prompt")
    if isinstance(error, OverloadError):
        return RefusedError(503, message, headers={"retry-after": "1"})
    if isinstance(error, DeadlineError):
        late = f"no decision came within {error.budget_us:g} microseconds, and no fallback could answer"
        return RefusedError(504, f"{late}; ask again, or see budget_us and fallback of server.service in the config")
    if isinstance(error, NotServingError):
        return RefusedError(503, "the server is starting or stopping", headers={"retry-after": "1"})
    return RefusedError(503, f"no decision: {type(error).__name__}", headers={"retry-after": "1"})


def _why_wrong(error: WrongControlError) -> str:
    """Return what a log tells of a wrong control: where it stands, if it is one, and no value."""
    if not error.known:
        return "a control is not known"
    places = (_PLACE.match(place) for place in error.control.split(" and "))
    if error.forbidden:
        what = "may not be set by this key"
    elif error.why.startswith("nobody is left"):
        what = "leaves nobody who could answer"
    elif error.why.startswith("concerns a choice"):
        what = "stands beside a candidate that is named"
    else:
        what = "is wrong"
    return f"{' and '.join(place.group() for place in places if place)}: {what}"
