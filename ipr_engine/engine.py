"""An `Engine` takes text and returns decisions. What can fail, allocate or choose happens in `load`; `route` does neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Unpack, cast

import numpy as np
import numpy.typing as npt

from ipr_engine import audit, decision
from ipr_engine._options import refuse_unknown
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.load import DEFAULT_BUNDLE
from ipr_engine.decision.decision import Decision
from ipr_engine.decision.decisions import Decisions, checked_rows
from ipr_engine.encoders.base import Encoded
from ipr_engine.encoders.load_options import LoadKeywords, LoadOptions
from ipr_engine.errors import InvalidInputError
from ipr_engine.loaded.bundle_holder import BundleHolder
from ipr_engine.loaded.kept_embeddings import as_encoded, kept_rows
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.policy.policy import Policy
from ipr_engine.policy.policy_spec import DEFAULTS, PolicyOptions, PolicySpec
from ipr_engine.prompts import Prompt, is_one_prompt
from ipr_engine.request.intake import check_many
from ipr_engine.request.overrides import NO_OVERRIDES, RequestOverrides
from ipr_engine.request.route_request import RouteOptions, RouteRequest, check_on_error, policy_options
from ipr_engine.watch import Watch


class Engine(BundleHolder):
    """An `Engine` routes prompts with one bundle at a time. Safe to share between threads.

    >>> import ipr_engine
    >>> engine = ipr_engine.Engine.load()
    >>> decision = engine.route("What is 17 * 23?", tau=0.1)
    >>> decision.model in engine.bundle.names
    True
    """

    def __init__(self, bundle: Bundle, **options: Unpack[LoadKeywords]) -> None:
        """Plan `bundle` for this machine; the options are those of `load`."""
        super().__init__(bundle, **options)

    @classmethod
    def load(cls, path: str | Path | None = None, **options: Unpack[LoadKeywords]) -> Engine:
        """Read, verify and plan a bundle.

        Args:
            path: a bundle root (with CURRENT), one bundle folder, or an embedded bundle's name; None for the embedded default.
            options: who runs its encoders, and where: the fields of `LoadOptions` (isa, tier, device, threads, encoder_folders,
                batches, fallback); docs/usage.md has a table of them.
        Raises:
            BundleError: the bundle is missing, damaged or inconsistent (the subclass says which).
            BackendUnavailableError: the instruction set, tier, package or device asked for is missing here.
        """
        refuse_unknown("Engine.load", options, LoadOptions)
        return cls(Bundle.load(DEFAULT_BUNDLE if path is None else path), **options)

    def __reduce__(self) -> NoReturn:
        """Refuse: an engine holds locks, devices and what it was told since; a process loads its own."""
        raise TypeError(
            "Engine: an engine is neither pickled nor copied; load one where it is used: send engine.bundle.path and options = "
            "dataclasses.asdict(engine.options), and call Engine.load(path, **options) there"
        )

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
        policies = self.loaded.policies
        return policies.keep(policies.compile({**DEFAULTS, **options}))

    def route(self, prompt: Prompt, policy: Policy | None = None, **options: Unpack[RouteOptions]) -> Decision:
        """Decide who should answer one prompt.

        With a two-tier bundle a prompt whose first gap is below the policy's `escalate_below` is encoded by the second encoder
        and decided again by its heads.

        Args:
            prompt: a string, chat messages, or a whole LLM request with its tools and limits (`ipr_engine.parse_request` says
                what of it is encoded, billed and needed). Candidates that lack a feature which a request needs, or whose
                context window does not hold prompt and output, are not chosen for it.
            policy: from `engine.policy(...)`; or give its options (tau=..., worth=...) here instead.
            options: what is given of the prompt (billed_tokens, tokens_out, extra_usd, cached_tokens, tokens_in, task: see
                `RequestOptions`), and the policy's options where there is no policy. on_error is of an earlier release, as is a
                list of prompts: `route_many` takes both.
        Raises:
            InvalidInputError: a bad prompt, or a bad argument.
            RowError: the prompt cannot be decided; its reason is named.
        """
        if type(prompt) is str or is_one_prompt(prompt):  # the short way: one C++ call
            made = self.loaded.route_one(prompt, policy, options)
            if made is not None:
                return made
        on_error = "raise"
        if "on_error" in options or isinstance(prompt, (list, tuple)):
            from ipr_engine._old_spellings import on_error_of_route

            on_error = on_error_of_route("Engine", prompt, options)
        decisions = self.route_rows(prompt, policy, options, on_error)
        return decisions[0] if is_one_prompt(prompt) else cast(Decision, decisions)  # an old spelling of route_many

    def route_many(
        self, prompts: Sequence[Prompt], policy: Policy | None = None, **options: Unpack[RouteOptions]
    ) -> Decisions:
        """Decide who should answer each of several prompts; a row equals `route` of that prompt alone.

        Args:
            prompts: a list of what `route` takes.
            policy: one for all of them, given as to `route`.
            options: those of `route`. billed_tokens is one for all or one a prompt; counted where it is None. tokens_out, extra_usd,
                cached_tokens and tokens_in are scalar, (models,) or (batch, models); cached_tokens and tokens_in by name for all, or
                a list, one a prompt (None: nothing is given of it). on_error is "raise" (the default) when a prompt is bad or a
                row cannot be decided, or "status" to return each row with its status: a `FailedRow` has no model, and its
                `reason` says why. That of a bad prompt is "invalid_input".
        Raises:
            InvalidInputError: a bad prompt, its row named, or a bad argument.
            RowError: rows that cannot be decided (rows, reasons).
        """
        check_many(prompts)
        return self.route_rows(prompts, policy, options, options.get("on_error", "raise"))

    def route_rows(
        self, prompts: Any, policy: Policy | None, options: Mapping[str, object], on_error: object
    ) -> Decisions:
        """Decide one prompt or a list of them; the options are those of `route_many`, but for on_error.

        Raises:
            as `route_many`; of one prompt the error does not name a row.
        """
        of_policy = policy_options(options)

        # again on the CPU's bundle where the device is lost, hence a function of the bundle
        def route(loaded: LoadedBundle) -> Decisions:
            return loaded.route(RouteRequest(prompts, loaded.resolve(policy, of_policy), options, on_error))

        return self.run(route)

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        billed_tokens: int | Sequence[int | None] | npt.NDArray[Any] | None = None,
        task: str | Sequence[str | None] | None = None,
        on_error: str = "raise",
        second: bool = False,
    ) -> Encoded:
        """Embed prompts once, to decide on them as often as you like.

        Args:
            task: what the prompts are for, as `route` takes it; x holds it from then on.
            on_error: "raise" when a prompt is bad, or "status": its row then has x NaN and its error in `errors`, and `decide`
                gives it the status "invalid_input".
            second: by the second encoder of a two-tier bundle; the bills are the first one's all the same.
        Returns:
            Encoded: x (batch, dim) float32, billed_tokens (batch,) int64, truncated (batch,) bool.
        """
        check_on_error(on_error)
        given = {"billed_tokens": billed_tokens, "task": task}
        return self.run(lambda loaded: loaded.encode(prompts, given, on_error, second=second))

    def decide(
        self,
        x: Encoded | npt.NDArray[np.float32],
        policy: Policy | None = None,
        *,
        second: Encoded | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decisions:
        """Decide on kept embeddings, without encoding again: what `route` decides of the same prompts, to the bit.

        Of two tiers that holds with `second`; without it the heads that read x decide, and nothing escalates.

        Args:
            x: what `encode` gave, or a bare (batch, dim) or (dim,) float32 array (then billed_tokens is needed). Of a two-tier
                bundle the heads that read its encoder decide; a bare array is the first encoder's. There is no text to encode
                again, so nothing escalates without `second`.
            second: the same prompts by the second encoder: then rows escalate as `route` has it.
            options: those of `route_many`. A task stands in place of the one that x was encoded with.
        Raises:
            EncoderMismatchError: x was embedded by another encoder than the heads read now, or second by another than the
                second heads.
        """
        loaded = self.loaded
        policy = loaded.resolve(policy, policy_options(options))
        on_error, overrides, again = options.get("on_error", "raise"), NO_OVERRIDES, None
        # a call more costs 2 % where nothing is given and x is of this bundle's encoder
        if options or type(x) is not Encoded or x.encoder != loaded.encoder_identity or x.needs is not None:
            x = as_encoded(loaded, x, policy, given=options, on_error=on_error)
            overrides = RequestOverrides.of(options, len(x), loaded.bundle.names, policy.prices)
        if second is not None:
            again = kept_rows(loaded, x, second)
        return checked_rows(loaded.decide(x, policy, overrides, again), on_error)

    def explain(
        self, prompt: Prompt | Decision, policy: Policy | None = None, **options: Unpack[RouteOptions]
    ) -> decision.Explanation:
        """Explain the choice for a prompt: every candidate's quality, cost, and what kept it from being chosen.

        Args:
            prompt: what `route` takes; or a decision, which is explained under its own policy.
            options: those of `route`, but for on_error.
        """
        if isinstance(prompt, Decision):
            return decision.explained(prompt, policy, options)
        decision.check_explainable(prompt, options)
        row = self.route_rows(prompt, policy, options, "status")[0]
        if row.status == "invalid_input":  # nothing was predicted that could be explained
            raise InvalidInputError(row.reason)
        return decision.Explanation(row)

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
            allow_other_encoder, allow_fewer_candidates, allow_fewer_outputs: those of `swap`.
        Returns:
            The running watch; a context manager. It ends with `close()`, and with the engine.
        """
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
        key: audit.OwnerKey | str | os.PathLike[str] | bytes | None = None,
        min_words: int | None = None,
    ) -> audit.Recorder:
        """Route and decide as the engine does, writing a record of each decision for `ipr replay` (ipr_engine/audit/recorder.py).

        Args:
            to: a file to append to, or what takes each line.
            keep_prompts: whether the prompt itself is part of the record: sealed where there is a key, else in clear.
            keep_x: whether its embedding is, from which most of its words can be read; needs a key.
            key: the owner's, a file that `ipr key` made or 32 bytes; it seals prompts and embeddings, and the figures of brief prompts.
            min_words: a prompt of fewer different words (None: 8), or whose newest turn has fewer, is brief: without a key its record
                holds the choice and no figure, and cannot be replayed. Of embeddings, whose text is not known, the billed tokens count. 0
                keeps all figures in clear.
        Raises:
            InvalidInputError: an argument is not as above. BackendUnavailableError: a key, and the extra [records] is missing.
        """
        return audit.Recorder(self, to, keep_prompts=keep_prompts, keep_x=keep_x, key=key, min_words=min_words)
