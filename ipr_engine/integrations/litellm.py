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
from ipr_engine.integrations.litellm_request import controls_in, routed, same_request, take_out_controls, tiers_of
from ipr_engine.integrations.seat import SEAT_CONTROLS, Answer, Said, Seat, told
from ipr_engine.integrations.shared_engine import BundleSource
from ipr_engine.policy.policy_spec import PolicyOptions
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
    """An `_Asked` is one request on its way through the proxy: its body, and what was decided, among whom, or why nothing was.

    Attributes:
        said: what it says of its decision.
        by: the seat that decided, which knows whose candidates deployments are.
    """

    body: Mapping[str, Any]
    said: Said
    answer: Answer | None = None
    by: LiteLLMSeat | None = None
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
        """Keep the request for who decides it, take its controls out of it, and refuse a wrong one with HTTP 400."""
        if call_type in TEXT_CALLS:
            asked = _asked.get()
            if asked is None or not same_request(asked.body, data):
                asked = _Asked(data, controls_in(data))
                _asked.set(asked)
            asked.body = data
            take_out_controls(data)
            if self._only is None or data.get("model") in self._only:
                try:
                    self.seat.task(asked.said)
                    self.seat.policy(asked.said)
                except WrongControlError as error:
                    self.seat.count("refused")
                    raise _refusal(error) from None
                except (IprError, OSError):  # no bundle, say: the decision tells, and the request goes on
                    _log.debug("controls are not checked against the bundle", exc_info=True)
        return data

    async def async_post_call_response_headers_hook(
        self, data: Any, user_api_key_dict: Any, response: Any, *_: Any, **__: Any
    ) -> dict[str, str] | None:
        """Return the headers of the response: who answers and why, or x-ipr-error where nothing was decided."""
        asked = _asked.get()
        if asked is None:
            return None
        if asked.answer is not None and asked.by is not None:
            # None: everybody failed, and no candidate answers
            return None if response is None else asked.answer.headers(asked.by.served_by(asked.answer, data))
        return None if asked.error is None else {"x-ipr-error": told(asked.error)}

    async def _decide(self, context: Any, among: frozenset[str] | None = None) -> Decision:
        """Decide the request of a routing context: the kept one where this seat is a callback too, else what the context holds.

        among: the candidates that can serve it; None: all of the seat's. Decided among the same before, that decision holds.

        Raises:
            whatever keeps it from being decided; counted, logged and kept for the response's headers.
        """
        asked = _asked.get()
        if asked is None:
            body = {"messages": context.raw_messages or context.structured_messages, "metadata": context.metadata}
            asked = _Asked(body, controls_in(body))
        elif among is not None and asked.answer is not None and asked.among == among:
            return asked.answer.decision
        try:
            task, policy = self.seat.task(asked.said), self.seat.policy(asked.said, among)
            asked.answer, asked.among, asked.by = await self.seat.decide(asked.body, policy, task), among, self
        except (Exception, asyncio.CancelledError) as error:  # cancelled: LiteLLM's time for a classifier is over
            self._undecided(error, asked)
            raise
        return asked.answer.decision

    def served_by(self, answer: Answer, data: Mapping[str, Any]) -> str | None:
        """Return the candidate that answers a decided request; None where it is none of the seat's."""
        raise NotImplementedError

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
        controls: Sequence[str] = SEAT_CONTROLS,
        assumed_tokens: int | None = ASSUMED_TOKENS,
        **policy: Unpack[PolicyOptions],
    ) -> None:
        """Load the bundle and compile the policy.

        Args:
            tiers: tier -> candidate, or names that are both; None: every candidate of the bundle is a tier of its name.
            bundle: a bundle root or folder, or an embedded bundle's name, None for the default; or an Engine or AsyncEngine of your own.
            watch_s: seconds between two looks at the root's CURRENT, to serve what it names; None: never.
            alias: the model name, or names, whose controls it checks; None: every request's. Say it where there are several seats.
            controls: options of a policy that a request may set, and "task"; all but prices and performance.
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

    def served_by(self, answer: Answer, data: Mapping[str, Any]) -> str | None:
        """Return the candidate whose tier has the model group that answers; LiteLLM falls back to groups, and raises tiers."""
        chosen, noted = answer.decision.model, routed(data)
        group = noted.get("deployment_model_name")
        tiers = {tier.casefold(): candidate for tier, candidate in self.seat.names().items()}
        found = [
            tiers.get(tier.casefold())
            for tier, groups in tiers_of(noted.get("original_model_group")).items()
            if group in groups
        ]
        return chosen if chosen in found else next(iter(found), None)


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
        controls: Sequence[str] = SEAT_CONTROLS,
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
            candidate = _candidate(names, model)
            if candidate is None:
                return None
            served.setdefault(candidate, []).append(model)
        return served if len(served) > 1 else None

    def served_by(self, answer: Answer, data: Mapping[str, Any]) -> str | None:
        """Return the candidate of the deployment that answers."""
        return _candidate(self.seat.names(), str(routed(data).get("deployment", "")))

    def _passed(self, context: Any) -> Any:
        self.seat.count("passed")
        return context


def _candidate(names: Mapping[str, str], model: str) -> str | None:
    return names.get(model) or names.get(model.partition("/")[2])


def _refusal(error: WrongControlError) -> Exception:
    """Return LiteLLM's error of HTTP 400, which names the control."""
    refused = need("litellm.proxy._types", "the seat in LiteLLM's proxy", package="litellm").ProxyException
    made: Exception = refused(message=str(error), type="invalid_request_error", param=error.control, code=400)
    return made
