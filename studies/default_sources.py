"""This study asks what to fit the default bundle on: zeroeval alone, or zeroeval and mmlu_pro. Only training splits judge."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import Resamples, difference, estimate
from ipr_engine.measures.routing import Axis, WeightedOutcomes, bounded_arqgc, single_curve, sweep_curve
from ipr_engine.measures.sweeps import worth_sweep
from ipr_engine.training.fitted_heads import predict
from studies import plots
from studies.cases import load_case
from studies.learning import nested_part
from studies.mixing import LEVELLED, OWN, POOLED, Judged, fit_arm, judged
from studies.shared_candidates import CASCADE9, MMLU_PRO
from studies.study import Study
from studies.trials import fit_and_predict, shown, shown_difference

Array = npt.NDArray[np.float64]

ARMS = (OWN, POOLED, LEVELLED)
ESTIMATORS = ("caps", "advantage_shared")
SEEDS = 3  # of the folds: out-of-fold figures of two arms differ by their folds too
HOME, MORE, OUTSIDE = "zeroeval", "mmlu_pro", "cascade9"
KEPT_BACK = 0.2  # share of the training questions of MORE that no heads are fitted on


@dataclass
class Check:
    """A `Check` is one arm on one set of rows: areas and Brier scores, (1 + draws,) each, a seed of the folds each."""

    areas: list[Array] = field(default_factory=list)
    briers: list[Array] = field(default_factory=list)

    @property
    def area(self) -> Array:
        return np.asarray(np.mean(self.areas, axis=0))

    @property
    def brier(self) -> Array:
        return np.asarray(np.mean(self.briers, axis=0))


class Ground:
    """A `Ground` holds rows to judge on.

    Args:
        quality: (rows, candidates), complete. cost: the same, USD: what decisions see; real: what they are charged.
        columns: these candidates' columns among the home source's.
    """

    def __init__(self, quality: Array, real: Array, cost: Array, columns: list[int], draws: int) -> None:
        self.outcomes, self.cost, self.columns = WeightedOutcomes.complete(quality, real), cost, columns
        self.resamples = Resamples(len(quality), draws=draws)
        self.axis, self.singles = Axis.of(self.outcomes), single_curve(self.outcomes, self.resamples)

    def add(self, check: Check, predicted: Array) -> None:
        """Measure predicted quality (rows, home's models)."""
        mine = predicted[:, self.columns]
        curve = sweep_curve(worth_sweep(mine, self.cost), self.outcomes, self.resamples)
        check.areas.append(bounded_arqgc(curve, self.axis, self.singles))
        check.briers.append(self.resamples.means(np.square(mine - self.outcomes.quality).mean(axis=1)))


@dataclass(frozen=True, eq=False)
class Material:
    """`Material` is the rows of the two sources to fit on, whole and without the outside's questions, and what is judged on
    them.

    Attributes:
        own, more: to fit. clean: both again without the outside's questions. back, outside: embeddings to judge on.
        grounds: by source.
    """

    own: Judged
    more: Judged
    clean: tuple[Judged, Judged]
    back: Array
    outside: Array
    grounds: dict[str, Ground]


def run(study: Study) -> list[Path]:
    page = study.page("default_sources", "The default bundle: zeroeval alone, or with mmlu_pro")
    page.say(
        f"""The default bundle's candidates, judged on training splits only, so that a choice may rest on this page. Heads on
        the training split of {HOME}; of {HOME} and {MORE} *pooled*; or of both with an intercept for {MORE} that the exported
        heads leave out. {MORE} judges two of the candidates, so mixed rows are sparse. Judged on {HOME} out of fold; on a
        {KEPT_BACK:.0%} of {MORE}'s training questions that no heads were fitted on; and, as an outside check, on {OUTSIDE}'s
        training split by heads fitted without any of its questions. Costs: predicted by one head for all arms on {HOME}, each
        candidate's mean elsewhere. Means over {SEEDS} sets of folds; {study.draws} paired bootstrap resamples, 95 %
        intervals; bold: a difference whose interval excludes zero."""
    )
    if study.sources:
        raise InvalidInputError(
            f"source: this study always reads {HOME}, {MORE} and {OUTSIDE}, got {', '.join(study.sources)}; leave it out"
        )
    material = gather(study)
    checks = {estimator: _checks(material, estimator, study) for estimator in ESTIMATORS}
    page.table(
        ["estimator", "judged on", "fitted on", "area", "minus own rows", "Brier", "minus own rows"], _rows(checks)
    )
    for estimator, grounds in checks.items():
        page.figures[estimator] = {
            ground: {arm: _json(check, arms[OWN]) for arm, check in arms.items()} for ground, arms in grounds.items()
        }
    path = plots.intervals(
        study.out / "default_sources.png",
        {
            ground: {arm: [difference(of[ground][arm].area, of[ground][OWN].area) for of in checks.values()] for arm in ARMS[1:]}
            for ground in material.grounds
        },
        list(checks),
        f"Bounded-ARQGC minus that of heads on {HOME} alone (95 % paired bootstrap interval)",
        title=f"What {MORE} adds to the default bundle, by where it is judged",
        zero=0.0,
    )  # fmt: skip
    page.plot(path, f"Change of the area when {MORE} joins; right of the dotted line it helps")
    return [*page.write(study.out), path]


def gather(study: Study) -> Material:
    """Read the three sources and keep the check rows back."""
    study.progress(f"reading {HOME}, {MORE} and {OUTSIDE} ...")
    home = load_case(study.outcomes, HOME, draws=study.draws)
    outside = load_case(study.outcomes, OUTSIDE, models=tuple(CASCADE9.values()), draws=study.draws).train
    charged = load_case(study.outcomes, MORE, models=tuple(MMLU_PRO.values()), draws=study.draws).train.cost.mean(
        axis=0
    )
    everywhere = {name: load_outcomes(study.outcomes / name) for name in (HOME, OUTSIDE)}
    more = load_outcomes(study.outcomes / MORE).of_split("train").select(list(MMLU_PRO.values()))
    more = more.complete(measures=("quality", "output_tokens")).without_questions_of(everywhere[HOME])
    back = np.zeros(len(more), np.bool_)
    back[nested_part(more.question_keys, KEPT_BACK, 0)] = True
    models, same = home.models, {model: model for model in home.models}
    columns = {
        name: [models.index(model) for model in names] for name, names in ((MORE, MMLU_PRO), (OUTSIDE, CASCADE9))
    }
    own = judged(home.train.data, models, same, study.views)
    kept, seen = more.take(back), more.take(~back)
    clean = [data.without_questions_of(everywhere[OUTSIDE]) for data in (home.train.data, seen)]
    predicted = fit_and_predict(home, own.x, own.x[:1], "advantage_shared").train_cost  # out of fold
    mean = np.tile(outside.cost.mean(axis=0), (len(outside.cost), 1))
    flat = np.tile(charged, (len(kept), 1))
    return Material(
        own,
        judged(seen, models, MMLU_PRO, study.views),
        (judged(clean[0], models, same, study.views), judged(clean[1], models, MMLU_PRO, study.views)),
        study.views.see("static", kept.prompts),
        study.views.see("static", outside.data.prompts),
        {
            HOME: Ground(home.train.quality, home.train.cost, predicted, list(range(len(models))), study.draws),
            MORE: Ground(kept.quality, flat, flat, columns[MORE], study.draws),
            OUTSIDE: Ground(outside.quality, outside.cost, mean, columns[OUTSIDE], study.draws),
        },
    )


def _checks(material: Material, estimator: str, study: Study) -> dict[str, dict[str, Check]]:
    checks = {name: {arm: Check() for arm in ARMS} for name in material.grounds}
    for seed in range(SEEDS):
        for arm in ARMS:
            study.progress(f"{estimator} on {arm}, folds {seed} ...")
            heads = fit_arm(arm, material.own, material.more, estimator, seed=seed)
            clean = fit_arm(arm, *material.clean, estimator, seed=seed)
            for name, quality in (
                (HOME, heads.out_of_fold_quality[: len(material.own)]),
                (MORE, predict(heads.tensors, material.back, heads.activation)[0]),
                (OUTSIDE, predict(clean.tensors, material.outside, clean.activation)[0]),
            ):
                material.grounds[name].add(checks[name][arm], quality)
    return checks


def _rows(checks: dict[str, dict[str, dict[str, Check]]]) -> list[list[str]]:
    rows = []
    for estimator, grounds in checks.items():
        for ground, arms in grounds.items():
            for arm, check in arms.items():
                own, other = arms[OWN], arm != OWN
                rows.append(
                    [
                        estimator,
                        ground,
                        f"{HOME} alone" if arm == OWN else arm,
                        shown(check.area),
                        shown_difference(check.area, own.area) if other else "",
                        shown(check.brier, digits=4),
                        shown_difference(check.brier, own.brier, digits=4) if other else "",
                    ]
                )
    return rows


def _json(check: Check, own: Check) -> dict[str, object]:
    return {
        "area": estimate(check.area).to_json(),
        "area_minus_own": difference(check.area, own.area).to_json(),
        "brier": estimate(check.brier).to_json(),
        "brier_minus_own": difference(check.brier, own.brier).to_json(),
    }
