"""Study (f) applies heads of one source to another with shared questions removed, and mixes sources."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Estimate, difference, estimate
from ipr_engine.measures.sweeps import worth_sweep
from ipr_engine.training.fitted_heads import predict
from studies import plots
from studies.cases import Case, load_case
from studies.learning import nested_part
from studies.mixing import ARMS, OTHER, OWN, Judged, fit_arm, judged
from studies.shared_candidates import PAIRS
from studies.study import Study
from studies.trials import area, fit_and_predict, hull_area, shown, shown_difference

Array = npt.NDArray[np.float64]

ESTIMATOR = "caps"
SMALL = (100, 300)  # training prompts of the target
SEEDS = 3


@dataclass
class Result:
    """A `Result` is one arm at one size: areas (1 + draws,) and Brier scores, one a draw of the target's training prompts."""

    areas: list[Array] = field(default_factory=list)
    briers: list[float] = field(default_factory=list)

    @property
    def area(self) -> Array:
        return np.asarray(np.mean(self.areas, axis=0))

    @property
    def brier(self) -> float:
        return float(np.mean(self.briers))


Results = dict[int, dict[str, Result]]  # {training prompts of the target: {arm: result}}


def run(study: Study) -> list[Path]:
    page = study.page("transfer", "Heads of one source on another, and sources mixed")
    page.say(
        f"""`{ESTIMATOR}` heads on the static encoder for the candidates that two sources share, measured on the target's test
        split. Training rows: a part of the target's training split, the other source's training split without any question
        of the target (either split), or both: *intercept dropped* gives the other source an intercept that the exported
        heads leave out, *pooled* does not. Costs are predicted for every arm by the same head, fitted on the target's whole
        training split, so arms differ in predicted quality alone. Bounded-ARQGC (docs/metrics.md section 3), worth sweep;
        {study.draws} paired bootstrap resamples of test prompts, 95 % intervals; parts are means over {SEEDS} random draws of
        the target's prompts. Bold: a difference whose interval excludes zero."""
    )
    panels: dict[str, dict[str, list[Estimate]]] = {}
    sizes = [str(n) for n in SMALL] + ["all"]
    targets = study.names(tuple(dict.fromkeys(target for target, _ in PAIRS)))
    for (target, other), names in PAIRS.items():
        if target not in targets or not all((study.outcomes / name).is_dir() for name in (target, other)):
            continue
        case, rows = _case(study, target, other, names)
        results = _results(case, rows, study, f"{target} with {other}")
        title = f"{target}, helped by {other}"
        page.say(f"## {title}")
        page.say(
            f"""{", ".join(case.models)}. {len(case.train.data)} training and {len(case.test.data)} test prompts of {target},
            {len(rows)} training prompts of {other}. Hull of singles {shown(hull_area(case))}."""
        )
        page.table(["prompts of the target", "rows", "area", "minus own rows", "Brier"], _table(results))
        page.figures[f"{target} from {other}"] = _json(results)
        panels[f"{target}\nfrom {other}"] = {
            arm: [difference(r[arm].area, r[OWN].area) for r in results.values()] for arm in ARMS[1:]
        }
    if not panels:
        pairs = "; ".join(f"{target} and {other}" for target, other in PAIRS if target in targets)
        raise InvalidInputError(f"outcomes: expected a folder that holds two sources, {pairs}, got {study.outcomes}")
    path = plots.intervals(
        study.out / "transfer.png",
        panels,
        [f"{size} target\nprompts" for size in sizes],
        "Bounded-ARQGC minus that of heads on the target's own rows alone (95 % paired bootstrap interval)",
        title="What rows of another source add",
        zero=0.0,
        per_row=3,
    )
    page.plot(
        path,
        "Change of the area against fitting on the target's own prompts alone; right of the dotted line the other source helps",
    )
    return [*page.write(study.out), path]


def _case(study: Study, target: str, other: str, names: Mapping[str, str]) -> tuple[Case, Judged]:
    """Return the target with the shared candidates, and the other source's training rows in its columns."""
    study.progress(f"reading {target} and {other} ...")
    case = load_case(study.outcomes, target, models=tuple(names), draws=study.draws)
    home = load_outcomes(study.outcomes / target)
    rows = load_outcomes(study.outcomes / other).of_split("train").without_questions_of(home)
    return case, judged(rows, case.models, names, study.views)


def _results(case: Case, other: Judged, study: Study, name: str) -> Results:
    train = judged(case.train.data, case.models, {model: model for model in case.models}, study.views)
    test_x = study.views.see("static", case.test.data.prompts)
    cost = fit_and_predict(case, train.x, test_x, "advantage_shared").cost
    alone = predict_arm(OTHER, train, other, test_x)  # the same whatever is drawn of the target
    results: Results = {}
    for size in (*(n for n in SMALL if n < len(train) // 2), len(train)):
        results[size] = {arm: Result() for arm in ARMS}
        for seed in range(SEEDS if size < len(train) else 1):
            own = train.take(nested_part(train.keys, size / len(train), seed))
            study.progress(f"{name}: {len(own)} target prompts, draw {seed} ...")
            for arm in ARMS:
                quality = alone if arm == OTHER else predict_arm(arm, own, other, test_x)
                results[size][arm].areas.append(area(case, worth_sweep(quality, cost)))
                results[size][arm].briers.append(float(np.square(quality - case.test.quality).mean()))
    return results


def predict_arm(arm: str, own: Judged, other: Judged, x: Array) -> Array:
    """Return quality (rows, models) that one arm's heads predict for x (rows, dim)."""
    heads = fit_arm(arm, own, other, ESTIMATOR)
    return predict(heads.tensors, x, heads.activation)[0]


def _table(results: Results) -> list[list[str]]:
    return [
        [
            str(size),
            arm,
            shown(result.area),
            "" if arm == OWN else shown_difference(result.area, arms[OWN].area),
            f"{result.brier:.4f}",
        ]
        for size, arms in results.items()
        for arm, result in arms.items()
    ]


def _json(results: Results) -> dict[str, Any]:
    return {
        str(size): {
            arm: {
                "area": estimate(result.area).to_json(),
                "minus_own": difference(result.area, arms[OWN].area).to_json(),
                "brier": result.brier,
                "draws": len(result.areas),
            }
            for arm, result in arms.items()
        }
        for size, arms in results.items()
    }
