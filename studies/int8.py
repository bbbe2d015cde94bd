"""This study asks what the int8 onnx tier does to decisions: heads of float32 embeddings read int8 ones, or are fitted on int8 ones."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.data import EmbeddingCache
from ipr_engine.encoders.manifest import is_export
from ipr_engine.encoders.onnx import OnnxEncoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import difference, estimate
from ipr_engine.measures.sweeps import rule_sweep
from studies.cases import Case
from studies.study import Study
from studies.trials import Prediction, area, fit_and_predict, shown, shown_difference, sweep

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.integer]

SOURCES = ("zeroeval", "cascade9", "routerbench_sub")
ESTIMATOR = "caps"  # the default bundle's
RULE = "minmax"


@dataclass(frozen=True, eq=False)
class Int8Trial:
    """An `Int8Trial` holds figures on the test prompts of one source.

    Attributes:
        cosine: (rows,) between the two embeddings of a prompt.
        equal: (points,) share of prompts with the same choice, at each tau of the rule's sweep.
        equal_worth: the same for the sweep of worth.
        float32, swapped, refitted: area (1 + draws,) of float32 embeddings, of int8 ones under the heads fitted on
            float32, and of int8 ones under heads fitted on int8.
    """

    cosine: Array
    equal: Array
    equal_worth: Array
    float32: Array
    swapped: Array
    refitted: Array


def run(study: Study) -> list[Path]:
    if study.transformer is None or not is_export(study.transformer):
        raise InvalidInputError("--transformer: expected the folder that ipr export-encoder --int8 wrote")
    encoders = [OnnxEncoder.from_export(study.transformer, precision=name) for name in ("float32", "int8")]
    page = study.page("int8", "The transformer in int8: decisions and quality")
    page.say(
        f"""{encoders[0].summary}, beside its int8 graph, both frozen. Heads: `{ESTIMATOR}`. *equal*: share of test prompts for which the
        heads fitted on float32 embeddings choose the same candidate from int8 ones, mean and least over the sweep of tau
        (rule `{RULE}`, predicted costs) and over the sweep of worth. *area*: Bounded-ARQGC (docs/metrics.md section 3), worth
        swept; {study.draws} paired bootstrap resamples of prompts, 95 % intervals; bold: an interval that excludes zero.
        *swapped*: float32's heads on int8 embeddings; *refitted*: heads fitted on int8 ones, the way it is meant: the int8
        encoder has an identity of its own, and heads of another are refused."""
    )
    rows = []
    for case in study.cases(SOURCES):
        trial = _trial(case, study, encoders)
        rows.append(
            [
                case.name,
                str(case.test.outcomes.rows),
                f"{np.median(trial.cosine):.4f} ({trial.cosine.min():.4f})",
                f"{trial.equal.mean():.1%} ({trial.equal.min():.1%})",
                f"{trial.equal_worth.mean():.1%} ({trial.equal_worth.min():.1%})",
                shown(trial.float32),
                shown_difference(trial.swapped, trial.float32),
                shown_difference(trial.refitted, trial.float32),
            ]
        )
        page.figures[case.name] = {
            "test_prompts": case.test.outcomes.rows,
            "cosine": {"median": float(np.median(trial.cosine)), "least": float(trial.cosine.min())},
            "equal": {"mean": float(trial.equal.mean()), "least": float(trial.equal.min())},
            "equal_worth": {"mean": float(trial.equal_worth.mean()), "least": float(trial.equal_worth.min())},
            "area": estimate(trial.float32).to_json(),
            "swapped_minus_float32": difference(trial.swapped, trial.float32).to_json(),
            "refitted_minus_float32": difference(trial.refitted, trial.float32).to_json(),
        }
    page.table(
        [
            "source",
            "test prompts",
            "cosine, median (least)",
            f"equal, {RULE}: mean (least)",
            "equal, worth: mean (least)",
            "area, float32",
            "swapped minus float32",
            "refitted minus float32",
        ],
        rows,
    )
    return list(page.write(study.out))


def _trial(case: Case, study: Study, encoders: list[OnnxEncoder]) -> Int8Trial:
    cache = None if study.cache is None else EmbeddingCache(study.cache)

    def embed(encoder: OnnxEncoder, prompts: tuple[str, ...]) -> Array:
        study.progress(f"{case.name}: {len(prompts)} prompts in {encoder.precision} ...")
        encoded = encoder.encode(prompts) if cache is None else cache.embed(encoder, prompts, verbose=True)
        return np.asarray(encoded.x, np.float64)

    train, test = ([embed(encoder, rows.data.prompts) for encoder in encoders] for rows in (case.train, case.test))
    # The heads of float32 see both embeddings of the test prompts at once, so that they are fitted but once.
    both = fit_and_predict(case, train[0], np.concatenate(test), ESTIMATOR)
    float32, swapped = _halves(both)
    refitted = fit_and_predict(case, train[1], test[1], ESTIMATOR)
    norms = np.linalg.norm(test[0], axis=1) * np.linalg.norm(test[1], axis=1)
    return Int8Trial(
        cosine=(test[0] * test[1]).sum(axis=1)[norms > 0] / norms[norms > 0],
        equal=_equal(rule_sweep(float32.quality, float32.cost, RULE), rule_sweep(swapped.quality, swapped.cost, RULE)),
        equal_worth=_equal(sweep(float32, "worth"), sweep(swapped, "worth")),
        float32=area(case, sweep(float32, "worth")),
        swapped=area(case, sweep(swapped, "worth")),
        refitted=area(case, sweep(refitted, "worth")),
    )


def _halves(both: Prediction) -> tuple[Prediction, Prediction]:
    rows = len(both.quality) // 2
    first, second = (
        Prediction(both.quality[part], both.cost[part], both.train_quality, both.train_cost)
        for part in (slice(0, rows), slice(rows, None))
    )
    return first, second


def _equal(a: Indices, b: Indices) -> Array:
    return np.asarray((a == b).mean(axis=1), np.float64)
