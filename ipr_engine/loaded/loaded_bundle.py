"""A `LoadedBundle` is all that a call reads, and the one walk from prompts to decisions.

An engine holds one loaded bundle and swaps it with one assignment (docs/operations.md). Its calls, cheapest first:

    policy = loaded.resolve(policy, options)          the Policy that a call's arguments mean, compiled for this bundle
    row = loaded.route_one(prompt, policy, options)   one prompt in one C++ call; None where an option is given of the prompt, it has
                                                      images or parts that cannot be counted, the encoder is neither compiled nor
                                                      recorded, or the second tier must be asked
    rows = loaded.route(RouteRequest(...))            the walk: encodes, decides, escalates and checks rows, whatever the prompts
    rows = loaded.walk(request, keep_x=True)          the same before its rows are checked; `rows.made_on` is what they were decided on
    row = loaded.route_here(request)                  one prompt where no encoder has to run in Python; None where one has to
    rows = loaded.walk_here(request, keep_x=True)     the same by the walk
    encoded = loaded.encode(request)                  the walk's first half, for callers that keep embeddings
    rows = loaded.decide(encoded, policy, overrides)  its second half
    encoded = loaded.encode_each(requests)            several callers' prompts, taken apart and checked before, in one forward

`RouteRequest`, `RequestOverrides` and the options' names are in the room request/. A lost device raises DeviceLostError from any
of these; `LoadedBundle.run` is the one place that catches it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.conversation import ALL
from ipr_engine.bundle.task_names import AskedTask
from ipr_engine.decide.contract import OneRow
from ipr_engine.decision.decision import Decision, FailedRow, Row
from ipr_engine.decision.decisions import Decisions, MadeOn, check_rows, checked_rows, with_failures
from ipr_engine.encoders.base import Encoded
from ipr_engine.encoders.conversations import TextOrRequest
from ipr_engine.encoders.task_columns import with_tasks
from ipr_engine.errors import DeviceLostError, InvalidInputError
from ipr_engine.loaded.planned_bundle import EmbedRows, PlannedBundle, Rows, escalating, merged
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.rules import UNSUPPORTED
from ipr_engine.prompts import ParsedRequest, Prompt, parse_request
from ipr_engine.request.asked_tasks import asked_task, asked_tasks
from ipr_engine.request.intake import (
    Intake,
    all_counted,
    check_features,
    encode_all,
    encode_requests,
    take_in,
    text_terms,
)
from ipr_engine.request.overrides import NO_OVERRIDES, RequestOverrides
from ipr_engine.request.route_request import NO_POLICY_OPTIONS, RouteRequest
from ipr_engine.request.row_inputs import (
    PLAIN_BATCH,
    BatchInputs,
    RequestLimits,
    RowInputs,
    moved_by,
    of_rows,
    request_limits,
    router_limits,
)

Asked = tuple[
    npt.NDArray[np.float32] | None,  # tokens_out, (models,) or (batch, models)
    npt.NDArray[np.float32] | None,  # extra_usd, the same
    npt.NDArray[np.bool_] | None,  # allowed
    npt.NDArray[np.int64] | None,  # max_tokens
    npt.NDArray[np.int64] | None,  # answers
]
NOTHING_ASKED: Asked = (None, None, None, None, None)
Made = TypeVar("Made")


class LoadedBundle(PlannedBundle):
    """A `LoadedBundle` is a bundle that can serve, with the walk from prompts to decisions on it."""

    __slots__ = ()

    def resolve(self, policy: Policy | None, options: Mapping[str, object] = MappingProxyType({})) -> Policy:
        """Return the policy that a call's arguments mean, compiled for this bundle."""
        policies = self.policies
        if policy is None:
            return policies.of_options(options)
        if not isinstance(policy, Policy):
            raise InvalidInputError(f"policy: expected what engine.policy(...) returns, got {type(policy).__name__}")
        if options:
            raise InvalidInputError(f"{', '.join(options)}: give either a policy or its arguments, not both")
        mine = policy.bundle_hash == self.hash and policy.drift is self.calibrations.drift
        if mine and (policy.measured is None or policy.measured is policies.measured):
            return policy
        return policies.follow(policy)  # a bundle that serves again has a drift flag of its own

    def route_one(
        self, prompt: Prompt, policy: Policy | None, options: Mapping[str, object], on_error: str = "raise"
    ) -> Row | None:
        """Decide one prompt in one C++ call; None where the walk has to: see the head of this file.

        options: those of the call, as `Engine.route` takes them.

        Raises:
            InvalidInputError: a bad prompt or argument. RowError: it cannot be decided, unless `on_error` is "status".
        """
        gpu, task = self.gpu, None
        if not (self.routes_text or gpu):
            return None
        if options and not NO_POLICY_OPTIONS.isdisjoint(options):
            asked, options = options.get("task"), {name: value for name, value in options.items() if name != "task"}
            if gpu is not None or type(asked) is not str or not NO_POLICY_OPTIONS.isdisjoint(options):
                return None  # a task alone is a column of x that C++ sets
            task = asked_task(asked, "task", self.bundle.tasks)
        policy = self.resolve(policy, options)
        if type(prompt) is str:
            if gpu is not None:
                return self._one_row(gpu.route_one(prompt, policy), None, policy, on_error)
            figures = self.router.route_one(prompt, policy.compiled, self.column_of(task))
            return self._one_row(figures, None if task is None else RowInputs(task=task), policy, on_error)
        request = parse_request(prompt)
        return self._route_request(request, policy, on_error, task) if request.all_text else None

    def _route_request(
        self, request: ParsedRequest, policy: Policy, on_error: str, task: AskedTask | None = None
    ) -> Row | None:
        """Decide one request, all counted, in one C++ call; None where the second tier must be asked, or the walk on a GPU."""
        needs, limits, allowed = request.needs, None, None
        if needs is not None:
            limits, allowed = self.limits.of(needs)
            if allowed is not None and limits.excluded.keys() >= set(policy.allowed):
                check_features(needs, "prompt", self.bundle, policy)
        stated = -1 if request.max_output_tokens is None else request.max_output_tokens
        if self.gpu is not None and request.turns and self.conversation != ALL:
            return None  # a recording reads one text, and bills it
        texts = request.encoded, request.billed_only
        inputs = None if limits is None and task is None else RowInputs(limits, task=task)
        if self.gpu is None:
            column = self.column_of(task)
            one = self.router.route_request(
                *texts, policy.compiled, allowed, stated, request.answers, column, request.turns
            )
            return self._one_row(one, inputs, policy, on_error)
        figures = self.gpu.route_request(*texts, policy, allowed, stated, request.answers)
        return self._one_row(figures, inputs, policy, on_error)

    def _one_row(self, figures: OneRow | None, inputs: RowInputs | None, policy: Policy, on_error: str) -> Row | None:
        """Return the row that one C++ call made, with these inputs; None where it made none, or the second tier must be asked."""
        if figures is None:
            return None
        result, billed, truncated, support, own = figures
        if policy.escalate_below and self.escalates(result, policy):
            return None
        if result.all_ok:
            made: Row = Decision(result, 0, policy, self.bundle, billed, truncated, support, own)
        else:
            if on_error == "raise":
                check_rows(result, on_error)
            made = FailedRow(result, 0, policy, self.bundle, billed, truncated, support, own)
        if inputs is not None:
            made.inputs = inputs
        return made

    def route(self, request: RouteRequest) -> Decisions:
        """Encode and decide one prompt or a list of them, and check the rows.

        Raises:
            InvalidInputError: a bad prompt or argument. RowError: rows that cannot be decided. Unless `on_error` is "status".
            DeviceLostError: the device that encodes is gone.
        """
        return checked_rows(self.walk(request), request.on_error)

    def walk(self, request: RouteRequest, *, keep_x: bool = False) -> Decisions:
        """Encode, decide, and decide again where the second tier is asked.

        That is one call where the prompts are texts and the encoder is compiled, one recording on a GPU, else one after the other.

        keep_x: encode apart from deciding, and leave the embeddings in `made_on`.
        """
        policy = request.policy
        texts = request.plain_texts if (self.routes_text or self.gpu) and not keep_x else None
        if texts is not None:
            try:
                gpu = self.gpu
                many = self.router.route_many(texts, policy.compiled) if gpu is None else gpu.route_many(texts, policy)
                if many is not None:
                    first = Decisions(many[0], policy, self.bundle, many[1:])
                    again = self.embed_again(texts) if policy.escalate_below else None
                    return first if again is None else self._escalate(first, again)
            except InvalidInputError:
                if request.on_error != "status":  # else a prompt is bad, and the others stand
                    raise
        intake = take_in(request.prompts, request.given, self.bundle, policy, request.on_error)
        overrides = RequestOverrides.of(request.given, len(intake.requests), self.bundle.names, policy.prices)
        if self.gpu is not None and not keep_x:
            from ipr_engine.loaded.on_gpu import route_on_gpu

            rows = route_on_gpu(self, self.gpu, intake, policy, overrides)
            if rows is not None:
                made = Decisions(rows.result, policy, self.bundle, rows.figures, inputs=rows.inputs)
                batch = len(intake.requests)
                return with_failures(made, rows.rows, intake.errors, batch, intake.tasks) if intake.errors else made
        encoded = self._encode_all(intake)
        again = self.embed_again(intake.requests, intake.tasks)
        if not keep_x:
            return self.decide(encoded, policy, overrides, again)
        return self.decide_keeping(encoded, policy, overrides, again, intake.requests)

    def route_here(self, request: RouteRequest) -> Row | None:
        """Decide one prompt where no encoder has to run in Python; None where one has to. A row that failed is returned as such."""
        parsed = request.prompts
        if self.routes_text and not request.given and isinstance(parsed, ParsedRequest) and parsed.all_text:
            return self._route_request(parsed, request.policy, "status")
        rows = self.walk_here(request)
        return None if rows is None else rows[0]

    def walk_here(self, request: RouteRequest, *, keep_x: bool = False) -> Decisions | None:
        """Do as `route_here` does, by the walk.

        keep_x: that of `walk`; what the caller gave is copied, since the record is made later.
        """
        if not self.routes_text:
            return None
        policy = request.policy
        intake = take_in(request.prompts, request.given, self.bundle, policy, request.on_error)
        overrides = RequestOverrides.of(request.given, 1, self.bundle.names, policy.prices)
        encoded = self._encode_all(intake)
        if keep_x:
            made = self.decide_keeping(encoded, policy, overrides.copied(), None, intake.requests)
        else:
            made = self.decide(encoded, policy, overrides)
        return None if self.escalates(made.result, policy) else made

    def encode(
        self,
        prompts: Any,
        given: Mapping[str, Any] = MappingProxyType({}),
        on_error: str = "raise",
        *,
        second: bool = False,
        policy: Policy | None = None,
    ) -> Encoded:
        """Embed one prompt or a list of them, with the bill of each; see `Engine.encode`.

        given: billed_tokens and task, where the caller gives them.
        second: by the second encoder; the bills are the first one's.
        policy: whose candidates must be able to read each prompt; None: nobody is asked.
        """
        if second and self.second is None:
            raise InvalidInputError(f"second: bundle {self.hash[:12]} has no second tier; leave it out")
        intake = take_in(prompts, given, self.bundle, policy, on_error)
        first = self._encode_all(intake)
        if not second or self.second is None:
            return first
        good = [row for row in range(len(first)) if row not in first.errors]
        made = self.second.encode([intake.requests[row] for row in good])
        if intake.tasks is not None:
            made = with_tasks(self.second.task_columns, made, [intake.tasks[row] for row in good])
        if len(good) == len(first):
            return replace(made, billed_tokens=first.billed_tokens, needs=first.needs, terms=first.terms)
        x, truncated = np.full((len(first), made.x.shape[1]), np.nan, np.float32), np.zeros(len(first), np.bool_)
        x[good], truncated[good] = made.x, made.truncated
        return replace(first, x=x, truncated=truncated, encoder=made.encoder)

    def _encode_all(self, intake: Intake) -> Encoded:
        """Embed prompts that were taken in, each for its task."""
        made = encode_all(self.encoder, self.encoder_identity, intake, self.conversation)
        return made if intake.tasks is None else with_tasks(self.task_columns, made, intake.tasks)

    def run(
        self,
        call: Callable[[LoadedBundle], Made],
        fail_over: Callable[[LoadedBundle, DeviceLostError], LoadedBundle],
    ) -> Made:
        """Return what `call` gives on this bundle; once its device is lost, on the one that `fail_over` puts in its place."""
        try:
            return call(self)
        except DeviceLostError as error:
            return call(fail_over(self, error))

    def encode_each(
        self, requests: Sequence[ParsedRequest], bill_given: Sequence[bool], tasks: Sequence[str | None]
    ) -> Encoded:
        """Embed several callers' prompts in one forward, each taken apart and checked before; their bills are counted by the caller.

        bill_given: whose bill its caller gives. tasks: what each caller says that its prompt is for.
        """
        made = encode_requests(self.encoder, requests, self.conversation)
        if made.x.shape != (len(requests), self.plan.dim):
            raise RuntimeError(
                f"it gave embeddings of shape {made.x.shape} for {len(requests)} prompts of {self.plan.dim} dimensions"
            )
        needs = tuple(request.needs for request in requests)
        terms = text_terms(requests, bill_given)
        made = replace(made, encoder=self.encoder_identity, needs=needs if any(needs) else None, terms=terms)
        asked = asked_tasks(tasks, len(requests), self.bundle.tasks) if any(tasks) else None
        return made if asked is None else with_tasks(self.task_columns, made, asked)

    def decide(
        self,
        encoded: Encoded,
        policy: Policy,
        overrides: RequestOverrides = NO_OVERRIDES,
        again: EmbedRows | None = None,
    ) -> Decisions:
        """Decide on embeddings under a policy of this bundle; rows that fail are returned as such.

        overrides: of these rows, for this bundle's candidates.
        again: embeds rows by the second encoder; with it, rows of a small gap are decided again.
        """
        batch = len(encoded.x)
        if encoded.errors:
            good = np.array([row for row in range(batch) if row not in encoded.errors], np.int64)
            # rows are positions among the good: the batch's own are good[rows]
            again_good = None if again is None else lambda rows: again(good[rows])
            made = self.decide(encoded[good], policy, overrides.at(good), again_good)
            return with_failures(made, good, encoded.errors, batch, encoded.tasks)
        if self.second is not None and policy.second is not None and self.is_second(encoded.encoder):
            router, compiled, escalated = self.second.router, policy.second.compiled, np.ones(batch, np.bool_)
        else:
            router, compiled, escalated = self.router, policy.compiled, None
        billed, terms, needs = encoded.billed_tokens, encoded.terms, encoded.needs
        tokens, extra, own = overrides.tokens_out, overrides.extra_usd, overrides.tokens_in
        inputs, asked = PLAIN_BATCH, NOTHING_ASKED
        nothing_given = overrides is NO_OVERRIDES and all_counted(terms)
        if not nothing_given or needs is not None:
            usd = extra  # with cached tokens and images: (models,) or (batch, models)
            if overrides.cached_tokens is not None or own is not None:
                own = self.own_tokens(terms, billed, own)
                usd = policy.rates.with_cached(extra, billed, own, overrides.cached_tokens)
            moved = None if nothing_given else moved_by(batch, terms, tokens, extra, usd, overrides.tokens_in)
            limits: RequestLimits | None = None
            if not (needs is None and tokens is None and usd is None):
                limits = request_limits(self.bundle, needs, tokens, batch)
                usd = policy.rates.with_images(usd, needs)
                asked = (tokens, policy.weighed(usd), *router_limits(limits))
            given = overrides.tokens_in_given
            inputs = BatchInputs(limits=limits, extra_usd=usd, moved=moved, tokens_in_given=given)
        if encoded.tasks is not None:
            inputs = replace(inputs, tasks=encoded.tasks)
        # by position: names take the compiled call half as long again
        result, support, own = router.decide(encoded.x, compiled, billed, *asked, own, terms)
        figures = (billed, encoded.truncated, support, own)
        decisions = Decisions(result, policy, self.bundle, figures, escalated, inputs)
        if again is not None and policy.escalate_below:
            return self._escalate(decisions, again, tokens)
        return decisions

    def decide_keeping(
        self,
        encoded: Encoded,
        policy: Policy,
        overrides: RequestOverrides,
        again: EmbedRows | None = None,
        requests: Sequence[TextOrRequest] | None = None,
    ) -> Decisions:
        """Decide as `decide` does, and leave in `made_on` what was decided on, for records; requests: what was encoded, where known."""
        x = list(encoded.x)

        def embed(rows: Rows) -> Encoded:
            assert again is not None
            made = again(rows)
            for row, own in zip(rows.tolist(), made.x, strict=True):  # the row was decided on the second encoder's
                x[row] = own
            return made

        decisions = self.decide(encoded, policy, overrides, None if again is None else embed)
        texts = None if requests is None else [self.shown_texts(request) for request in requests]
        decisions.made_on = MadeOn(encoded, overrides, texts, x)
        return decisions

    def _escalate(
        self, first: Decisions, again: EmbedRows, tokens_out: npt.NDArray[np.float32] | None = None
    ) -> Decisions:
        """Return the first heads' decisions, with the rows of a gap below the policy's decided again by the second heads, in one batch.

        The bill and support of a row stay the first encoder's.
        """
        policy, second = first.policy, self.second
        rows = escalating(first.gap, policy.escalate_below)
        if policy.unsupported.min_support:
            rows = rows[first.cause[rows] != UNSUPPORTED]  # no predicted quality decided those
        if second is None or policy.second is None or not len(rows):
            return first
        encoded = again(rows)
        limits = None if first.limits is None else first.limits.at(rows)
        result, _, _ = second.router.decide(
            encoded.x,
            policy.second.compiled,
            np.ascontiguousarray(first.billed_tokens[rows]),
            of_rows(tokens_out, rows),
            policy.weighed(of_rows(first.extra_usd, rows)),
            *router_limits(limits),
            own_tokens=of_rows(first.own_tokens, rows),
        )
        both = result if len(rows) == len(first) else merged(first.result, rows, result)
        truncated, escalated = first.truncated.copy(), np.zeros(len(first), np.bool_)
        truncated[rows], escalated[rows] = encoded.truncated, True
        figures = (first.billed_tokens, truncated, first.support, first.own_tokens)
        return Decisions(both, policy, self.bundle, figures, escalated, first.inputs)
