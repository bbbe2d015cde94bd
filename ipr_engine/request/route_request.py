"""The prompts of one call with all that its caller says of them; the walk in loaded_bundle.py takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.prompts import is_one_prompt
from ipr_engine.request.options import REQUEST_OPTIONS


class RouteRequest:
    """One call: its prompts, the policy that decides them, and what the caller gives in place of what would be counted or predicted.

    Attributes:
        prompts: one prompt or a list of them, as the caller gave them.
        policy: compiled for the bundle that decides.
        given: name -> value of the `RequestOptions` that are not None.
        on_error: "raise" or "status", as of `Engine.route_many`.
    """

    __slots__ = ("given", "on_error", "policy", "prompts")

    def __init__(
        self, prompts: Any, policy: Policy, given: Mapping[str, object] | None = None, on_error: Any = "raise"
    ) -> None:
        """given: options of the call; those of the policy are passed over."""
        check_on_error(on_error)
        self.prompts = prompts
        self.policy = policy
        self.given = {} if not given else {n: v for n in REQUEST_OPTIONS if (v := given.get(n)) is not None}
        self.on_error = on_error

    @property
    def single(self) -> bool:
        """Whether this is one prompt, and not a list of them."""
        return is_one_prompt(self.prompts)

    @property
    def plain_texts(self) -> list[str] | None:
        """The prompts where they are texts and nothing is given of them; else None."""
        if self.given:
            return None
        texts = [self.prompts] if type(self.prompts) is str else self.prompts
        return texts if type(texts) is list and all(type(text) is str for text in texts) else None


def check_on_error(on_error: object) -> None:
    """Refuse what is neither "raise" nor "status"."""
    if on_error not in ("raise", "status"):
        raise InvalidInputError(f"on_error: expected 'raise' or 'status', got {on_error!r}")
