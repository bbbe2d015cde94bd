"""A bundle, planned: all that a call reads. An engine holds one and swaps it with one assignment (docs/design.md section 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakValueDictionary, ref

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
    of_rows,
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
from ipr_engine.policy.compile import PolicyContext, compile_policy
from ipr_engine.policy.cost_weights import Figures, merged_figures
from ipr_engine.policy.paths import Paths
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import DEFAULTS, PolicySpec, frozen_options, options_on
from ipr_engine.policy.targets import TARGETS
from ipr_engine.policy.unsupported import UNSUPPORTED
from ipr_engine.prompts import BODY
from ipr_engine.request.arguments import bare_embeddings, per_model, whole_counts
from ipr_engine.request.cached_tokens import held_tokens
from ipr_engine.request.intake import Intake, bill_all, check_features, encode_all, take_in, text_terms
from ipr_engine.request.limits import RequestLimits, request_limits
from ipr_engine.request.moved_costs import moved_by
from ipr_engine.request.tokens_in import told_tokens

if TYPE_CHECKING:
    from ipr_engine.gpu_router.route_plan import GpuRoutePlan

Given = npt.NDArray[np.float32] | None  # (models,) or (batch, models)
Asked = tuple[Given, Given, npt.NDArray[np.bool_] | None, npt.NDArray[np.int64] | None, npt.NDArray[np.int64] | None]
NOTHING_ASKED: Asked = (None, None, None, None, None)  # tokens_out, extra_usd, allowed, max_tokens, answers
MAX_KEPT_POLICIES = 256


class LoadedBundle:
    """One bundle with its encoder, packed heads and router, and the policies compiled for it.

    A call reads the engine's loaded bundle once and uses nothing else, so that its decision's names, prices, costs and hash
    come from one bundle. Nothing refers back to it: it is freed with its last reader.

    Attributes:
        bundle, hash: the bundle and its hash.
        encoder, encoder_identity: the prompt encoder of its heads, and its name.
        plan: the packed heads.
        calibrations: its maps, with what is known of their validity.
        paths: tau's path of each candidate set a policy asked for.
        measured: each candidate's figures, for policies that weigh more than USD: the bundle's, then what `measure` was told.
        refreshed: what `measure` was told alone, of candidates that this bundle lacks too: another may have them again.
        router: text or embeddings to decisions, in C++.
        routes_text: the router encodes too; else the encoder runs in Python, decide apart from it.
        gpu: encoder and decision in one recording, where both run on a GPU; None elsewhere.
        cpu_fallback: the same bundle planned for the CPU, which takes over should the GPU fail, if that was asked for.
        second: the heads that decide again where the gap is small, planned; None in a bundle of one tier.
    """

    __slots__ = (
        "__weakref__",
        "_followed",
        "_made",
        "_policies",
        "bundle",
        "calibrations",
        "cpu_fallback",
        "encoder",
        "encoder_identity",
        "gpu",
        "hash",
        "measured",
        "paths",
        "plan",
        "refreshed",
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
        self._share_drift(self.calibrations.drift)
        self.paths = Paths(bundle)
        self.refreshed: Figures = MappingProxyType({}) if before is None else before.refreshed
        self.measured = self._with_bundle(self.refreshed)
        self._policies: dict[tuple[tuple[str, Any], ...], Policy] = {}
        self._made: WeakValueDictionary[int, Policy] = WeakValueDictionary()
        self._followed: dict[int, tuple[ReferenceType[Policy], Policy]] = {}

    def successor(
        self,
        bundle: Bundle,
        *,
        options: LoadOptions,
        allow_other_encoder: bool,
        allow_fewer_candidates: bool,
        allow_fewer_outputs: bool,
    ) -> LoadedBundle:
        """Another bundle, planned to serve in place of this one, with its encoders where the identity is the same.

        Raises:
            EncoderMismatchError, InvalidInputError: calls that this bundle serves would fail, and that was not allowed.
        """
        heads = bundle.quality_heads
        identity = bundle.encoder(heads.encoder).identity
        if identity != self.encoder_identity and not allow_other_encoder:
            raise EncoderMismatchError(
                f"bundle: {bundle.hash[:12]} reads encoder {identity[:12]}, the one that serves reads "
                f"{self.encoder_identity[:12]}; kept embeddings would not fit, pass allow_other_encoder=True if none are kept"
            )
        again = bundle.escalation_heads
        then = None if again is None else bundle.encoder(again.encoder).identity
        if self.second is not None and then != self.second.identity and not allow_other_encoder:
            raise EncoderMismatchError(
                f"bundle: the second heads of {bundle.hash[:12]} read encoder {then[:12] if then else 'none: it has none'}, those "
                f"that serve read {self.second.identity[:12]}; pass allow_other_encoder=True if none of its embeddings are kept"
            )
        missing = sorted(set(self.bundle.names) - set(bundle.names))
        if missing and not allow_fewer_candidates:
            raise InvalidInputError(
                f"bundle: {bundle.hash[:12]} lacks {', '.join(missing)} of the bundle that serves; "
                "pass allow_fewer_candidates=True if they are meant to go"
            )
        if self.plan.has_tokens and "tokens" not in heads.outputs and not allow_fewer_outputs:
            raise InvalidInputError(
                f"bundle: the heads of {bundle.hash[:12]} predict no tokens, those that serve do; "
                "pass allow_fewer_outputs=True if every call gives tokens_out"
            )
        lost = _lost(self.bundle, bundle)
        if lost is not None and not allow_fewer_outputs:
            raise InvalidInputError(
                f"bundle: {bundle.hash[:12]} {lost}; pass allow_fewer_outputs=True if that is meant"
            )
        next_one = LoadedBundle(bundle, options=options, before=self)
        same = bundle.calibrations == self.bundle.calibrations and _same_path(bundle, self.bundle)
        if same:  # what made these maps and paths stale still does; new ones start anew
            next_one._share_drift(self.calibrations.drift)
        next_one._followed.update(next_one._compiled(self._in_use(), next_one.measured))
        for key in list(self._policies):
            with suppress(InvalidInputError):
                next_one._from_terms(dict(key))
        return next_one

    def keep(self, policy: Policy) -> Policy:
        """The policy, known from now on as long as it is in use: what changes under it compiles it anew before it is asked for."""
        self._made[id(policy)] = policy
        return policy

    def _in_use(self) -> list[Policy]:
        """Policies that somebody holds, made here or on a bundle before."""
        references = [*self._made.valuerefs(), *(reference for reference, _ in list(self._followed.values()))]
        held = {id(policy): policy for reference in references if (policy := reference()) is not None}
        return list(held.values())[:MAX_KEPT_POLICIES]

    def _compiled(
        self, policies: Sequence[Policy], measured: Figures
    ) -> dict[int, tuple[ReferenceType[Policy], Policy]]:
        """These policies' terms compiled for this bundle, of those that need it and fit; the others are told when they are asked for."""
        made = {}
        for policy in policies:
            mine = policy.bundle_hash == self.hash and policy.drift is self.calibrations.drift
            if not mine or policy.measured is not None:
                with suppress(InvalidInputError):
                    made[id(policy)] = (
                        self._while_held(policy),
                        self.compile(options_on(policy.options, self.bundle.names), measured),
                    )
        return made

    def _while_held(self, policy: Policy) -> ReferenceType[Policy]:
        """A reference under which what was compiled for a policy is kept: it goes with the policy's last holder."""
        at, followed = id(policy), self._followed
        return ref(policy, lambda _: followed.pop(at, None))

    def measure(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Take new figures of candidates; see `Engine.update_performance`. Policies in use that weigh them are compiled here."""
        refreshed = merged_figures("figures", self.refreshed, figures, self.bundle.names)
        measured = self._with_bundle(refreshed)
        weighing = [policy for policy in self._in_use() if policy.measured is not None]
        compiled = self._compiled(weighing, measured)
        self.refreshed, self.measured = refreshed, measured
        self._followed.update(compiled)  # a call between the two compiles its policy itself
        if self.cpu_fallback is not None:
            self.cpu_fallback.measure(figures)

    def _with_bundle(self, refreshed: Figures) -> Figures:
        """The figures of the bundle's candidates, with these in their place."""
        stated = {c.name: c.performance for c in self.bundle.candidates if c.performance is not None}
        told = {name: own for name, own in refreshed.items() if name in self.bundle.names}
        return merged_figures("figures", stated, told, self.bundle.names)

    def _share_drift(self, drift: DriftFlag) -> None:
        """What is known of drift holds wherever the bundle runs."""
        self.calibrations.drift = drift
        if self.cpu_fallback is not None:
            self.cpu_fallback._share_drift(drift)

    def _encoders(self) -> dict[str, Encoder]:
        """The encoders at hand, by identity."""
        second = {} if self.second is None else {self.second.identity: self.second.encoder}
        return {self.encoder_identity: self.encoder, **second}

    def compile(self, options: Mapping[str, Any], measured: Figures | None = None) -> Policy:
        """The policy of these options (tau, and what differs from the defaults) for this bundle.

        measured: figures in place of the loaded bundle's own.
        """
        context = PolicyContext(
            bundle=self.bundle,
            plan=self.plan,
            second_plan=None if self.second is None else self.second.plan,
            calibrations=self.calibrations,
            paths=self.paths,
            measured=self.measured if measured is None else measured,
        )
        return replace(compile_policy(PolicySpec(**options), context), options=frozen_options(options))

    def settle(self, policy: Policy | None, terms: dict[str, Any]) -> Policy:
        """The policy meant by a call's arguments, compiled for this bundle."""
        if policy is None:
            return self._from_terms(terms)
        if not isinstance(policy, Policy):
            raise InvalidInputError(f"policy: expected what engine.policy(...) returns, got {type(policy).__name__}")
        if terms:
            raise InvalidInputError(f"{', '.join(terms)}: give either a policy or its arguments, not both")
        mine = policy.bundle_hash == self.hash and policy.drift is self.calibrations.drift
        if mine and (policy.measured is None or policy.measured is self.measured):
            return policy
        return self._follow(policy)  # a bundle that serves again has a drift flag of its own

    def _follow(self, policy: Policy) -> Policy:
        """A policy made for another bundle or with other figures, its terms compiled for these: once, then kept."""
        found = self._followed.get(id(policy))  # hashing a policy costs more
        if found is not None and found[0]() is policy:
            mine = found[1]
            if mine.measured is None or mine.measured is self.measured:
                return mine
        try:
            mine = self.compile(options_on(policy.options, self.bundle.names))
        except InvalidInputError as error:
            if policy.bundle_hash == self.hash and policy.measured is not None:  # nothing else changed under it
                raise InvalidInputError(
                    f"policy: figures that it weighs were taken back by update_performance since it was made ({error})"
                ) from error
            raise InvalidInputError(
                f"policy: made for bundle {policy.bundle_hash[:12]}, and its terms do not fit bundle {self.hash[:12]}, "
                f"which serves now ({error}); make it anew with engine.policy(...)"
            ) from error
        self._followed[id(policy)] = self._while_held(policy), mine
        return mine

    def _from_terms(self, terms: dict[str, Any]) -> Policy:
        """The policy of these keyword arguments, kept for the next call when they are plain values."""
        unknown = sorted(terms.keys() - DEFAULTS.keys())
        if unknown:
            whole = (
                ""
                if not set(unknown) & set(BODY)
                else "; a request with its tools and limits is given whole, as the prompt"
            )
            raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: {', '.join(sorted(DEFAULTS))}{whole}")
        if "tau" not in terms and not terms.keys() & set(TARGETS):
            raise InvalidInputError("tau: missing; pass tau=... in [0, 1], or a policy from engine.policy(...)")
        # Other types are compiled each time: a list cannot be a key, and True and Decimal(1) would be found as 1.
        if not all(type(value) in (int, float, str) for value in terms.values()):
            return self.compile(terms)
        key = tuple(terms.items())
        kept = self._policies.get(key)
        if kept is None:
            kept = self.compile(terms)
            if len(self._policies) >= MAX_KEPT_POLICIES:
                self._policies.clear()
            self._policies[key] = kept
        return kept

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
        from ipr_engine.gpu_router.route_rows import RouteRows

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
        limits = request_limits(self.bundle, needs, tokens, len(rows))
        asked = RouteRows(
            ids=[own for _, own in kept],
            billed=bills[rows],
            own_tokens=own,
            tokens_out=tokens,
            extra_usd=policy.weighed(usd),
            limits=limits,
        )
        result, x = self.gpu.route(policy, asked)
        support = self.router.support(x)
        if support is not None and policy.unsupported.min_support:
            masks = (tokens is not None, *_limits_of(limits))
            self.router.send_unsupported(result, policy.compiled, asked.billed, *masks, support, own_tokens=own)
        made = Decisions(
            result,
            policy,
            self.bundle,
            asked.billed,
            truncated[rows],
            support,
            own,
            limits=limits,
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


def _lost(before: Bundle, after: Bundle) -> str | None:
    """What policies of the one bundle could not have of the other, or would mean otherwise there; None for nothing."""
    if before.support is not None and after.support is None:
        return "has no centroids, the bundle that serves has: policies of min_support=... would fail"
    if Paths(before).lacking(before.names) is None:
        lacking = Paths(after).lacking(after.names)
        if lacking is not None:
            lacking = lacking.removeprefix("bundle ")
            return f"({lacking}): a bare tau means rule 'path' now, and would mean 'minmax' there"
    return None


def _same_path(bundle: Bundle, before: Bundle) -> bool:
    """Whether tau's paths are read from the same rows."""
    ours, theirs = bundle.path_rows, before.path_rows
    if ours is None or theirs is None:
        return ours is theirs
    same = np.array_equal(ours.quality, theirs.quality, equal_nan=True)
    return same and np.array_equal(ours.outcome, theirs.outcome)


def _gpu(bundle: Bundle, encoder: Encoder, options: LoadOptions, before: LoadedBundle | None) -> GpuRoutePlan | None:
    if not on_gpu(options.device):
        return None
    from ipr_engine.gpu_router.route_plan import plan_gpu_route

    return plan_gpu_route(bundle, encoder, options.device, None if before is None else before.gpu)


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
