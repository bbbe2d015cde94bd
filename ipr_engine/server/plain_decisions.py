"""A `PlainDecisions` answers what `/v1/route` is asked most: who should answer these texts, and nothing beside.

Such a request is read, decided and answered in a straight line, its decision and the reply's JSON in one C++ call; it is counted
once the reply has left. Every other request, and every one that is refused, goes the way of all endpoints from its beginning.
"""

from __future__ import annotations

import logging

import orjson

from ipr_engine._C import PlainPolicy, clock_ns, has_header
from ipr_engine._faults import fault
from ipr_engine._validate import MOST_TOKENS
from ipr_engine.bundle import BundleSpec
from ipr_engine.decision.written_policy import WrittenPolicy
from ipr_engine.errors import IprError
from ipr_engine.prompts import parse_request
from ipr_engine.request.controls import NO_CONTROLS
from ipr_engine.server.asked_controls import EVERY, controls_of, has_control
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.asking_site import SITE, check_site
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.decision_json import rest_of_asked
from ipr_engine.server.exchange import JSON, SHORT_WAY, Message
from ipr_engine.server.given_once import require_once
from ipr_engine.server.long_body import LONG_BODY
from ipr_engine.server.refused import RefusedError
from ipr_engine.server.server_state import ServerState
from ipr_engine.server.tenants import ANYBODY
from ipr_engine.server.told import Told
from ipr_engine.serving.decision_writer import DecisionWriter, Written

_SAID = frozenset((*EVERY, "ipr", "metadata"))
"""Fields in which a request may say something of its own decision."""
_HEADERS = [JSON]
LOGGER = logging.getLogger(__name__)


class PlainDecisions:
    """A `PlainDecisions` answers for one worker."""

    def __init__(self, state: ServerState, path: str, writer: DecisionWriter) -> None:
        """Answer by what the worker holds. path: by which requests are counted. writer: decides, of the engine that serves."""
        config = state.config
        self._state = state
        self._decider = state.decider
        self._writer = writer
        self._path = path
        self._most_bytes = min(config.server.limits.body_bytes, LONG_BODY - 1)
        self._models = config.models
        self._default = next(iter(config.models))
        self._keys = bool(config.tenants)
        self._most_known = config.server.limits.policies
        self._swaps = state.decider.swaps  # those after which `_known` was found
        self._known: dict[tuple[str, str], tuple[AskedPolicy, PlainPolicy]] = {}  # (tenant, model) -> without controls

    def answer(self, scope: Message) -> Told | None:
        """Answer a request, and return what is told of it; None: it is not plain, and nothing was done."""
        state, decider, extensions = self._state, self._decider, scope.get("extensions")
        way = extensions.get(SHORT_WAY) if extensions else None
        if way is None or scope["query_string"] or state.in_flight >= state.most_in_flight or way.is_full:
            return None
        body = way.seen(self._most_bytes)
        if body is None:
            return None
        headers, tenant = scope["headers"], ANYBODY
        try:
            if has_header(headers, SITE, None):
                return None
            if state.hosts:
                check_site(dict(headers[::-1]), state.hosts)
            if self._keys:
                tenant = state.tenants.of(headers)
            request = orjson.loads(body)
            if type(request) is not dict:
                return None
            controls = NO_CONTROLS
            if has_control(headers) or not _SAID.isdisjoint(request):
                require_once(body, request)
                controls = controls_of(headers, request, tenant.controls, bare=EVERY)
                if controls.given or controls.explain:
                    return None
            model = request.get("model")
            if model is None:
                model = self._default
            elif type(model) is not str or model not in self._models:
                return None
            question = AskedRequest(request, controls, tenant, model)
            swaps = decider.swaps
            if self._swaps != swaps:  # what is known of another bundle would be compiled anew, here
                self._swaps = swaps
                self._known.clear()
            known = self._known.get((tenant.name, model)) if controls is NO_CONTROLS else None
            if known is None:
                known = self._look(question)
            if known is None:
                return None
            asked, plain = known
            number, begun = next(decider.numbers), clock_ns()
            written = self._writer.write(request, asked.policy, plain, decider.prefix, number)
        except (RefusedError, IprError, orjson.JSONDecodeError):
            return None
        except Exception as error:
            LOGGER.error("%s, answered in one step, failed: %s", self._path, fault(error))
            return None
        if written is None:
            return None
        took_ns = clock_ns() - begun
        left = not way.reply(200, _HEADERS, written.json)
        del scope["extensions"][SHORT_WAY]  # the way holds the scope: they would stay until garbage is collected
        told = Told(self._path)
        told.tenant, told.tags, told.asked, told.left = tenant.name, tenant.tags, model, left
        decider.afterwards(self._count, told, number, question, asked, written, took_ns)
        return told

    def _count(
        self, told: Told, number: int, question: AskedRequest, asked: AskedPolicy, written: Written, took_ns: int
    ) -> None:
        decider = self._decider
        decision = self._writer.count(written, took_ns)
        told.decided = Decided.of(decider.id_of(number), question, asked, decision, 0)
        decider.book.kept(question)  # as lately used as by the other way
        decider.count(told.decided, parse_request(question.prompt) if decider.compares else None, {}, answers=True)

    def _look(self, question: AskedRequest) -> tuple[AskedPolicy, PlainPolicy] | None:
        """Return the policy of a request, and how it decides plain ones; None where it does not, or is not kept."""
        asked, bundle = self._decider.book.kept(question), self._decider.engine.bundle
        if asked is None or bundle.hash != asked.policy.bundle_hash:  # swapped meanwhile
            return None
        if not asked.plain:
            asked.plain.append(plain_policy(asked, bundle, self._writer.inline_chars))
        plain = asked.plain[0]
        if plain is None:
            return None
        if question.controls is NO_CONTROLS:
            if len(self._known) >= self._most_known:
                self._known.clear()
            self._known[question.tenant.name, question.model] = asked, plain
        return asked, plain


def plain_policy(asked: AskedPolicy, bundle: BundleSpec, characters: int) -> PlainPolicy | None:
    """Return how a policy decides plain requests; None where more than their texts has a say.

    bundle: that of the policy. characters: most of a request's texts.
    """
    policy = asked.policy
    if policy.weighing is not None or policy.reserve or policy.escalate_below:
        return None
    bounds = [candidate.max_output_tokens for candidate in bundle.candidates]
    return PlainPolicy(
        policy.compiled,
        WrittenPolicy.of(policy, bundle).words,
        rest_of_asked(asked),
        -1 if asked.best is None else asked.best,
        policy.surely_fits.billed,
        policy.surely_fits.own,
        policy.least_window,
        min([MOST_TOKENS, *(bound for bound in bounds if bound is not None)]),
        characters,
    )
