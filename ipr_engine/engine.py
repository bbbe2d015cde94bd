"""The engine: text in, decision out. Everything that can fail, allocate or choose happens in `load`; `route` does neither."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Bundle, PriceList
from ipr_engine.calibrated import Calibrations, DriftEvidence
from ipr_engine.decide import DecidePlan
from ipr_engine.decision import Decision, Decisions
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.registry import EncoderOptions
from ipr_engine.errors import InvalidInputError
from ipr_engine.explanation import Explanation
from ipr_engine.generation import Generation, check_rows
from ipr_engine.policy import Policy
from ipr_engine.prompts import Prompt, is_messages

if TYPE_CHECKING:
    from ipr_engine.recorder import Recorder
    from ipr_engine.watch import Watch

DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"


class Engine:
    """Routes prompts with one bundle. Safe to share between threads.

        >>> import ipr_engine
        >>> engine = ipr_engine.Engine.load()
        >>> decision = engine.route("What is 17 * 23?", tau=0.1)
        >>> decision.model in engine.bundle.names
        True

    Attributes:
        bundle: the bundle that serves.
        encoder: the prompt encoder of its heads.
        plan: the packed heads.

    Another thread may swap the bundle between two reads of these; what belongs to a decision is on the decision.
    """

    def __init__(
        self,
        bundle: Bundle,
        *,
        isa: str = "auto",
        tier: str = "auto",
        device: str = "cpu",
        threads: int | None = None,
        encoder_folders: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        if not isinstance(bundle, Bundle):
            raise InvalidInputError(
                f"bundle: expected a Bundle, got {type(bundle).__name__}; Engine.load(path) reads one from disk"
            )
        if isinstance(encoder_folders, (str, os.PathLike)):
            raise InvalidInputError(
                f"encoder_folders: expected a list of folders, got one, {encoder_folders!r}; pass [{encoder_folders!r}]"
            )
        self._options = EncoderOptions(
            isa=isa, tier=tier, device=device, threads=threads, folders=tuple(encoder_folders)
        )
        self._live = Generation(bundle, options=self._options)  # a call reads this once; swap replaces it
        self._swapping = Lock()
        self._swaps = 0

    @property
    def swaps(self) -> int:
        """How often `swap` put another bundle in place."""
        return self._swaps

    @property
    def bundle(self) -> Bundle:
        return self._live.bundle

    @property
    def encoder(self) -> Encoder:
        return self._live.encoder

    @property
    def plan(self) -> DecidePlan:
        return self._live.plan

    @property
    def calibrations(self) -> Calibrations:
        """The maps of the bundle that serves, with what is known of their validity."""
        return self._live.calibrations

    @classmethod
    def load(
        cls,
        path: str | Path | None = None,
        *,
        isa: str = "auto",
        tier: str = "auto",
        device: str = "cpu",
        threads: int | None = None,
        encoder_folders: Sequence[str | os.PathLike[str]] = (),
    ) -> Engine:
        """Read, verify and plan a bundle.

        Args:
            path: a bundle root (with CURRENT) or one bundle folder; None for the embedded default.
            isa: "auto" (the widest this machine has), "scalar", "avx2" or "avx512".
            tier: who runs a transformer, where the heads read one: "onnx", "torch", "tensorrt", or "auto" (docs/encoders.md).
            device: where it runs: "cpu", or a device of CUDA such as "cuda:0".
            threads: of the onnx tier; None is one a physical core.
            encoder_folders: exports to look in for a transformer that the bundle references and does not contain.
        Raises:
            BundleError: the bundle is missing, damaged or inconsistent (the subclass says which).
            BackendUnavailableError: the instruction set, tier, package or device asked for is missing here.
        """
        return cls(
            Bundle.load(DEFAULT_BUNDLE if path is None else path),
            isa=isa,
            tier=tier,
            device=device,
            threads=threads,
            encoder_folders=encoder_folders,
        )

    def policy(
        self,
        *,
        tau: float | None = None,
        quality_share: float | None = None,
        max_usd_per_1k: float | None = None,
        max_share_strongest: float | None = None,
        response_quality_difference: float | None = None,
        preset: str | None = None,
        rule: str | None = None,
        slack: float = 0.0,
        worth: float | None = None,
        allowed: Sequence[str] | None = None,
        exclude: Sequence[str] | None = None,
        family: str | Sequence[str] | None = None,
        requires: str | Sequence[str] | None = None,
        max_latency_ms: float | None = None,
        prices: PriceList | Mapping[str, object] | None = None,
    ) -> Policy:
        """Validate and compile everything of a decision that is not the prompt.

        A policy outlives a swap: the first call after it compiles the policy's terms for the bundle that serves then.

        Args:
            tau: tolerance in [0, 1]; what it bounds depends on the rule (docs/design.md section 4). Or, instead of it,
                one of the next five, which the bundle's calibration map answers (docs/calibration.md):
            quality_share: at least this share of the best single candidate's mean quality.
            max_usd_per_1k: the safest point that is expected to cost at most this, USD per 1,000 prompts.
            max_share_strongest: the safest point expected to send at most this share to the best single candidate.
            response_quality_difference: percent of the best one's mean quality that may be lost, 0 to 100.
            preset: "quality", "balanced" or "cost": 100, 98 or 95 % of the best one's mean quality.
            rule: "minmax" (what tau means by default), "max", "fixed" or "calibrated" (what the others mean).
            slack: margin of the "max" rule, in [0, 1].
            worth: USD one more unit of quality is worth, >= 0; by default 0, and the map's under "calibrated".
            allowed: only these candidates (names, families and features are found whatever their case).
            exclude: none of these candidates: the ones that are down, say.
            family: only candidates of this family, or of these.
            requires: only candidates with all these features.
            max_latency_ms: only candidates known to answer within it.
            prices: USD per 1 M tokens, name -> (input, output), a Price, or the like of prices.json; the others keep
                the bundle's.
        Raises:
            InvalidInputError: a value out of range, an unknown name, or nobody left to choose.
        """
        return self._live.compile(
            {
                "tau": tau,
                "quality_share": quality_share,
                "max_usd_per_1k": max_usd_per_1k,
                "max_share_strongest": max_share_strongest,
                "response_quality_difference": response_quality_difference,
                "preset": preset,
                "rule": rule,
                "slack": slack,
                "worth": worth,
                "allowed": allowed,
                "exclude": exclude,
                "family": family,
                "requires": requires,
                "max_latency_ms": max_latency_ms,
                "prices": prices,
            }
        )

    @overload
    def route(self, prompts: str, policy: Policy | None = None, **options: Any) -> Decision: ...
    @overload
    def route(self, prompts: Sequence[Any], policy: Policy | None = None, **options: Any) -> Decision | Decisions: ...
    def route(
        self,
        prompts: Prompt | Sequence[Prompt],
        policy: Policy | None = None,
        *,
        billed_tokens: int | Sequence[int] | npt.NDArray[Any] | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        on_error: str = "raise",
        **terms: Any,
    ) -> Decision | Decisions:
        """Decide who should answer: one prompt gives a Decision, a list of prompts gives Decisions.

        Args:
            prompts: a string, chat messages (a list of {"role", "content"}), or a list of either. All user texts are
                encoded, every text is billed; a prompt with an image needs a policy with requires="vision".
            policy: from `engine.policy(...)`; or give its arguments (tau=..., worth=...) here instead.
            billed_tokens: tokens of the whole request where the tokenizer cannot know them (images, say); else counted.
            tokens_out: expected output tokens, scalar, (models,) or (batch, models); else predicted.
            extra_usd: (batch, models) added to the cost, of either sign: prompt cache, switching, batch terms.
            on_error: "raise" a RowError when a row cannot be decided, or "status" to return it with its status.
        Raises:
            InvalidInputError: a bad prompt or argument, named.
            RowError: rows that cannot be decided (rows, reasons).
        """
        live = self._live
        policy = live.settle(policy, terms)
        if billed_tokens is None and tokens_out is None and extra_usd is None and live.routes_text:
            if type(prompts) is str:
                result, billed, truncated, support = live.router.route_one(prompts, policy.compiled)
                if not result.all_ok or on_error != "raise":
                    check_rows(result, on_error)
                return Decision(result, 0, policy, live.bundle, billed, truncated, support)
            if type(prompts) is list and all(type(prompt) is str for prompt in prompts):
                many = live.router.route_many(prompts, policy.compiled)
                if not many[0].all_ok or on_error != "raise":
                    check_rows(many[0], on_error)
                return Decisions(many[0], policy, live.bundle, *many[1:])
        single = isinstance(prompts, str) or is_messages(prompts)
        encoded = live.encode(prompts, billed_tokens, policy)
        decisions = live.decide(encoded, policy, tokens_out, extra_usd, on_error)
        return decisions[0] if single else decisions

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        *,
        billed_tokens: int | Sequence[int] | npt.NDArray[Any] | None = None,
    ) -> Encoded:
        """Embed prompts once, to decide on them as often as you like.

        Returns:
            Encoded: x (batch, dim) float32, billed_tokens (batch,) int64, truncated (batch,) bool.
        """
        return self._live.encode(prompts, billed_tokens, None)

    def decide(
        self,
        x: Encoded | npt.NDArray[np.float32],
        policy: Policy | None = None,
        *,
        billed_tokens: int | Sequence[int] | npt.NDArray[Any] | None = None,
        tokens_out: npt.ArrayLike | None = None,
        extra_usd: npt.ArrayLike | None = None,
        on_error: str = "raise",
        **terms: Any,
    ) -> Decisions:
        """Decide on kept embeddings, without encoding again.

        Args:
            x: what `encode` gave, or a bare (batch, dim) or (dim,) float32 array (then billed_tokens is needed).
        Raises:
            EncoderMismatchError: x was embedded by another encoder than the one the heads read now.
        """
        live = self._live
        policy = live.settle(policy, terms)
        if type(x) is not Encoded or billed_tokens is not None or x.encoder != live.encoder_identity:
            x = live.embeddings(x, billed_tokens)
        return live.decide(x, policy, tokens_out, extra_usd, on_error)

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
        decision = self.route(prompt, policy, on_error="status", **terms)
        if not isinstance(decision, Decision):
            raise InvalidInputError("prompt: explain takes one prompt, got a list of prompts")
        return Explanation(decision)

    def mark_stale(self, evidence: DriftEvidence | None) -> None:
        """Say that the calibration maps no longer hold: from now on every calibrated policy's status is "stale".

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
            allow_fewer_outputs: heads that predict no tokens will refuse calls without tokens_out.
        Returns:
            The bundle that serves; the one that already did when the hash is the same.
        Raises:
            BundleError: the bundle is missing, damaged or inconsistent; the one of before goes on.
            EncoderMismatchError: its heads read another encoder, and that was not allowed.
            InvalidInputError: it lacks candidates or outputs of the bundle that serves, and that was not allowed.
        """
        with self._swapping:
            live = self._live
            if not isinstance(bundle, Bundle):
                bundle = Bundle.load(bundle)
            if bundle.hash == live.hash:
                return live.bundle
            self._live = live.successor(
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
        self, to: str | os.PathLike[str] | Callable[[bytes], object], *, keep_prompts: bool = False
    ) -> Recorder:
        """Route and decide as the engine does, writing a record of each decision for `ipr replay` (ipr_engine/recorder.py).

        Args:
            to: a file to append to, or what takes each line.
            keep_prompts: whether the prompt itself is part of the record; by default only its embedding is.
        """
        from ipr_engine.recorder import Recorder

        return Recorder(self, to, keep_prompts=keep_prompts)

    def __repr__(self) -> str:
        live, why = self._live, "widest here" if self._options.isa == "auto" else "as asked"
        form = "linear" if live.plan.hidden == 0 else f"{live.plan.hidden} wide, rank {live.plan.rank}"
        return (
            f"Engine(bundle={live.bundle.name!r} {live.hash[:12]}, {live.plan.models} candidates, "
            f"encoder={live.encoder.summary}, heads={form}, isa={live.plan.isa} ({why}))"
        )
