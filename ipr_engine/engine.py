"""The engine: text in, decision out. Everything that can fail, allocate or choose happens in `load`; `route` does neither."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Unpack, cast

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult
from ipr_engine._default_bundle import DEFAULT_BUNDLE
from ipr_engine._old_spellings import warn_list, warn_on_error
from ipr_engine._options import refuse_unknown
from ipr_engine.bundle import Bundle, Performance
from ipr_engine.decide.contract import DecidePlan
from ipr_engine.decision import Decision, Decisions, Row
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.load_options import LoadKeywords, LoadOptions
from ipr_engine.errors import DeviceLostError, InvalidInputError
from ipr_engine.explanation import Explanation
from ipr_engine.loaded_bundle import LoadedBundle, check_on_error, check_rows, checked_rows
from ipr_engine.policy.calibrated import Calibrations, DriftEvidence
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import DEFAULTS, PolicyOptions, PolicySpec
from ipr_engine.prompts import Prompt, is_one_prompt
from ipr_engine.request.cached_tokens import CachedTokens
from ipr_engine.request.intake import check_many
from ipr_engine.request.tokens_in import TokensIn, told_tokens

if TYPE_CHECKING:
    from ipr_engine.audit.owner_key import OwnerKey
    from ipr_engine.audit.recorder import Recorder
    from ipr_engine.watch import Watch

_LOG = logging.getLogger(__name__)


class Engine:
    """Routes prompts with one bundle. Safe to share between threads.

        >>> import ipr_engine
        >>> engine = ipr_engine.Engine.load()
        >>> decision = engine.route("What is 17 * 23?", tau=0.1)
        >>> decision.model in engine.bundle.names
        True

    Attributes:
        bundle: the bundle that serves.
        encoder: the prompt encoder of its heads; second_encoder: that of its second heads, None in a bundle of one tier.
        plan: the packed heads.

    Another thread may swap the bundle between two reads of these; what belongs to a decision is on the decision.
    """

    def __init__(
        self,
        bundle: Bundle,
        **options: Unpack[LoadKeywords],
    ) -> None:
        if not isinstance(bundle, Bundle):
            raise InvalidInputError(
                f"bundle: expected a Bundle, got {type(bundle).__name__}; Engine.load(path) reads one from disk"
            )
        refuse_unknown("Engine.__init__", options, LoadOptions)
        self._options = LoadOptions(**options)
        self.loaded = LoadedBundle(bundle, options=self._options)  # a call reads this once; swap replaces it
        self._swapping = Lock()
        self._swaps = 0

    @property
    def swaps(self) -> int:
        """How often `swap` put another bundle in place."""
        return self._swaps

    @property
    def bundle(self) -> Bundle:
        return self.loaded.bundle

    @property
    def encoder(self) -> Encoder:
        return self.loaded.encoder

    @property
    def second_encoder(self) -> Encoder | None:
        second = self.loaded.second
        return None if second is None else second.encoder

    @property
    def plan(self) -> DecidePlan:
        return self.loaded.plan

    @property
    def calibrations(self) -> Calibrations:
        """The maps of the bundle that serves, with what is known of their validity."""
        return self.loaded.calibrations

    @classmethod
    def load(cls, path: str | Path | None = None, **options: Unpack[LoadKeywords]) -> Engine:
        """Read, verify and plan a bundle.

        Args:
            path: a bundle root (with CURRENT) or one bundle folder; None for the embedded default.
            options: who runs its encoders, and where: the fields of `LoadOptions` (isa, tier, device, threads, encoder_folders,
                batches, fallback); docs/usage.md has a table of them.
        Raises:
            BundleError: the bundle is missing, damaged or inconsistent (the subclass says which).
            BackendUnavailableError: the instruction set, tier, package or device asked for is missing here.
        """
        refuse_unknown("Engine.load", options, LoadOptions)
        return cls(Bundle.load(DEFAULT_BUNDLE if path is None else path), **options)

    def policy(self, **options: Unpack[PolicyOptions]) -> Policy:
        """Validate and compile everything of a decision that is not the prompt.

        A policy outlives a swap: the first call after it compiles the policy's options for the bundle that serves then.

        Args:
            options: the fields of `PolicySpec`: how much quality may be lost (tau, or one of quality_share, max_usd_per_1k,
                max_share_strongest, response_quality_difference and preset in its place), by which rule (rule, slack, worth,
                escalate_below), who may answer (allowed, exclude, family, requires, max_latency_ms), at what cost (prices, batch,
                cache_write, cost_weights, performance), and what is done with prompts unlike the fitting ones (min_support,
                unsupported). docs/usage.md has a table of them.
        Raises:
            InvalidInputError: a value out of range, an unknown name, or nobody left to choose.
        """
        refuse_unknown("Engine.policy", options, PolicySpec)
        loaded = self.loaded
        return loaded.keep(loaded.compile({**DEFAULTS, **options}))

    def route(
        self,
        prompt: Prompt,
        policy: Policy | None = None,
        *,
        billed_tokens: int | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str | None = None,
        **terms: Any,
    ) -> Decision:
        """Decide who should answer one prompt.

        With a two-tier bundle a prompt whose first gap is below the policy's `escalate_below` is encoded by the second encoder
        and decided again by its heads.

        Args:
            prompt: a string, chat messages, or a whole LLM request with its tools and limits (`ipr_engine.parse_request` says
                what of it is encoded, billed and needed). Candidates that lack a feature which a request needs, or whose
                context window does not hold prompt and output, are not chosen for it.
            policy: from `engine.policy(...)`; or give its arguments (tau=..., worth=...) here instead.
            billed_tokens: tokens of the whole request by the bundle's tokenizer, where it cannot know them (images, say); counted
                where None. Each candidate is billed its `token_ratio` times as many. A provider's own count goes into `tokens_in`.
            tokens_out: expected output tokens of one answer, scalar or (models,); else predicted. A request's "n" answers are billed.
            extra_usd: scalar or (models,), added to the cost, of either sign: switching, say.
            cached_tokens: how much of the prompt each candidate's provider has in its cache, by its own count: billed at the
                price of cached input. Name -> tokens, or name -> (tokens, seconds since the cache was last used), which count as
                none once the candidate's `cache_ttl_s` has passed (not known: never); who is not named has none. Or a scalar or
                (models,). Fewer than `cache_min_tokens` count as none, and no more than the prompt has.
            tokens_in: input tokens of the whole request by each candidate's own count, which its provider's usage tells, or its
                tokenizer: they decide costs, price tiers, cached input and context windows as they are. Name -> tokens; who is
                not named keeps its estimate. Or a scalar, or (models,), for every candidate. Finite, >= 0.
            on_error: of an earlier release, as is a list of prompts: `route_many` takes both.
        Raises:
            InvalidInputError: a bad prompt, or a bad argument.
            RowError: the prompt cannot be decided; its reason is named.
        """
        loaded = self.loaded
        if (
            type(prompt) is str
            and billed_tokens is None
            and tokens_out is None
            and extra_usd is None
            and cached_tokens is None
            and tokens_in is None
            and on_error is None
            and loaded.routes_text
        ):
            policy = loaded.settle(policy, terms)
            result, billed, truncated, support, own = loaded.router.route_one(prompt, policy.compiled)
            if policy.escalate_below and loaded.escalates(result, policy):
                return self._escalate(loaded, [prompt], policy, result, billed, truncated, support, own, "raise")[0]
            if not result.all_ok:
                check_rows(result, "raise")
            decision = Decision(result, 0, policy, loaded.bundle, billed, truncated, support)
            if own is not None:
                decision._own = own
            return decision
        if on_error is not None:
            warn_on_error("Engine")
        elif isinstance(prompt, (list, tuple)) and not is_one_prompt(prompt):
            warn_list("Engine")
        told = "raise" if on_error is None else on_error
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        made = self._route(prompt, policy, *given, told, terms)
        return cast(Decision, made)  # whatever an old spelling asks for

    def route_many(
        self,
        prompts: Sequence[Prompt],
        policy: Policy | None = None,
        *,
        billed_tokens: int | Sequence[int | None] | npt.NDArray[Any] | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str = "raise",
        **terms: Any,
    ) -> Decisions:
        """Decide who should answer each of several prompts; a row equals `route` of that prompt alone.

        Args:
            prompts: a list of what `route` takes.
            policy: as of `route`, for all of them.
            billed_tokens: one for all or one a prompt; counted where it is None.
            tokens_out, extra_usd, cached_tokens, tokens_in: scalar, (models,) or (batch, models); cached_tokens and tokens_in by
                name for all, or a list, one a prompt (None: nothing is told of it).
            on_error: "raise" when a prompt is bad or a row cannot be decided, or "status" to return each row with its status: a
                `FailedRow` has no model, and its `reason` says why. That of a bad prompt is "invalid_input".
        Raises:
            InvalidInputError: a bad prompt, its row named, or a bad argument.
            RowError: rows that cannot be decided (rows, reasons).
        """
        check_many(prompts)
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        made = self._route(prompts, policy, *given, on_error, terms)
        return cast(Decisions, made)

    def _route(
        self,
        prompts: Any,
        policy: Policy | None,
        billed_tokens: Any,
        tokens_out: Any,
        extra_usd: Any,
        cached_tokens: Any,
        tokens_in: Any,
        on_error: str,
        terms: dict[str, Any],
    ) -> Row | Decisions:
        """Decide one prompt or a list of them, whatever the spelling."""
        loaded = self.loaded
        policy = loaded.settle(policy, terms)
        given = (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in)
        if all(one is None for one in given) and loaded.routes_text:
            texts = [prompts] if type(prompts) is str else prompts
            try:
                if type(texts) is list and all(type(text) is str for text in texts):
                    many = loaded.router.route_many(texts, policy.compiled)
                    if policy.escalate_below:
                        decisions = self._escalate(loaded, texts, policy, *many, on_error)
                    else:
                        decisions = checked_rows(Decisions(many[0], policy, loaded.bundle, *many[1:]), on_error)
                    return decisions if texts is prompts else decisions[0]
            except InvalidInputError:
                if on_error != "status":  # else a prompt is bad, and the others stand
                    raise
        single = is_one_prompt(prompts)
        costs = (billed_tokens, tokens_out, extra_usd)
        try:
            decisions = loaded.route(prompts, policy, *costs, on_error, cached_tokens, tokens_in)
        except DeviceLostError as error:
            cpu_fallback = self._fail_over(loaded, error)
            decisions = cpu_fallback.route(prompts, policy, *costs, on_error, cached_tokens, tokens_in)
        return decisions[0] if single else decisions

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        billed_tokens: int | Sequence[int | None] | npt.NDArray[Any] | None = None,
        on_error: str = "raise",
        second: bool = False,
    ) -> Encoded:
        """Embed prompts once, to decide on them as often as you like.

        Args:
            on_error: "raise" when a prompt is bad, or "status": its row then has x NaN and its error in `errors`, and `decide`
                gives it the status "invalid_input".
            second: by the second encoder of a two-tier bundle; the bills are the first one's all the same.
        Returns:
            Encoded: x (batch, dim) float32, billed_tokens (batch,) int64, truncated (batch,) bool.
        """
        loaded = self.loaded
        check_on_error(on_error)
        try:
            encode = loaded.encode_again if second else loaded.encode
            return encode(prompts, billed_tokens, on_error)
        except DeviceLostError as error:
            loaded = self._fail_over(loaded, error)
            encode = loaded.encode_again if second else loaded.encode
            return encode(prompts, billed_tokens, on_error)

    def _fail_over(self, loaded: LoadedBundle, error: DeviceLostError) -> LoadedBundle:
        """The loaded bundle on the CPU in place of one whose device failed; the error where none was asked for."""
        cpu_fallback = loaded.cpu_fallback
        if cpu_fallback is None:
            raise error
        with self._swapping:
            self._options = replace(self._options, device="cpu", tier="auto", fallback=None)
            if self.loaded is loaded:
                self.loaded = cpu_fallback
                _LOG.error("%s; bundle %s is served by the CPU from now on", error, loaded.hash[:12])
        return cpu_fallback

    def decide(
        self,
        x: Encoded | npt.NDArray[np.float32],
        policy: Policy | None = None,
        *,
        billed_tokens: int | Sequence[int] | npt.NDArray[Any] | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        cached_tokens: CachedTokens | None = None,
        tokens_in: TokensIn | None = None,
        on_error: str = "raise",
        second: Encoded | None = None,
        **terms: Any,
    ) -> Decisions:
        """Decide on kept embeddings, without encoding again: what `route` decides of the same prompts, to the bit.

        Of two tiers that holds with `second`; without it the heads that read x decide, and nothing escalates.

        Args:
            x: what `encode` gave, or a bare (batch, dim) or (dim,) float32 array (then billed_tokens is needed). Of a two-tier
                bundle the heads that read its encoder decide; a bare array is the first encoder's. There is no text to encode
                again, so nothing escalates without `second`.
            billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in: as of `route_many`.
            second: the same prompts by the second encoder: then rows escalate as `route` has it.
        Raises:
            EncoderMismatchError: x was embedded by another encoder than the heads read now, or second by another than the
                second heads.
        """
        loaded = self.loaded
        policy = loaded.settle(policy, terms)
        if type(x) is not Encoded or billed_tokens is not None or x.encoder != loaded.encoder_identity:
            x = loaded.embeddings(x, billed_tokens)
        if x.needs is not None:
            x = loaded.readable(x, policy, on_error)
        again = None if second is None else loaded.kept_rows(x, second)
        own = None if tokens_in is None else told_tokens(tokens_in, len(x), loaded.bundle.names)
        return loaded.decide(x, policy, tokens_out, extra_usd, on_error, again, own, cached_tokens)

    def _escalate(
        self,
        loaded: LoadedBundle,
        texts: list[str],
        policy: Policy,
        result: DecideResult,
        billed: Any,
        truncated: Any,
        support: Any,
        own_tokens: Any,
        on_error: str,
    ) -> Decisions:
        """What the C++ call of the first tier gave, of one prompt or many, with its rows of a small gap decided again."""
        first = Decisions(
            result,
            policy,
            loaded.bundle,
            np.atleast_1d(np.asarray(billed, np.int64)),
            np.atleast_1d(np.asarray(truncated, np.bool_)),
            None if support is None else np.atleast_1d(np.asarray(support, np.float32)),
            np.frombuffer(own_tokens, np.float32)[None] if type(own_tokens) is bytes else own_tokens,
        )
        again = loaded.embed_texts(texts)
        decisions = first if again is None else loaded.escalate(first, again)
        if not decisions.all_ok or on_error != "raise":
            check_rows(decisions, on_error)
        return decisions

    def explain(self, prompt: Prompt | Decision, policy: Policy | None = None, **terms: Any) -> Explanation:
        """Why this candidate: every candidate's quality, cost, and what kept it from being chosen."""
        if isinstance(prompt, Decision):
            if policy is not None or terms:
                raise InvalidInputError(
                    "policy: a Decision is explained under the policy it was made with; pass the prompt instead"
                )
            return Explanation(prompt)
        if "on_error" in terms:
            raise InvalidInputError("on_error: explain always shows the status; leave it out")
        if not is_one_prompt(prompt) and isinstance(prompt, (list, tuple)):
            raise InvalidInputError("prompt: explain takes one prompt, got a list of prompts")
        names = ("billed_tokens", "tokens_out", "extra_usd", "cached_tokens", "tokens_in")
        given = {name: terms.pop(name, None) for name in names}
        decision = self._route(prompt, policy, **given, on_error="status", terms=terms)
        assert not isinstance(decision, Decisions)  # one prompt
        if decision.status == "invalid_input":  # nothing was predicted that could be explained
            raise InvalidInputError(decision.reason)
        return Explanation(decision)

    @property
    def performance(self) -> Mapping[str, Performance]:
        """What candidates are measured at, by name: the bundle's figures, with those of `update_performance` in their place."""
        return self.loaded.measured

    def update_performance(self, figures: Mapping[str, Performance | Mapping[str, float] | None]) -> None:
        """Take newly measured latencies or energy, while serving: policies with `cost_weights` weigh them from the next call on.

        They hold across swaps, before what a bundle says. Policies in use are compiled anew in this thread.

        Args:
            figures: name -> Performance, or the same as a mapping ({"ttft_s": 0.41, "tpot_s": 0.012}); a number that is left out
                keeps its value, as does a candidate. None takes a candidate's updates back: the bundle's figures hold again.
        Raises:
            InvalidInputError: an unknown name or figure, or a number that is not finite and >= 0; nothing is taken then.
        """
        with self._swapping:
            self.loaded.measure(figures)

    def mark_stale(self, evidence: DriftEvidence | None) -> None:
        """Say that the calibration maps and tau's paths no longer hold: from now on policies that read one have the status "stale".

        Args:
            evidence: what calibration/drift.py found, or your own; None takes it back.
        """
        if evidence is not None and not isinstance(evidence, DriftEvidence):
            raise InvalidInputError(f"evidence: expected a DriftEvidence or None, got {type(evidence).__name__}")
        self.calibrations.drift.evidence = evidence

    def swap(
        self,
        bundle: Bundle | str | os.PathLike[str],
        *,
        allow_other_encoder: bool = False,
        allow_fewer_candidates: bool = False,
        allow_fewer_outputs: bool = False,
    ) -> Bundle:
        """Serve another bundle from now on: planned in this thread, put in place by one assignment.

        Calls in flight finish on the bundle they began with; its memory is freed when the last of them, and the last
        Decision made with it, is gone. An encoder of equal identity is kept, not loaded again.

        Args:
            bundle: a Bundle, a bundle root (with CURRENT) or one bundle folder.
            allow_other_encoder: embeddings kept from the encoder of before will be refused by `decide`.
            allow_fewer_candidates: policies that name a missing candidate will be refused by `route`.
            allow_fewer_outputs: heads that predict no tokens will refuse calls without tokens_out; without path rows a bare tau
                means rule `minmax`; without centroids there is no `min_support`.
        Returns:
            The bundle that serves; the one that already did when the hash is the same.
        Raises:
            BundleError: the bundle is missing, damaged or inconsistent; the one of before goes on.
            EncoderMismatchError: its heads read another encoder, and that was not allowed.
            InvalidInputError: it lacks candidates or outputs of the bundle that serves, and that was not allowed.
        """
        with self._swapping:
            loaded = self.loaded
            if not isinstance(bundle, Bundle):
                bundle = Bundle.load(bundle)
            if bundle.hash == loaded.hash:
                return loaded.bundle
            self.loaded = loaded.successor(
                bundle,
                options=self._options,
                allow_other_encoder=allow_other_encoder,
                allow_fewer_candidates=allow_fewer_candidates,
                allow_fewer_outputs=allow_fewer_outputs,
            )
            self._swaps += 1
            return bundle

    def watch(
        self,
        root: str | os.PathLike[str],
        *,
        interval_s: float = 5.0,
        on_swap: Callable[[Bundle], object] | None = None,
        on_error: Callable[[Exception], object] | None = None,
        allow_other_encoder: bool = False,
        allow_fewer_candidates: bool = False,
        allow_fewer_outputs: bool = False,
    ) -> Watch:
        """Follow a bundle root: serve what its CURRENT names, now and whenever it is replaced (ipr_engine/watch.py).

        A bundle that is damaged or refused changes nothing: the one of before serves, `Watch.last_error` says why.

        Args:
            root: a folder of bundles.
            interval_s: seconds between two looks at CURRENT, > 0.
            on_swap, on_error: called in the watching thread after a swap, or with what kept CURRENT from being served.
            allow_other_encoder, allow_fewer_candidates, allow_fewer_outputs: as of `swap`.
        Returns:
            The running watch; a context manager. It ends with `close()`, and with the engine.
        """
        from ipr_engine.watch import Watch

        return Watch(
            self,
            root,
            interval_s=interval_s,
            on_swap=on_swap,
            on_error=on_error,
            allow_other_encoder=allow_other_encoder,
            allow_fewer_candidates=allow_fewer_candidates,
            allow_fewer_outputs=allow_fewer_outputs,
        )

    def recorder(
        self,
        to: str | os.PathLike[str] | Callable[[bytes], object],
        *,
        keep_prompts: bool = False,
        keep_x: bool = False,
        key: OwnerKey | str | os.PathLike[str] | bytes | None = None,
        min_words: int | None = None,
    ) -> Recorder:
        """Route and decide as the engine does, writing a record of each decision for `ipr replay` (ipr_engine/audit/recorder.py).

        Args:
            to: a file to append to, or what takes each line.
            keep_prompts: whether the prompt itself is part of the record: sealed where there is a key, else in clear.
            keep_x: whether its embedding is, from which most of its words can be read; needs a key.
            key: the owner's, a file that `ipr key` made or 32 bytes; it seals prompts and embeddings, and the figures of brief prompts.
            min_words: a prompt of fewer different words (None: 8) is brief: without a key its record holds the choice and no figure,
                and cannot be replayed. Of embeddings, whose text is not known, the billed tokens count. 0 keeps all figures in clear.
        Raises:
            InvalidInputError: an argument is not as above. BackendUnavailableError: a key, and the extra [records] is missing.
        """
        from ipr_engine.audit.recorder import MIN_WORDS, Recorder

        least = MIN_WORDS if min_words is None else min_words
        return Recorder(self, to, keep_prompts=keep_prompts, keep_x=keep_x, key=key, min_words=least)

    def __repr__(self) -> str:
        loaded, why = self.loaded, "widest here" if self._options.isa == "auto" else "as asked"
        tiers = f"encoder={loaded.encoder.summary}, heads={_form(loaded.plan)}"
        if loaded.second is not None and loaded.bundle.escalation is not None:
            tiers += (
                f"; below a gap of {loaded.bundle.escalation.gap:g}: encoder={loaded.second.encoder.summary}, "
                f"heads={_form(loaded.second.plan)}"
            )
        gpu = "" if loaded.gpu is None else f", route={loaded.gpu.summary}"
        cpu_fallback = "" if loaded.cpu_fallback is None else ", fallback=cpu"
        return (
            f"Engine(bundle={loaded.bundle.name!r} {loaded.hash[:12]}, {loaded.plan.models} candidates, {tiers}{gpu}, "
            f"isa={loaded.plan.isa} ({why}){cpu_fallback})"
        )


def _form(plan: DecidePlan) -> str:
    return "linear" if plan.hidden == 0 else f"{plan.hidden} wide, rank {plan.rank}"
