"""A `RefusedError` ends a request with a status and a message that its client can act on."""

from __future__ import annotations

from collections.abc import Mapping

from ipr_engine.errors import DeadlineError, InvalidInputError, IprError, NotServingError, OverloadError, RowError
from ipr_engine.request.wrong_control import WrongControlError


class RefusedError(Exception):
    """A `RefusedError` is an error of one HTTP request.

    Attributes:
        status: of HTTP. message: what is wrong and what to do; it holds no text of a prompt and no key.
        param: the control or field that is wrong. headers: of the reply.
    """

    def __init__(
        self, status: int, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.headers = dict(headers or {})


class ClientGoneError(Exception):
    """The client closed its connection: nobody waits for an answer."""


class ReplyCutError(Exception):
    """A reply broke off after it had begun: its connection ends, so that its client sees it."""


def refused_as(error: IprError) -> RefusedError:
    """Return how a request ends whose decision failed."""
    message = str(error)
    if isinstance(error, WrongControlError):
        return RefusedError(403 if error.forbidden else 400, message, error.control)
    if isinstance(error, InvalidInputError):
        name, colon, _ = message.partition(":")
        return RefusedError(400, message, name if colon and name.replace("_", "").isalnum() else None)
    if isinstance(error, RowError):
        return RefusedError(400, message)
    if isinstance(error, OverloadError):
        return RefusedError(503, message, headers={"retry-after": "1"})
    if isinstance(error, DeadlineError):
        return RefusedError(504, message)
    if isinstance(error, NotServingError):
        return RefusedError(503, "the server is starting or stopping", headers={"retry-after": "1"})
    return RefusedError(503, f"no decision: {type(error).__name__}", headers={"retry-after": "1"})
