"""`summarise` takes every figure of docs/metrics.md for one router on one split, as one dictionary of plain JSON types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.baselines import ESTIMATORS, Fitting, Predictions, crossed, training_means
from ipr_engine.evaluation.contenders import (
    MIX_POINTS,
    Choices,
    Contender,
    FoldedMix,
    Mix,
    Sweep,
    at_operating_point,
    curve_of_shares,
    halves_of,
)
from ipr_engine.evaluation.equal_quality import equal_quality_figures
from ipr_engine.evaluation.evaluation_inputs import Baselines, EvaluationOptions, Split
from ipr_engine.evaluation.one_setting import one_setting_lines
from ipr_engine.evaluation.prediction_lines import (
    candidate_lines,
    constant_here,
    pair_lines,
    prediction_line,
)
from ipr_engine.evaluation.router_names import OWN, require_free_names
from ipr_engine.measures import prediction
from ipr_engine.measures.resampling import Resamples, difference, estimate, one_thread, resamples_of
from ipr_engine.measures.routing import (
    SHARES,
    Axis,
    ChosenSetting,
    Curve,
    aiq,
    arena_score,
    bounded_arqgc,
    degenerate_axis,
    oracle_quality,
    read_operating_point,
    single_curve,
)
from ipr_engine.measures.sweeps import (
    TAUS,
    hull_mix,
    oracle_sweep,
    random_mix,
    rule_constants,
    rule_sweep,
    single,
    worth_sweep,
)

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

DEFAULTS = EvaluationOptions()
SHOWN_TAUS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)


@dataclass(eq=False)
class Summary:
    """A `Summary` holds the result of an evaluation: `figures` is plain JSON; `curves` and `singles` are what the plots draw."""

    models: tuple[str, ...]
    axis: Axis
    singles: Curve
    curves: dict[str, Curve]
    test: Split
    figures: dict[str, Any] = field(default_factory=dict)


def summarise(
    models: Sequence[str],
    train: Split,
    test: Split,
    baselines: Baselines,
    *,
    constant: Mapping[str, str] = MappingProxyType({}),
    options: EvaluationOptions = DEFAULTS,
    progress: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Evaluate a router against every baseline.

    Args:
        models: (models,) names of the columns.
        constant: candidate -> why its head counts as constant by the bundle; heads whose predictions hardly differ on the test
            split are found here.
        progress: called with a line of text before each long step.
    """
    worths, draws, seed, validate_on_train = baselines.worths, options.draws, options.seed, options.validate_on_train
    if set(train.sweeps) != set(test.sweeps) or not test.sweeps:
        raise InvalidInputError("sweeps: expected the same names in both splits, at least one")
    if not all(np.isfinite(split.outcomes.quality).all() for split in (train, test)):
        raise InvalidInputError("outcomes: expected complete rows; drop the others with routing.complete_rows(...)")
    if len(set(test.groups)) < 2:  # a half of one question is empty
        raise InvalidInputError(
            "outcomes: expected at least 2 different questions in the test split, got 1; split more of them off, or judge all by folds "
            "(--cross-fit)"
        )
    resamples = resamples_of(test.groups, draws=draws, seed=seed)
    axis = Axis.of(train.outcomes)
    singles = single_curve(test.outcomes, resamples)

    def predicted(fit: Fitting) -> Predictions:
        if baselines.crossed:
            return crossed(fit, train.x, train.outcomes, baselines.folds)
        return fit(train.x, train.outcomes, baselines.folds, test.x)

    estimates: dict[str, Predictions] = {}
    for name, fit in ESTIMATORS.items():
        progress(f"fitting {name} ...")
        with one_thread():  # the same figures from the same input
            estimates[name] = predicted(fit)
    means = predicted(training_means)
    progress("sweeping ...")
    table = _contenders(models, train, test, axis, estimates, means, baselines)
    halves = halves_of(test.groups, seed)
    top = oracle_quality(test.outcomes, resamples)
    summary = Summary(tuple(models), axis, singles, {}, test)
    areas: dict[str, Array] = {}
    lines: list[dict[str, Any]] = []
    for contender in table:
        progress(f"measuring {contender.name} ...")
        curve = contender.test.curve(test.outcomes, resamples)
        summary.curves[contender.name] = curve
        areas[contender.name] = bounded_arqgc(curve, axis, singles)
        lines.append(
            {
                "name": contender.name,
                "kind": contender.kind,
                "setting": contender.setting,
                "settings": curve.points,
                "area": estimate(areas[contender.name]).to_json(),
                "area_oracle": estimate(bounded_arqgc(curve, axis, singles, top=top)).to_json(),
                "aiq": estimate(aiq(curve, singles)).to_json(),
                "operating_points": []
                if contender.name == "hindsight hull"
                else _operating_points(contender, axis, test, train if validate_on_train else None, halves, resamples),
            }
        )
    # After all areas are known: paired differences need both.
    routers = [c.name for c in table if c.kind == "router"]
    for line in lines:
        line["router_minus_this"] = {
            name: difference(areas[name], areas[line["name"]]).to_json() for name in routers if name != line["name"]
        }
    progress("cost at equal quality ...")
    chosen_on = train if validate_on_train else None
    equal = equal_quality_figures(table, models, axis, chosen_on, test, halves, resamples)
    progress("prediction figures ...")
    flat = constant_here(models, constant, test.predicted)
    summary.figures = {
        "rows": {"train": train.outcomes.rows, "test": test.outcomes.rows},
        "draws": draws,
        "seed": seed,
        "validation": "train split" if validate_on_train else f"other half of the {_judged_on(baselines)}",
        "axis": {
            "cheapest": models[axis.cheapest],
            "best": models[axis.best],
            "degenerate": degenerate_axis(axis, singles, models),
        },
        "worths": {"least": float(worths[1]), "most": float(worths[-1]), "settings": len(worths)},
        "constant": flat,
        "oracle_quality": estimate(top).to_json(),
        "equal_quality": equal,
        "candidates": candidate_lines(models, None if baselines.crossed else train, test, singles, flat),
        "contenders": lines,
        "one_setting": one_setting_lines(table, summary.curves),
        "pair": pair_lines(test, axis, estimates, resamples, models),
        "prediction": [
            {"name": "router", **prediction_line(test, test.predicted, test.predicted_cost)},
            *({"name": name, **prediction_line(test, e.quality, e.cost)} for name, e in estimates.items()),
            {"name": "training means", **prediction_line(test, means.quality, means.cost)},
        ],
        "tau": _tau_table(test, axis, resamples, singles),
    }
    return summary


def _contenders(
    models: Sequence[str],
    train: Split,
    test: Split,
    axis: Axis,
    estimates: Mapping[str, Predictions],
    means: Predictions,
    baselines: Baselines,
) -> list[Contender]:
    """Make the table of routers: the router's sweeps, the baselines, and the bounds that use test outcomes."""
    rows, width = test.outcomes.rows, len(models)
    result = [
        Contender(f"{OWN}{name}", "router", Choices(test.sweeps[name]), Choices(train.sweeps[name]))
        for name in test.sweeps
    ]
    # IPR's rules with one mean cost a candidate, as the paper has them; the router's own predict a cost for each prompt.
    folds = baselines.folds if baselines.crossed else None
    for rule in ("minmax", "max", "fixed"):
        result.append(
            Contender(
                f"paper's {rule}, mean cost",
                "baseline",
                _paper_rule(rule, test.predicted, means.cost, train.predicted, folds),
                _paper_rule(rule, train.predicted, means.train_cost, train.predicted, folds),
                "router's quality, training mean cost",
            )
        )
    for name, e in estimates.items():
        for sweep in ("worth", "minmax"):
            ours, held = (
                Choices(worth_sweep(q, c, baselines.worths) if sweep == "worth" else rule_sweep(q, c, sweep))
                for q, c in ((e.quality, e.cost), (e.train_quality, e.train_cost))
            )
            result.append(Contender(f"{name}, {sweep}", "baseline", ours, held, e.setting))

    def everything_to(column: int) -> tuple[Choices, Choices]:
        return Choices(single(column, rows)), Choices(single(column, train.outcomes.rows))

    hull_lines: Sweep = Mix.lines(hull_mix(train.outcomes), train.outcomes.cost.mean(axis=0))
    mix = Mix(random_mix(axis, width, MIX_POINTS))
    vertices = " > ".join(models[m] for m in hull_mix(train.outcomes).argmax(axis=1))
    if folds is not None:
        hull_lines, vertices = _crossed_hull(train, folds), "vertices picked on the other folds"
    result += [
        Contender("hull of singles", "baseline", hull_lines, hull_lines, vertices),
        Contender("random mix", "baseline", mix, mix, "cheapest and best single"),
        Contender("best single", "baseline", *everything_to(axis.best), models[axis.best]),
        Contender("always cheapest", "baseline", *everything_to(axis.cheapest), models[axis.cheapest]),
    ]
    result += baselines.others
    # Of the test outcomes themselves: bounds that no router can be expected to reach.
    hindsight = Mix.lines(hull_mix(test.outcomes), test.outcomes.cost.mean(axis=0))
    result += [
        Contender("hindsight hull", "bound", hindsight, None, "vertices picked on test"),
        Contender("oracle", "bound", Choices(oracle_sweep(test.outcomes)), None, "knows every outcome"),
    ]
    require_free_names(other.name for other in baselines.others)
    return result


def _paper_rule(
    rule: str, predicted: Array, mean_cost: Array, of_train: Array, folds: npt.NDArray[np.int64] | None
) -> Choices:
    """Sweep one of IPR's rules over predictions (rows, models). hi*, lo* are of those `of_train`; of a fold, of those of the others."""
    if folds is None:
        return Choices(rule_sweep(predicted, mean_cost, rule, constants=rule_constants(of_train)))
    choices = np.empty((len(TAUS), len(predicted)), np.int64)
    for fold in np.unique(folds):
        out = folds == fold
        choices[:, out] = rule_sweep(predicted[out], mean_cost[out], rule, constants=rule_constants(of_train[~out]))
    return Choices(choices)


def _judged_on(baselines: Baselines) -> str:
    return "prompts" if baselines.crossed else "test split"


def _crossed_hull(train: Split, folds: npt.NDArray[np.int64]) -> FoldedMix:
    """Draw for each fold the hull of single candidates on the others."""
    others = [train.outcomes.subset(folds != fold) for fold in np.unique(folds)]
    return FoldedMix.of_hulls([hull_mix(part) for part in others], [part.cost.mean(axis=0) for part in others], folds)


def _operating_points(
    contender: Contender,
    axis: Axis,
    test: Split,
    train: Split | None,
    halves: npt.NDArray[np.bool_],
    resamples: Resamples,
) -> list[dict[str, Any]]:
    """Read on the test split, for every share wanted, the setting that validation says keeps it."""
    singles = single_curve(test.outcomes, resamples)
    label = prediction.cheapest_best(test.outcomes.quality, test.outcomes.cost)
    result = []
    for share in SHARES:
        chosen, settings = at_operating_point(
            contender, share, axis, test.outcomes, None if train is None else train.outcomes, halves
        )
        at = curve_of_shares(chosen, test.outcomes, resamples)
        saved, kept = _against_best(at, axis, singles)
        certain = np.isin(chosen, (0, 1)).all()  # a mix has no one choice to compare with the label
        result.append(
            {
                "share": share,
                "saved": estimate(saved).to_json(),
                "kept": estimate(kept).to_json(),
                "arena_score": estimate(arena_score(at.quality[:, 0], at.cost[:, 0])).to_json(),
                "macro_f1": prediction.macro_f1(chosen.argmax(axis=1), label) if certain else None,
                "points": [setting.index for setting in settings],
            }
        )
    return result


def _against_best(at: Curve, axis: Axis, singles: Curve) -> tuple[Array, Array]:
    return read_operating_point(ChosenSetting(1.0, 0), at, axis, singles)


def _tau_table(test: Split, axis: Axis, resamples: Resamples, singles: Curve) -> list[dict[str, Any]]:
    """Describe the `minmax` sweep of the router, setting by setting; empty where it has none over TAUS."""
    choices = test.sweeps.get("minmax")
    if choices is None or len(choices) != len(TAUS):
        return []
    curve = Choices(choices).curve(test.outcomes, resamples)
    label = prediction.cheapest_best(test.outcomes.quality, test.outcomes.cost)
    result = []
    for i, tau in enumerate(TAUS):
        quality = prediction.of_chosen(test.predicted, choices[i])
        saved, kept = _against_best(Curve(curve.cost[:, [i]], curve.quality[:, [i]]), axis, singles)
        result.append(
            {
                "tau": float(tau),
                "quality": estimate(curve.quality[:, i]).to_json(),
                "cost_usd": estimate(curve.cost[:, i]).to_json(),
                "saved": estimate(saved).to_json(),
                "kept": estimate(kept).to_json(),
                "predicted_quality": float(quality.mean()),
                "predicted_cost_usd": float(prediction.of_chosen(test.predicted_cost, choices[i]).mean()),
                "ece_of_chosen": prediction.expected_calibration_error(
                    quality, prediction.of_chosen(test.outcomes.quality, choices[i])
                ),
                "macro_f1": prediction.macro_f1(choices[i], label),
                "candidates_used": len(np.unique(choices[i])),
            }
        )
    return result[::-1]  # rising tau
