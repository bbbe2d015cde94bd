"""A `WrongControlError` refuses a request for what it says of its own decision."""

from __future__ import annotations

from typing import Any

from ipr_engine.errors import InvalidInputError


class WrongControlError(InvalidInputError):
    """A control of a request is wrong: the request is to be refused.

    Attributes:
        control: its name as the request has it: a header, or a place in the body.
        forbidden: whether it is a control, and not one that this request may set. known: whether it is one at all.
    """

    def __init__(self, control: str, why: str, *, forbidden: bool = False, known: bool = True) -> None:
        self.control, self.why, self.forbidden, self.known = control, why, forbidden, known
        super().__init__(f"{control}: {why}")

    # Exceptions are pickled by their message alone: what another process gets is made of the arguments instead.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.control, self.why), {"forbidden": self.forbidden, "known": self.known}
