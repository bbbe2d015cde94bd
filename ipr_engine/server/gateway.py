"""A `Gateway` passes a request on to the candidate that is chosen for it, and to the next one where that fails before its first byte."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from ipr_engine.decision.reply_headers import header_value
from ipr_engine.request.controls import NO_CONTROLS, Controls
from ipr_engine.request.wrong_control import WrongControlError
from ipr_engine.server.asked_controls import controls_of
from ipr_engine.server.decided import AskedRequest, Decided
from ipr_engine.server.decider import FAILED, Decider
from ipr_engine.server.exchange import Exchange
from ipr_engine.server.health import Turn
from ipr_engine.server.passed_request import PassedRequest
from ipr_engine.server.policy_book import require_known
from ipr_engine.server.refused import ClientGoneError, RefusedError, ReplyCutError
from ipr_engine.server.refused_keys import REFUSALS
from ipr_engine.server.request_formats import RESPONSES, RequestFormat
from ipr_engine.server.server_config import ServerConfig, Tenant
from ipr_engine.server.stream_tail import StreamTail
from ipr_engine.server.told import Told, decision_headers
from ipr_engine.server.upstreams import (
    Reply,
    StreamCutError,
    StreamedReply,
    Target,
    UpstreamFailedError,
    Upstreams,
    WholeReply,
)
from ipr_engine.server.whole_events import WholeEvents

FALLBACK = "fallback"
"""The cause of an answer by another candidate than the one chosen."""
OK, CUT = "ok", "cut"
KEY_REFUSED = frozenset(f"status_{status}" for status in REFUSALS)
"""What comes of a stream: its end, or a break."""
NAMED = "named"
"""The cause of an answer by the candidate that the request itself names."""


@dataclass(slots=True)
class Attempts:
    """An `Attempts` lists what came of the candidates that were asked for one request.

    Attributes:
        outcomes: (candidate, outcome), in the order in which they were asked.
        reply, target, turn: what one of them said, which, and how it was asked; None where all failed.
        last: the failure of the last one that failed.
    """

    outcomes: list[tuple[str, str]] = field(default_factory=list)
    reply: Reply | None = None
    target: Target | None = None
    turn: Turn | None = None
    last: UpstreamFailedError | None = None

    @property
    def header(self) -> str:
        return ", ".join(f"{candidate}={outcome}" for candidate, outcome in self.outcomes)


class Gateway:
    """A `Gateway` answers requests of the three formats by the upstreams of a config."""

    def __init__(self, config: ServerConfig, decider: Decider, upstreams: Upstreams) -> None:
        self._config = config
        self._decider = decider
        self._afterwards = decider.afterwards
        self._known = dict.fromkeys((*config.models, *upstreams.targets))
        self._upstreams = upstreams
        self._metrics = decider.metrics

    async def answer(
        self, exchange: Exchange, tenant: Tenant, form: RequestFormat, told: Told, body: dict[str, Any]
    ) -> None:
        """Answer one request, whose body is read.

        told: is filled with what is known of it, for the log and the spans.
        Raises:
            RefusedError: it is wrong, or nobody could answer. ClientGoneError: the client left first.
        """
        config = self._config
        controls = controls_of(exchange.headers, body, tenant.controls)
        controls.require_no_explain()
        names = self._decider.engine.bundle.names
        model = told.asked = require_known(body.get("model"), self._known, names, "a candidate without an upstream")
        if form is RESPONSES and body.get("background"):
            raise RefusedError(
                400,
                "background: nobody could fetch the answer, since GET /v1/responses/{id} is not served here; leave it out and wait, or "
                "stream the answer",
                "background",
            )
        for name in form.turns:
            if body.get(name) is not None:
                break
        else:
            raise RefusedError(400, f"{form.turns[0]}: expected the conversation, got none", form.turns[0])
        decided: Decided | None = None
        if model in config.models:
            decided = await self._decider.decide(
                AskedRequest(body, controls, tenant, model, form, long=exchange.is_long)
            )
            told.decided = decided
            order: Sequence[str] = decided.ranked
        else:
            order = (await self._named(tenant, model, form, controls),)
        request = await PassedRequest.of(exchange, tenant, form, body)
        async with exchange.client() as client:
            attempts = await client.waits_for(self._in_turn(order, request))
            told.attempts = attempts.outcomes
            if attempts.reply is None or attempts.target is None or attempts.turn is None:
                await self._nobody(exchange, attempts, decided, told)
                return
            headers = self._served(attempts, attempts.target, decided, told)
            if isinstance(attempts.reply, WholeReply):
                await exchange.reply(attempts.reply.status, attempts.reply.body, [*attempts.reply.headers, *headers])
            else:
                passed = StreamTail()
                try:
                    outcome = await client.waits_for(
                        self._streamed(exchange, attempts.reply, headers, attempts.target, form, passed)
                    )
                except BaseException as error:  # whatever ends it, it is counted
                    # many leave at the last event, and do not wait for the end
                    at_its_end = isinstance(error, ClientGoneError) and not passed.lacks(form.ends)
                    if not attempts.reply.events or not at_its_end:
                        attempts.target.health.left(attempts.turn)
                        self._came_of(attempts, "left")
                        raise
                    outcome = OK
                finally:
                    attempts.reply.close()  # the client may leave before the first piece is read
                self._came_of(attempts, outcome)
                if outcome == CUT:
                    self._metrics.cut(attempts.target.candidate, tenant.name).inc()
                    attempts.target.health.failed(attempts.turn)
                    if (
                        not exchange.ended
                    ):  # nothing can be said in the middle of a body or an event: the connection ends
                        raise ReplyCutError
                else:
                    attempts.target.health.succeeded(attempts.turn)

    def _came_of(self, attempts: Attempts, outcome: str) -> None:
        """Say what came of a stream. outcome: OK stands for the status of its reply."""
        candidate, at_first = attempts.outcomes[-1]
        outcome = at_first if outcome == OK else outcome
        attempts.outcomes[-1] = candidate, outcome
        self._afterwards(self._metrics.attempts(candidate, outcome).inc)

    def _served(
        self, attempts: Attempts, target: Target, decided: Decided | None, told: Told
    ) -> list[tuple[bytes, bytes]]:
        """Count who answered, where it is an answer, and return the headers that tell it."""
        told.served = target.candidate
        cause = NAMED if decided is None else decided.cause
        if decided is not None and target.candidate != decided.model:
            cause = FALLBACK
        told.cause = cause
        headers = [*target.told, *decision_headers(decided, target.candidate, cause)]
        if len(attempts.outcomes) > 1:
            headers.append((b"x-ipr-attempts", header_value(attempts.header).encode()))
        if attempts.reply is not None and attempts.reply.status < 400:  # what is no answer costs and saves nothing
            self._afterwards(self._metrics.served(target.candidate, cause).inc)
            if decided is not None:
                self._decider.answered(decided, target.candidate, cause)
        elif decided is not None:
            self._decider.failed(decided, target.candidate)
        return headers

    async def _named(self, tenant: Tenant, model: str, form: RequestFormat, controls: Controls) -> str:
        """Return the candidate that a request names, where it may answer.

        Raises:
            WrongControlError: it has controls of a choice, or of what a choice is decided by.
            RefusedError: its upstream does not speak the format, or the tenant's policy leaves it out.
        """
        said = (*controls.policy, *controls.given)
        if said:
            place = controls.where[said[0]]
            raise WrongControlError(
                place, f"concerns a choice, and the request names {model}; leave it out, or ask for a routed model"
            )
        # masks of the server and of the tenant hold; those of a routed name are not asked for
        asked = await self._decider.book.of(AskedRequest(None, NO_CONTROLS, tenant, ""))
        if model not in asked.policy.allowed:
            why = asked.exclusions.get(model, "the bundle that serves does not have it")
            raise RefusedError(404, f"model: {model!r} is not open to this key: {why}", "model")
        target = self._upstreams.targets[model]
        if form.name not in target.formats:
            spoken = " and ".join(target.formats)
            raise RefusedError(400, f"model: {model} speaks {spoken}, not {form.name}; ask for it there", "model")
        return model

    async def _in_turn(self, order: Sequence[str], request: PassedRequest) -> Attempts:
        attempts, metrics = Attempts(), self._metrics
        for target, turn in self._open_to(order, attempts):
            begun = perf_counter()
            try:
                reply = await self._upstreams.ask(target, turn, request)
            except UpstreamFailedError as error:
                if error.may_be_the_request:
                    target.health.left(turn)
                else:
                    target.health.failed(turn, error.retry_after_s)
                attempts.outcomes.append((target.candidate, error.outcome))
                if attempts.last is None or error.outcome not in KEY_REFUSED:  # that one has nothing for the client
                    attempts.last = error
                metrics.attempts(target.candidate, error.outcome).inc()
                continue
            except RefusedError:  # nothing was sent
                target.health.left(turn)
                raise
            except BaseException:
                target.health.gave_up(turn, target.timeouts.until_first_byte(request.streamed))
                metrics.attempts(target.candidate, "left").inc()
                raise
            if isinstance(reply, WholeReply):  # a stream may still break off
                target.health.succeeded(turn)
            outcome = "ok" if reply.status < 400 else f"status_{reply.status}"
            attempts.outcomes.append((target.candidate, outcome))
            if isinstance(reply, WholeReply):  # what comes of a stream is not known yet
                self._afterwards(metrics.attempts(target.candidate, outcome).inc)
            self._afterwards(metrics.first_byte_s(target.candidate).observe, perf_counter() - begun)
            attempts.reply, attempts.target, attempts.turn = reply, target, turn
            break
        return attempts

    def _open_to(self, order: Sequence[str], attempts: Attempts) -> Iterator[tuple[Target, Turn]]:
        """Yield the targets in their order: first those that are up or may be probed, at last those that cool.

        attempts: is told who is passed over.
        """
        passed_over = []
        for name in order:
            target = self._upstreams.targets.get(name)
            if target is None:  # a bundle that was swapped in meanwhile may have another candidate
                continue
            turn = target.health.take()
            if turn is None:
                passed_over.append(target)
                attempts.outcomes.append((name, "cooling"))
            else:
                yield target, turn
        # nobody else could answer: a candidate that failed before may
        for target in sorted(passed_over, key=lambda target: target.health.until):
            yield target, target.health.last()

    async def _streamed(
        self,
        exchange: Exchange,
        reply: StreamedReply,
        headers: list[tuple[bytes, bytes]],
        target: Target,
        form: RequestFormat,
        passed: StreamTail,
    ) -> str:
        """Pass a stream on; return what came of it, OK or CUT. passed: is told what went by."""
        await exchange.begin(reply.status, [*reply.headers, *headers])
        events, rest = WholeEvents() if reply.events else None, b""
        async with aclosing(reply.pieces) as pieces:  # type: ignore[type-var]
            try:
                async for piece in pieces:
                    sent = piece
                    if events is not None:
                        if not (sent := events.add(piece)):
                            continue
                        passed.add(sent, inside=events.inside)
                        if events.begun and not events.inside:
                            passed.long_event = events.begun
                    await exchange.piece(sent)
                if events is not None:
                    rest = events.rest()
                    if reply.status < 300 and reply.until_closed and passed.lacks(form.ends, rest):
                        raise StreamCutError
            except StreamCutError:
                if events is not None and not events.inside:
                    await exchange.piece(form.stream_error(f"the upstream of {target.candidate} broke off", passed))
                    await exchange.piece(b"", more=False)
                return CUT
            except asyncio.CancelledError:  # the server stops and waits no longer; a client that left gets nothing
                if events is not None and not events.inside:
                    await exchange.piece(form.stream_error("the server stops", passed))
                    await exchange.piece(b"", more=False)
                raise
        await exchange.piece(rest, more=False)
        return OK

    async def _nobody(self, exchange: Exchange, attempts: Attempts, decided: Decided | None, told: Told) -> None:
        """Answer where every candidate failed: what the last one said that did not refuse the server's key."""
        last = attempts.last
        headers = [(b"x-ipr-attempts", header_value(attempts.header).encode())]
        if decided is not None:
            headers.append((b"x-ipr-decision-id", decided.id.encode()))
            self._decider.failed(decided)
        told.cause = FAILED
        if last is not None and last.reply is not None and last.reply.body:
            await exchange.reply(last.reply.status, last.reply.body, [*last.reply.headers, *headers])
            return
        tried = attempts.header or "none could be asked"
        status = 504 if last is not None and last.outcome == "timeout" else 502
        if last is not None and last.reply is not None:  # it said no word, or too many; the rest is known
            status = last.reply.status
            headers += [(name, value) for name, value in last.reply.headers if not name.startswith(b"content-")]
        said = {name.decode(): value.decode("latin-1") for name, value in headers}
        raise RefusedError(status, f"no upstream answered: {tried}", headers=said)
