"""The seat in LiteLLM's proxy: `IprClassifier` decides the requests of one alias, `IprPlugin` those of ordinary model groups.

A module beside the proxy's config makes one, and the config names it twice (docs/litellm.md):

    # my_ipr.py
    from ipr_engine.integrations.litellm import IprClassifier
    auto = IprClassifier(tiers={"small": "gpt-4o-mini-2024-07-18", "big": "gpt-4o-2024-08-06"}, tau=0.2)

LiteLLM executes that module once for each mention, so its instances are several. What they know of a request they share by a
variable of the request's context; engines are shared by path.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Unpack

from ipr_engine._extras import need
from ipr_engine.decision.decision import Decision
from ipr_engine.errors import IprError
from ipr_engine.integrations.seat import Answer, Seat, told
from ipr_engine.integrations.shared_engine import BundleSource
from ipr_engine.policy.policy_spec import POLICY_CONTROLS, PolicyOptions
from ipr_engine.prompts.parsed import ASSUMED_TOKENS
from ipr_engine.request.wrong_control import WrongControlError

_CustomLogger: Any = need("litellm.integrations.custom_logger", "the seat in LiteLLM", package="litellm").CustomLogger
_log = logging.getLogger(__name__)

# LiteLLM's call types whose request asks for a text; others, embeddings say, are never decided
TEXT_CALLS = (
    "completion",
    "acompletion",
    "text_completion",
    "atext_completion",
    "responses",
    "aresponses",
    "anthropic_messages",
)


@dataclass(slots=True)
class _Asked:
    """An `_Asked` is one request on its way through the proxy: its body, and what was decided, among whom, or why nothing was."""

    body: Mapping[str, Any]
    answer: Answer | None = None
    among: frozenset[str] | None = None
    error: BaseException | None = None


def _requests_metric() -> Any:
    """Return the counter that LiteLLM's /metrics shows beside its own; None where prometheus_client is missing."""
    try:
        client = importlib.import_module("prometheus_client")
    except ImportError:
        return None
    about = "Requests by what became of their routing decision; detail: the candidate, or the error's class"
    return client.Counter("ipr_litellm_requests", about, ["outcome", "detail"])


_requests = _requests_metric()


def _observe(outcome: str, detail: str) -> None:
    if _requests is not None:
        _requests.labels(outcome, detail).inc()


_asked: ContextVar[_Asked | None] = ContextVar("ipr_asked", default=None)


class LiteLLMSeat(_CustomLogger):  # type: ignore[misc]  # a class of LiteLLM's, which mypy does not see
    """A `LiteLLMSeat` is what both seats are as a callback: it sees whole requests, refuses wrong controls, tells decisions by headers.

    Attributes:
        seat: the engine, the policy and the counts.
    """

    def __init__(self, seat: Seat, only: str | Collection[str] | None) -> None:
        """Decide with `seat`. only: the model names it is for; None: all."""
        super().__init__()
        self.seat = seat
        self._only = None if only is None else frozenset([only] if isinstance(only, str) else only)

    def __init_subclass__(cls, **options: Any) -> None:
        """Give the class the hooks as its own: LiteLLM calls no inherited one."""
        super().__init_subclass__(**options)
        for hook in ("async_pre_call_hook", "async_post_call_response_headers_hook"):
            setattr(cls, hook, getattr(cls, hook))

    def __deepcopy__(self, memo: dict[int, Any]) -> LiteLLMSeat:
        """Return itself: LiteLLM copies its config with the plugins in it, and an engine is shared, not copied."""
        return self

    async def async_pre_call_hook(
        self, user_api_key_dict: Any, cache: Any, data: dict[str, Any], call_type: str
    ) -> dict[str, Any]:
        """Keep the request for who decides it, and refuse a wrong control with HTTP 400."""
        if call_type in TEXT_CALLS:
            known = _asked.get()
            if known is None or known.body is not data:
                _asked.set(_Asked(data))
            if self._only is None or data.get("model") in self._only:
                try:
                    self.seat.policy(*_controls_of(data))
                except WrongControlError as error:
                    self.seat.count("refused")
                    raise _refusal(error) from None
                except (IprError, OSError):  # no bundle, say: the decision tells, and the request goes on
                    _log.debug("controls are not checked against the bundle", exc_info=True)
        return data

    async def async_post_call_response_headers_hook(
        self, data: Any, user_api_key_dict: Any, response: Any, *_: Any, **__: Any
    ) -> dict[str, str] | None:
        """Return the headers of the response: the decision, or x-ipr-error where there was none."""
        asked = _asked.get()
        if asked is None:
            return None
        if asked.answer is not None:
            return asked.answer.headers()
        return None if asked.error is None else {"x-ipr-error": told(asked.error)}

    async def _decide(self, context: Any, among: frozenset[str] | None = None) -> Decision:
        """Decide the request of a routing context: the kept one where this seat is a callback too, else what the context holds.

        among: the candidates that can serve it; None: all of the seat's. Decided among the same before, that decision holds.

        Raises:
            whatever keeps it from being decided; counted, logged and kept for the response's headers.
        """
        asked = _asked.get()
        if asked is None:
            asked = _Asked(
                {"messages": context.raw_messages or context.structured_messages, "metadata": context.metadata}
            )
        elif among is not None and asked.answer is not None and asked.among == among:
            return asked.answer.decision
        try:
            policy = self.seat.policy(*_controls_of(asked.body), among)
            asked.answer, asked.among = await self.seat.decide(asked.body, policy), among
        except (Exception, asyncio.CancelledError) as error:  # cancelled: LiteLLM's time for a classifier is over
            self._undecided(error, asked)
            raise
        return asked.answer.decision

    def _undecided(self, error: BaseException, asked: _Asked | None) -> None:
        """Count, log and keep why a request got no decision."""
        if asked is not None:
            asked.answer, asked.error = None, error
        self.seat.failed(error)


class IprClassifier(LiteLLMSeat):
    """An `IprClassifier` is LiteLLM's custom classifier of one alias: its tiers are candidates.

    Where it raises, LiteLLM answers by the alias's `fallback_tier`; the response says so in x-ipr-error.
    """

    def __init__(
        self,
        tiers: Mapping[str, str] | Collection[str] | None = None,
        *,
        bundle: BundleSource = None,
        watch_s: float | None = None,
        alias: str | Collection[str] | None = None,
        controls: Sequence[str] = POLICY_CONTROLS,
        assumed_tokens: int | None = ASSUMED_TOKENS,
        **policy: Unpack[PolicyOptions],
    ) -> None:
        """Load the bundle and compile the policy.

        Args:
            tiers: tier -> candidate, or names that are both; None: every candidate of the bundle is a tier of its name.
            bundle: a bundle root or folder, None for the embedded default; or an Engine or AsyncEngine of your own.
            watch_s: seconds between two looks at the root's CURRENT, to serve what it names; None: never.
            alias: the model name, or names, whose controls it checks; None: every request's. Say it where there are several seats.
            controls: options of a policy that a request may set; all but prices and performance.
            assumed_tokens: billed for each part that cannot be counted, an image, say; None: such a request is not decided.
            policy: the options of `Engine.policy`; tau is 0.1 where there is no aim.
        Raises:
            InvalidInputError: an argument is not as above: the proxy does not start.
        """
        super().__init__(
            Seat(
                tiers,
                policy,
                bundle=bundle,
                watch_s=watch_s,
                controls=controls,
                assumed_tokens=assumed_tokens,
                observe=_observe,
            ),
            alias,
        )

    async def classify(self, context: Any) -> str | None:
        """Return the tier of the candidate that is chosen for the request."""
        decision = await self._decide(context)
        return next((tier for tier, candidate in self.seat.names().items() if candidate == decision.model), None)


class IprPlugin(LiteLLMSeat):
    """An `IprPlugin` narrows the deployments of ordinary model groups to the candidate that is chosen.

    The group's retries go down the decision's ranking. Unchanged pass: groups with a deployment that is no known candidate's,
    groups of one candidate, requests without messages, and whatever could not be decided.
    """

    def __init__(
        self,
        models: Mapping[str, str] | None = None,
        *,
        groups: str | Collection[str] | None = None,
        bundle: BundleSource = None,
        watch_s: float | None = None,
        controls: Sequence[str] = POLICY_CONTROLS,
        assumed_tokens: int | None = ASSUMED_TOKENS,
        **policy: Unpack[PolicyOptions],
    ) -> None:
        """Load the bundle and compile the policy.

        Args:
            models: `litellm_params.model` -> candidate, such as "openai/gpt-4o-mini" -> "gpt-4o-mini-2024-07-18"; None: what
                follows the provider's name is the candidate's.
            groups: the model groups that are decided; None: every one whose deployments are all candidates'.
            bundle, watch_s, controls, assumed_tokens, policy: those of `IprClassifier`.
        Raises:
            InvalidInputError: an argument is not as above: the proxy does not start.
        """
        super().__init__(
            Seat(
                models,
                policy,
                bundle=bundle,
                watch_s=watch_s,
                controls=controls,
                assumed_tokens=assumed_tokens,
                observe=_observe,
                called="models",
            ),
            groups,
        )

    async def run(self, context: Any) -> Any:
        """Narrow `context.candidate_models` to those of one candidate, or leave them; the list is never empty."""
        group = context.metadata.get("model_group")
        if (self._only is not None and group not in self._only) or not (
            context.raw_messages or context.structured_messages
        ):
            return self._passed(context)
        try:
            served = self._served(context.candidate_models)
        except (IprError, OSError) as error:  # no bundle says who is a candidate
            self._undecided(error, _asked.get())
            return context
        if served is None:
            return self._passed(context)
        try:
            decision = await self._decide(context, frozenset(served))
        except WrongControlError as error:
            raise _refusal(error) from None
        except Exception:  # counted, logged and told by `_decide`
            return context
        failed = sum(
            1 for one in context.metadata.get("previous_models") or () if one.get("model_group", group) == group
        )
        chosen = decision.ranked[min(failed, len(decision.ranked) - 1)]
        context.candidate_models = served[chosen]
        context.signals["ipr"] = {"candidate": chosen, "ranked": list(decision.ranked), "cause": decision.cause}
        return context

    def _served(self, models: Sequence[str]) -> dict[str, list[str]] | None:
        """Return candidate -> deployments' models, where they are all known and of more than one candidate; else None."""
        names = self.seat.names()
        served: dict[str, list[str]] = {}
        for model in models:
            candidate = names.get(model) or names.get(model.partition("/")[2])
            if candidate is None:
                return None
            served.setdefault(candidate, []).append(model)
        return served if len(served) > 1 else None

    def _passed(self, context: Any) -> Any:
        self.seat.count("passed")
        return context


def _controls_of(body: Mapping[str, Any]) -> tuple[object, object]:
    """Return the headers of a request and the object `ipr` of its metadata."""
    request = body.get("proxy_server_request") or {}
    metadata = body.get("metadata") or {}
    said = (request.get("body") or {}).get("metadata") or metadata
    headers = request.get("headers") or metadata.get("headers")
    return headers, said.get("ipr") if isinstance(said, Mapping) else None


def _refusal(error: WrongControlError) -> Exception:
    """Return LiteLLM's error of HTTP 400, which names the control."""
    refused = need("litellm.proxy._types", "the seat in LiteLLM's proxy", package="litellm").ProxyException
    made: Exception = refused(message=str(error), type="invalid_request_error", param=error.control, code=400)
    return made
