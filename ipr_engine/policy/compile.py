"""`compile_policy` turns a caller's options into what runs: it checks them, settles who may be chosen, and folds prices and weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ipr_engine._read_only import read_only
from ipr_engine._validate import nonnegative, nonnegative_or_infinite, shown
from ipr_engine.bundle import BundleSpec, CalibrationMap, EscalationSpec, PriceList
from ipr_engine.bundle.context_windows import least_window, surely_fits
from ipr_engine.decide.contract import DecidePlan, DecidePolicy
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.calibrated import Calibrations, CalibrationStatus, path_certificate, resolve_point
from ipr_engine.policy.cost_weights import Figures, Weighing, merged_figures, resolve_weights
from ipr_engine.policy.masks import MASKS, kept_out
from ipr_engine.policy.paths import Paths
from ipr_engine.policy.policy import Policy, SecondRule, op_terms
from ipr_engine.policy.policy_spec import PolicySpec
from ipr_engine.policy.prices import effective_prices, merge_prices, price_table
from ipr_engine.policy.promise import Promise, make_promise, point_at, point_for
from ipr_engine.policy.rules import (
    CALIBRATED,
    EVERY_ROW_PLAIN,
    EVERY_RULE,
    PATH,
    RULES,
    TARGETS,
    Coefficients,
    Target,
    Unsupported,
    compile_rule,
    path_coefficients,
    rule_meant,
    tau_or_target,
)
from ipr_engine.policy.tau_path import TauPath


class PolicyContext(NamedTuple):
    """A `PolicyContext` holds what of a loaded bundle its policies are compiled with.

    Attributes:
        plan, second_plan: of its heads, and of its second heads; None in a bundle of one tier.
        measured: figures of candidates, the bundle's and an engine's.
    """

    bundle: BundleSpec
    plan: DecidePlan
    second_plan: DecidePlan | None
    calibrations: Calibrations
    paths: Paths
    measured: Figures


class _Conditions(NamedTuple):
    """`_Conditions` hold what every rule reads, checked: tau or its target, the candidates that may be chosen, the prices that run."""

    tau: float | None
    target: Target | None
    worth: float | None
    slack: float
    kept: Sequence[str]
    prices: PriceList
    weighing: Weighing | None
    escalate_below: float
    unsupported: Unsupported


class _Run(NamedTuple):
    """A `_Run` is a rule's answer to the conditions. left_out: candidates that its operating point alone leaves out, and why."""

    tau: float
    worth: float
    coefficients: Coefficients
    certificate: CalibrationStatus
    path: TauPath | None = None
    promise: Promise | None = None
    map: CalibrationMap | None = None
    left_out: Mapping[str, str] = read_only({})


def compile_policy(spec: PolicySpec, context: PolicyContext) -> Policy:
    """Check every option, settle who may be chosen and why the others may not, fold prices, compile.

    Raises:
        InvalidInputError: a value out of range, an unknown name, options that do not go together, or nobody left to choose.
    """
    bundle = context.bundle
    targets = {name: getattr(spec, name) for name in TARGETS}
    tau, target = tau_or_target(spec.tau, targets)
    worth = None if spec.worth is None else nonnegative("worth", spec.worth)
    below = _escalate_below(bundle.escalation, spec.escalate_below)
    price_list = bundle.prices if spec.prices is None else merge_prices(bundle.prices, spec.prices)
    price_list = effective_prices(price_list, _flag("batch", spec.batch), _flag("cache_write", spec.cache_write))
    rates = price_table(bundle.candidates, price_list)
    exclusions = kept_out(bundle.candidates, {name: getattr(spec, name) for name in MASKS})
    names = [candidate.name for candidate in bundle.candidates]
    if len(exclusions) == len(names):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in exclusions.items())
        raise InvalidInputError(f"policy: no candidate is left ({reasons}); loosen one of the conditions")
    kept = [name for name in names if name not in exclusions]
    figures = context.measured
    if spec.performance is not None:
        figures = merged_figures("performance", figures, spec.performance, names)
    weighing = resolve_weights(spec.cost_weights, figures, names, kept)
    if spec.performance is not None and weighing is None:
        raise InvalidInputError(
            "performance: nothing but USD is weighed, so no figure is read; give cost_weights=..., or leave it out"
        )
    folded = rates if weighing is None else weighing.folded(rates)
    unsupported = _unsupported(bundle, spec, exclusions, price_list)
    lacking = context.paths.lacking(kept)
    rule = rule_meant(spec.rule, targets, has_path=lacking is None)
    conditions = _Conditions(
        tau=tau,
        target=target,
        worth=worth,
        slack=spec.slack,
        kept=kept,
        prices=price_list,
        weighing=weighing,
        escalate_below=below,
        unsupported=unsupported,
    )
    # from here on the rules differ: each gives what runs, and what is certified of it
    if rule == PATH:
        run = _run_path(conditions, context, lacking)
    elif rule == CALIBRATED:
        run = _run_map(conditions, context)
    else:
        run = _run_rule(rule, conditions, context, None if spec.rule is not None else lacking)
    left_out = {**exclusions, **run.left_out}
    exclusions = {name: left_out[name] for name in names if name in left_out}  # in bundle order
    allowed = tuple(name for name in names if name not in exclusions)
    second: SecondRule | None = None
    if context.second_plan is not None and bundle.escalation_heads is not None:
        again = run.coefficients
        if rule in RULES:  # rule `fixed` reads the constants of the heads that it runs on
            constants = bundle.escalation_heads.rule_constants
            again = compile_rule(rule, run.tau, slack=spec.slack, constants=constants)
        terms = op_terms(bundle, again, run.worth, folded, allowed)
        second = SecondRule(again, DecidePolicy(context.second_plan, **terms))
    deciding = [heads for heads in (bundle.quality_heads, bundle.escalation_heads) if heads is not None]
    return Policy(
        tau=float(run.tau),
        rule=rule,
        slack=float(spec.slack),
        worth=run.worth,
        prices=price_list,
        allowed=allowed,
        exclusions=read_only(exclusions),
        coefficients=run.coefficients,
        bundle_hash=bundle.hash,
        compiled=DecidePolicy(
            context.plan,
            **op_terms(bundle, run.coefficients, run.worth, folded, allowed),
            **unsupported.op_terms(names, kept),
        ),
        target=target,
        reserve=tuple(run.left_out),
        map=run.map,
        escalate_below=below,
        second=second,
        rates=rates,
        weighing=weighing,
        folded=folded,
        measured=None if weighing is None else context.measured,  # so that a refresh compiles only those that weigh it
        promise=run.promise,
        path=run.path,
        certificate=run.certificate,
        drift=context.calibrations.drift,
        surely_fits=surely_fits(bundle.candidates, deciding, allowed),
        least_window=least_window(bundle.candidates, allowed),
        unsupported=unsupported,
    )


def _run_path(conditions: _Conditions, context: PolicyContext, lacking: str | None) -> _Run:
    """Return what rule `path` runs. lacking: why the candidates have no path; None where they have one."""
    kept, target, weighing = conditions.kept, conditions.target, conditions.weighing
    unsupported, below = conditions.unsupported, conditions.escalate_below
    _check_path_options(conditions, lacking)
    path = context.paths.of(kept, conditions.prices, below, weighing)
    tau = 0.0 if conditions.tau is None else conditions.tau  # not read where there is a target
    point = point_at(path, tau) if target is None else point_for(path, target)
    remarks = [*context.paths.remarks(kept, below), *unsupported.remarks()]
    certificate = path_certificate(
        context.calibrations,
        kept,
        tau=point.tau if target is None else None,
        target=target,
        worth=point.worth,
        prices=_other_prices(conditions, context),
        escalate_below=below,
        other_cost=_other_cost(weighing),
    )
    if unsupported.min_support and certificate.status == "calibrated":
        certificate = CalibrationStatus("estimated", "; ".join(unsupported.remarks()))
    return _Run(
        tau=point.tau,
        worth=point.worth,
        coefficients=path_coefficients(takes_best=point.takes_best),
        certificate=certificate,
        path=path,
        promise=make_promise(path, kept, point, remarks, None if weighing is None else str(weighing.weights)),
    )


def _run_map(conditions: _Conditions, context: PolicyContext) -> _Run:
    """Return what rule `calibrated` runs."""
    if conditions.slack != 0:
        raise InvalidInputError(
            f"slack: only rule 'max' has one, got slack={conditions.slack} with rule {CALIBRATED!r}; leave it out"
        )
    resolved = resolve_point(
        context.calibrations,
        conditions.kept,
        tau=conditions.tau,
        target=conditions.target,
        worth=conditions.worth,
        prices=_other_prices(conditions, context),
        escalate_below=conditions.escalate_below,
        other_cost=_other_cost(conditions.weighing),
    )
    point = resolved.point
    return _Run(
        tau=resolved.tau,
        worth=point.worth if conditions.worth is None else conditions.worth,
        coefficients=Coefficients(point.alpha_hi, point.alpha_lo, point.offset),
        certificate=resolved.certificate,
        map=resolved.map,
        left_out=resolved.left_out,
    )


def _run_rule(rule: str, conditions: _Conditions, context: PolicyContext, lacking: str | None) -> _Run:
    """Return what one of the paper's rules runs. lacking: why it runs where a caller names none, and not the path."""
    tau = conditions.tau
    assert tau is not None  # no target, hence given
    if rule not in RULES:
        raise InvalidInputError(f"rule: expected one of {', '.join(map(repr, EVERY_RULE))}, got {shown(rule)}")
    constants = context.bundle.quality_heads.rule_constants
    why = "" if lacking is None else f"{lacking}; "
    return _Run(
        tau=tau,
        worth=conditions.worth or 0.0,
        coefficients=compile_rule(rule, tau, slack=conditions.slack, constants=constants),
        certificate=CalibrationStatus(
            "uncalibrated", f"{why}rule {rule!r} bounds a prompt's predicted loss; only rule 'calibrated' is certified"
        ),
    )


def _other_prices(conditions: _Conditions, context: PolicyContext) -> PriceList | None:
    """Return the prices that run in place of the bundle's own; None where those run."""
    return None if conditions.prices is context.bundle.prices else conditions.prices


def _other_cost(weighing: Weighing | None) -> str | None:
    """Return what is weighed in place of USD, in words; None for USD alone."""
    return None if weighing is None else f"cost_weights weigh {weighing.weights} in place of USD alone"


def _check_path_options(conditions: _Conditions, lacking: str | None) -> None:
    """Refuse what rule `path` cannot run, and what it reads from the path itself."""
    worth, slack = conditions.worth, conditions.slack
    if lacking is not None:
        raise InvalidInputError(
            f"rule: 'path' needs path rows of the allowed candidates ({', '.join(conditions.kept)}), and {lacking}; make them with "
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


def _escalate_below(escalation: EscalationSpec | None, given: float | None) -> float:
    """Return below which gap a two-tier bundle decides again: the one given, else the bundle's own."""
    if given is None:
        return 0.0 if escalation is None else escalation.gap
    below = nonnegative_or_infinite("escalate_below", given)
    if below and escalation is None:
        raise InvalidInputError(
            f"escalate_below: the bundle has no second tier to ask, got {below:g}; leave it out, or join two bundles with "
            "`ipr escalate`"
        )
    return below


def _unsupported(bundle: BundleSpec, spec: PolicySpec, exclusions: Mapping[str, str], prices: PriceList) -> Unsupported:
    if spec.min_support is None and spec.unsupported is None and bundle.unsupported is None:
        return EVERY_ROW_PLAIN
    from ipr_engine.policy.unsupported import resolve_unsupported  # few policies ask for it

    return resolve_unsupported(bundle, spec.min_support, spec.unsupported, exclusions, prices)


def _flag(name: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InvalidInputError(f"{name}: expected True or False, got {shown(value)}")
    return bool(value)
