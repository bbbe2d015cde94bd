"""The engine: text in, decision out. Everything that can fail, allocate or choose happens in `load`; `route` does neither."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, Router
from ipr_engine.arguments import bare_embeddings, bill_floor, per_model, whole_counts
from ipr_engine.asks import ASKS
from ipr_engine.bundle import Bundle, PriceList
from ipr_engine.calibrated import Calibrations, DriftEvidence
from ipr_engine.decide import STATUS, DecidePlan, Heads
from ipr_engine.decision import OK, Decision, Decisions
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.registry import make_encoder
from ipr_engine.errors import EncoderMismatchError, InvalidInputError, RowError
from ipr_engine.explanation import Explanation
from ipr_engine.policy import Policy, compile_policy
from ipr_engine.prompts import PART_FEATURES, Prompt, PromptText, is_messages, split_prompt

DEFAULT_BUNDLE = Path(__file__).parent / "default_bundle"
MAX_KEPT_POLICIES = 256


class Engine:
    """Routes prompts with one bundle. Safe to share between threads.

        >>> import ipr_engine
        >>> engine = ipr_engine.Engine.load()
        >>> decision = engine.route("What is 17 * 23?", tau=0.1)
        >>> decision.model in engine.bundle.names
        True

    Attributes:
        bundle: the loaded bundle.
        encoder: the prompt encoder of its heads.
        plan: the packed heads.
    """

    def __init__(self, bundle: Bundle, *, isa: str = "auto") -> None:
        if not isinstance(bundle, Bundle):
            raise InvalidInputError(
                f"bundle: expected a Bundle, got {type(bundle).__name__}; Engine.load(path) reads one from disk"
            )
        heads = bundle.quality_heads
        self.bundle = bundle
        self.encoder: Encoder = make_encoder(bundle.encoder(heads.encoder), isa=isa)
        self.plan = DecidePlan(
            Heads(**heads.tensors, activation=heads.activation, tie_rank=bundle.tie_rank),  # type: ignore[arg-type]
            isa=isa,
        )
        support = bundle.support
        if support is not None and support.encoder != heads.encoder:
            raise EncoderMismatchError(
                f"support: measured on encoder {support.encoder!r}, but the heads read {heads.encoder!r}; measure it on theirs"
            )
        self._router = Router(
            self.plan,
            self.encoder.native,
            [math.inf if c.context_window is None else float(c.context_window) for c in bundle.candidates],
            [c.token_ratio for c in bundle.candidates],
            None if support is None else support.centroids,
            None if support is None else support.distances,
        )
        self._routes_text = self.encoder.native is not None  # else the encoder runs in Python, decide apart from it
        self._isa_asked = isa
        self.calibrations = Calibrations(bundle)
        self._policies: dict[tuple[tuple[str, Any], ...], Policy] = {}

    @classmethod
    def load(cls, path: str | Path | None = None, *, isa: str = "auto") -> Engine:
        """Read, verify and plan a bundle.

        Args:
            path: a bundle root (with CURRENT) or one bundle folder; None for the embedded default.
            isa: "auto" (the widest this machine has), "scalar", "avx2" or "avx512".
        Raises:
            BundleError: the bundle is missing, damaged or inconsistent (the subclass says which).
            BackendUnavailableError: the instruction set asked for is missing here.
        """
        return cls(Bundle.load(DEFAULT_BUNDLE if path is None else path), isa=isa)

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
        return compile_policy(
            self.bundle,
            self.plan,
            self.bundle.quality_heads.rule_constants,
            self.calibrations,
            tau=tau,
            quality_share=quality_share,
            max_usd_per_1k=max_usd_per_1k,
            max_share_strongest=max_share_strongest,
            response_quality_difference=response_quality_difference,
            preset=preset,
            rule=rule,
            slack=slack,
            worth=worth,
            allowed=allowed,
            exclude=exclude,
            family=family,
            requires=requires,
            max_latency_ms=max_latency_ms,
            prices=prices,
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
        policy = self._settle(policy, terms)
        if billed_tokens is None and tokens_out is None and extra_usd is None and self._routes_text:
            if type(prompts) is str:
                result, billed, truncated, support = self._router.route_one(prompts, policy.compiled)
                if not result.all_ok or on_error != "raise":
                    self._check_rows(result, on_error)
                return Decision(result, 0, policy, self.bundle, billed, truncated, support)
            if type(prompts) is list and all(type(prompt) is str for prompt in prompts):
                many = self._router.route_many(prompts, policy.compiled)
                if not many[0].all_ok or on_error != "raise":
                    self._check_rows(many[0], on_error)
                return Decisions(many[0], policy, self.bundle, *many[1:])
        single = isinstance(prompts, str) or is_messages(prompts)
        encoded = self._encode(prompts, billed_tokens, policy)
        decisions = self.decide(encoded, policy, tokens_out=tokens_out, extra_usd=extra_usd, on_error=on_error)
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
        return self._encode(prompts, billed_tokens, None)

    def _encode(self, prompts: Any, billed_tokens: Any, policy: Policy | None) -> Encoded:
        single = isinstance(prompts, str) or is_messages(prompts)
        if not single and not isinstance(prompts, (list, tuple)):
            raise InvalidInputError(
                f"prompts: expected a string, chat messages or a list of them, got {type(prompts).__name__}"
            )
        names = ["prompt"] if single else [f"prompts[{row}]" for row in range(len(prompts))]
        parts = [
            split_prompt(prompt, name) for name, prompt in zip(names, [prompts] if single else prompts, strict=True)
        ]
        for name, part in zip(names, parts, strict=True):
            self._check_non_text(part, name, billed_tokens, policy)
        encoded = self.encoder.encode([part.encoded for part in parts])
        counts = encoded.billed_tokens.tolist()
        for name, part, count in zip(names, parts, counts, strict=True):
            if count == 0:
                raise InvalidInputError(f"{name}: expected text, got {len(part.encoded)} characters without one token")
        if billed_tokens is not None:
            return replace(encoded, billed_tokens=whole_counts(billed_tokens, len(parts)))
        bills = [self._bill(part, count) for part, count in zip(parts, counts, strict=True)]
        return replace(encoded, billed_tokens=np.array(bills, np.int64))

    def _bill(self, part: PromptText, counted: int) -> int:
        """Tokens of the whole request: what was encoded, and every text that was not."""
        other = sum(bill_floor(text, self.encoder.count_tokens(text)) for text in part.billed_only)
        return bill_floor(part.encoded, counted) + other

    def _check_non_text(self, part: PromptText, name: str, billed_tokens: object, policy: Policy | None) -> None:
        """Images and the like: their bill is given, and every allowed candidate can read them."""
        for kind in part.non_text:
            if billed_tokens is None:
                raise InvalidInputError(
                    f"{name}: has a part of type {kind!r}, whose tokens cannot be counted here; "
                    "pass billed_tokens=... with the whole request's count"
                )
            needed = PART_FEATURES.get(kind)
            if policy is None or needed is None:
                continue
            candidates = [candidate for candidate in self.bundle.candidates if candidate.name in policy.allowed]
            blind = [candidate.name for candidate in candidates if needed not in candidate.features]
            if blind:
                raise InvalidInputError(
                    f"{name}: has a part of type {kind!r}, but the policy allows candidates without {needed!r} "
                    f"({', '.join(blind)}); make it with requires={needed!r}"
                )

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
        """
        policy = self._settle(policy, terms)
        encoded = x if type(x) is Encoded else bare_embeddings(x, self.plan.dim, billed_tokens)
        if billed_tokens is not None:
            encoded = replace(encoded, billed_tokens=whole_counts(billed_tokens, len(encoded)))
        models = self.plan.models
        result, support = self._router.decide(
            encoded.x,
            policy.compiled,
            encoded.billed_tokens,
            None if tokens_out is None else per_model("tokens_out", tokens_out, len(encoded.x), models),
            None if extra_usd is None else per_model("extra_usd", extra_usd, len(encoded.x), models),
        )
        if not result.all_ok or on_error != "raise":
            self._check_rows(result, on_error)
        return Decisions(result, policy, self.bundle, encoded.billed_tokens, encoded.truncated, support)

    def explain(self, prompt: Prompt | Decision, policy: Policy | None = None, **terms: Any) -> Explanation:
        """Why this candidate: every candidate's quality, cost, and what kept it from being chosen."""
        if isinstance(prompt, Decision):
            if policy is not None or terms:
                raise InvalidInputError(
                    "policy: a Decision is explained under the policy it was made with; pass the prompt instead"
                )
            if prompt.bundle_hash != self.bundle.hash:
                raise InvalidInputError(
                    f"prompt: this Decision was made with bundle {prompt.bundle_hash[:12]}, not {self.bundle.hash[:12]}"
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

    def _settle(self, policy: Policy | None, terms: dict[str, Any]) -> Policy:
        if policy is None:
            return self._from_terms(terms)
        if not isinstance(policy, Policy):
            raise InvalidInputError(f"policy: expected what engine.policy(...) returns, got {type(policy).__name__}")
        if terms:
            raise InvalidInputError(f"{', '.join(terms)}: give either a policy or its arguments, not both")
        if policy.bundle_hash != self.bundle.hash:
            raise InvalidInputError(
                f"policy: compiled for bundle {policy.bundle_hash[:12]}, this engine serves {self.bundle.hash[:12]}; "
                "make it anew with engine.policy(...)"
            )
        return policy

    def _from_terms(self, terms: dict[str, Any]) -> Policy:
        """The policy of these keyword arguments, kept for the next call when they are plain values."""
        unknown = sorted(set(terms) - POLICY_TERMS)
        if unknown:
            raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: {', '.join(sorted(POLICY_TERMS))}")
        if "tau" not in terms and not terms.keys() & set(ASKS):
            raise InvalidInputError("tau: missing; pass tau=... in [0, 1], or a policy from engine.policy(...)")
        # Other types are compiled each time: a list cannot be a key, and True and Decimal(1) would be found as 1.
        if not all(type(value) in (int, float, str) for value in terms.values()):
            return self.policy(**terms)
        key = tuple(terms.items())
        kept = self._policies.get(key)
        if kept is None:
            kept = self.policy(**terms)
            if len(self._policies) >= MAX_KEPT_POLICIES:
                self._policies.clear()
            self._policies[key] = kept
        return kept

    def _check_rows(self, result: DecideResult, on_error: str) -> None:
        if on_error == "raise":
            failed = np.flatnonzero(result.status != OK)
            if len(failed):
                raise RowError(failed.tolist(), [STATUS[result.status_at(int(row))] for row in failed])
        elif on_error != "status":
            raise InvalidInputError(f"on_error: expected 'raise' or 'status', got {on_error!r}")

    def __repr__(self) -> str:
        why = "widest here" if self._isa_asked == "auto" else "as asked"
        form = "linear" if self.plan.hidden == 0 else f"{self.plan.hidden} wide, rank {self.plan.rank}"
        return (
            f"Engine(bundle={self.bundle.name!r} {self.bundle.hash[:12]}, {self.plan.models} candidates, "
            f"encoder={self.encoder.summary}, heads={form}, isa={self.plan.isa} ({why}))"
        )


POLICY_TERMS = frozenset(
    ("tau", *ASKS, "rule", "slack", "worth", "allowed", "exclude", "family", "requires", "max_latency_ms", "prices")
)
