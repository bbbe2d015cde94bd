"""This study has two tiers: static heads decide; where the gap is small, heads on a transformer do, alone or beside the table."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.engine import Engine
from ipr_engine.measures.resampling import Estimate, Resamples, difference, estimate
from ipr_engine.measures.routing import (
    Curve,
    bounded_arqgc,
    choose_operating_point,
    read_operating_point,
    single_curve,
    sweep_curve,
)
from ipr_engine.measures.sweeps import WORTHS, worth_sweep
from studies import plots
from studies.cases import Case
from studies.pages import Page
from studies.study import Study
from studies.trials import Prediction, fit_and_predict, shown, shown_difference

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

SOURCES = ("routerbench_sub", "cascade9", "zeroeval", "mmlu_pro")
ESTIMATOR = "caps"
SECONDS = ("transformer", "both")  # views that the second heads read
WAYS = ("by gap", "at random")
SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
KEPT = 0.98  # of the best single candidate's quality, at the operating point chosen on train
TIMED = 200  # prompts whose latency is measured
ROUNDS = 3
TARGET = 0.3  # of the transformer tier's mean latency


@dataclass(frozen=True, eq=False)
class Latency:
    """A `Latency` holds means over prompts, one at a time, in ms: a route by the static tier alone, an embedding by the transformer."""

    static_ms: float
    transformer_ms: float

    def at(self, share: float) -> float:
        """Return the mean of a two-tier route that escalates this share; a tier of the transformer alone routes at 1."""
        return self.static_ms + share * self.transformer_ms


@dataclass(frozen=True, eq=False)
class EscalationPoint:
    """An `EscalationPoint` is one share of escalation, by one way to pick the rows.

    Attributes:
        share: on test, mean over the sweep. area: bounded-ARQGC on test (1 + draws,). train_area: the same on train.
        quality, cost: at the operating point chosen on train, shares of the best single candidate's (1 + draws,).
    """

    share: float
    area: Array
    train_area: Array
    quality: Array
    cost: Array


def run(study: Study) -> list[Path]:
    page = study.page("escalation", "Two tiers: what escalation buys, and what it costs in latency")
    encoder = study.views.transformer
    page.say(
        f"""First tier: `{ESTIMATOR}` heads on the static table. Second tier: the same on the frozen transformer
        ({"none given" if encoder is None else encoder.summary}), alone (*transformer*) or beside the table (*both*). Worth is swept
        with predicted costs; at each worth the rows whose gap (docs/decide.md) under the first heads lies below a
        threshold are decided again by the second ones. The threshold of a share is that quantile of the gap on the **training split,
        out of fold**, so the share on test is what it comes to. *At random*: as many rows, picked blindly. *area*: bounded-ARQGC
        (docs/metrics.md section 3) on the test split; *kept*, *cost*: mean realised quality and cost, as shares of the best single
        candidate's, at the cheapest worth that keeps {KEPT:.0%} of it on train. {study.draws} paired bootstrap resamples of prompts,
        95 % intervals; bold: an interval that excludes zero. Latency: mean over {TIMED} test prompts, one at a time, the least of
        {ROUNDS} rounds each: static route + share * transformer."""
    )
    panels: dict[str, dict[str, dict[str, plots.PlotLine]]] = {}
    for case in study.cases(SOURCES):
        latency = measure_latency(study, case)
        ways = _ways(study, case)
        _tables(page, case, ways, latency)
        page.figures[case.name] = {"latency_ms": vars(latency), "ways": {n: _json(p, latency) for n, p in ways.items()}}
        panels[case.name] = {
            f"to {view}: area - static": {way: _line(ways[f"{view}, {way}"], latency) for way in WAYS}
            for view in SECONDS
        }
    path = plots.curves(
        study.out / "escalation.png",
        panels,
        "mean latency, ms (95 % paired bootstrap band)",
        title="Routing quality over mean latency, from 0 to 100 % escalation",
        log=False,
    )
    page.plot(
        path,
        "Area over mean latency: every curve starts at the static tier alone and ends where every prompt escalates",
    )
    return [*page.write(study.out), path]


def gaps(quality: Array, cost: Array, choice: Indices, worth: float) -> Array:
    """Return the gaps (rows,) of docs/decide.md at tau 1, where the threshold is the least quality: what changes the choice.

    Args:
        quality, cost: (rows, models). choice: (rows,), by `choose` at this worth.
    """
    row = np.arange(len(quality))
    chosen = quality[row, choice]
    others = quality.copy()
    others[row, choice] = np.inf
    best = chosen >= quality.max(axis=1)
    leaving = chosen - np.where(best, others.min(axis=1), quality.min(axis=1))
    objective = cost - worth * quality
    away = objective - objective[row, choice][:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        entering = np.where(away <= 0, 0.0, away / worth) if worth > 0 else np.where(away <= 0, 0.0, np.inf)
    entering[row, choice] = np.inf
    return np.asarray(np.maximum(np.minimum(leaving, entering.min(axis=1)), 0.0))


def sweep_gaps(quality: Array, cost: Array, choices: Indices) -> Array:
    """Return the gaps (points, rows) of a worth sweep's choices."""
    return np.stack([gaps(quality, cost, own, float(w)) for own, w in zip(choices, WORTHS, strict=True)])


def escalate(first: Indices, second: Indices, score: Array, threshold: Array) -> tuple[Indices, float]:
    """Return choices (points, rows), the second's in rows whose score is below their point's threshold, and the mean share of these."""
    again = score < threshold[:, None]
    return np.where(again, second, first), float(again.mean())


def thresholds(score: Array, share: float) -> Array:
    """Return a threshold (points,) for each point: below it lies this share of the rows of the point."""
    if share >= 1:
        return np.full(len(score), np.inf)
    return np.asarray(np.quantile(score, share, axis=1, method="higher")) if share > 0 else np.full(len(score), -1.0)


def measure_latency(study: Study, case: Case) -> Latency:
    """Time this machine, now: one prompt at a time on the case's test prompts, evenly picked."""
    encoder = study.views.transformer
    prompts = case.test.data.prompts
    picked = [prompts[i] for i in np.unique(np.linspace(0, len(prompts) - 1, TIMED).astype(int))]
    engine = Engine.load()
    policy = engine.policy(tau=0.1)
    study.progress(f"{case.name}: timing {len(picked)} prompts ...")
    static = _mean_ms(picked, lambda prompt: engine.route(prompt, policy))
    transformer = float("nan") if encoder is None else _mean_ms(picked, lambda prompt: encoder.encode([prompt]))
    return Latency(static, transformer)


def _mean_ms(prompts: Sequence[str], call: Callable[[str], object]) -> float:
    call(prompts[0])
    times = []
    for prompt in prompts:
        rounds = []
        for _ in range(ROUNDS):
            begin = time.perf_counter()
            call(prompt)
            rounds.append(time.perf_counter() - begin)
        times.append(min(rounds))
    return 1000 * fmean(times)


def _ways(study: Study, case: Case) -> dict[str, list[EscalationPoint]]:
    views = ("static", *SECONDS)
    seen = {}
    for view in views:
        study.progress(f"{case.name}: {view} ...")
        train_x, test_x = (study.views.see(view, rows.data.prompts) for rows in (case.train, case.test))
        seen[view] = fit_and_predict(case, train_x, test_x, ESTIMATOR)
    random = np.random.default_rng(0)
    blind = {part: random.random(rows.outcomes.rows) for part, rows in (("train", case.train), ("test", case.test))}
    ways: dict[str, list[EscalationPoint]] = {}
    for view in SECONDS:
        study.progress(f"{case.name}: escalation to {view} ...")
        for way, score in zip(WAYS, (None, blind), strict=True):
            ways[f"{view}, {way}"] = [_point(case, seen["static"], seen[view], share, score) for share in SHARES]
    return ways


def _point(
    case: Case, first: Prediction, second: Prediction, share: float, blind: Mapping[str, Array] | None
) -> EscalationPoint:
    """Set the threshold of each worth to the train gap's quantile, out of fold; blind: a score of each row in the gap's place."""
    tables = {
        "train": (first.train_quality, first.train_cost, second.train_quality, second.train_cost),
        "test": (first.quality, first.cost, second.quality, second.cost),
    }
    chosen, score = {}, {}
    for part, (quality, cost, *again) in tables.items():
        own = worth_sweep(quality, cost)
        chosen[part] = own, worth_sweep(*again)
        score[part] = sweep_gaps(quality, cost, own) if blind is None else np.tile(blind[part], (len(WORTHS), 1))
    below = thresholds(score["train"], share)
    train_choices, _ = escalate(*chosen["train"], score["train"], below)
    test_choices, escalated = escalate(*chosen["test"], score["test"], below)
    resamples = Resamples(case.train.outcomes.rows, draws=case.draws)
    train_singles = single_curve(case.train.outcomes, resamples)
    train_curve = sweep_curve(train_choices, case.train.outcomes, resamples)
    test_curve = sweep_curve(test_choices, case.test.outcomes, case.resamples)
    saved, kept = read_operating_point(
        choose_operating_point(_first(train_curve), case.axis, _first(train_singles), KEPT),
        test_curve,
        case.axis,
        case.singles,
    )
    return EscalationPoint(
        escalated,
        bounded_arqgc(test_curve, case.axis, case.singles),
        bounded_arqgc(train_curve, case.axis, train_singles),
        kept,
        1 - saved,
    )


def _first(curve: Curve) -> Curve:
    return Curve(curve.cost[:1], curve.quality[:1])


def enough(points: Sequence[EscalationPoint]) -> int:
    """Return the smallest share whose train area is within noise of, or above, that of escalating all: a user would choose it."""
    for i, point in enumerate(points):
        if difference(point.train_area, points[-1].train_area).high >= 0:
            return i
    return len(points) - 1


def _tables(page: Page, case: Case, ways: Mapping[str, Sequence[EscalationPoint]], latency: Latency) -> None:
    page.say(f"## {case.name}")
    page.say(
        f"""{case.train.outcomes.rows} training and {case.test.outcomes.rows} test prompts, {len(case.models)} candidates; costs:
        {case.note}. Static route {1000 * latency.static_ms:.1f} us, transformer {latency.transformer_ms:.2f} ms a prompt."""
    )
    header = ["share", "latency, ms", "of all", "area", "minus all", "area, train", "kept", "cost"]
    for name, points in ways.items():
        page.say(f"### Escalated to {name}")
        rows = [
            [
                f"{point.share:.1%}",
                f"{latency.at(point.share):.2f}",
                f"{latency.at(point.share) / latency.at(1.0):.1%}",
                shown(point.area),
                "" if point is points[-1] else shown_difference(point.area, points[-1].area),
                f"{point.train_area[0]:.3f}",
                shown(point.quality),
                shown(point.cost),
            ]
            for point in points
        ]
        page.table(header, rows)
        if name.endswith(WAYS[0]):
            page.say(_verdict(points, latency))


def _verdict(points: Sequence[EscalationPoint], latency: Latency) -> str:
    chosen = points[enough(points)]
    part = latency.at(chosen.share) / latency.at(1.0)
    d = difference(chosen.area, points[-1].area)
    met = part <= TARGET and d.high >= 0
    how = ("met" if chosen.share else "met without escalating at all") if met else "not met"
    within = [point for point in points if latency.at(point.share) <= TARGET * latency.at(1.0)]
    best = max(within, key=lambda point: float(point.train_area[0]))
    return f"""The smallest share that is within noise of escalating all on train comes to {chosen.share:.1%} of the test prompts
        and {part:.1%} of the second tier's mean latency; its area on test minus that of escalating all: {_shown(d)}. Target of at
        most {TARGET:.0%}: {how}. Of the shares inside the target the best on train comes to {best.share:.1%}; on test minus
        static alone: {_shown(difference(best.area, points[0].area))}, minus escalating all:
        {_shown(difference(best.area, points[-1].area))}. Escalating all minus static alone:
        {_shown(difference(points[-1].area, points[0].area))}."""


def _shown(d: Estimate) -> str:
    return f"{d.value:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"


def _line(points: Sequence[EscalationPoint], latency: Latency) -> plots.PlotLine:
    changes = [difference(point.area, points[0].area) for point in points]
    return plots.PlotLine(
        [latency.at(point.share) for point in points],
        [change.value for change in changes],
        [change.low for change in changes],
        [change.high for change in changes],
    )


def _json(points: Sequence[EscalationPoint], latency: Latency) -> list[dict[str, Any]]:
    return [
        {
            "share": point.share,
            "latency_ms": latency.at(point.share),
            "area": estimate(point.area).to_json(),
            "minus_static": difference(point.area, points[0].area).to_json(),
            "minus_all": difference(point.area, points[-1].area).to_json(),
            "train_area_out_of_fold": float(point.train_area[0]),
            "kept": estimate(point.quality).to_json(),
            "cost": estimate(point.cost).to_json(),
            "chosen_on_train": i == enough(points),
        }
        for i, point in enumerate(points)
    ]
