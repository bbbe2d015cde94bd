"""A `Seat` decides a gateway's requests under one policy: controls read, requests taken apart, decisions counted and told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from ipr_engine._validate import matched
from ipr_engine.decision.decision import Decision
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.integrations.request_controls import (
    AIMS,
    CONTROLS,
    WrongControlError,
    blamed,
    controlled,
    read_controls,
)
from ipr_engine.integrations.shared_engine import BundleSource, ServingEngine, shared_engine
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import Options
from ipr_engine.prompts.parse import parse_request
from ipr_engine.prompts.parsed import ParsedRequest

TAU = 0.2  # of a seat whose operator names no aim
LONGEST_HEADER = 300  # characters of an error that a response's header tells

_log = logging.getLogger(__name__)


class Answer(NamedTuple):
    """An `Answer` is a decision, and the kinds of parts of the request whose tokens its costs leave out."""

    decision: Decision
    uncounted: tuple[str, ...] = ()

    def headers(self) -> dict[str, str]:
        """Return what a response's headers tell.

        x-ipr-saved-usd is against the best single candidate of the policy on this very request, where its promise names one.
        """
        decision = self.decision
        headers = {
            "x-ipr-candidate": decision.model,
            "x-ipr-tau": f"{decision.policy.tau:g}",
            "x-ipr-cause": decision.cause,
            "x-ipr-quality": f"{decision.quality:.4f}",
            "x-ipr-cost-usd": f"{decision.cost_usd:.6g}",
            "x-ipr-bundle": decision.bundle_hash[:12],
        }
        if decision.support is not None:
            headers["x-ipr-support"] = f"{decision.support:.3f}"
        promise = decision.policy.promise
        if promise is not None:
            best = decision.bundle.names.index(promise.best)
            headers["x-ipr-saved-usd"] = f"{decision.usd_of(best) - decision.cost_usd:.6g}"
        if self.uncounted:
            headers["x-ipr-uncounted"] = ", ".join(sorted(set(self.uncounted)))
        return headers


class Seat:
    """A `Seat` is an engine and a policy, for the requests of one alias or of some groups of a gateway.

    Attributes:
        counts: (outcome, detail) -> how many requests: ("decided", candidate), ("undecided", error), ("refused", ""), ("passed", "").
    """

    def __init__(
        self,
        names: Mapping[str, str] | Collection[str] | None,
        options: Options,
        *,
        bundle: BundleSource = None,
        watch_s: float | None = None,
        controls: Sequence[str] = CONTROLS,
        observe: Callable[[str, str], object] | None = None,
        called: str = "tiers",
    ) -> None:
        """Load the bundle and compile the policy.

        Args:
            names: the gateway's name -> candidate, or candidates of the same name; None: every candidate of the bundle.
            options: of `Engine.policy`; tau is 0.2 where they name no aim. They allow no more than the candidates of `names`.
            bundle, watch_s: those of `shared_engine`. A bundle that cannot be loaded is no error here: it is logged, and tried again.
            controls: what a request may say of its own decision, of `CONTROLS`.
            called: what errors call `names`.
            observe: called with outcome and detail of each request that `counts` counts.
        Raises:
            InvalidInputError: an argument is not as above, or the policy does not fit the bundle.
        """
        unknown = sorted(set(controls) - set(CONTROLS))
        if isinstance(controls, str) or unknown:
            raise InvalidInputError(f"controls: expected some of {', '.join(CONTROLS)}, got {controls!r}")
        self.counts: Counter[tuple[str, str]] = Counter()
        self._observe = observe
        self._called = called
        self._names = names if names is None or isinstance(names, Mapping) else {name: name for name in names}
        if self._names is not None and not self._names:
            raise InvalidInputError(f"{called}: expected at least one name of a candidate, got none")
        self._options = dict(options) if any(options.get(aim) is not None for aim in AIMS) else {**options, "tau": TAU}
        self._controls = tuple(controls)
        self._shared = shared_engine(bundle, watch_s)
        # of one bundle: its hash, the names, the policy
        self._resolved: tuple[str, dict[str, str], Policy] | None = None
        if self._shared.error is None:
            self._at(self.engine)

    @property
    def engine(self) -> ServingEngine:
        """Return the engine that serves, whose `counters()` tell latencies and causes.

        Raises:
            IprError, OSError: the bundle cannot be loaded yet.
        """
        return self._shared.engine()

    def names(self) -> Mapping[str, str]:
        """Return the gateway's name -> candidate, as the bundle that serves writes it."""
        return self._at(self.engine)[0]

    def policy(self, headers: object, field: object, among: Collection[str] | None = None) -> Policy:
        """Return the policy of one request: the operator's, with the request's controls in place.

        Args:
            headers, field: those of `read_controls`. among: the candidates that can serve the request; None: all of the seat's.
        Raises:
            WrongControlError: a control is wrong.
            IprError, OSError: the bundle cannot be loaded yet, or does not have what the operator's policy needs.
        """
        controls = read_controls(headers, field, self._controls)
        engine = self.engine
        names, policy = self._at(engine)
        if not controls and among is None:
            return policy
        allowed = [name for name in self._allowed(names) if among is None or name in among]
        options = {**self._options, "allowed": allowed}
        resolve: Callable[..., Policy] = engine.engine.loaded.resolve
        if not controls:
            return resolve(None, options)
        known = {**{candidate: candidate for candidate in names.values()}, **names}
        kept = {name: candidate for name, candidate in known.items() if candidate in allowed}
        try:
            return resolve(None, controlled(options, controls, kept))
        except WrongControlError:
            raise
        except InvalidInputError as error:
            wrong = blamed(error, controls)
        raise wrong

    def _at(self, engine: ServingEngine) -> tuple[dict[str, str], Policy]:
        """Return names and policy as they are on the bundle that serves now."""
        bundle, resolved = engine.bundle, self._resolved
        if resolved is None or resolved[0] != bundle.hash:
            stated = self._names if self._names is not None else {name: name for name in bundle.names}
            meant = matched(self._called, stated.values(), bundle.names)
            names = {name: meant[candidate] for name, candidate in stated.items()}
            options: Any = {**self._options, "allowed": self._allowed(names)}
            policy = engine.policy(**options)
            self._resolved = resolved = (bundle.hash, names, policy)
        return resolved[1], resolved[2]

    def _allowed(self, names: Mapping[str, str]) -> list[str]:
        """Return the candidates of the names, of those that the operator's own `allowed` has."""
        own = self._options.get("allowed")
        candidates = dict.fromkeys(names.values())
        if own is None:
            return list(candidates)
        kept = set(matched("allowed", [own] if isinstance(own, str) else own, candidates).values())
        return [candidate for candidate in candidates if candidate in kept]

    async def decide(self, body: Any, policy: Policy) -> Answer:
        """Decide one request, whole.

        What cannot be counted of it, images say, is left out of the cost, not of what a candidate must be able to read.

        Raises:
            InvalidInputError: the body is no request that can be read.
            IprError: it cannot be decided.
        """
        request = parse_request(body, where="request")
        uncounted = request.uncountable
        if uncounted:
            request = replace(request, uncountable=())
        plain = request == ParsedRequest(request.encoded)  # the engine's short way
        decision = await self.engine.route(request.encoded if plain else request, policy)
        self.count("decided", decision.model)
        _log.info("decided %s", decision)
        return Answer(decision, uncounted)

    def count(self, outcome: str, detail: str = "") -> None:
        """Count one request."""
        self.counts[outcome, detail] += 1
        if self._observe is not None:
            self._observe(outcome, detail)

    def failed(self, error: BaseException) -> None:
        """Count and log a request that got no decision."""
        self.count("undecided", type(error).__name__)
        expected = isinstance(error, (IprError, OSError)) or not isinstance(error, Exception)
        _log.warning("no decision: %s", told(error), exc_info=None if expected else error)


def told(error: BaseException) -> str:
    """Return an error in one line that a header can hold."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.encode("ascii", "replace").decode()[:LONGEST_HEADER]
