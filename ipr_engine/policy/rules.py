"""A rule turns tau into the coefficients of a threshold on predicted quality (IPR, arXiv 2509.06274, sec. 2.2).

`Unsupported` holds for every rule: it names who answers prompts that are unlike the fitting data (docs/decide.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from ipr_engine._validate import nonnegative, shown, unit_interval
from ipr_engine.bundle.calibration import RuleConstants
from ipr_engine.decide.contract import CAUSE
from ipr_engine.errors import InvalidInputError

CALIBRATED, PATH = "calibrated", "path"  # the rules that answer a target
PRESETS: Mapping[str, float] = MappingProxyType({"quality": 1.0, "balanced": 0.98, "cost": 0.95})  # share of best kept
TARGETS = ("quality_share", "max_usd_per_1k", "max_share_strongest", "response_quality_difference", "preset")
AIMS = ("tau", *TARGETS)  # of which a policy has one: they replace each other
DEFAULT_TAU = 0.1  # where a server, a seat in a gateway or the command line is told no aim
UNSUPPORTED = CAUSE.index("unsupported")
BEST, CHEAPEST = "best", "cheapest"  # who answers prompts of little support, where no name is given

Target = tuple[str, float]  # a name of TARGETS but the last two, and its value


def with_aim(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a policy that name an aim: tau is `DEFAULT_TAU` where they name none. None says nothing."""
    if any(options.get(aim) is not None for aim in AIMS):
        return dict(options)
    return {**options, "tau": DEFAULT_TAU}


def tau_or_target(tau: float | None, targets: Mapping[str, object]) -> tuple[float | None, Target | None]:
    """Return tau, or the one target given in its place: a share of quality, a cost or a share of prompts.

    Raises:
        InvalidInputError: none of them is given, or several; an unknown name; or a value outside its range.
    """
    given = {name: value for name, value in targets.items() if value is not None}
    unknown = sorted(given.keys() - set(TARGETS))
    if unknown:
        raise InvalidInputError(f"{', '.join(unknown)}: unknown; known: tau, {', '.join(TARGETS)}")
    if (tau is not None) + len(given) != 1:
        got = ", ".join([*(["tau"] if tau is not None else []), *given]) or "nothing"
        raise InvalidInputError(f"tau: expected tau=... in [0, 1] or one of {', '.join(TARGETS)} instead, got {got}")
    if tau is not None:
        return unit_interval("tau", tau), None
    return None, _plain_target(*next(iter(given.items())))


def _plain_target(name: str, value: object) -> Target:
    if name == "preset":
        if not isinstance(value, str) or value not in PRESETS:
            raise InvalidInputError(f"preset: expected one of {', '.join(map(repr, PRESETS))}, got {shown(value)}")
        return "quality_share", PRESETS[value]
    if name == "response_quality_difference":
        percent = nonnegative(name, value)
        if percent > 100:
            raise InvalidInputError(
                f"{name}: expected percent of the best candidate's quality, 0 to 100, got {shown(value)}"
            )
        return "quality_share", 1 - percent / 100
    return name, nonnegative(name, value) if name == "max_usd_per_1k" else unit_interval(name, value)


@dataclass(frozen=True)
class Coefficients:
    """A `Coefficients` is all that a kernel knows of a rule: threshold = min((alpha_hi*hi + alpha_lo*lo) + offset, hi).

    hi, lo: the highest and the lowest predicted quality among the allowed candidates of a prompt.
    """

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


# Rule -> (tau, slack, constants) -> coefficients. hi, lo: the highest and lowest predicted quality of the allowed.
#   minmax: (1 - tau) * hi + tau * lo     max: (1 - tau) * hi - slack     fixed: a level, whatever the prompt
RULES: Mapping[str, Callable[[float, float, RuleConstants | None], Coefficients]] = MappingProxyType(
    {"minmax": _minmax, "max": _max, "fixed": _fixed}
)
EVERY_RULE = (PATH, *RULES, CALIBRATED)  # what a policy may be given


def compile_rule(rule: str, tau: float, *, slack: float = 0.0, constants: RuleConstants | None = None) -> Coefficients:
    """Return the threshold coefficients of a rule at tau.

    Args:
        rule: "minmax" (loss bounded as a share of hi - lo), "max" (relative to hi, less slack) or "fixed" (an absolute level).
        tau: in [0, 1]. 0 asks for the best predicted candidate, 1 accepts the cheapest (for slack 0 and "max", quality >= 0).
        slack: in [0, 1], for "max" only.
        constants: the fitting set's mean hi and lo, for "fixed" only.
    Raises:
        InvalidInputError: an unknown rule, a value outside its range, or a rule without what it needs.
    """
    if rule not in RULES:
        raise InvalidInputError(
            f"rule: expected one of {', '.join(map(repr, (*RULES, CALIBRATED)))}, got {shown(rule)}"
        )
    tau = unit_interval("tau", tau)
    slack = unit_interval("slack", slack)
    if slack != 0.0 and rule != "max":
        raise InvalidInputError(
            f"slack: only rule 'max' has one, got slack={slack} with rule {shown(rule)}; leave it out"
        )
    return RULES[rule](tau, slack, constants)


def path_coefficients(*, takes_best: bool) -> Coefficients:
    """Return the coefficients of rule `path`: at tau 0 the threshold is the highest predicted quality, elsewhere it leaves out nobody."""
    return Coefficients(1.0 if takes_best else 0.0, 0.0, 0.0)


def rule_meant(rule: str | None, targets: Mapping[str, object], *, has_path: bool) -> str:
    """Return the rule that answers: the one named, else the path where the allowed candidates have one.

    Raises:
        InvalidInputError: the rule is no name, or does not answer the target that is given.
    """
    if rule is not None and not isinstance(rule, str):
        raise InvalidInputError(f"rule: expected a name, got {type(rule).__name__}")
    target = next((name for name, value in targets.items() if value is not None), None)
    if rule is None:
        return PATH if has_path else "minmax" if target is None else CALIBRATED
    if target is not None and rule not in (PATH, CALIBRATED):
        who = f"only rules {PATH!r} and {CALIBRATED!r} answer" if has_path else f"only rule {CALIBRATED!r} answers"
        raise InvalidInputError(f"{target}: {who} it, got rule {shown(rule)}; leave the rule out")
    return rule


class Unsupported(NamedTuple):
    """An `Unsupported` says who answers prompts of little support, unlike the fitting data.

    Attributes:
        min_support: rows whose support is below it, in [0, 1], are not decided by predicted quality; 0: none are.
        asked: "best", "cheapest" or a candidate's name; None where min_support is 0 and nothing was asked.
        candidate: who answers them; None: the cheapest on each prompt.
    """

    min_support: float = 0.0
    asked: str | None = None
    candidate: str | None = None

    def op_terms(self, names: Sequence[str], kept: Sequence[str]) -> dict[str, Any]:
        """Return keyword arguments of DecidePolicy. names: the bundle's. kept: whom the caller's conditions leave."""
        if not self.min_support:
            return {}
        return {
            "min_support": self.min_support,
            "unsupported": -1 if self.candidate is None else names.index(self.candidate),
            "unsupported_allowed": np.array([name in kept for name in names], np.bool_),
        }

    def remarks(self) -> list[str]:
        """Return what a promise does not count, in words."""
        if not self.min_support:
            return []
        to = "the cheapest on each" if self.candidate is None else self.candidate
        return [f"prompts of support below {self.min_support:g} go to {to}, which this does not count"]


EVERY_ROW_PLAIN = Unsupported()
