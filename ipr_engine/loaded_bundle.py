"""A bundle, planned: all that a call reads, and the one walk from prompts to decisions.

An engine holds one loaded bundle and swaps it with one assignment (docs/design.md section 8). Its calls, cheapest first:

    policy = loaded.resolve(policy, options)          the Policy that a call's arguments mean, compiled for this bundle
    row = loaded.route_text(text, policy, options)    one plain text in one C++ call; None where an option is given of the prompt,
                                                      the encoder is not compiled, or the second tier must be asked
    rows = loaded.route(RouteRequest(...))            the walk: encodes, decides, escalates and checks rows, whatever the prompts
    rows = loaded.walk(request, keep_x=True)          the same before its rows are checked; `rows.made_on` is what they were decided on
    row = loaded.route_here(request)                  one prompt where no encoder has to run in Python; None where one has to
    encoded = loaded.encode(request)                  the walk's first half, for callers that keep embeddings
    rows = loaded.decide(encoded, policy, overrides)  its second half
    encoded = loaded.encode_each(requests)            several callers' prompts, taken apart and checked before, in one forward

`RouteRequest`, `RequestOverrides` and the options' names are in the room request/. A lost device raises DeviceLostError from any
of these; `Engine.run` is the one place that catches it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS, DecideResult
from ipr_engine._profiling import span
from ipr_engine.bundle import Bundle, Performance
from ipr_engine.cascade import (
    EmbedRows,
    Rows,
    SecondTier,
    escalating,
    make_router,
    merged,
    plan_heads,
)
from ipr_engine.decide.contract import STATUS
from ipr_engine.decision import OK, Decisions
from ipr_engine.encoders.base import Encoded, Encoder, record_graphs
from ipr_engine.encoders.load_options import LoadOptions, on_gpu
from ipr_engine.encoders.registry import make_encoder
from ipr_engine.errors import EncoderMismatchError, InvalidInputError, RowError
from ipr_engine.failed_rows import with_failures
from ipr_engine.policy.calibrated import Calibrations, DriftFlag
from ipr_engine.policy.cost_weights import Figures
from ipr_engine.policy.in_use import PoliciesInUse
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.unsupported import UNSUPPORTED
from ipr_engine.request.arguments import bare_embeddings, per_model, whole_counts
from ipr_engine.request.cached_tokens import held_tokens
from ipr_engine.request.intake import Intake, bill_all, check_features, encode_all, take_in, text_terms
from ipr_engine.request.limits import RequestLimits, of_rows, request_limits
from ipr_engine.request.moved_costs import moved_by
from ipr_engine.request.tokens_in import told_tokens

if TYPE_CHECKING:
    from ipr_engine.gpu_router.plan import GpuSide

Given = npt.NDArray[np.float32] | None  # (models,) or (batch, models)
Asked = tuple[Given, Given, npt.NDArray[np.bool_] | None, npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]
NOTHING_ASKED: Asked = (None, None, None, None, None)  # tokens_out, extra_usd, allowed, max_tokens, answers


class LoadedBundle:
    """One bundle with its encoder, packed heads and router, and the policies compiled for it.

    A call reads the engine's loaded bundle once and uses nothing else, so that its decision's names, prices, costs and hash
    come from one bundle. Nothing refers back to it: it is freed with its last reader.

    Attributes:
        bundle, hash: the bundle and its hash.
        encoder, encoder_identity: the prompt encoder of its heads, and its name.
        plan: the packed heads.
        calibrations: its maps, with what is known of their validity.
        policies: those compiled for it, with the figures of candidates that they weigh.
        router: text or embeddings to decisions, in C++.
        routes_text: the router encodes too; else the encoder runs in Python, decide apart from it.
        gpu: encoder and decision in one recording, where both run on a GPU; None elsewhere.
        cpu_fallback: the same bundle planned for the CPU, which takes over should the GPU fail, if that was asked for.
        second: the heads that decide again where the gap is small, planned; None in a bundle of one tier.
    """

    __slots__ = (
        "__weakref__",
        "bundle",
        "calibrations",
        "cpu_fallback",
        "encoder",
        "encoder_identity",
        "gpu",
        "hash",
        "plan",
        "policies",
        "router",
        "routes_text",
        "second",
    )

    def __init__(
        self,
        bundle: Bundle,
        *,
        options: LoadOptions,
        before: LoadedBundle | None = None,
        encoders: Mapping[str, Encoder] = MappingProxyType({}),
    ) -> None:
        """Plan `bundle`; of `before` the encoders that the heads name are kept, with what was recorded of them.

        encoders: identity -> an encoder already loaded, in place of the one that the options ask for.
        """
        heads, again = bundle.quality_heads, bundle.escalation_heads
        if before is not None:
            encoders = {**before._encoders(), **encoders}
        support = bundle.support
        if support is not None and support.encoder != heads.encoder:
            raise EncoderMismatchError(
                f"support: measured on encoder {support.encoder!r}, but the heads read {heads.encoder!r}; measure it on theirs"
            )
        kept = encoders.get(bundle.encoder(heads.encoder).identity)
        self.bundle = bundle
        self.hash = bundle.hash
        self.encoder: Encoder = make_encoder(bundle, heads.encoder, options) if kept is None else kept
        self.encoder_identity = self.encoder.identity
        self.plan = plan_heads(bundle, heads, options)
        self.router = make_router(bundle, heads, self.plan, self.encoder)
        self.routes_text = self.encoder.native is not None
        self.second: SecondTier | None = None
        if again is not None:
            encoders = {**encoders, self.encoder_identity: self.encoder}
            self.second = SecondTier(bundle, again, options, encoders.get(bundle.encoder(again.encoder).identity))
        self.gpu = _gpu(bundle, self.encoder, options, before)
        if self.gpu is None:
            record_graphs(self._encoders().values())
        self.cpu_fallback: LoadedBundle | None = None
        if options.fallback is not None:
            on_cpu = replace(options, device=options.fallback, fallback=None, tier="auto")
            self.cpu_fallback = LoadedBundle(
                bundle, options=on_cpu, before=None if before is None else before.cpu_fallback
            )
        self.calibrations = Calibrations(bundle)
        self.share_drift(self.calibrations.drift)
        refreshed: Figures = MappingProxyType({}) if before is None else before.policies.refreshed
        second_plan = None if self.second is None else self.second.plan
        self.policies: PoliciesInUse = PoliciesInUse(bundle, self.plan, second_plan, self.calibrations, refreshed)

    def share_drift(self, drift: DriftFlag) -> None:
        """What is known of drift holds wherever the bundle runs."""
        self.calibrations.drift = drift
        if self.cpu_fallback is not None:
            self.cpu_fallback.share_drift(drift)

    def _encoders(self) -> dict[str, Encoder]:
        """The encoders at hand, by identity."""
        second = {} if self.second is None else {self.second.identity: self.second.encoder}
        return {self.encoder_identity: self.encoder, **second}

    def resolve(self, policy: Policy | None, options: Mapping[str, Any] = MappingProxyType({})) -> Policy:
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

    def measure(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Take new figures of candidates, on the CPU's bundle as well; see `Engine.update_performance`."""
        self.policies.measure(figures)
        if self.cpu_fallback is not None:
            self.cpu_fallback.measure(figures)

    def route(
        self,
        prompts: Any,
        policy: Policy,
        billed_tokens: Any,
        tokens_out: Any,
        extra_usd: Any,
        on_error: str,
        cached_tokens: Any = None,
        tokens_in: Any = None,
    ) -> Decisions:
        """Encode and decide one prompt or a list of them: in one step on a GPU, else one after the other."""
        check_on_error(on_error)
        intake = take_in(prompts, billed_tokens, self.bundle, policy, on_error)
        own = None if tokens_in is None else told_tokens(tokens_in, len(intake.requests), self.bundle.names)
        if self.gpu is not None:
            decisions = self._route_on_gpu(intake, policy, tokens_out, extra_usd, cached_tokens, own)
            if decisions is not None:
                return checked_rows(decisions, on_error)
        encoded = self._encoded(intake)
        again = self.embed_texts([request.encoded for request in intake.requests])
        return self.decide(encoded, policy, tokens_out, extra_usd, on_error, again, own, cached_tokens)

    def _route_on_gpu(
        self,
        intake: Intake,
        policy: Policy,
        tokens_out: Any,
        extra_usd: Any,
        cached_tokens: Any,
        told: npt.NDArray[np.float32] | None,
    ) -> Decisions | None:
        """The decisions, made in one recording; None where a prompt has no token, which leaves the recording nothing to read."""
        from ipr_engine.gpu_router.router import RouteRows

        assert self.gpu is not None
        batch, good = len(intake.requests), intake.good
        counts, truncated = np.zeros(batch, np.int64), np.zeros(batch, np.bool_)
        with span("tokenize"):
            ids, counts[good], truncated[good] = self.gpu.stream.read([intake.requests[row].encoded for row in good])
            bills = bill_all(self.encoder, intake, counts)
        kept = [(row, own) for row, own in zip(good, ids, strict=True) if row not in intake.errors]
        rows = np.array([row for row, _ in kept], np.int64)
        if not len(rows) or not counts[rows].all():
            return None
        requests, given = [intake.requests[row] for row in rows.tolist()], [intake.given[row] for row in rows.tolist()]
        terms = text_terms(requests, [bill is not None for bill in given])
        told = of_rows(told, rows)
        own = self.own_tokens(terms, bills[rows], told)
        tokens, extra, held = self._given(batch, policy, tokens_out, extra_usd, cached_tokens)
        tokens, extra, held = of_rows(tokens, rows), of_rows(extra, rows), of_rows(held, rows)
        needs = [intake.requests[row].needs for row in rows.tolist()]
        with_cached = policy.rates.with_cached(extra, bills[rows], own, held)
        usd = policy.rates.with_images(with_cached, needs)
        asked = RouteRows(
            ids=[own for _, own in kept],
            billed=bills[rows],
            own_tokens=own,
            tokens_out=tokens,
            extra_usd=policy.weighed(usd),
            limits=request_limits(self.bundle, needs, tokens, len(rows)),
        )
        result, x = self.gpu.route(policy, asked)
        support = self.router.support(x)
        if support is not None and policy.unsupported.min_support:
            masks = (tokens is not None, *_limits_of(asked.limits))
            self.router.send_unsupported(result, policy.compiled, asked.billed, *masks, support, own_tokens=own)
        made = Decisions(
            result,
            policy,
            self.bundle,
            asked.billed,
            truncated[rows],
            support,
            own,
            limits=asked.limits,
            extra_usd=usd,
            moved=moved_by(len(rows), terms, tokens, extra, with_cached, told),
            tokens_in_given=None if told is None else ~np.isnan(told),
        )
        return with_failures(made, rows, intake.errors, batch) if intake.errors else made

    def encode(self, prompts: Any, billed_tokens: Any, on_error: str = "raise") -> Encoded:
        """Embed one prompt or a list of them, with the bill of each; see `Engine.encode`."""
        return self.prepare(prompts, billed_tokens, None, on_error)[0]

    def encode_again(self, prompts: Any, billed_tokens: Any, on_error: str = "raise") -> Encoded:
        """The same by the second encoder; the bills are the first one's."""
        if self.second is None:
            raise InvalidInputError(f"second: bundle {self.hash[:12]} has no second tier; leave it out")
        first, texts = self.prepare(prompts, billed_tokens, None, on_error)
        good = [row for row in range(len(first)) if row not in first.errors]
        made = self.second.encode([texts[row] for row in good])
        if len(good) == len(first):
            return replace(made, billed_tokens=first.billed_tokens, needs=first.needs, terms=first.terms)
        x, truncated = np.full((len(first), made.x.shape[1]), np.nan, np.float32), np.zeros(len(first), np.bool_)
        x[good], truncated[good] = made.x, made.truncated
        return replace(first, x=x, truncated=truncated, encoder=made.encoder)

    def prepare(
        self, prompts: Any, billed_tokens: Any, policy: Policy | None, on_error: str = "raise"
    ) -> tuple[Encoded, list[str]]:
        """What `encode` gives, and the text of each prompt that was encoded."""
        intake = take_in(prompts, billed_tokens, self.bundle, policy, on_error)
        return self._encoded(intake), [request.encoded for request in intake.requests]

    def _encoded(self, intake: Intake) -> Encoded:
        return encode_all(self.encoder, self.encoder_identity, intake)

    def embeddings(self, x: Encoded | npt.NDArray[np.float32], billed_tokens: Any) -> Encoded:
        """What `Engine.decide` was given, as Encoded with its bills."""
        encoded = x if type(x) is Encoded else bare_embeddings(x, self.plan.dim, billed_tokens)
        if encoded.encoder not in (None, self.encoder_identity) and not self.is_second(encoded.encoder):
            raise EncoderMismatchError(
                f"x: embedded by encoder {encoded.encoder[:12]}, but the heads of bundle {self.hash[:12]} read "
                f"{self.read_by_heads()}; encode the prompts again"
            )
        if billed_tokens is not None:
            bills, given = whole_counts(billed_tokens, len(encoded)), encoded is x
            terms = (
                np.full((len(encoded), len(TEXT_TERMS)), np.nan) if given else None
            )  # a bare array has no count but this
            encoded = replace(encoded, billed_tokens=bills, terms=terms)
        return encoded

    def readable(self, encoded: Encoded, policy: Policy, on_error: str) -> Encoded:
        """The same, held against what the policy's candidates can read, as `route` holds prompts before it encodes them.

        Raises:
            InvalidInputError: a row needs what every allowed candidate lacks; or, where on_error is "status", it is in `errors`.
        """
        check_on_error(on_error)
        errors = dict(encoded.errors)
        for row, needs in enumerate(encoded.needs or ()):
            try:
                if needs is not None and row not in errors:
                    check_features(needs, "prompt" if len(encoded) == 1 else f"prompts[{row}]", self.bundle, policy)
            except InvalidInputError as error:
                if on_error != "status":
                    raise
                errors[row] = str(error)
        return encoded if len(errors) == len(encoded.errors) else replace(encoded, errors=errors)

    def escalates(self, result: DecideResult, policy: Policy, row: int = 0) -> bool:
        """Whether a row that the first heads decided is decided again: its gap is small, and its support is not."""
        below = policy.escalate_below
        return bool(below) and (result.gap_at(row) < below or below == math.inf) and result.cause_at(row) != UNSUPPORTED

    def is_second(self, identity: str | None) -> bool:
        """Whether embeddings of this encoder are for the second heads; those of an encoder that both read are for the first."""
        return self.second is not None and identity == self.second.identity and identity != self.encoder_identity

    def read_by_heads(self) -> str:
        """The encoders that the heads read, for a message."""
        return self.encoder_identity[:12] + ("" if self.second is None else f" or {self.second.identity[:12]}")

    def decide(
        self,
        encoded: Encoded,
        policy: Policy,
        tokens_out: Any,
        extra_usd: Any,
        on_error: str,
        again: EmbedRows | None = None,
        own_tokens: npt.NDArray[np.float32] | None = None,
        cached_tokens: Any = None,
    ) -> Decisions:
        """Decide on embeddings under a policy of this bundle; see `Engine.decide`.

        again: embeds rows by the second encoder; with it, rows of a small gap are decided again.
        own_tokens: (batch, models) input tokens by each candidate's own count, where they are known; NaN, or None: estimated.
        """
        batch = len(encoded.x)
        tokens, extra, held = self._given(batch, policy, tokens_out, extra_usd, cached_tokens)
        if encoded.errors:
            return self._decide_good(encoded, policy, tokens, extra, held, own_tokens, on_error, again)
        if self.second is not None and policy.second is not None and self.is_second(encoded.encoder):
            router, compiled, escalated = self.second.router, policy.second.compiled, np.ones(batch, np.bool_)
        else:
            router, compiled, escalated = self.router, policy.compiled, None
        billed, terms, needs = encoded.billed_tokens, encoded.terms, encoded.needs
        own, usd = own_tokens, extra
        if held is not None or own is not None:
            own = self.own_tokens(terms, billed, own)
            usd = policy.rates.with_cached(extra, billed, own, held)
        moved = moved_by(batch, terms, tokens, extra, usd, own_tokens)
        limits: RequestLimits | None = None
        asked = NOTHING_ASKED
        if not (needs is None and tokens is None and usd is None):
            limits = request_limits(self.bundle, needs, tokens, batch)
            usd = policy.rates.with_images(usd, needs)
            asked = (tokens, policy.weighed(usd), *_limits_of(limits))
        # by position: names take the compiled call half as long again
        result, support, own = router.decide(encoded.x, compiled, billed, *asked, own, terms)
        decisions = Decisions(
            result,
            policy,
            self.bundle,
            billed,
            encoded.truncated,
            support,
            own,
            escalated,
            limits,
            extra_usd=usd,
            moved=moved,
            tokens_in_given=None if own_tokens is None else ~np.isnan(own_tokens),
        )
        if again is not None and policy.escalate_below:
            decisions = self.escalate(decisions, again, tokens, usd)
        return checked_rows(decisions, on_error)

    def own_tokens(
        self,
        terms: npt.NDArray[np.float64] | None,
        billed: npt.NDArray[np.int64],
        told: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.float32] | None:
        """(batch, models) input tokens by each candidate's own count; None where nobody told any, and no candidate names its tokenizer.

        terms: as of `Encoded`. told: as of `told_tokens`; they stand before what is estimated.
        """
        if told is not None and not np.isnan(told).any():
            return told
        if self.router.has_tokenizers and terms is None:
            terms = np.full((len(billed), len(TEXT_TERMS)), np.nan)
        estimated = None if terms is None else self.router.own_tokens(terms, billed)
        if told is None:
            return estimated
        if estimated is None:
            ratios = np.array([candidate.token_ratio for candidate in self.bundle.candidates], np.float64)
            estimated = (billed[:, None] * ratios).astype(np.float32)
        return np.where(np.isnan(told), estimated, told)

    def _given(
        self, batch: int, policy: Policy, tokens_out: Any, extra_usd: Any, cached_tokens: Any
    ) -> tuple[Given, Given, npt.NDArray[np.float64] | None]:
        """What the caller gives of a batch: tokens_out, extra_usd, and cached_tokens as (batch, models)."""
        if tokens_out is None and extra_usd is None and cached_tokens is None:
            return None, None, None
        models, names = self.plan.models, self.bundle.names
        tokens = None if tokens_out is None else per_model("tokens_out", tokens_out, batch, models)
        extra = None if extra_usd is None else per_model("extra_usd", extra_usd, batch, models)
        held = None if cached_tokens is None else held_tokens(cached_tokens, batch, names, policy.prices)
        return tokens, extra, held

    def _decide_good(
        self,
        encoded: Encoded,
        policy: Policy,
        tokens: Given,
        extra: Given,
        held: npt.NDArray[np.float64] | None,
        own: npt.NDArray[np.float32] | None,
        on_error: str,
        again: EmbedRows | None,
    ) -> Decisions:
        """Decide the rows that could be encoded; the others come back as they are, with what is wrong with them."""
        batch = len(encoded)
        good = np.array([row for row in range(batch) if row not in encoded.errors], np.int64)
        again_good = None if again is None else lambda rows: again(good[rows])
        given, cached = (of_rows(tokens, good), of_rows(extra, good)), of_rows(held, good)
        made = self.decide(encoded[good], policy, *given, "status", again_good, of_rows(own, good), cached)
        return checked_rows(with_failures(made, good, encoded.errors, batch), on_error)

    def escalate(
        self,
        first: Decisions,
        again: EmbedRows,
        tokens_out: npt.NDArray[np.float32] | None = None,
        extra_usd: npt.NDArray[np.float32] | None = None,
    ) -> Decisions:
        """The first heads' decisions, those of a gap below the policy's decided again by the second heads, in one batch.

        The bill and support of a row stay the first encoder's.
        """
        policy, second = first.policy, self.second
        rows = escalating(first.gap, policy.escalate_below)
        if policy.unsupported.min_support:
            rows = rows[first.cause[rows] != UNSUPPORTED]
        if second is None or policy.second is None or not len(rows):
            return first
        encoded = again(rows)
        limits = None if first.limits is None else first.limits.at(rows)
        result, _, _ = second.router.decide(
            encoded.x,
            policy.second.compiled,
            np.ascontiguousarray(first.billed_tokens[rows]),
            of_rows(tokens_out, rows),
            policy.weighed(of_rows(extra_usd, rows)),
            *_limits_of(limits),
            own_tokens=None if first.own_tokens is None else of_rows(first.own_tokens, rows),
        )
        both = result if len(rows) == len(first) else merged(first._result, rows, result)
        truncated, escalated = first.truncated.copy(), np.zeros(len(first), np.bool_)
        truncated[rows], escalated[rows] = encoded.truncated, True
        billed, own = first.billed_tokens, first.own_tokens
        return Decisions(
            both,
            policy,
            self.bundle,
            billed,
            truncated,
            first.support,
            own,
            escalated,
            first.limits,
            extra_usd=extra_usd,
            moved=first.moved,
            tokens_in_given=first.tokens_in_given,
        )

    def embed_texts(self, texts: list[str]) -> EmbedRows | None:
        """What `decide` takes as `again` for these prompts; None in a bundle of one tier."""
        second = self.second
        if second is None:
            return None

        def embed(rows: Rows) -> Encoded:
            return second.encode([texts[row] for row in rows.tolist()])

        return embed

    def kept_rows(self, x: Encoded, again: Encoded) -> EmbedRows:
        """What `decide` takes as `again`, of embeddings kept beside x."""
        if self.second is None:
            raise InvalidInputError(f"second: bundle {self.hash[:12]} has no second tier; leave it out")
        if type(again) is not Encoded or len(again) != len(x):
            got = f"{len(again)} rows" if type(again) is Encoded else type(again).__name__
            raise InvalidInputError(f"second: expected what encode(..., second=True) returns, {len(x)} rows, got {got}")
        for name, given, wanted in (
            ("x", x.encoder, self.encoder_identity),
            ("second", again.encoder, self.second.identity),
        ):
            if given not in (None, wanted):
                raise EncoderMismatchError(
                    f"{name}: expected embeddings of encoder {wanted[:12]}, got those of {given[:12]}; encode the prompts again"
                )
        return lambda rows: again[rows]


def _gpu(bundle: Bundle, encoder: Encoder, options: LoadOptions, before: LoadedBundle | None) -> GpuSide | None:
    if not on_gpu(options.device):
        return None
    from ipr_engine.gpu_router.plan import gpu_side

    return gpu_side(bundle, encoder, options.device, None if before is None else before.gpu)


def _limits_of(
    limits: RequestLimits | None,
) -> tuple[npt.NDArray[np.bool_] | None, npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]:
    """What `Router.decide` takes last: allowed, max_tokens and answers."""
    return (None, None, None) if limits is None else (limits.allowed, limits.max_tokens, limits.answers)


def checked_rows(decisions: Decisions, on_error: str) -> Decisions:
    """The decisions; RowError for the failed rows when on_error is "raise"."""
    if not decisions.all_ok or on_error != "raise":
        check_rows(decisions, on_error)
    return decisions


def check_rows(result: DecideResult | Decisions, on_error: str) -> None:
    """Raise RowError for the failed rows when on_error is "raise"."""
    check_on_error(on_error)
    if on_error == "raise":
        failed = np.flatnonzero(result.status != OK)
        if len(failed):
            raise RowError(failed.tolist(), [STATUS[result.status[row]] for row in failed])


def check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "status"):
        raise InvalidInputError(f"on_error: expected 'raise' or 'status', got {on_error!r}")
