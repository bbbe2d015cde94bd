"""This study buys a part of each outcome table, cell by cell, and asks how much of the whole table's gain heads fitted on it have."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.collection.acquisition import CellChooser
from ipr_engine.collection.acquisition_plan import AcquisitionPlan
from ipr_engine.measures.resampling import Estimate, one_thread
from ipr_engine.measures.routing import bounded_arqgc, sweep_curve
from ipr_engine.measures.sweeps import worth_sweep
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from studies.bars import Series, intervals
from studies.cases import FOLDS, Case, Rows
from studies.headline import VIEW
from studies.study import Study
from studies.trials import NANO

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

SOURCES = ("routerbench_sub", "cascade9", "zeroeval", "mmlu_pro")
ESTIMATOR = "advantage_shared"  # closed form, some seconds a sparse table; there are hundreds of fits
SEEDS = 20
CALLS = 0.33  # of the table's cells, at most
GOAL = 0.9
WHOLE, CELLS, CHOSEN = "random rows", "random cells", "chosen"
SHARES: Mapping[float, tuple[str, ...]] = {0.15: (WHOLE, CHOSEN), 0.33: (WHOLE, CELLS, CHOSEN)}  # of the dollars
WORKERS = 2  # fits at once, one thread each
T_95 = 2.093  # Student's 0.975 quantile, 19 degrees of freedom


@dataclass
class Bought:
    """A `Bought` holds what one way of buying came to, an entry a seed.

    Attributes:
        gains: share of the whole table's gain in area over the hull of singles. calls, dollars: shares of the whole table's.
    """

    gains: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    dollars: list[float] = field(default_factory=list)


def run(study: Study) -> list[Path]:
    page = study.page("acquisition", "Which outcomes to buy: chosen cells beside random ones at equal dollars")
    plan = AcquisitionPlan()
    page.say(
        f"""A part of the train split's outcomes is bought, heads (`{ESTIMATOR}`, static encoder) are fitted on it, and measured on
        the whole test split; {SEEDS} seeds. *Gain*: Bounded-ARQGC (docs/metrics.md section 3, worth swept with predicted costs,
        axis and hull from the whole train split) minus that of the hull of single candidates, as a share of the same for heads
        of the whole table. Every fit here has the calibration of a sparse table, pooled over candidates (`fit_pooled_platt`);
        `ipr train` takes it where a table is sparse. *{CHOSEN}*: `CellChooser` in {plan.rounds} rounds, the first of whole rows
        for {plan.first_share:.0%} of the budget, at most {CALLS:.0%} of the calls; it expects a cell to cost its candidate's
        mean. Calls and dollars are shares of the whole table's. Intervals are 95 % t intervals over seeds: other purchases, the
        same test prompts. Bold: a difference whose interval excludes zero. `least` of the chooser was chosen on parts of the train
        splits; its other settings were tried on these four test splits."""
    )
    rows, differences = [], []
    plots: dict[str, dict[str, Estimate]] = {}
    for case in study.cases(SOURCES):
        found = measure(Case(case.name, case.note, case.train, case.test, draws=0), study)
        page.figures[case.name] = {
            f"{share:g}": {arm: vars(bought) for arm, bought in arms.items()} for share, arms in found.items()
        }
        for share, arms in found.items():
            for arm, bought in arms.items():
                mean = over_seeds(bought.gains)
                plots.setdefault(f"{arm}, {share:.0%}", {})[case.name] = mean
                kept = f"{np.mean(bought.calls):.0%}", f"{np.mean(bought.dollars):.0%}"
                rows.append([case.name, arm, *kept, _shown(mean), "yes" if mean.value >= GOAL else "no"])
            for arm in arms:
                if arm != CHOSEN:
                    paired = over_seeds(np.subtract(arms[CHOSEN].gains, arms[arm].gains).tolist())
                    text = f"{paired.value:+.3f} [{paired.low:+.3f}, {paired.high:+.3f}]"
                    apart = paired.low > 0 or paired.high < 0
                    differences.append([case.name, arm, f"{share:.0%}", f"**{text}**" if apart else text])
    page.table(["source", "bought", "calls", "dollars", "gain", f"{GOAL:.0%} reached"], rows)
    page.say(f"## Gain of *{CHOSEN}* minus that of random buying, the same dollars and seeds")
    page.table(["source", "minus", "dollars", "difference in gain"], differences)
    sources = list(page.figures)
    plot = intervals(
        study.out / "acquisition.png",
        sources,
        [Series(name, values) for name, values in plots.items()],
        title="Share of the whole table's gain",
        axis="gain in area over the hull of singles, whole table = 1; by share of the dollars",
        lines=(GOAL, 1.0),
    )
    page.plot(
        plot, f"Share of the whole table's gain, mean of {SEEDS} seeds with 95 % intervals; lines at {GOAL:g} and 1"
    )
    return [*page.write(study.out), plot]


def measure(case: Case, study: Study) -> dict[float, dict[str, Bought]]:
    """Return share of the dollars -> way of buying -> what it came to."""
    train_x, test_x = (study.views.see(VIEW, rows.data.prompts) for rows in (case.train, case.test))
    every = np.ones(case.train.quality.shape, np.bool_)
    hull = float(bounded_arqgc(case.hull, case.axis, case.singles)[0])
    whole = fitted_area(case, train_x, test_x, every) - hull
    cost = case.train.cost
    tasks = [(share, arm, seed) for share, arms in SHARES.items() for arm in arms for seed in range(SEEDS)]

    def one(task: tuple[float, str, int]) -> tuple[float, float, float]:
        share, arm, seed = task
        mask = buy(arm, case.train, train_x, share * float(cost.sum()), seed)
        gain = (fitted_area(case, train_x, test_x, mask) - hull) / whole
        return gain, float(mask.mean()), float(cost[mask].sum() / cost.sum())

    found = {share: {arm: Bought() for arm in arms} for share, arms in SHARES.items()}
    with one_thread(), ThreadPoolExecutor(WORKERS) as pool:
        for (share, arm, seed), figures in zip(tasks, pool.map(one, tasks), strict=True):
            study.progress(f"{case.name}: {arm}, {share:.0%} of the dollars, seed {seed}")
            for values, figure in zip(vars(found[share][arm]).values(), figures, strict=True):
                values.append(figure)
    return found


def buy(arm: str, rows: Rows, x: Array, budget_usd: float, seed: int) -> Mask:
    """Return which cells are bought, (rows, models); what they really cost together is at most `budget_usd`."""
    cost = rows.cost
    if arm == CHOSEN:
        return _buy_chosen(rows, x, budget_usd, seed)
    order = np.random.default_rng(seed).permutation(len(cost) if arm == WHOLE else cost.size)
    paid = cost.sum(axis=1) if arm == WHOLE else cost.reshape(-1)
    mask = np.zeros(len(order), np.bool_)
    mask[order[np.cumsum(paid[order]) <= budget_usd]] = True
    return np.repeat(mask[:, None], cost.shape[1], axis=1) if arm == WHOLE else mask.reshape(cost.shape)


def _buy_chosen(rows: Rows, x: Array, budget_usd: float, seed: int) -> Mask:
    plan = AcquisitionPlan(seed=seed, calls_share=CALLS)
    chooser = CellChooser(x, np.tile(rows.cost.mean(axis=0), (len(x), 1)), plan)
    bought = np.zeros(rows.cost.shape, np.bool_)
    may_spend = 0.0
    for part in plan.budgets(budget_usd):
        may_spend += part
        known = np.where(bought, rows.quality, np.nan)
        left = may_spend - float(rows.cost[bought].sum())
        cells = chooser.next(known, bought, max(left, 0.0))
        paid = np.cumsum(rows.cost[cells])
        affordable = paid <= budget_usd - float(rows.cost[bought].sum())
        bought[cells[0][affordable], cells[1][affordable]] = True
    return bought


def fitted_area(case: Case, train_x: Array, test_x: Array, mask: Mask) -> float:
    """Return the area on the test split of heads fitted on the cells of `mask`."""
    kept = np.flatnonzero(mask.any(axis=1))
    quality, cost = (np.where(mask, table, np.nan)[kept] for table in (case.train.quality, case.train.cost))
    keys = [case.train.data.question_keys[row] for row in kept]
    with one_thread():
        heads = fit_heads(
            HeadRows(train_x[kept], quality, cost * NANO, keys), estimator=ESTIMATOR, folds=FOLDS, pooled=True
        )
        predicted, length = predict(heads.tensors, test_x, heads.activation)
    curve = sweep_curve(worth_sweep(predicted, length / NANO), case.test.outcomes, case.resamples)
    return float(bounded_arqgc(curve, case.axis, case.singles)[0])


def over_seeds(values: list[float]) -> Estimate:
    """Return the mean and its 95 % t interval."""
    mean, count = float(np.mean(values)), len(values)
    half = T_95 * float(np.std(values, ddof=1)) / np.sqrt(count) if count > 1 else float("nan")
    return Estimate(mean, mean - half, mean + half)


def _shown(figure: Estimate) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"
