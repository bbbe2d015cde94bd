"""A policy: everything of a decision that is not the prompt, validated and compiled once (docs/design.md sections 2 and 4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import matched, matched_once, nonnegative, nonnegative_or_infinite, unit_interval
from ipr_engine.bundle import Bundle, CalibrationMap, Candidate, Price, PriceList, PriceTier, RuleConstants
from ipr_engine.bundle.price import BASE, REQUIRED, price_json, price_of
from ipr_engine.bundle.price_check import price_problem
from ipr_engine.decide.contract import DecidePlan, DecidePolicy
from ipr_engine.decide.reference import expected_cost
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.calibrated import Calibrations, CalibrationStatus, DriftFlag, Settled, path_certificate, settle
from ipr_engine.policy.cost_weights import Figures, Weighing, merged_figures, settle_weights
from ipr_engine.policy.paths import Paths
from ipr_engine.policy.price_table import PriceTable
from ipr_engine.policy.promise import PathPoint, Promise, make_promise, point_at, point_for
from ipr_engine.policy.targets import CALIBRATED, PATH, rule_meant, tau_or_ask
from ipr_engine.policy.tau_path import TauPath
from ipr_engine.policy.unsupported import EVERY_ROW_PLAIN, Unsupported, settle_unsupported
from ipr_engine.request.limits import SurelyFits, surely_fits


@dataclass(frozen=True)
class Coefficients:
    """What a kernel knows of a rule: threshold = min((alpha_hi*hi + alpha_lo*lo) + offset, hi)."""

    alpha_hi: float
    alpha_lo: float
    offset: float


def _minmax(tau: float, slack: float, constants: RuleConstants | None) -> Coefficients:
    return Coefficients(1.0 - tau, tau, 0.0)


def _max(tau: float, slack: float, constants: RuleConstants | None) -> Coefficients:
    return Coefficients(1.0 - tau, 0.0, -slack)


def _fixed(tau: float, slack: float, constants: RuleConstants | None) -> Coefficients:
    if constants is None:
        raise InvalidInputError(
            "rule: 'fixed' needs rule_constants in the bundle's heads, and this bundle has none; use 'minmax' or 'max'"
        )
    return Coefficients(0.0, 0.0, (1.0 - tau) * constants.hi + tau * constants.lo)


RULES: Mapping[str, Callable[[float, float, RuleConstants | None], Coefficients]] = MappingProxyType(
    {"minmax": _minmax, "max": _max, "fixed": _fixed}
)


def path_coefficients(point: PathPoint) -> Coefficients:
    """Rule `path`: at tau 0 the threshold is the highest predicted quality; elsewhere nobody is left out, and the worth decides."""
    return Coefficients(1.0 if point.takes_best else 0.0, 0.0, 0.0)


EVERY_RULE = (PATH, *RULES, CALIBRATED)  # what a policy may be given


def compile_rule(rule: str, tau: float, *, slack: float = 0.0, constants: RuleConstants | None = None) -> Coefficients:
    """(rule, tau) to threshold coefficients, IPR (arXiv 2509.06274) sec. 2.2.

    Args:
        rule: "minmax" (loss bounded as a share of hi - lo), "max" (relative to hi, less slack) or "fixed" (an absolute level).
        tau: in [0, 1]. 0 asks for the best predicted candidate, 1 accepts the cheapest (for slack 0 and "max", quality >= 0).
        slack: in [0, 1], for "max" only.
        constants: the fitting set's mean hi and lo, for "fixed" only.
    Raises:
        InvalidInputError: an unknown rule, a value outside its range, or a rule without what it needs.
    """
    if rule not in RULES:
        raise InvalidInputError(f"rule: expected one of {', '.join(map(repr, (*RULES, CALIBRATED)))}, got {rule!r}")
    tau = unit_interval("tau", tau)
    slack = unit_interval("slack", slack)
    if slack != 0.0 and rule != "max":
        raise InvalidInputError(f"slack: only rule 'max' has one, got slack={slack} with rule {rule!r}; leave it out")
    return RULES[rule](tau, slack, constants)


@dataclass(frozen=True)
class SecondRule:
    """A policy as the second heads of a two-tier bundle see it: rule `fixed` has their constants."""

    coefficients: Coefficients
    compiled: DecidePolicy = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Policy:
    """Made by `Engine.policy(...)`; pass it to `route` and `decide` as often as you like, from any thread.

    Policies of equal terms on one bundle are equal and hash alike, so a policy can be part of a cache's key.

    Attributes:
        tau, rule, slack: see `compile_rule`. worth: in USD per unit of quality, as it runs: under rule "path" the path's.
        prices: the price list costs are computed with.
        allowed: names of the candidates that may be chosen, in bundle order.
        exclusions: name -> why it may not be chosen, for every other candidate.
        coefficients: the compiled rule.
        ask: what was asked instead of tau, as (name, value); tau is then its estimated equivalent.
        promise: what rule "path" promises on average, and why tau cannot trade, if so; None under another rule.
        path: tau's path of the allowed candidates at these prices; None under another rule.
        reserve: candidates that only the operating point of rule "calibrated" leaves out: they stand in when others fail.
        map: the calibration map read, None under another rule.
        escalate_below: a two-tier bundle decides again where the gap is below it, in quality units: 0 never, infinity always.
        second: the rule for the second heads; None in a bundle of one tier.
        rates: the prices as arrays, in USD, for what the host adds to a cost.
        weighing: the weighted sum that is traded against quality in place of USD (cost_terms.py); None: USD alone.
        folded: the rates that the op is given: `rates`, or those of the weighted sum.
        measured: the engine's figures it was compiled with; None where it reads none of them, and no refresh concerns it.
        surely_fits: tokens below which a prompt surely fits every allowed candidate's context window, output included.
        unsupported: what is done with prompts of little support (ipr_engine/policy/unsupported.py): nothing by default.
        bundle_hash: the bundle this policy was compiled for; on another the engine compiles its terms anew, once.
        terms: the arguments it was made of, less those left at None.
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
    terms: Mapping[str, object] = field(default_factory=dict, repr=False, compare=False)
    ask: tuple[str, float] | None = None
    reserve: tuple[str, ...] = ()
    map: CalibrationMap | None = field(default=None, repr=False)
    promise: Promise | None = field(default=None, repr=False, compare=False)
    path: TauPath | None = field(default=None, repr=False, compare=False)
    escalate_below: float = 0.0
    second: SecondRule | None = field(default=None, repr=False)
    certificate: CalibrationStatus = field(repr=False)
    drift: DriftFlag = field(repr=False, compare=False)
    surely_fits: SurelyFits = field(repr=False)
    rates: PriceTable = field(repr=False, compare=False)
    weighing: Weighing | None = field(default=None, repr=False)
    folded: PriceTable = field(repr=False, compare=False)
    measured: Figures | None = field(default=None, repr=False, compare=False)
    unsupported: Unsupported = EVERY_ROW_PLAIN

    @property
    def calibration(self) -> CalibrationStatus:
        """What is certified of this policy's decisions, and why or why not, as of now (`Engine.mark_stale` changes it)."""
        drift = self.drift.evidence
        if drift is None or self.certificate.status == "uncalibrated":
            return self.certificate
        return CalibrationStatus("stale", drift.message)

    def weighed(self, extra_usd: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
        """What a caller adds in USD, as the op is given it: by the weight of USD."""
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
        """(rows, models) cost in USD alone, whatever the policy weighs: what the op gives a policy that weighs USD alone, to the bit.

        Args:
            billed_tokens: (rows,). own_tokens: (rows, models), None where no candidate names its tokenizer.
            tokens_out: (rows, models). extra_usd: (models,) or (rows, models).
        """
        counted = self.rates.counted(billed_tokens, own_tokens).astype(np.float32)
        with np.errstate(all="ignore"):  # what is not finite stays so
            usd = expected_cost(**self._op_rates, billed_tokens=counted, tokens_out=tokens_out)
            return usd if extra_usd is None else usd + extra_usd

    def usd_of(
        self, m: int, billed_tokens: int, own: np.float32 | None, tokens_out: float, extra: np.float32 | None
    ) -> float:
        """`usd` of one candidate on one row."""
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
    def key(self) -> tuple[object, ...]:
        """Everything that can change a decision, as one hashable value."""
        prices = tuple(sorted(self.prices.prices.items(), key=lambda item: item[0]))
        return (
            self.bundle_hash, self.rule, self.tau, self.ask, self.slack, self.worth, self.coefficients, self.allowed,
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


def compile_policy(
    bundle: Bundle,
    plan: DecidePlan,
    second_plan: DecidePlan | None,
    calibrations: Calibrations,
    paths: Paths,
    measured: Figures,
    *,
    tau: float | None,
    rule: str | None,
    slack: float,
    worth: float | None,
    allowed: Sequence[str] | None,
    exclude: Sequence[str] | None,
    family: str | Sequence[str] | None,
    requires: str | Sequence[str] | None,
    max_latency_ms: float | None,
    prices: PriceList | Mapping[str, object] | None,
    escalate_below: float | None,
    batch: bool | None = None,
    cache_write: bool | None = None,
    min_support: float | None = None,
    unsupported: str | None = None,
    cost_weights: Mapping[str, float] | None = None,
    performance: Mapping[str, object] | None = None,
    **asks: object,
) -> Policy:
    """Validate every argument, settle who may be chosen and why the others may not, fold prices, compile.

    second_plan: of the second heads of a two-tier bundle. measured: the engine's figures of candidates.
    asks: at most one of asks.ASKS, instead of tau.
    """
    tau, ask = tau_or_ask(tau, asks)
    worth = None if worth is None else nonnegative("worth", worth)
    below = _escalate_below(bundle, escalate_below)
    price_list = bundle.prices if prices is None else merge_prices(bundle, prices)
    price_list = effective_prices(price_list, _flag("batch", batch), _flag("cache_write", cache_write))
    rates = price_table(bundle.candidates, price_list)
    exclusions = _exclusions(bundle.candidates, allowed, exclude, family, requires, max_latency_ms)
    names = [candidate.name for candidate in bundle.candidates]
    if len(exclusions) == len(names):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in exclusions.items())
        raise InvalidInputError(f"policy: no candidate is left ({reasons}); loosen one of the conditions")
    kept = [name for name in names if name not in exclusions]
    figures = measured if performance is None else merged_figures("performance", measured, performance, names)
    weighing = settle_weights(cost_weights, figures, names, kept)
    if performance is not None and weighing is None:
        raise InvalidInputError(
            "performance: nothing but USD is weighed, so no figure is read; give cost_weights=..., or leave it out"
        )
    folded = rates if weighing is None else weighing.folded(rates)
    other_cost = None if weighing is None else f"cost_weights weigh {weighing.weights} in place of USD alone"
    sent = settle_unsupported(bundle, min_support, unsupported, exclusions, price_list)
    lacking = paths.lacking(kept)
    meant = rule_meant(rule, asks, has_path=lacking is None)
    settled: Settled | None = None
    path: TauPath | None = None
    promise: Promise | None = None
    certificate = _uncertified(meant, None if rule is not None else lacking)
    if meant == PATH:
        _check_path_terms(lacking, kept, slack, worth)
        path = paths.of(kept, price_list, below, weighing)
        point = point_for(path, ask) if ask is not None else point_at(path, 0.0 if tau is None else tau)
        tau, worth = point.tau, point.worth
        coefficients = path_coefficients(point)
        remarks = [*paths.remarks(kept, below), *sent.remarks()]
        promise = make_promise(path, kept, point, remarks, None if weighing is None else str(weighing.weights))
        certificate = path_certificate(
            calibrations,
            kept,
            tau=tau if ask is None else None,
            ask=ask,
            worth=worth,
            prices=None if price_list is bundle.prices else price_list,
            escalate_below=below,
            other_cost=other_cost,
        )
        if sent.min_support and certificate.status == "calibrated":
            certificate = CalibrationStatus("estimated", "; ".join(sent.remarks()))
    elif meant == CALIBRATED:
        if slack != 0:
            raise InvalidInputError(
                f"slack: only rule 'max' has one, got slack={slack} with rule {meant!r}; leave it out"
            )
        asked_prices = None if price_list is bundle.prices else price_list
        settled = settle(
            calibrations,
            kept,
            tau=tau,
            ask=ask,
            worth=worth,
            prices=asked_prices,
            escalate_below=below,
            other_cost=other_cost,
        )
        tau, knot = settled.tau, settled.point
        coefficients = Coefficients(knot.alpha_hi, knot.alpha_lo, knot.offset)
        worth = knot.worth if worth is None else worth
        certificate = settled.certificate
        exclusions |= settled.left_out
    else:
        assert tau is not None  # no ask, hence given
        if meant not in RULES:
            raise InvalidInputError(f"rule: expected one of {', '.join(map(repr, EVERY_RULE))}, got {meant!r}")
        coefficients = compile_rule(meant, tau, slack=slack, constants=bundle.quality_heads.rule_constants)
        worth = worth or 0.0
    exclusions = {name: exclusions[name] for name in names if name in exclusions}
    allowed_names = tuple(name for name in names if name not in exclusions)
    second: SecondRule | None = None
    if second_plan is not None and bundle.escalation_heads is not None:
        constants = bundle.escalation_heads.rule_constants
        again = compile_rule(meant, tau, slack=slack, constants=constants) if meant in RULES else coefficients
        terms = op_terms(bundle, again, worth, folded, allowed_names)
        second = SecondRule(again, DecidePolicy(second_plan, **terms))
    return Policy(
        tau=float(tau),
        rule=meant,
        slack=float(slack),
        worth=worth,
        prices=price_list,
        allowed=allowed_names,
        exclusions=MappingProxyType(exclusions),
        coefficients=coefficients,
        bundle_hash=bundle.hash,
        compiled=DecidePolicy(
            plan, **op_terms(bundle, coefficients, worth, folded, allowed_names), **sent.op_terms(names, kept)
        ),
        ask=ask,
        reserve=() if settled is None else tuple(settled.left_out),
        map=None if settled is None else settled.map,
        escalate_below=below,
        second=second,
        rates=rates,
        weighing=weighing,
        folded=folded,
        measured=None if weighing is None else measured,
        promise=promise,
        path=path,
        certificate=certificate,
        drift=calibrations.drift,
        surely_fits=surely_fits(bundle, allowed_names),
        unsupported=sent,
    )


def price_table(candidates: Sequence[Candidate], prices: PriceList) -> PriceTable:
    """The prices of candidates by tokens of the prompt encoder."""
    ratio = [candidate.token_ratio for candidate in candidates]
    return PriceTable([prices.prices[candidate.name] for candidate in candidates], ratio)


def op_terms(
    bundle: Bundle, coefficients: Coefficients, worth: float, rates: PriceTable, allowed: Sequence[str]
) -> dict[str, Any]:
    """DecidePolicy's arguments: rates (`Policy.folded`) in float64, rounded once."""
    return {
        "alpha_hi": coefficients.alpha_hi,
        "alpha_lo": coefficients.alpha_lo,
        "offset": coefficients.offset,
        "worth": worth,
        **rates.op_terms(),
        "allowed": np.array([candidate.name in allowed for candidate in bundle.candidates], dtype=np.bool_),
    }


def _escalate_below(bundle: Bundle, asked: float | None) -> float:
    """Below which gap a two-tier bundle decides again: what was asked, else the bundle's own."""
    own = 0.0 if bundle.escalation is None else bundle.escalation.gap
    if asked is None:
        return own
    below = nonnegative_or_infinite("escalate_below", asked)
    if below and bundle.escalation is None:
        raise InvalidInputError(
            f"escalate_below: the bundle has no second tier to ask, got {below:g}; leave it out, or join two bundles with "
            "`ipr escalate`"
        )
    return below


def _uncertified(rule: str, lacking: str | None) -> CalibrationStatus:
    """The status of the paper's rules. lacking: why a bare tau runs one of them, and not the path."""
    why = "" if lacking is None else f"{lacking}; "
    return CalibrationStatus(
        "uncalibrated", f"{why}rule {rule!r} bounds a prompt's predicted loss; only rule 'calibrated' is certified"
    )


def _check_path_terms(lacking: str | None, names: Sequence[str], slack: float, worth: float | None) -> None:
    """Refuse what rule `path` cannot run, and what it reads from the path itself."""
    if lacking is not None:
        raise InvalidInputError(
            f"rule: 'path' needs path rows of the allowed candidates ({', '.join(names)}), and {lacking}; make them with "
            "`ipr train`, or use 'minmax'"
        )
    if worth is not None:
        raise InvalidInputError(
            f"worth: rule 'path' reads it from tau, got worth={worth:g} beside it; leave it out, or name rule='minmax' "
            "(with tau=1: the least cost - worth * quality among all)"
        )
    if slack != 0:
        raise InvalidInputError(
            f"slack: only rule 'max' has one, got slack={slack} with rule 'path'; leave it out, or name rule='max'"
        )


def _names(argument: str, values: Sequence[str] | str) -> list[str]:
    if isinstance(values, str):
        return [values]
    if not isinstance(values, (list, tuple, set, frozenset)) or not all(isinstance(v, str) for v in values):
        raise InvalidInputError(f"{argument}: expected a list of names, got {values!r}")
    return list(values)


def _known(argument: str, values: Sequence[str] | str, known: set[str]) -> set[str]:
    """The known names meant, whatever their case; at least one."""
    wanted = _names(argument, values)
    if not wanted:
        raise InvalidInputError(f"{argument}: expected at least one name, got an empty list")
    return set(matched(argument, wanted, known).values())


def _exclusions(
    candidates: Sequence[Candidate],
    allowed: Sequence[str] | None,
    exclude: Sequence[str] | None,
    family: str | Sequence[str] | None,
    requires: str | Sequence[str] | None,
    max_latency_ms: float | None,
) -> dict[str, str]:
    """The first reason, in argument order, why a candidate may not be chosen."""
    every = {candidate.name for candidate in candidates}
    names = every if allowed is None else _known("allowed", allowed, every)
    away = set() if exclude is None or exclude in ([], (), set(), "") else _known("exclude", exclude, every)
    families = None if family is None else _known("family", family, {c.family for c in candidates})
    features = set() if requires is None else _known("requires", requires, {f for c in candidates for f in c.features})
    limit = None if max_latency_ms is None else nonnegative("max_latency_ms", max_latency_ms)

    result: dict[str, str] = {}
    for candidate in candidates:
        missing = sorted(features - set(candidate.features))
        if candidate.name not in names:
            result[candidate.name] = "not in allowed"
        elif candidate.name in away:
            result[candidate.name] = "excluded by name"
        elif families is not None and candidate.family not in families:
            result[candidate.name] = f"family is {candidate.family}"
        elif missing:
            result[candidate.name] = f"lacks {', '.join(missing)}"
        elif limit is not None and candidate.latency_ms is None:
            result[candidate.name] = "latency unknown"
        elif limit is not None and candidate.latency_ms is not None and candidate.latency_ms > limit:
            result[candidate.name] = f"latency {candidate.latency_ms:g} ms over {limit:g} ms"
    return result


def merge_prices(bundle: Bundle, prices: PriceList | Mapping[str, object]) -> PriceList:
    """The bundle's price list with some candidates' prices replaced.

    Args:
        prices: a PriceList, or name -> Price, or name -> (input, output) in USD per 1 M tokens.
    """
    if not isinstance(prices, (PriceList, Mapping)):
        raise InvalidInputError(
            f"prices: expected a mapping of candidate name to (input, output) USD per 1 M tokens, got {type(prices).__name__}"
        )
    if isinstance(prices, PriceList) and prices.currency != "USD":
        raise InvalidInputError(f"prices: expected a list in USD, got {prices.currency!r}; convert it first")
    given = prices.prices if isinstance(prices, PriceList) else prices
    names = matched_once("prices", _names("prices", list(given)), bundle.names)
    merged = dict(bundle.prices.prices)
    for name, value in given.items():
        merged[names[name]] = _price(name, value)
    whole = isinstance(prices, PriceList) and len(given) == len(bundle.names)
    date = prices.date if isinstance(prices, PriceList) and whole else f"{bundle.prices.date}, {len(given)} replaced"
    return PriceList(currency="USD", date=date, prices=MappingProxyType(merged))


def effective_prices(prices: PriceList, batch: bool, cache_write: bool) -> PriceList:
    """What requests of this kind cost: those of a batch, and those whose input is written to the provider's cache."""
    kinds = [(batch, Price.in_batch, "batch"), (cache_write, Price.writing_cache, "written to the cache")]
    for asked, priced, told in kinds:
        if asked:
            rows = {name: priced(price) for name, price in prices.prices.items()}
            prices = PriceList(currency="USD", date=f"{prices.date}, {told}", prices=MappingProxyType(rows))
    return prices


def _flag(name: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InvalidInputError(f"{name}: expected True or False, got {value!r}")
    return bool(value)


GIVEN = "given by the caller"


def _price(name: str, value: object) -> Price:
    """A price of `prices=`, checked; whoever gives two numbers means input and output."""
    if (
        isinstance(value, Price)
        and isinstance(value.tiers, tuple)
        and all(isinstance(tier, PriceTier) for tier in value.tiers)
    ):
        row: dict[str, Any] = price_json(value)
    elif isinstance(value, (tuple, list)) and len(value) == 2:
        row = dict(zip(REQUIRED, value, strict=True))
    elif isinstance(value, Mapping) and set(REQUIRED) <= set(value):
        row = dict(value)
    else:
        raise InvalidInputError(
            f"prices[{name!r}]: expected (input, output) in USD per 1 M tokens, the same as in prices.json, or a Price, got {value!r}"
        )
    for key in BASE[:3]:
        if key in row:
            row[key] = nonnegative(f"prices[{name!r}].{key}", row[key])
    basis = str(row.pop("basis", GIVEN))  # a caller may leave it blank
    problem = price_problem(row)
    if problem is not None:
        raise InvalidInputError(f"prices[{name!r}].{problem.key}: expected {problem.expected}, got {problem.got}")
    return price_of(row, basis)
