"""One table of what routing among Claude candidates saves, cross-fitted, on every source that has some with costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.evaluation.contenders import Choices, Contender, at_operating_point, curve_of_shares, halves_of
from ipr_engine.measures.resampling import estimate
from ipr_engine.measures.routing import SHARE, SHARES, ChosenSetting, WeightedOutcomes, read_operating_point
from studies.crossed import ESTIMATOR, FOLDS, crossed, folds_of
from studies.equal_cost import EqualCost
from studies.headline import VIEW
from studies.pages import Page
from studies.study import Study

Array = npt.NDArray[np.float64]

PARITY = 1.0
SEEN = 0.001  # of the cost: less shows as nothing
# Sources beside those of the study's split sections; candidates that every prompt has an outcome of.
MORE = {
    "czech_simpleqa": ("claude-3-5-sonnet-20241022", "claude-3-5-sonnet-20240620", "claude-3-5-haiku-20241022"),
    "scale_sql": (
        "claude-opus-4.8",
        "claude-opus-4-7",
        "claude_opus_4.5",
        "claude-sonnet-4-6-thinking",
        "claude-sonnet-4-5-20250929-thinking",
        "claude-haiku-4-5-20251001-thinking",
    ),
    "swe_bash24": (
        "claude-opus-4-5-20251101",
        "claude-opus-4-20250514",
        "claude-sonnet-4-5-20250929",
        "claude-sonnet-4-20250514",
    ),
}
# USD per 1 M tokens read and written, as the package litellm 1.110.2 states them, for the source that records no cost.
PRICES = {"scale_sql": {"opus": (5.0, 25.0), "sonnet": (3.0, 15.0), "haiku": (1.0, 5.0)}}
WHAT = {
    "zeroeval": "maths, code output; list price x estimated tokens",
    "bfcl": "tool calls; price x recorded tokens",
    "routerbench_sub": "RouterBench; recorded USD",
    "czech_simpleqa": "facts in Czech; list price x estimated tokens",
    "scale_sql": "SQL, Claude 4.5 to 4.8; list price x estimated tokens without hidden thinking",
    "swe_bash24": "issues solved by an agent, Claude 4 to 4.5; recorded USD of the run",
}


def write_saved(page: Page, study: Study, sources: Mapping[str, Sequence[str]], paper: float) -> None:
    """Add the table, a row a source. sources: the candidates of each. paper: what the paper says is saved at parity."""
    page.say("## Every source with Claude candidates and costs")
    page.say(
        f"""All prompts, cross-fitted: `{ESTIMATOR}` heads by {FOLDS} folds of questions, worth swept with predicted costs. *Saved*: 1 - the
        cost at equal quality over that of always asking the strongest candidate, read off the curve on the prompts themselves, which is a
        little too good; 0 where only the strongest reaches it. *Hull*: random mixes of single candidates, drawn on the other folds. *Chosen
        on the other half*: one half of the questions chooses the worth, the other is asked with it: saved; quality kept. 95 % intervals
        over questions. The paper: {paper:.1%} at parity, on data that is not public."""
    )
    rows = []
    for name, models in sources.items():
        study.progress(f"{name}: cross-fitting ...")
        cells, figures = _row(study, name, models)
        rows.append(cells)
        page.figures.setdefault("cross_fitted", {})[name] = figures
    header = ["source", "what; costs", "prompts", "candidates", "strongest: quality; USD per 1,000", "hull, parity", "router, parity",
              "hull, 98 %", "router, 98 %", "parity, chosen on the other half", "98 %, chosen on the other half"]  # fmt: skip
    page.table(header, rows)
    reached, near = (
        [name for name, own in page.figures["cross_fitted"].items() if own["router"][at]["low"] >= SEEN]
        for at in ("1", "0.98")
    )
    most = max(own["router"]["1"]["value"] for own in page.figures["cross_fitted"].values())
    page.say(
        f"""At parity the interval of the router's saving begins at {SEEN:.1%} or more on {_listed(reached)}, and the most saved is
        {most:.1%}; at 98 % it does on {_listed(near)}.
        What checking an answer before escalating adds is on [its own page](check_then_escalate.md)."""
    )


def read_priced(
    folder: Path, name: str, models: Sequence[str]
) -> tuple[WeightedOutcomes, tuple[str, ...], tuple[str, ...]]:
    """Read complete rows of these candidates: outcomes with USD, prompts, question keys."""
    data = load_outcomes(folder / name).select(models)
    cost = data.cost_usd
    if name in PRICES:
        price = np.array([next(usd for key, usd in PRICES[name].items() if key in model) for model in models]) / 1e6
        cost = data.input_tokens * price[:, 0] + data.output_tokens * price[:, 1]
    whole = np.flatnonzero(np.isfinite(data.quality + cost).all(axis=1))
    rows = data.take(whole)
    return WeightedOutcomes.complete(rows.quality, cost[whole]), rows.prompts, rows.question_keys


def _row(study: Study, name: str, models: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    outcomes, prompts, keys = read_priced(study.outcomes, name, models)
    measured = EqualCost(outcomes, keys, study.draws)
    quality, cost = crossed(study.views.see(VIEW, prompts), outcomes, keys)
    choices = measured.choices(quality, cost)
    saved = {
        "hull": 1 - measured.costs(measured.hull(folds_of(keys))),
        "router": 1 - measured.costs(measured.curve(choices)),
    }
    axis, singles, halves = measured.axis, measured.singles, halves_of(keys, 0)
    line = Contender(ESTIMATOR, "router", Choices(choices))
    figures: dict[str, Any] = {
        line_name: {f"{share:g}": estimate(own).to_json() for share, own in zip(SHARES, values, strict=True)}
        for line_name, values in saved.items()
    }
    figures |= {"prompts": outcomes.rows, "strongest": models[axis.best], "other_half": {}}
    halved = []
    for share in (PARITY, SHARE):
        chosen, _ = at_operating_point(line, share, axis, outcomes, None, halves)
        at = curve_of_shares(chosen, outcomes, measured.resamples)
        spared, kept = map(estimate, read_operating_point(ChosenSetting(share, 0), at, axis, singles))
        figures["other_half"][f"{share:g}"] = {"saved": spared.to_json(), "kept": kept.to_json()}
        halved.append(f"{_percent(spared)}; {_percent(kept)}")
    cells = [
        _percent(estimate(saved[of][SHARES.index(share)])) for share in (PARITY, SHARE) for of in ("hull", "router")
    ]
    strongest = f"{models[axis.best]}: {singles.quality[0, axis.best]:.3f}; {1000 * singles.cost[0, axis.best]:.3f}"
    return [name, WHAT[name], str(outcomes.rows), str(len(models)), strongest, *cells, *halved], figures


def _percent(of: Any) -> str:
    # + 0.0: a saving of -0 is none
    value, low, high = (round(part, 3) + 0.0 for part in of[:3])
    return f"{value:.1%} [{low:.1%}, {high:.1%}]"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"
