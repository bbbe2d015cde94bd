"""An `OffPolicyReport` tells what another policy would have got on logged decisions, beside what the recorded one got (docs/metrics.md)."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.logged_decisions import FAILED, NO_CHANCE, Floats, LoggedDecisions
from ipr_engine.measures.off_policy import (
    FEWEST_DRAWS,
    OffPolicy,
    OffPolicyDifference,
    OffPolicyValue,
    off_policy,
    off_policy_difference,
)

FAR = 4.0
"""Standard errors from which on a mean weight is told as far from 1."""
FEW = 10
"""Rows in which the other policy chooses what was asked; with fewer an estimate hangs on each of them."""


@dataclass(frozen=True, kw_only=True)
class PolicyEstimates:
    """A `PolicyEstimates` holds one quantity of both policies: quality, or billed USD.

    Attributes:
        rows: in which it is known.
        log: the mean of the log as it ran, draws included.
        target, recorded: of the policy that is asked about, and of the recorded one without its draws. difference: target less recorded.
        scale: what estimates are times of; 1 of qualities.
    """

    rows: int
    log: OffPolicyValue
    target: OffPolicy
    recorded: OffPolicy
    difference: OffPolicyDifference
    scale: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "rows": self.rows,
            "log": self._scaled(self.log),
            "target": self._policy(self.target),
            "recorded": self._policy(self.recorded),
            "difference": {"ips": self._scaled(self.difference.ips), "dr": self._scaled(self.difference.dr)},
        }

    def _policy(self, made: OffPolicy) -> dict[str, Any]:
        return {"ips": self._scaled(made.ips), "snips": made.snips * self.scale, "dr": self._scaled(made.dr)}

    def _scaled(self, value: OffPolicyValue | None) -> dict[str, float] | None:
        return None if value is None else {name: number * self.scale for name, number in value.to_json().items()}


@dataclass(frozen=True, kw_only=True)
class OffPolicyReport:
    """An `OffPolicyReport` holds estimates for one log and one policy.

    Attributes:
        decisions: that were used, with what was left out.
        quality: of the scores. billed_usd: where scores tell costs; else None.
        expected_usd: mean predicted cost of target and recorded choice, at the prices of the bundle that decides now; None where that does
            not know what a choice costs.
        warnings: what makes the estimates doubtful.
    """

    decisions: LoggedDecisions
    quality: PolicyEstimates
    billed_usd: PolicyEstimates | None
    expected_usd: tuple[float | None, float | None]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON types."""
        made, target = self.decisions, self.quality.target
        return {
            "records": made.records,
            "rows": len(made),
            "draws": target.questions,
            "left_out": dict(made.left_out.most_common()),
            "refused": dict(made.refused.most_common()),
            "by_recorded_figures": made.by_figures,
            "choices_changed": self.quality.difference.differing,
            "matched": target.matched,
            "effective_rows": target.effective,
            "mean_weight": target.mean_weight,
            "most_weight": target.most_weight,
            "quality": self.quality.to_dict(),
            "billed_usd": None if self.billed_usd is None else self.billed_usd.to_dict(),
            "expected_usd": dict(zip(("target", "recorded"), self.expected_usd, strict=True)),
            "warnings": list(self.warnings),
        }

    def __str__(self) -> str:
        made, target = self.decisions, self.quality.target
        lines = [f"{len(made):,} of {made.records:,} records used, {target.questions:,} draws"]
        lines += [f"  left out, {n:,}: {why}" for why, n in made.left_out.most_common()]
        lines += [f"  not decided again, {n:,}: {why}" for why, n in made.refused.most_common()]
        lines += [
            f"{self.quality.difference.differing:,} choices changed",
            f"the choice was what was asked in {target.matched:,} rows, worth {target.effective:,.0f}; "
            f"mean weight {target.mean_weight:.3f}",
        ]
        lines += ["", *_heading("quality", self.quality)]
        lines += _lines(self.quality, 4)
        if self.billed_usd is not None:
            lines += ["", *_heading("billed USD per 1,000", self.billed_usd)]
            lines += _lines(self.billed_usd, 4, 1000.0)
        usd = ["not known" if value is None else f"{1000 * value:.4f}" for value in self.expected_usd]
        lines += ["", f"predicted USD per 1,000: {usd[0]}, recorded policy {usd[1]}"]
        return "\n".join([*lines, *(f"warning: {one}" for one in self.warnings)])


def _heading(name: str, made: PolicyEstimates) -> list[str]:
    return [f"{name}, {made.rows:,} rows", f"{'':<19} {'IPS':>25} {'SNIPS':>7} {'doubly robust':>25}"]  # 79 columns


def _lines(made: PolicyEstimates, digits: int, times: float = 1.0) -> list[str]:
    scale = made.scale * times

    def value(one: OffPolicyValue | None) -> str:
        if one is None:
            return "-"
        low, high = one.low * scale, one.high * scale
        return f"{one.value * scale:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    rows = [("this policy", made.target), ("recorded policy", made.recorded)]
    found = [
        f"  {name:<17} {value(one.ips):>25} {one.snips * scale:>7.{digits}f} {value(one.dr):>25}" for name, one in rows
    ]
    apart = made.difference
    found.append(f"  {'difference':<17} {value(apart.ips):>25} {'':>7} {value(apart.dr):>25}")
    found.append(f"  {'the log as it ran':<17} {value(made.log):>25}")
    return found


def off_policy_report(
    decisions: LoggedDecisions, *, predictions: bool = True, fitted: Container[str] = ()
) -> OffPolicyReport:
    """Estimate what the policy that decides now would have got.

    Args:
        predictions: whether its heads may help. They must not have been fitted on these scores; whatever else they are, the doubly robust
            estimate remains right.
        fitted: prompts that they were fitted on, as far as that is known; some of them here is a warning.
    Raises:
        InvalidInputError: too few decisions can be used, none has a propensity, or none could tell of the policy.
    """
    _require_rows(decisions)
    quality = _estimates(
        decisions, decisions.scores, decisions.predicted if predictions else None, np.ones(len(decisions), bool)
    )
    known, billed = ~np.isnan(decisions.cost_usd), None
    if int(known.sum()) >= FEWEST_DRAWS and decisions.cost_usd[known].max() > 0 and _tells(decisions, known):
        scale = float(
            decisions.cost_usd[known].max()
        )  # the largest cost that was billed stands for the largest there is
        expected = np.clip(np.nan_to_num(decisions.expected_usd) / scale, 0.0, 1.0) if predictions else None
        billed = _estimates(decisions, decisions.cost_usd / scale, expected, known, scale)
    return OffPolicyReport(
        decisions=decisions,
        quality=quality,
        billed_usd=billed,
        expected_usd=(_expected_usd(decisions, decisions.target), _expected_usd(decisions, decisions.recorded)),
        warnings=(*_warnings(decisions, quality), *(_seen(decisions, fitted) if predictions else ())),
    )


def _expected_usd(made: LoggedDecisions, chosen: npt.NDArray[np.int64]) -> float | None:
    usd = float(made.expected_usd[np.arange(len(made)), chosen].mean())
    return usd if np.isfinite(usd) else None


def _estimates(
    made: LoggedDecisions, scores: Floats, predicted: Floats | None, known: Any, scale: float = 1.0
) -> PolicyEstimates:
    groups = made.groups[known]
    together = groups if len(np.unique(groups)) < len(groups) else None
    logged, propensity, own = made.logged[known], made.propensity[known], scores[known]
    target, recorded = made.chances(made.target)[known], made.chances(made.recorded)[known]
    predictions = None if predicted is None else predicted[known]
    as_ran = off_policy(own, np.zeros(len(own), np.int64), np.ones(len(own)), np.ones((len(own), 1)), groups=together)
    return PolicyEstimates(
        rows=len(own),
        log=as_ran.ips,
        target=off_policy(own, logged, propensity, target, predicted=predictions, groups=together),
        recorded=off_policy(own, logged, propensity, recorded, predicted=predictions, groups=together),
        difference=off_policy_difference(
            own, logged, propensity, target, recorded, predicted=predictions, groups=together
        ),
        scale=scale,
    )


def _tells(made: LoggedDecisions, known: Any) -> bool:
    """Return whether both policies chose what was asked in some of these rows, which are enough draws."""
    asked = made.logged[known]
    matched = all((chosen[known] == asked).any() for chosen in (made.target, made.recorded))
    return matched and len(np.unique(made.groups[known])) >= FEWEST_DRAWS


def _require_rows(made: LoggedDecisions) -> None:
    if len(made) >= FEWEST_DRAWS:
        return
    if made.left_out[NO_CHANCE] and not len(made):
        raise InvalidInputError(
            f"records: none with a score has a propensity, {made.left_out[NO_CHANCE]:,} were decided without chance: of what another "
            "policy would have got they tell nothing; serve with exploration (docs/from-production.md)"
        )
    why = "".join(f"; {n:,} {reason}" for reason, n in made.left_out.most_common())
    why += "".join(f"; {n:,} not decided again: {reason}" for reason, n in made.refused.most_common())
    raise InvalidInputError(
        f"records: expected at least {FEWEST_DRAWS} that can be used, got {len(made)} of {made.records:,}{why}"
    )


def _seen(made: LoggedDecisions, fitted: Container[str]) -> list[str]:
    kept = [text for text in made.texts if text is not None]
    seen = sum(text in fitted for text in kept)
    if not seen:
        return []
    return [
        f"{seen:,} of {len(kept):,} prompts are among those that these heads were fitted on: where that was by these scores, the doubly "
        "robust estimate is wrong; judge on other records, or leave it out (--no-predictions)"
    ]


def _warnings(made: LoggedDecisions, quality: PolicyEstimates) -> list[str]:
    """Return what makes the estimates doubtful."""
    found = []
    for name, chosen, one in (("this", made.target, quality.target), ("the recorded", made.recorded, quality.recorded)):
        weight = (chosen == made.logged) / made.propensity
        sums, sizes = np.bincount(made.groups, weight), np.bincount(made.groups)
        error = float(np.sqrt(((sums - sizes * one.mean_weight) ** 2).sum()) / len(made))
        if abs(one.mean_weight - 1.0) > FAR * error + 1e-9:
            found.append(
                f"the mean weight of {name} policy is {one.mean_weight:.3f}, more than {FAR:g} standard errors from 1: propensities are "
                "not those of the log, or which records have a score depends on who was asked"
            )
    if quality.target.matched < FEW:
        found.append(
            f"this policy's choice was asked in {quality.target.matched} rows alone: the estimate hangs on each"
        )
    if made.left_out[FAILED]:
        found.append(
            f"{made.left_out[FAILED]:,} records were left out since another candidate answered: who fails often looks better than it is"
        )
    return found
