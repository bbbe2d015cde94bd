"""An `Error` says how near decide must be to its definition in numpy float64, whatever computes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ipr_engine.decide.contract import CAUSE, STATUS
from ipr_engine.decide.reference import ReferenceDecisions
from tests.support.decide_requests import Request, Rng, make_request

Rule = tuple[str, float, float]  # its name, tau, worth
RULES: list[Rule] = [("minmax", 0.3, 0.0), ("max", 0.1, 0.002), ("fixed", 0.5, 0.0), ("fixed", 0.0, 0.01)]
FLOOR = 2.0**-22  # of quality, and relative of tokens and cost: 4 float32 roundings


@dataclass
class Error:
    """An `Error` is granted against float64: twice the worst of plain numpy float32, plus FLOOR."""

    quality: float
    tokens: float  # relative
    cost: float

    @classmethod
    def granted(cls, request: Request, exact: ReferenceDecisions) -> Error:
        plain = request.reference(np.float32)

        def worst(name: str, unit: Any = 1.0) -> float:
            return float((np.abs(getattr(plain, name) - getattr(exact, name)) / unit).max(initial=0.0))

        return cls(
            quality=2 * worst("quality") + FLOOR,
            tokens=2 * worst("tokens_out", exact.tokens_out) + FLOOR,
            cost=2 * worst("cost_usd") + FLOOR * float(np.abs(exact.cost_usd).max(initial=0.0)),
        )


def make(rng: Rng, batch: int, models: int, dim: int, form: str, rule: Rule) -> Request:
    name, tau, worth = rule
    return make_request(rng, batch, models, dim, form, masked=True, rule=name, tau=tau, worth=worth)


def quality_tokens_and_cost_are_within_twice_the_error_of_plain_float32(
    isa: str, rng: Rng, batch: int, models: int, dim: int, form: str, rule: Rule
) -> None:
    request = make(rng, batch, models, dim, form, rule)
    exact, got = request.reference(), request.run(isa)
    error = Error.granted(request, exact)
    assert got.quality.shape == got.tokens_out.shape == got.cost_usd.shape == (batch, models)
    assert np.all(np.abs(got.quality - exact.quality) <= error.quality)
    assert np.all(np.abs(got.tokens_out - exact.tokens_out) <= error.tokens * exact.tokens_out)
    assert np.all(np.abs(got.cost_usd - exact.cost_usd) <= error.cost)


def choice_is_admissible_near_ties(
    isa: str, rng: Rng, batch: int, models: int, dim: int, form: str, rule: Rule
) -> None:
    request = make(rng, batch, models, dim, form, rule)
    exact, got = request.reference(), request.run(isa)
    error, policy = Error.granted(request, exact), request.policy
    margin = (1 + max(1, abs(policy["alpha_hi"]) + abs(policy["alpha_lo"]))) * error.quality
    objective = exact.cost_usd - policy["worth"] * exact.quality
    slack = 2 * (policy["worth"] * error.quality + error.cost)
    assert [STATUS[s] for s in got.status] == [row.status for row in exact.rows]
    for r, row in enumerate(exact.rows):
        c, quality = got.index_at(r), exact.quality[r]
        if row.status != "ok":
            assert c == -1
            continue
        assert request.allowed[r, c]
        assert quality[c] >= row.threshold - margin
        surely_feasible = request.allowed[r] & (quality >= row.threshold + margin)
        assert objective[r, c] <= objective[r, surely_feasible].min(initial=np.inf) + slack


def decision_equals_reference_when_margins_exceed_error(
    isa: str, rng: Rng, batch: int, models: int, dim: int, form: str, rule: Rule
) -> None:
    request = make(rng, batch, models, dim, form, rule)
    exact, got = request.reference(), request.run(isa)
    error, policy = Error.granted(request, exact), request.policy
    weight = max(1, abs(policy["alpha_hi"]) + abs(policy["alpha_lo"]))
    margin = (1 + weight) * error.quality
    objective = exact.cost_usd - policy["worth"] * exact.quality
    slack = 2 * (policy["worth"] * error.quality + error.cost)
    clear = 0
    for r, row in enumerate(exact.rows):
        live = np.flatnonzero(request.allowed[r])
        if row.status != "ok":
            continue
        ordered = np.sort(exact.quality[r, live])
        near_threshold = np.abs(exact.quality[r, live] - row.threshold) <= margin
        if row.threshold == ordered[-1]:  # the best candidate is at the threshold by definition
            near_threshold[exact.quality[r, live] == ordered[-1]] = False
        feasible = live[exact.quality[r, live] >= row.threshold]
        rivals = np.delete(objective[r, feasible], np.flatnonzero(feasible == row.index))
        near_best_quality = len(ordered) > 1 and ordered[-1] - ordered[-2] <= 2 * error.quality
        if near_threshold.any() or near_best_quality or np.any(rivals <= objective[r, row.index] + slack):
            continue
        clear += 1
        assert got.index_at(r) == row.index
        assert CAUSE[got.cause_at(r)] == row.cause
        assert abs(got.threshold_at(r) - row.threshold) <= margin
        price_of_quality = slack / policy["worth"] if policy["worth"] else 0.0
        if np.isinf(row.gap):
            assert np.isposinf(got.gap_at(r))
        else:
            assert abs(got.gap_at(r) - row.gap) <= margin + price_of_quality + FLOOR * row.gap
    if batch >= 17:
        assert clear >= batch // 2
