"""A `Seat` decides a gateway's requests under one policy: controls read, requests taken apart, decisions counted and told."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ipr_engine._faults import fault
from ipr_engine._validate import list_of_names, matched
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.reply_headers import header_value, reply_headers
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.integrations.shared_engine import BundleSource, ServingEngine, shared_engine
from ipr_engine.policy.best_position import best_position
from ipr_engine.policy.levels import merged
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import ABOUT, POLICY_CONTROLS, Options
from ipr_engine.policy.rules import BEST, CHEAPEST, with_aim
from ipr_engine.prompts.parse import parse_request
from ipr_engine.prompts.parsed import ASSUMED_TOKENS, ParsedRequest
from ipr_engine.request.asked_tasks import asked_task
from ipr_engine.request.assumed import assumed_bill_beside
from ipr_engine.request.controls import TASK, Controls, read_controls

FALLBACK = "fallback"
"""The cause of an answer by another than the one chosen, as in `ipr serve`."""
OF_A_CANDIDATE = ("x-ipr-candidate", "x-ipr-quality", "x-ipr-cost-usd", "x-ipr-saved-usd")
"""Headers that tell of the candidate that answers."""
MAX_KEPT_BESTS = 256
SEAT_CONTROLS = (*POLICY_CONTROLS, TASK)
"""What a request may set where an operator says nothing else."""
LONGEST_HEADER = 300  # characters of an error that a response's header tells

_log = logging.getLogger(__name__)


class Said(NamedTuple):
    """A `Said` is what one request says of its own decision, as `read_controls` takes it.

    Attributes:
        headers: name -> text, of the HTTP request. objects: where its body holds controls ("metadata.ipr"), and them.
        alone: control, place and value of fields of the body that are one control each.
    """

    headers: object = None
    objects: Sequence[tuple[str, object]] = ()
    alone: Sequence[tuple[str, str, object]] = ()


NOTHING_SAID = Said()


class Answer(NamedTuple):
    """An `Answer` is a decision, and what is known besides.

    Attributes:
        best: the position of the policy's best single candidate, which savings are counted against; None where it is not known.
        uncounted: the kinds of parts of the request that cannot be counted. assumed: tokens that are billed for them.
    """

    decision: Decision
    best: int | None = None
    uncounted: tuple[str, ...] = ()
    assumed: int = 0

    def headers(self, served: str | None) -> dict[str, str]:
        """Return what a response's headers tell.

        served: the candidate that answers; None: who answers is no candidate, and nothing is predicted of it.
        """
        decision = self.decision
        names = decision.bundle.names
        index = names.index(served) if served in names else decision.index
        headers = {
            "x-ipr-candidate": header_value(names[index]),
            "x-ipr-cause": decision.cause if served == decision.model else FALLBACK,
            **reply_headers(decision, index, decision.saved_usd(self.best, index), self.assumed),
        }
        if served not in names:
            headers = {name: text for name, text in headers.items() if name not in OF_A_CANDIDATE}
        if self.uncounted:
            headers["x-ipr-uncounted"] = header_value(", ".join(sorted(set(self.uncounted))))
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
        controls: Sequence[str] = SEAT_CONTROLS,
        assumed_tokens: int | None = ASSUMED_TOKENS,
        observe: Callable[[str, str], object] | None = None,
        called: str = "tiers",
    ) -> None:
        """Load the bundle and compile the policy.

        Args:
            names: the gateway's name -> candidate, or candidates of the same name; None: every candidate of the bundle.
            options: of `Engine.policy`; tau is 0.1 where they name no aim. They allow no more than the candidates of `names`.
            bundle, watch_s: those of `shared_engine`. A bundle that cannot be loaded is no error here: it is logged, and tried again.
            controls: what a request may set, of `SEAT_CONTROLS`: options of a policy, and "task".
            assumed_tokens: billed for each part that cannot be counted, an image, say; None: such a request is not decided.
            called: what errors call `names`.
            observe: called with outcome and detail of each request that `counts` counts.
        Raises:
            InvalidInputError: an argument is not as above, or the policy does not fit the bundle.
        """
        unknown = sorted(set(controls) - set(SEAT_CONTROLS))
        if isinstance(controls, str) or unknown:
            raise InvalidInputError(f"controls: expected some of {', '.join(SEAT_CONTROLS)}, got {controls!r}")
        if assumed_tokens is not None and (type(assumed_tokens) is not int or assumed_tokens < 1):
            raise InvalidInputError(f"assumed_tokens: expected a whole number >= 1, or None, got {assumed_tokens!r}")
        self.counts: Counter[tuple[str, str]] = Counter()
        self._observe = observe
        self._called = called
        self._names = names if names is None or isinstance(names, Mapping) else {name: name for name in names}
        if self._names is not None and not self._names:
            raise InvalidInputError(f"{called}: expected at least one name of a candidate, got none")
        self._options = with_aim(options)
        self._controls = tuple(controls)
        self._assumed_tokens = assumed_tokens
        self._shared = shared_engine(bundle, watch_s)
        # of one bundle: its hash, the names, the policy
        self._resolved: tuple[str, dict[str, str], Policy] | None = None
        self._bests: dict[Policy, int | None] = {}
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

    def task(self, said: Said) -> str | None:
        """Return what a request says it is for; None where it says nothing.

        Raises:
            WrongControlError: a control is wrong, or what is given is no name; one that the bundle does not know is none.
        """
        controls = self._read(said)
        try:
            asked = asked_task(controls.given.get(TASK), TASK, ())
        except InvalidInputError as error:
            wrong = controls.blamed(error)
        else:
            return None if asked is None else asked.name
        raise wrong

    def policy(self, said: Said = NOTHING_SAID, among: Collection[str] | None = None) -> Policy:
        """Return the policy of one request: the operator's, with the request's controls over it.

        Args:
            among: the candidates that can serve the request; None: all of the seat's.
        Raises:
            WrongControlError: a control is wrong.
            IprError, OSError: the bundle cannot be loaded yet, or does not have what the operator's policy needs.
        """
        controls = self._read(said)
        engine = self.engine
        names, policy = self._at(engine)
        if not controls.policy and among is None:
            return policy
        open_to = set(names.values()) if among is None else set(names.values()).intersection(among)
        resolve: Callable[..., Policy] = engine.engine.loaded.resolve
        own = self._merged(engine, open_to)  # without the controls: what is wrong of it is no fault of theirs
        if not controls.policy:
            return resolve(None, own)
        try:
            return resolve(None, self._merged(engine, open_to, _meant(controls, names)))
        except InvalidInputError as error:
            wrong = controls.blamed(error)
        raise wrong

    def _read(self, said: Said) -> Controls:
        """Return the controls of a request."""
        headers = said.headers
        texts = ((str(name), str(text)) for name, text in headers.items()) if isinstance(headers, Mapping) else ()
        return read_controls(texts, said.objects, self._controls, said.alone)

    def _merged(self, engine: ServingEngine, open_to: Collection[str], said: Options | None = None) -> dict[str, Any]:
        """Return the operator's options, with others over them, for the candidates that it is open to."""
        candidates = engine.bundle.candidates
        closed = {one.name: f"not of these {self._called}" for one in candidates if one.name not in open_to}
        return merged((self._options, said or {}), candidates, closed).options

    def _at(self, engine: ServingEngine) -> tuple[dict[str, str], Policy]:
        """Return names and policy as they are on the bundle that serves now."""
        bundle, resolved = engine.bundle, self._resolved
        if resolved is None or resolved[0] != bundle.hash:
            stated = self._names if self._names is not None else {name: name for name in bundle.names}
            meant = matched(self._called, stated.values(), bundle.names)
            names = {name: meant[candidate] for name, candidate in stated.items()}
            own = self._options.get("allowed")
            if own is not None:
                matched("allowed", list_of_names("allowed", own), names.values())
            policy = engine.policy(**self._merged(engine, names.values()))
            self._resolved = resolved = (bundle.hash, names, policy)
            self._bests = {}
        return resolved[1], resolved[2]

    async def decide(self, body: Any, policy: Policy, task: str | None = None) -> Answer:
        """Decide one request, whole. task: what it is for, as its caller says; one that the bundle does not know changes nothing.

        What cannot be counted of it, images say, is billed by assumption.

        Raises:
            InvalidInputError: the body is no request that can be read.
            IprError: it cannot be decided.
        """
        request = parse_request(body, where="request")
        engine, uncounted = self.engine, request.uncountable
        given: dict[str, Any] = {} if task is None else {TASK: task}
        assumed = 0
        if uncounted and self._assumed_tokens is not None:
            encoder = engine.engine.encoder
            given["billed_tokens"], assumed = await assumed_bill_beside(encoder, request, self._assumed_tokens)
        plain = request == ParsedRequest(request.encoded)  # the engine's short way
        decision = await engine.route(request.encoded if plain else request, policy, **given)
        self.count("decided", decision.model)
        _log.info("decided %s", decision)
        return Answer(decision, self._best(decision), uncounted, assumed)

    def _best(self, decision: Decision) -> int | None:
        """Return the position of the best single candidate of a decision's policy, found once for each policy."""
        bests, policy = self._bests, decision.policy
        if policy not in bests:
            if len(bests) >= MAX_KEPT_BESTS:  # a caller of ever new policies: begin anew, without an order to keep
                bests.clear()
            bests[policy] = best_position(policy, decision.bundle)
        return bests[policy]

    def count(self, outcome: str, detail: str = "") -> None:
        """Count one request."""
        self.counts[outcome, detail] += 1
        if self._observe is not None:
            self._observe(outcome, detail)

    def failed(self, error: BaseException) -> None:
        """Count and log a request that got no decision."""
        self.count("undecided", type(error).__name__)
        _log.warning("no decision: %s", told(error) if _is_foreseen(error) else fault(error))


def _is_foreseen(error: BaseException) -> bool:
    """Return whether an error is one whose text holds nothing of a prompt."""
    return isinstance(error, (IprError, OSError)) or not isinstance(error, Exception)


def told(error: BaseException) -> str:
    """Return an error in one line that a header can hold; of one that nobody foresaw its kind alone."""
    text = (" ".join(str(error).split()) if _is_foreseen(error) else "") or type(error).__name__
    return header_value(text)[:LONGEST_HEADER]


def _meant(controls: Controls, names: Mapping[str, str]) -> dict[str, Any]:
    """Return the policy's options of a request, with candidates where it says a gateway's names for them.

    Raises:
        InvalidInputError: a name is neither one of these nor a candidate of theirs; the error names the control.
    """
    known = {**{candidate: candidate for candidate in names.values()}, **names}
    found = dict(controls.policy)
    for option, value in controls.policy.items():
        form = ABOUT[option].form
        if form == "candidates":
            found[option] = [known[name] for name in matched(option, value, known).values()]
        elif form == "candidate" and value.casefold() not in (BEST, CHEAPEST):
            found[option] = known[matched(option, [value], known)[value]]
    return found
