"""`RouteOptions` defines the keyword arguments of a call once; `RouteRequest` holds its prompts and what its caller gives of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import PolicyOptions
from ipr_engine.prompts import is_one_prompt
from ipr_engine.request.arguments import CachedTokens, TokensIn


class RequestOptions(TypedDict, total=False):
    """`RequestOptions` are what a caller gives of its prompts, in place of what would be counted or predicted.

    Each is for all prompts of the call or one a prompt; None, or left out, where nothing is given.

    billed_tokens: tokens of the whole request by the bundle's tokenizer, where it cannot know them (images, say). Each candidate
        is billed its `token_ratio` times as many. A provider's own count goes into `tokens_in`.
    tokens_out: expected output tokens of one answer, scalar, (models,) or (batch, models); else predicted. A request's "n"
        answers are billed.
    extra_usd: scalar, (models,) or (batch, models), added to the cost, of either sign: switching, say.
    cached_tokens: how much of the prompt each candidate's provider has in its cache, by its own count: billed at the price of
        cached input. Name -> tokens, or name -> (tokens, seconds since the cache was last used), which count as none once the
        candidate's `cache_ttl_s` has passed (not known: never); who is not named has none. Or a scalar, (models,) or
        (batch, models). Fewer than `cache_min_tokens` count as none, and no more than the prompt has.
    tokens_in: input tokens of the whole request by each candidate's own count, which its provider's usage tells, or its
        tokenizer: they decide costs, price tiers, cached input and context windows as they are. Name -> tokens; who is not named
        keeps its estimate. Or a scalar, (models,) or (batch, models), for every candidate. Finite, >= 0.
    task: what the prompt is for, as the caller knows it: the app, template or endpoint that it comes from. A bundle that was trained
        with tasks (`ipr train --task-column`) decides by it; one that it does not know, or a bundle without tasks, decides as
        without one, which `Decision.task_known` tells. A name of 1 to 200 characters for all, or a list, one a prompt.
    """

    billed_tokens: int | Sequence[int | None] | npt.NDArray[Any] | None
    tokens_out: npt.ArrayLike | None
    extra_usd: npt.ArrayLike | None
    cached_tokens: CachedTokens | None
    tokens_in: TokensIn | None
    task: str | Sequence[str | None] | None


class RouteOptions(RequestOptions, PolicyOptions, total=False):
    """`RouteOptions` are the keyword arguments of `Engine.route` and every call beside it: those of the prompts, and the policy's.

    on_error: "raise" when a prompt is bad or a row cannot be decided, or "status" to return each row with its status.
    """

    on_error: str | None


REQUEST_OPTIONS = tuple(RequestOptions.__annotations__)
NO_POLICY_OPTIONS = frozenset((*REQUEST_OPTIONS, "on_error"))


def policy_options(options: Mapping[str, object]) -> Mapping[str, object]:
    """Return a call's options without those of its prompts: the policy's own, and unknown ones, which the policy refuses."""
    if NO_POLICY_OPTIONS.isdisjoint(options):  # mostly so: no copy
        return options
    return {name: value for name, value in options.items() if name not in NO_POLICY_OPTIONS}


class RouteRequest:
    """A `RouteRequest` is one call: its prompts, the policy that decides them, and what the caller gives of them.

    Attributes:
        prompts: one prompt or a list of them, as the caller gave them.
        policy: compiled for the bundle that decides.
        given: name -> value of the `RequestOptions` that are not None.
        on_error: "raise" or "status": see `Engine.route_many`.
    """

    __slots__ = ("given", "on_error", "policy", "prompts")

    def __init__(
        self, prompts: Any, policy: Policy, given: Mapping[str, object] | None = None, on_error: Any = "raise"
    ) -> None:
        """Check on_error and keep the options of the prompts. given: options of the call; those of the policy are passed over."""
        check_on_error(on_error)
        self.prompts = prompts
        self.policy = policy
        self.given = {} if not given else {n: v for n in REQUEST_OPTIONS if (v := given.get(n)) is not None}
        self.on_error = on_error

    @property
    def single(self) -> bool:
        """Return whether this is one prompt, and not a list of them."""
        return is_one_prompt(self.prompts)

    @property
    def plain_texts(self) -> list[str] | None:
        """Return the prompts where they are texts and nothing is given of them; else None."""
        if self.given:
            return None
        texts = [self.prompts] if type(self.prompts) is str else self.prompts
        return texts if type(texts) is list and {*map(type, texts)} <= {str} else None


def check_on_error(on_error: object) -> None:
    """Refuse what is neither "raise" nor "status"."""
    if on_error not in ("raise", "status"):
        raise InvalidInputError(f"on_error: expected 'raise' or 'status', got {on_error!r}")
