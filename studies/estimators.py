"""This study compares estimator x loss x link, the paper's ablation, with simple routers beside, and the shipped estimator's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import process_time
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.baselines import ESTIMATORS as BASELINES
from ipr_engine.measures.resampling import Estimate, difference, estimate
from ipr_engine.training.estimators.network_config import NetworkConfig
from studies.bars import Series, intervals
from studies.cases import Case
from studies.study import Study
from studies.trials import (
    Prediction,
    area,
    area_on_train,
    brier,
    fit_and_predict,
    fit_baseline,
    hull_area,
    shown,
    shown_difference,
    sweep,
)

Array = npt.NDArray[np.float64]

VIEW = "static"
SOURCES = ("zeroeval", "routerbench_sub", "cascade9")
SHIPPED = "caps"


@dataclass(frozen=True)
class Variant:
    """A `Variant` is one line of the tables."""

    estimator: str
    loss: str = "squared"
    link: str = "identity"
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.estimator if self.estimator in CLOSED else f"{self.estimator}, {self.loss}, {self.link}"


CLOSED = ("plain", "advantage_shared", "advantage_rank4", "caps")
LOSSES: Mapping[tuple[str, str], str | Mapping[str, float]] = MappingProxyType(
    {
        ("squared", "sigmoid"): "squared",
        ("squared", "identity"): "squared",
        ("cross-entropy", "sigmoid"): "cross_entropy",
        ("pairwise", "-"): "pairwise",
        ("squared + pairwise", "sigmoid"): {"squared": 1.0, "pairwise": 0.1},
        ("cross-entropy + pairwise", "sigmoid"): {"cross_entropy": 1.0, "pairwise": 1.0},
    }
)
VARIANTS = (
    *(Variant(form) for form in CLOSED),
    *(
        Variant(form, loss, link, {"loss": stated, "link": "sigmoid" if link == "-" else link})
        for form in ("paper", "adapters")
        for (loss, link), stated in LOSSES.items()
    ),
)
# The shipped estimator, one setting changed at a time.
SETTINGS: Sequence[Mapping[str, Any]] = (
    {}, {"caps": 16}, {"caps": 32}, {"caps": 128}, {"caps": 256}, {"inside": 0.1}, {"inside": 0.5}, {"spread": 0.25},
    {"spread": 1.0}, {"forms": ("advantage_shared",)}, {"forms": ("advantage_rank4",)}, {"forms": ("plain",)},
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Figures:
    """`Figures` says what a line shows: out-of-fold area on train, test area (1 + draws,), Brier on test, CPU seconds of the fit."""

    on_train: float
    on_test: Array
    brier: float
    seconds: float

    @classmethod
    def of(cls, case: Case, prediction: Prediction, seconds: float) -> Figures:
        return cls(
            area_on_train(case, sweep(prediction, "worth", on_train=True)),
            area(case, sweep(prediction, "worth")),
            brier(prediction, case),
            seconds,
        )


def run(study: Study) -> list[Path]:
    page = study.page("estimators", "Estimator, loss and link")
    page.say(
        f"""Bounded-ARQGC (docs/metrics.md section 3), worth swept with predicted costs, {VIEW} encoder. *Out of fold*: on
        the training split, each prompt by a fit that has not seen its fold; choices are made by this column and no
        other (penalties, and the directions of the rank forms, are chosen on all training prompts, which flatters the
        rank forms most; `ipr train` compares estimators by nested cross-validation). *Test*: the test split,
        {study.draws} paired bootstrap resamples, 95 % intervals; bold: a difference whose interval excludes zero.
        Brier: of calibrated quality on test, every candidate. Seconds: CPU time of one fit (all folds, calibration,
        tokens head), one thread. Every score is calibrated by Platt's map out of fold, whatever its loss and link;
        pairwise ranking compares scores of candidates, so no link enters. Mixes: squared + 0.1 pairwise, cross-entropy
        + pairwise. Networks: the paper's form (identity embeddings, all weights shared; {_defaults("paper")}) and a
        shared trunk with adapters ({_defaults("adapters")}); their other settings are the defaults, which were chosen
        by out-of-fold figures at the loss named, so the other losses run at settings of another; one seed, so a
        network's line also holds the luck of its start."""
    )
    differences: dict[str, dict[str, Estimate]] = {}
    settings: dict[str, dict[str, float]] = {}
    for case in study.cases(SOURCES):
        x = [study.views.see(VIEW, part.data.prompts) for part in (case.train, case.test)]
        figures = _figures(case, x, study)
        shipped, hull = figures[SHIPPED], hull_area(case)
        page.say(f"## {case.name}")
        page.say(
            f"""{case.train.outcomes.rows} training and {case.test.outcomes.rows} test prompts, {len(case.models)}
            candidates; costs: {case.note}. Hull of singles {shown(hull)}. Out-of-fold and test area correlate at
            {_correlation(figures):.2f} over these lines."""
        )
        page.table(
            ["estimator, loss, link", "out of fold", "test", f"minus `{SHIPPED}`", "Brier", "seconds"],
            [
                [
                    name,
                    f"{one.on_train:.3f}",
                    shown(one.on_test),
                    "" if name == SHIPPED else shown_difference(one.on_test, shipped.on_test),
                    f"{one.brier:.4f}",
                    f"{one.seconds:.1f}",
                ]
                for name, one in figures.items()
            ],
        )
        differences[case.name] = {
            name: difference(one.on_test, shipped.on_test) for name, one in figures.items() if name != SHIPPED
        }
        settings[case.name] = _settings(case, x, study)
        page.figures[case.name] = {
            "hull": estimate(hull).to_json(),
            "lines": {
                name: {
                    "out_of_fold": one.on_train,
                    "test": estimate(one.on_test).to_json(),
                    "brier": one.brier,
                    "cpu_seconds": one.seconds,
                }
                for name, one in figures.items()
            },
            "settings_out_of_fold": settings[case.name],
        }
    plot = intervals(
        study.out / "estimators.png",
        list(next(iter(differences.values()))),
        [Series(name, by) for name, by in differences.items()],
        title=f"Test area minus that of `{SHIPPED}`",
        axis="difference of Bounded-ARQGC, with 95 % bootstrap intervals; left of zero: worse",
    )
    page.plot(plot, f"Test area minus that of {SHIPPED}")
    page.say(f"## Settings of `{SHIPPED}`")
    page.say("Out-of-fold area on the training splits, one setting changed at a time; test was not looked at.")
    page.table(
        ["setting", *settings, "mean"],
        [
            [name, *(f"{by[name]:.3f}" for by in settings.values()), f"{np.mean([by[name] for by in settings.values()]):.3f}"]
            for name in next(iter(settings.values()))
        ],
    )  # fmt: skip
    return [*page.write(study.out), plot]


def _defaults(form: str) -> str:
    """Say in words what a network is."""
    config = NetworkConfig.of(form, {})
    text = f"{config.hidden} wide, lr {config.lr:g}, weight decay {config.weight_decay:g}, default loss {config.loss}"
    return text if form == "paper" else f"rank {config.rank}, {text}"


def _figures(case: Case, x: Sequence[Array], study: Study) -> dict[str, Figures]:
    figures = {}
    for variant in VARIANTS:
        study.progress(f"{case.name}: {variant.name} ...")
        begin = process_time()
        prediction = fit_and_predict(case, x[0], x[1], variant.estimator, options=variant.options)
        figures[variant.name] = Figures.of(case, prediction, process_time() - begin)
    for name in BASELINES:
        study.progress(f"{case.name}: {name} ...")
        begin = process_time()
        prediction = fit_baseline(case, name, x[0], x[1])
        figures[f"{name} of `ipr eval`"] = Figures.of(case, prediction, process_time() - begin)
    return figures


def _settings(case: Case, x: Sequence[Array], study: Study) -> dict[str, float]:
    found = {}
    for options in SETTINGS:
        name = ", ".join(f"{key} {_plain(value)}" for key, value in options.items()) or "as shipped"
        study.progress(f"{case.name}: {SHIPPED}, {name} ...")
        prediction = fit_and_predict(case, x[0], x[1], SHIPPED, options=options)
        found[name] = area_on_train(case, sweep(prediction, "worth", on_train=True))
    return found


def _plain(value: Any) -> str:
    return " + ".join(value) + " only" if isinstance(value, tuple) else str(value)


def _correlation(figures: Mapping[str, Figures]) -> float:
    """Correlate, over lines, out-of-fold and test area: whether choosing by the one chooses by the other."""
    pairs = np.array([(one.on_train, one.on_test[0]) for one in figures.values()])
    return float(np.corrcoef(pairs.T)[0, 1])
