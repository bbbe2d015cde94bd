"""A `Policy` is everything of a decision that is not the prompt, compiled for one bundle (docs/glossary.md and docs/decide.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import BundleSpec, CalibrationMap, PriceList
from ipr_engine.bundle.context_windows import SurelyFits
from ipr_engine.decide.contract import DecidePolicy
from ipr_engine.decide.reference import expected_cost
from ipr_engine.policy.calibrated import CalibrationStatus, DriftFlag
from ipr_engine.policy.cost_weights import Figures, Weighing
from ipr_engine.policy.price_table import PriceTable
from ipr_engine.policy.promise import Promise
from ipr_engine.policy.rules import CALIBRATED, EVERY_ROW_PLAIN, PATH, Coefficients, Target, Unsupported
from ipr_engine.policy.tau_path import TauPath


@dataclass(frozen=True)
class SecondRule:
    """A `SecondRule` is a policy's rule for the second heads of a two-tier bundle: rule `fixed` has their constants."""

    coefficients: Coefficients
    compiled: DecidePolicy = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """A policy is made by `Engine.policy(...)`; pass it to `route` and `decide` as often as you like, from any thread.

    Policies of equal options on one bundle are equal and hash alike, so a policy can be part of a cache's key.

    A policy can be pickled. In another process it tells what it told here; the first call that brings it to an engine there
    compiles its options, as after a swap.

    Attributes:
        tau, rule, slack: see `rules.compile_rule`. worth: in USD per unit of quality, as it runs: under rule "path" the path's.
        prices: the price list costs are computed with.
        allowed: names of the candidates that may be chosen, in bundle order.
        exclusions: name -> why it may not be chosen, for every other candidate.
        coefficients: the compiled rule.
        target: what was given in place of tau, as (name, value); tau is then its estimated equivalent.
        promise: what rule "path" promises on average, and why tau cannot trade, if so; None under another rule.
        path: tau's path of the allowed candidates at these prices; None under another rule.
        reserve: candidates that only the operating point of rule "calibrated" leaves out: they stand in when others fail.
        map: the calibration map read, None under another rule.
        escalate_below: a two-tier bundle decides again where the gap is below it, in quality units: 0 never, infinity always.
        second: the rule for the second heads; None in a bundle of one tier.
        rates: the prices as arrays, in USD, for what the host adds to a cost.
        weighing: the weighted sum that is traded against quality in place of USD (cost_weights.py); None: USD alone.
        folded: the rates that the op is given: `rates`, or those of the weighted sum.
        measured: the engine's figures it was compiled with; None where it reads none of them, and no refresh concerns it.
        surely_fits: tokens below which a prompt surely fits every allowed candidate's context window, output included.
        least_window: the smallest context window of an allowed candidate; infinity where none has any.
        unsupported: what is done with prompts of little support; by default nothing.
        bundle_hash: the bundle this policy was compiled for; on another the engine compiles its options anew, once.
        options: those it was made of, by name, less those left at None.
    """

    tau: float
    rule: str
    slack: float
    worth: float
    prices: PriceList
    allowed: tuple[str, ...]
    exclusions: Mapping[str, str]
    coefficients: Coefficients
    bundle_hash: str
    compiled: DecidePolicy = field(repr=False, compare=False)
    options: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)
    target: Target | None = None
    reserve: tuple[str, ...] = ()
    map: CalibrationMap | None = field(default=None, repr=False)
    promise: Promise | None = field(default=None, repr=False, compare=False)
    path: TauPath | None = field(default=None, repr=False, compare=False)
    escalate_below: float = 0.0
    second: SecondRule | None = field(default=None, repr=False)
    certificate: CalibrationStatus = field(repr=False)
    drift: DriftFlag = field(repr=False, compare=False)
    surely_fits: SurelyFits = field(repr=False)
    least_window: float = field(repr=False)
    rates: PriceTable = field(repr=False, compare=False)
    weighing: Weighing | None = field(default=None, repr=False)
    folded: PriceTable = field(repr=False, compare=False)
    measured: Figures | None = field(default=None, repr=False, compare=False)
    unsupported: Unsupported = EVERY_ROW_PLAIN

    def __getstate__(self) -> dict[str, Any]:
        """Return the fields alone: what was computed of them is computed again."""
        return {made.name: getattr(self, made.name) for made in fields(self)}

    def __deepcopy__(self, memo: object) -> Policy:
        """Return the policy itself: nothing of it changes, and its engine knows it by its identity."""
        return self

    @property
    def calibration(self) -> CalibrationStatus:
        """Return what is certified now of this policy's decisions, and why or why not; `Engine.mark_stale` changes it."""
        drift = self.drift.evidence
        if drift is None or self.certificate.status == "uncalibrated":
            return self.certificate
        return CalibrationStatus("stale", drift.message)

    def weighed(self, extra_usd: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
        """Return what a caller adds in USD as the op takes it: times the weight of USD."""
        if extra_usd is None or self.weighing is None or self.weighing.weights.usd == 1:
            return extra_usd
        with np.errstate(all="ignore"):  # what is not finite gives the row its status
            return (self.weighing.weights.usd * extra_usd.astype(np.float64)).astype(np.float32)

    def usd(
        self,
        billed_tokens: npt.NDArray[np.int64],
        own_tokens: npt.NDArray[np.float32] | None,
        tokens_out: npt.NDArray[np.float32],
        extra_usd: npt.NDArray[np.float32] | None,
    ) -> npt.NDArray[np.float32]:
        """Return (rows, models) cost in USD, whatever the policy weighs: to the bit what the op gives a policy that weighs USD alone.

        Args:
            billed_tokens: (rows,). own_tokens: (rows, models), None where no candidate names its tokenizer.
            tokens_out: (rows, models). extra_usd: (models,) or (rows, models).
        """
        counted = self.rates.counted(billed_tokens, own_tokens).astype(np.float32)
        with np.errstate(all="ignore"):  # what is not finite stays so, and gives its row a status
            usd = expected_cost(**self._op_rates, billed_tokens=counted, tokens_out=tokens_out)
            return usd if extra_usd is None else usd + extra_usd

    def usd_of(
        self, m: int, billed_tokens: int, own: np.float32 | None, tokens_out: float, extra: np.float32 | None
    ) -> float:
        """Return the cost in USD of the candidate at position m on one row, as `usd` does for all."""
        # the steps of `usd` in float32, in the same order: the same bits, without arrays
        rates, ratio = self._op_rates, self.rates.token_ratio[m]
        counted = np.float32(billed_tokens) if own is None else np.float32(float(own) / ratio)
        in_rate, out_rate = rates["in_rate"], rates["out_rate"]
        if "tier_above" in rates:
            tier = int((counted > rates["tier_above"][:, m]).sum())
            in_rate, out_rate = in_rate[tier], out_rate[tier]
        with np.errstate(all="ignore"):
            usd = rates["fixed_usd"][m] + (in_rate[m] * counted + out_rate[m] * np.float32(tokens_out))
            return float(usd if extra is None else usd + extra)

    @cached_property
    def _op_rates(self) -> dict[str, Any]:
        return self.rates.op_terms()

    @cached_property
    def written(self) -> list[Any]:
        """Return room for the JSON that its decisions have in common, which the first of them fills (`decision/written_policy.py`)."""
        return []

    @cached_property
    def key(self) -> tuple[object, ...]:
        """Return everything that can change a decision, as one hashable value."""
        prices = tuple(sorted(self.prices.prices.items(), key=lambda item: item[0]))
        return (
            self.bundle_hash, self.rule, self.tau, self.target, self.slack, self.worth, self.coefficients, self.allowed,
            self.reserve, prices, self.escalate_below, self.unsupported, self.weighing
        )  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return self.key == other.key if isinstance(other, Policy) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.key)

    def __repr__(self) -> str:
        parts = [f"rule={self.rule!r}", f"tau={self.tau:g}"]
        if self.slack:
            parts.append(f"slack={self.slack:g}")
        if self.worth:
            parts.append(f"worth={self.worth:g}")
        if self.weighing is not None:
            parts.append(f"cost_weights=({self.weighing.weights})")
        if self.second is not None:
            parts.append(f"escalate_below={self.escalate_below:g}")
        if self.unsupported.min_support:
            parts.append(f"min_support={self.unsupported.min_support:g} unsupported={self.unsupported.asked!r}")
        if self.rule in (CALIBRATED, PATH):
            parts.append(self.calibration.status)
        if self.promise is not None:
            parts.append(self.promise.summary)
        parts.append(f"allowed={len(self.allowed)} of {len(self.allowed) + len(self.exclusions)}")
        parts.append(f"prices of {self.prices.date}")
        return f"Policy({', '.join(parts)})"


def op_terms(
    bundle: BundleSpec, coefficients: Coefficients, worth: float, rates: PriceTable, allowed: Sequence[str]
) -> dict[str, Any]:
    """Return the keyword arguments of DecidePolicy. rates: `Policy.folded`, in float64; they are rounded once, here."""
    return {
        "alpha_hi": coefficients.alpha_hi,
        "alpha_lo": coefficients.alpha_lo,
        "offset": coefficients.offset,
        "worth": worth,
        **rates.op_terms(),
        "allowed": np.array([candidate.name in allowed for candidate in bundle.candidates], dtype=np.bool_),
    }
