"""A `Decider` decides for a server: it counts, records and compares beside, whoever asks."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count
from typing import Any

from ipr_engine.audit.exploration import ExplorationDraw, Explorer
from ipr_engine.decision.decision import Decision
from ipr_engine.errors import InvalidInputError, IprError, RecordError, RowError
from ipr_engine.prompts import ParsedRequest, parse_request
from ipr_engine.prompts.parse import KEPT_BY_SERVER
from ipr_engine.request.assumed import assumed_bill_beside
from ipr_engine.request.route_request import RequestOptions
from ipr_engine.server.afterwards import Afterwards
from ipr_engine.server.asked_policy import AskedPolicy
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.long_body import read_beside
from ipr_engine.server.policy_book import PolicyBook
from ipr_engine.server.prompt_errors import refused_prompt, said_in
from ipr_engine.server.recent import Recent
from ipr_engine.server.refused import RefusedError, refused_as
from ipr_engine.server.server_config import ServerConfig
from ipr_engine.server.server_engine import DecisionRecorder, PolicyMaker, ServerEngine
from ipr_engine.server.server_metrics import ServerMetrics
from ipr_engine.server.tenants import ANYBODY
from ipr_engine.server.told import count_cost

LOGGER = logging.getLogger(__name__)
_BEFORE = "what a server keeps belongs to the candidate that answered before; name that one as model, or send the conversation itself"
_KEPT = {
    **dict.fromkeys((*KEPT_BY_SERVER, "item_reference"), _BEFORE),
    "prompt": "a stored prompt belongs to the account that keeps it; name a candidate of that account as model, or send its text",
}
"""Parts of a request that one upstream alone can answer, and what to do."""
FAILED = "failed"
"""The cause of no answer: every candidate was asked in vain."""


class Decider:
    """A `Decider` answers questions with one engine.

    Attributes:
        prefix, numbers: of the ids of decisions; see `id_of`.
        engine, book, metrics: its own. afterwards: what is done once a reply has left. recent: the last decisions, for the page.
        explorer: draws who is asked in the policy's place; None where nobody explores.
        compares: whether somebody is told of decisions beside.
        record_problem: why the last decision could not be recorded, without the file's path; None where it could.
    """

    def __init__(
        self,
        engine: ServerEngine,
        maker: PolicyMaker,
        config: ServerConfig,
        metrics: ServerMetrics,
        *,
        recorder: DecisionRecorder | None = None,
        beside: Callable[[Decided, Any, RequestOptions], None] | None = None,
    ) -> None:
        """Decide by `engine`, whose policies `maker` compiles.

        Args:
            recorder: decides in its place, where decisions are recorded.
            beside: is told every decision, its prompt and what was given of it.
        """
        self.engine = engine
        self.book = PolicyBook(maker, config)
        self.metrics = metrics
        self.afterwards = Afterwards()
        self.recent = Recent(engine, (ANYBODY.name, *(tenant.name for tenant in config.tenants)))
        self.compares = beside is not None
        self._beside = beside
        self._maker = maker
        self.prefix, self.numbers = os.urandom(8).hex(), count()
        self._assumed = config.server.assumed_tokens
        self._budget_us = config.server.service.get("budget_us")
        self._keeps_prompts = config.records is not None and config.records.keep_prompts
        self._recorder = recorder
        self.explorer = Explorer(config.exploration) if config.exploration else None
        self.record_problem: str | None = None

    async def close(self) -> None:
        if self._recorder is not None:
            await self._recorder.close()

    async def decide(self, question: AskedRequest, *, answers: bool = False, counts: bool = True) -> Decided:
        """Decide one request.

        Args:
            answers: nobody is asked, so who is chosen is counted as who answers.
            counts: whether it enters what is counted of traffic, and what the shadow compares.
        Raises:
            RefusedError: a control or the prompt is wrong, nobody can serve it, or no decision can be made now.
        """
        asked = self.book.kept(question) or await self.book.of(question)
        try:
            parsed = (
                await read_beside(parse_request, question.prompt) if question.long else parse_request(question.prompt)
            )
            given, assumed = question.controls.given, 0
            if parsed.uncountable:
                given, assumed = await self._given(parsed, given, said_in(question))
            # a text alone is decided in one C++ call
            plain = not (parsed.billed_only or parsed.uncountable or parsed.turns) and parsed.needs is None
            prompt: Any = parsed.encoded if plain else parsed
            id = self.new_id()
            draw = None if self.explorer is None else self._draw(self.explorer, question, counts)
            decided_on = question.prompt if self._keeps_prompts else prompt
            try:
                decision = await self._routed(decided_on, asked, given, id, draw)
            except InvalidInputError:
                if asked.policy.bundle_hash == self.engine.bundle.hash:
                    raise
                # swapped meanwhile: the policy may name candidates of the bundle before
                asked = await self.book.of(question)
                decision = await self._routed(decided_on, asked, given, id, draw)
        except RowError as error:
            why = await self._why(error, decided_on, asked, given)
            raise refused_prompt(why, question, said_in(question)) from None
        except InvalidInputError as error:
            named = question.controls.named_by(error)
            raise (refused_prompt(error, question) if named is None else refused_as(named)) from None
        except RecordError as error:
            problem = _without_path(error)
            if problem != self.record_problem:
                said = str(error).removeprefix("to: ")  # an argument of the recorder
                LOGGER.error("decisions cannot be recorded, and requests are refused: records.path: %s", said)
            self.record_problem = problem
            raise RefusedError(503, "the decision could not be recorded", headers={"retry-after": "1"}) from None
        except IprError as error:
            raise refused_as(error) from None
        self.record_problem = None
        if decision.bundle_hash != asked.policy.bundle_hash:  # positions and exclusions are those of its own bundle
            asked = await self.book.of(question)
            if decision.bundle_hash != asked.policy.bundle_hash:
                asked = replace(asked, best=None)
        exploration = None if draw is None else draw.of(decision)
        decided = Decided.of(id, question, asked, decision, assumed, exploration)
        if counts:
            self.afterwards(self.count, decided, prompt, given, answers)
        return decided

    @property
    def swaps(self) -> int:
        """Return how often another bundle was put in place."""
        return self._maker.swaps

    def new_id(self) -> str:
        """Return the id of a decision."""
        return self.id_of(next(self.numbers))

    def id_of(self, number: int) -> str:
        """Return the id of the decision of a number."""
        return f"{self.prefix}{number:08x}"

    def answered(self, decided: Decided, candidate: str, cause: str) -> None:
        """Count, after the reply, who answers and what that costs and saves; keep it for the page."""
        self.afterwards(self._counted, decided, candidate, cause)

    def failed(self, decided: Decided, served: str | None = None) -> None:
        """Keep for the page, after the reply, that nobody answered, or that `served` refused the request."""
        self.afterwards(self.recent.add, decided, served, None)

    def count(self, decided: Decided, prompt: Any, given: RequestOptions, answers: bool) -> None:
        """Count a decision, after the reply; the arguments are those of `decide`, and what was decided on."""
        if decided.question.form is not None:
            for name in decided.asked.masked:
                self.metrics.masked(name, decided.question.form.name).inc()
        support = decided.decision.support
        if support is not None and support == support:  # NaN, of an embedding without a norm, is no support
            self.metrics.support.observe(support)
        if self._beside is not None:
            self._beside(decided, prompt, given)
        if decided.exploration is not None:
            if decided.explored:
                self.metrics.explored(decided.model).inc()
            if answers:
                self._counted(decided, decided.model, decided.cause)
        elif answers:
            self._counted(decided, decided.decision.model, decided.decision.cause)

    def _counted(self, decided: Decided, candidate: str, cause: str) -> None:
        count_cost(self.metrics, decided, candidate)
        self.recent.add(decided, candidate, cause)

    @staticmethod
    def _draw(explorer: Explorer, question: AskedRequest, counts: bool) -> ExplorationDraw | None:
        """Return what chance says of a request; None where it has no say.

        A trial asks nobody. A question among candidates is answered by a decision, as its format has it. A request that tells of
        cached tokens is the next turn of a conversation, which stays where its cache is.
        """
        if not counts or question.among or "cached_tokens" in question.controls.given:
            return None
        return explorer.draw()

    def _routed(
        self, prompt: Any, asked: AskedPolicy, given: RequestOptions, id: str, draw: ExplorationDraw | None
    ) -> Awaitable[Decision]:
        """Decide, by the recorder where there is one."""
        policy, budget = asked.policy, self._budget_us
        if self._recorder is not None:
            return self._recorder.route(prompt, policy, id=id, budget_us=budget, draw=draw, **given)
        return self.engine.route(prompt, policy, budget_us=budget, **given)

    async def _why(self, error: RowError, prompt: Any, asked: AskedPolicy, given: RequestOptions) -> InvalidInputError:
        """Return why a prompt is a bad request: the error does not say; the engine beneath does, and is not counted."""
        rows = await asyncio.to_thread(self._maker.route_many, [prompt], asked.policy, on_error="status", **given)
        reason = _reason(rows[0], asked)
        return InvalidInputError(f"prompt: {reason}" if reason else str(error))

    async def _given(self, parsed: ParsedRequest, given: RequestOptions, field: str) -> tuple[RequestOptions, int]:
        """Return what is given of a prompt, with a bill of parts that cannot be counted, and how much of it is assumed.

        field: of the request that holds them.
        Raises:
            RefusedError: nothing may be assumed of such a part.
        """
        for kind in parsed.uncountable:
            if kind in _KEPT:
                raise RefusedError(400, f"{kind}: {_KEPT[kind]}", kind)
        if given.get("billed_tokens") is not None:
            return given, 0
        if self._assumed is None:
            raise RefusedError(
                400,
                f"{field}: has a part of type {parsed.uncountable[0]}, whose tokens cannot be counted, and this server assumes none; give "
                "ipr.billed_tokens, the whole request's count by the bundle's tokenizer (server.assumed_tokens of its config is null)",
                field,
            )
        for kind in parsed.uncountable:
            self.metrics.assumed(kind).inc()
        billed, assumed = await assumed_bill_beside(self._maker.encoder, parsed, self._assumed)
        return {**given, "billed_tokens": billed}, assumed


def _without_path(error: RecordError) -> str:
    cause = error.__cause__
    known = cause.strerror if isinstance(cause, OSError) else None
    return f"decisions cannot be recorded: {known or 'the log tells why'}"


def _reason(row: Decision, asked: AskedPolicy) -> str | None:
    """Return why a row could not be decided. A mask of the server's is told in its own words: the policy itself calls it `allowed`."""
    if row.status != "none_allowed" or row.inputs.error is not None:
        return row.reason
    return "; ".join(f"{name}: {why}" for name, why in {**row.excluded, **asked.exclusions}.items())
