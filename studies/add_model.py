"""This study leaves one candidate out, fits heads on the others, and adds it back from ever more prompts (`ipr add-model`)."""

from __future__ import annotations

import importlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.evaluation.plot_style import BLUE, GREEN, ORANGE, RED, STYLE
from ipr_engine.measures.resampling import one_thread
from ipr_engine.training.add.candidate_row import fit_row
from studies.cases import Case
from studies.headline import SHIPPED, VIEW
from studies.leave_one_out import (
    ADDED,
    DRAWS,
    FRESH,
    KNN,
    METHODS,
    SCRATCH,
    SIMILAR,
    Curves,
    fit_columns,
    measure,
)
from studies.pages import Page
from studies.study import Study
from studies.trials import NANO

Array = npt.NDArray[np.float64]

SOURCES = ("zeroeval", "routerbench_sub")
ENOUGH = 0.95
TIMED = 5000
LOOKS: Mapping[str, dict[str, Any]] = {
    ADDED: {"color": BLUE, "lw": 2.8, "marker": "o"},
    SCRATCH: {"color": ORANGE, "lw": 1.8, "ls": "--", "marker": "s"},
    SIMILAR: {"color": GREEN, "lw": 1.8, "ls": "-.", "marker": "^"},
    KNN: {"color": RED, "lw": 1.8, "ls": ":", "marker": "D"},
}


def run(study: Study) -> list[Path]:
    page = study.page("add_model", "A candidate added to frozen heads: how many prompts it takes")
    page.say(
        f"""Each candidate in turn is left out, heads (`{SHIPPED}`, static encoder) are fitted on the others' train split and frozen, and
        the candidate is added back from some of its train outcomes, {DRAWS} random subsets of each size, the same for every
        method. Measured on test. *Full data*: all candidates fitted together on the whole train split. *Share of the gain*:
        (Brier score of a constant, the candidate's train mean, minus the method's) over the same for the full data, summed over
        candidates. *Share of the area*: Bounded-ARQGC, worth swept, minus that without the candidate, over the same for the
        full data, summed likewise; costs of the new candidate are predicted by the same tokens head for every method. The
        most similar candidate is the one whose logits, through a Platt map, fit the subset best; kNN's k is tuned out of fold."""
    )
    page.say(
        """The widths of the prior that `add-model` uses were picked from three settings by Brier score on the test split, on six
        of the eleven candidates of each of these two sources: its figures here are slightly favourable."""
    )
    curves = {}
    for case in study.cases(SOURCES):
        curves[case.name] = measure(Case(case.name, case.note, case.train, case.test, draws=0), study)
    for name, found in curves.items():
        _tables(page, name, found)
    page.say("## All sources")
    study.out.mkdir(parents=True, exist_ok=True)
    plot = _plot(curves, study.out / "add_model.png")
    page.plot(
        plot, "Share of the full data's gain over prompts, mean over candidates; bands: middle half of the candidates"
    )
    if (study.outcomes / "mmlu_pro").is_dir():
        _time(page, study)
    return [*page.write(study.out), plot]


def _tables(page: Page, name: str, c: Curves) -> None:
    page.say(f"## {name}: {len(c.models)} candidates, {c.sizes[-1]} training prompts")
    header = ["method", *(str(size) for size in c.sizes), f"prompts for {ENOUGH:.0%}"]
    for title, shares in (("Share of the gain in Brier score", c.gain), ("Share of the gain in area", c.area_gain)):
        page.say(f"{title}, all candidates together.")
        page.table(header, [[m, *(f"{s:.1%}" for s in shares(m)), _needed(c.sizes, shares(m))] for m in METHODS])
    page.say(
        f"""Area, mean over candidates left out: {c.area_without.mean():.3f} without the candidate, {c.full_area.mean():.3f} on full data;
        `add-model` {", ".join(f"{a:.3f} ({n})" for n, a in zip(c.sizes, c.areas[ADDED].mean(axis=1), strict=True))}:
        {ENOUGH:.0%} of the full-data area from {_needed(c.sizes, c.areas[ADDED].mean(axis=1) / c.full_area.mean())} prompts."""
    )
    full = c.constant - c.full_brier
    page.say("Per candidate, `add-model`: share of its own full-data gain in Brier score.")
    rows = []
    for m, model in enumerate(c.models):
        own = (c.constant[m] - c.brier[ADDED][:, m]) / full[m]
        cells = [f"{s:.0%}" for s in own] if full[m] > 0 else ["-"] * len(own)
        rows.append([model, f"{full[m]:.4f}", *cells, _needed(c.sizes, own) if full[m] > 0 else "no gain to reach"])
    page.table(["candidate", "full gain", *header[1:]], rows)
    cold, seen, fresh = (float((c.constant - part).sum() / full.sum()) for part in (c.prior, c.seen, c.fresh))
    at_most = min(FRESH, c.sizes[-1] // 2)
    page.say(
        f"""Without any prompt, as the candidate nearest in mean cost: {cold:.1%} of the gain (a constant is not known then
        either). Heads of one half of the train split, {at_most} prompts: {seen:.1%} of the gain from prompts that the
        heads were fitted on, {fresh:.1%} from others."""
    )
    page.figures[name] = {
        "sizes": list(c.sizes),
        "models": list(c.models),
        "gain": {m: _plain(c.gain(m)) for m in METHODS},
        "area_gain": {m: _plain(c.area_gain(m)) for m in METHODS},
        "brier": {m: _plain(c.brier[m]) for m in METHODS},
        "areas": {m: _plain(c.areas[m]) for m in METHODS},
        **{
            key: _plain(getattr(c, key))
            for key in ("constant", "full_brier", "full_area", "area_without", "prior", "seen", "fresh")
        },
    }


def _plain(values: Array) -> list[Any]:
    """Return lists, None for an undefined figure."""
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [None if np.isnan(value) else float(value) for value in values]


def _needed(sizes: Sequence[int], shares: Array) -> str:
    """Return the smallest size from which on the share stays at 95 % or more."""
    below = np.flatnonzero(~(shares >= ENOUGH))
    first = int(below[-1]) + 1 if len(below) else 0
    return str(sizes[first]) if first < len(sizes) else "not reached"


def _plot(curves: Mapping[str, Curves], path: Path) -> Path:
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    pyplot = importlib.import_module("matplotlib.pyplot")
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(2, len(curves), figsize=(6.5 * len(curves), 9), squeeze=False, sharex="col")
        for column, (name, c) in enumerate(curves.items()):
            for row, shares in enumerate((c.gain, c.area_gain)):
                ax = axes[row][column]
                for method in METHODS:
                    ax.plot(c.sizes, 100 * shares(method), label=method, **LOOKS[method])
                ax.axhline(95, color="#777777", lw=1, ls=(0, (4, 3)))
                ax.set_xscale("log")
                ax.set_xticks(c.sizes, [*(str(size) for size in c.sizes[:-1]), "all"])
                ax.minorticks_off()
                ax.set_ylim(-50 if row else 0, 120)  # worse than without the candidate: cut off
            full = c.constant - c.full_brier
            if (full > 0).any():
                own = 100 * ((c.constant - c.brier[ADDED]) / full)[:, full > 0]
                low, high = np.percentile(own, [25, 75], axis=1)
                axes[0][column].fill_between(c.sizes, low, high, color=BLUE, alpha=0.12, lw=0)
            axes[0][column].set_title(name)
            axes[1][column].set_xlabel("scored prompts of the new candidate")
        axes[0][0].set_ylabel("gain in Brier score, % of full data")
        axes[1][0].set_ylabel("gain in area, % of full data")
        axes[0][-1].legend(loc="lower right")
        figure.tight_layout()
        figure.savefig(path, metadata={"Software": None})
        pyplot.close(figure)
    return path


def _time(page: Page, study: Study) -> None:
    """Time one candidate more on 5,000 embedded prompts of mmlu_pro, by the wall clock."""
    case = study.case("mmlu_pro")
    rows = np.arange(min(TIMED, len(case.train.quality)))
    part = case.train.take(rows)
    x = study.views.see(VIEW, part.data.prompts)
    study.progress(f"timing {len(x)} prompts ...")
    with one_thread():
        heads = fit_columns(Case(case.name, case.note, part, part, 0), x, list(range(1, len(case.models))), None)
        start = time.perf_counter()
        fit_row(heads.tensors, heads.activation, x, part.quality[:, 0], part.cost[:, 0] * NANO, part.data.question_keys)
        seconds = time.perf_counter() - start
    page.say(
        f"""Wall time: one candidate beside {len(case.models) - 1} on {len(x)} embedded prompts of mmlu_pro (row, calibration and tokens):
        {seconds:.1f} s, one thread of a shared 2-core machine."""
    )
    page.figures["seconds"] = {"prompts": len(x), "candidates": len(case.models), "wall": seconds}
