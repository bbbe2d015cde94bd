"""A bundle, planned: all that a call reads. An engine holds one and swaps it with one assignment (docs/design.md section 8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import DecideResult, Router
from ipr_engine.arguments import bare_embeddings, bill_floor, per_model, whole_counts
from ipr_engine.asks import ASKS
from ipr_engine.bundle import Bundle
from ipr_engine.calibrated import Calibrations
from ipr_engine.decide import STATUS, DecidePlan, Heads
from ipr_engine.decision import OK, Decisions
from ipr_engine.encoders.base import Encoded, Encoder
from ipr_engine.encoders.registry import EncoderOptions, make_encoder
from ipr_engine.errors import EncoderMismatchError, InvalidInputError, RowError
from ipr_engine.policy import Policy, compile_policy
from ipr_engine.prompts import PART_FEATURES, PromptText, is_messages, split_prompt
from ipr_engine.terms import frozen_terms, terms_on

MAX_KEPT_POLICIES = 256
DEFAULT_TERMS: Mapping[str, Any] = {
    "tau": None,
    **dict.fromkeys(ASKS),
    "rule": None,
    "slack": 0.0,
    "worth": None,
    "allowed": None,
    "exclude": None,
    "family": None,
    "requires": None,
    "max_latency_ms": None,
    "prices": None,
}
POLICY_TERMS = frozenset(DEFAULT_TERMS)


class Generation:
    """One bundle with its encoder, packed heads and router, and the policies compiled for it.

    A call reads the engine's generation once and uses nothing else, so that its decision's names, prices, costs and hash
    come from one bundle. Nothing refers back to it: it is freed with its last reader.

    Attributes:
        bundle, hash: the bundle and its hash.
        encoder, encoder_identity: the prompt encoder of its heads, and its name.
        plan: the packed heads.
        calibrations: its maps, with what is known of their validity.
        router: text or embeddings to decisions, in C++.
        routes_text: the router encodes too; else the encoder runs in Python, decide apart from it.
    """

    __slots__ = (
        "__weakref__",
        "_followed",
        "_policies",
        "bundle",
        "calibrations",
        "encoder",
        "encoder_identity",
        "hash",
        "plan",
        "router",
        "routes_text",
    )

    def __init__(self, bundle: Bundle, *, options: EncoderOptions, encoder: Encoder | None = None) -> None:
        """Plan `bundle`; `encoder` is one already loaded with the identity that the heads name."""
        heads = bundle.quality_heads
        self.bundle = bundle
        self.hash = bundle.hash
        self.encoder = make_encoder(bundle, heads.encoder, options) if encoder is None else encoder
        self.encoder_identity = self.encoder.identity
        self.plan = DecidePlan(
            Heads(**heads.tensors, activation=heads.activation, tie_rank=bundle.tie_rank),  # type: ignore[arg-type]
            isa=options.isa,
        )
        support = bundle.support
        if support is not None and support.encoder != heads.encoder:
            raise EncoderMismatchError(
                f"support: measured on encoder {support.encoder!r}, but the heads read {heads.encoder!r}; measure it on theirs"
            )
        self.router = Router(
            self.plan,
            self.encoder.native,
            [math.inf if c.context_window is None else float(c.context_window) for c in bundle.candidates],
            [c.token_ratio for c in bundle.candidates],
            None if support is None else support.centroids,
            None if support is None else support.distances,
        )
        self.routes_text = self.encoder.native is not None
        self.calibrations = Calibrations(bundle)
        self._policies: dict[tuple[tuple[str, Any], ...], Policy] = {}
        self._followed: dict[int, tuple[Policy, Policy]] = {}

    def successor(
        self,
        bundle: Bundle,
        *,
        options: EncoderOptions,
        allow_other_encoder: bool,
        allow_fewer_candidates: bool,
        allow_fewer_outputs: bool,
    ) -> Generation:
        """Another bundle, planned to serve in place of this one, with its encoder where the identity is the same.

        Raises:
            EncoderMismatchError, InvalidInputError: calls that this bundle serves would fail, and that was not allowed.
        """
        heads = bundle.quality_heads
        identity = bundle.encoder(heads.encoder).identity
        same_encoder = identity == self.encoder_identity
        if not same_encoder and not allow_other_encoder:
            raise EncoderMismatchError(
                f"bundle: {bundle.hash[:12]} reads encoder {identity[:12]}, the one that serves reads "
                f"{self.encoder_identity[:12]}; kept embeddings would not fit, pass allow_other_encoder=True if none are kept"
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
        next_one = Generation(bundle, options=options, encoder=self.encoder if same_encoder else None)
        if (
            bundle.calibrations == self.bundle.calibrations
        ):  # what made these maps stale still does; new ones start anew
            next_one.calibrations.drift = self.calibrations.drift
        return next_one

    def compile(self, terms: Mapping[str, Any]) -> Policy:
        """The policy of these terms (tau, and what differs from DEFAULT_TERMS) for this bundle."""
        constants = self.bundle.quality_heads.rule_constants
        policy = compile_policy(self.bundle, self.plan, constants, self.calibrations, **{**DEFAULT_TERMS, **terms})
        return replace(policy, terms=frozen_terms(terms))

    def settle(self, policy: Policy | None, terms: dict[str, Any]) -> Policy:
        """The policy meant by a call's arguments, compiled for this bundle."""
        if policy is None:
            return self._from_terms(terms)
        if not isinstance(policy, Policy):
            raise InvalidInputError(f"policy: expected what engine.policy(...) returns, got {type(policy).__name__}")
        if terms:
            raise InvalidInputError(f"{', '.join(terms)}: give either a policy or its arguments, not both")
        mine = policy.bundle_hash == self.hash and policy.drift is self.calibrations.drift
        return policy if mine else self._follow(policy)  # a bundle that serves again has a drift flag of its own

    def _follow(self, policy: Policy) -> Policy:
        """A policy made for another bundle, its terms compiled for this one: once, then kept."""
        found = self._followed.get(id(policy))  # hashing a policy costs more; the kept one cannot lose its id
        if found is not None:
            return found[1]
        try:
            mine = self.compile(terms_on(policy.terms, self.bundle))
        except InvalidInputError as error:
            raise InvalidInputError(
                f"policy: made for bundle {policy.bundle_hash[:12]}, and its terms do not fit bundle {self.hash[:12]}, "
                f"which serves now ({error}); make it anew with engine.policy(...)"
            ) from error
        if len(self._followed) >= MAX_KEPT_POLICIES:
            self._followed.clear()
        self._followed[id(policy)] = (policy, mine)
        return mine

    def _from_terms(self, terms: dict[str, Any]) -> Policy:
        """The policy of these keyword arguments, kept for the next call when they are plain values."""
        unknown = sorted(set(terms) - POLICY_TERMS)
        if unknown:
            raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: {', '.join(sorted(POLICY_TERMS))}")
        if "tau" not in terms and not terms.keys() & set(ASKS):
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

    def encode(self, prompts: Any, billed_tokens: Any, policy: Policy | None) -> Encoded:
        """Embed one prompt or a list of them, with the bill of each; see `Engine.encode`."""
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
            self.check_non_text(part, name, billed_tokens, policy)
        encoded = self.encoder.encode([part.encoded for part in parts])
        counts = encoded.billed_tokens.tolist()
        for name, part, count in zip(names, parts, counts, strict=True):
            if count == 0:
                raise InvalidInputError(f"{name}: expected text, got {len(part.encoded)} characters without one token")
        if billed_tokens is None:
            bills = np.array([self.bill(part, count) for part, count in zip(parts, counts, strict=True)], np.int64)
        else:
            bills = whole_counts(billed_tokens, len(parts))
        return replace(encoded, billed_tokens=bills, encoder=self.encoder_identity)

    def bill(self, part: PromptText, counted: int) -> int:
        """Tokens of the whole request: what was encoded, and every text that was not."""
        other = sum(bill_floor(text, self.encoder.count_tokens(text)) for text in part.billed_only)
        return bill_floor(part.encoded, counted) + other

    def check_non_text(self, part: PromptText, name: str, billed_tokens: object, policy: Policy | None) -> None:
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

    def embeddings(self, x: Encoded | npt.NDArray[np.float32], billed_tokens: Any) -> Encoded:
        """What `Engine.decide` was given, as Encoded with its bills."""
        encoded = x if type(x) is Encoded else bare_embeddings(x, self.plan.dim, billed_tokens)
        if encoded.encoder is not None and encoded.encoder != self.encoder_identity:
            raise EncoderMismatchError(
                f"x: embedded by encoder {encoded.encoder[:12]}, but the heads of bundle {self.hash[:12]} read "
                f"{self.encoder_identity[:12]}; encode the prompts again"
            )
        if billed_tokens is not None:
            encoded = replace(encoded, billed_tokens=whole_counts(billed_tokens, len(encoded)))
        return encoded

    def decide(self, encoded: Encoded, policy: Policy, tokens_out: Any, extra_usd: Any, on_error: str) -> Decisions:
        """Decide on embeddings under a policy of this bundle; see `Engine.decide`."""
        models = self.plan.models
        result, support = self.router.decide(
            encoded.x,
            policy.compiled,
            encoded.billed_tokens,
            None if tokens_out is None else per_model("tokens_out", tokens_out, len(encoded.x), models),
            None if extra_usd is None else per_model("extra_usd", extra_usd, len(encoded.x), models),
        )
        if not result.all_ok or on_error != "raise":
            check_rows(result, on_error)
        return Decisions(result, policy, self.bundle, encoded.billed_tokens, encoded.truncated, support)


def check_rows(result: DecideResult, on_error: str) -> None:
    """Raise RowError for the failed rows when on_error is "raise"."""
    check_on_error(on_error)
    if on_error == "raise":
        failed = np.flatnonzero(result.status != OK)
        if len(failed):
            raise RowError(failed.tolist(), [STATUS[result.status_at(int(row))] for row in failed])


def check_on_error(on_error: str) -> None:
    if on_error not in ("raise", "status"):
        raise InvalidInputError(f"on_error: expected 'raise' or 'status', got {on_error!r}")
