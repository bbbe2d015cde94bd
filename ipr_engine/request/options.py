"""The keyword arguments of a call that routes or decides, defined once for every method that takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy.typing as npt

from ipr_engine.policy.policy_spec import PolicyOptions
from ipr_engine.request.cached_tokens import CachedTokens
from ipr_engine.request.tokens_in import TokensIn


class RequestOptions(TypedDict, total=False):
    """What a caller gives of its prompts, in place of what would be counted or predicted.

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
    """

    billed_tokens: int | Sequence[int | None] | npt.NDArray[Any] | None
    tokens_out: npt.ArrayLike | None
    extra_usd: npt.ArrayLike | None
    cached_tokens: CachedTokens | None
    tokens_in: TokensIn | None


class RouteOptions(RequestOptions, PolicyOptions, total=False):
    """The keyword arguments of `Engine.route` and of every call beside it: what is given of the prompts, and the policy's options.

    on_error: "raise" when a prompt is bad or a row cannot be decided, or "status" to return each row with its status.
    """

    on_error: str | None


REQUEST_OPTIONS = tuple(RequestOptions.__annotations__)
NO_POLICY_OPTIONS = frozenset((*REQUEST_OPTIONS, "on_error"))


def policy_options(options: Mapping[str, object]) -> dict[str, object]:
    """The policy's own of a call's options, and what nobody knows, for the policy to refuse."""
    return {name: value for name, value in options.items() if name not in NO_POLICY_OPTIONS}
