"""This file writes the report of an evaluation, as Markdown and JSON. Numbers and names only: no prompt, no outcome of a single prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.origin import SHOWN_BLIND, prior_of
from ipr_engine.data import Outcomes
from ipr_engine.evaluation.costs import CostBasis
from ipr_engine.evaluation.equal_quality_text import render_equal_quality
from ipr_engine.evaluation.markdown import number, per_1000, plain, table
from ipr_engine.evaluation.one_setting import render_one_setting
from ipr_engine.evaluation.prediction_lines import CPT_LEVELS
from ipr_engine.evaluation.promised import render_promised
from ipr_engine.evaluation.robust_to_edits_text import render_edits
from ipr_engine.evaluation.summary import SHOWN_TAUS
from ipr_engine.measures.routing import SHARES

PLOTS = {
    "equal_quality": "Cost where 98 % of the best single's quality is asked for, with 95 % intervals",
    "quality_cost": "Quality over cost. Dots: single candidates; band: 95 % interval of the router; arrow: what it saves where 98 % is "
    "asked for, at the quality it kept",
    "areas": "Bounded-ARQGC with 95 % intervals",
    "path": "Rule `path`: what tau promises beside what was kept, and what it cost; intervals are of the difference to the promise",
    "reliability": "Predicted against realised quality; error bars: 1.96 standard errors of the bin",
    "tau": "What tau does under `minmax`",
    "support": "Error against support, bins of about equal count with 95 % intervals; dotted: the same prompts without reading them",
}
RUN_BY_ROUTERS = ("litellm",)  # told where a router has loaded one
PACKAGES = ("ipr_engine", "numpy", "scikit-learn", "matplotlib")


def to_json(figures: Mapping[str, Any]) -> str:
    """Return the figures as JSON with six significant digits: more would be noise, and differ between machines."""
    return json.dumps(_rounded(figures), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def _rounded(part: Any) -> Any:
    if isinstance(part, float):
        return float(f"{part:.6g}")
    if isinstance(part, Mapping):
        return {key: _rounded(value) for key, value in part.items()}
    return [_rounded(value) for value in part] if isinstance(part, (list, tuple)) else part


def write(figures: Mapping[str, Any], plots: Sequence[Path], out: Path) -> list[Path]:
    """Write report.md and report.json beside the plots and return both paths."""
    out.mkdir(parents=True, exist_ok=True)
    paths = [out / "report.md", out / "report.json"]
    paths[0].write_text(render(_rounded(figures), plots), encoding="utf-8")
    paths[1].write_text(to_json(figures), encoding="utf-8")
    return paths


def render(figures: Mapping[str, Any], plots: Sequence[Path] = ()) -> str:
    """Return the report as Markdown; `plots` are linked by file name."""
    parts = [
        _head(figures),
        render_equal_quality(figures["equal_quality"], figures["validation"]),
        _routing(figures),
        _differences(figures),
        *([render_one_setting(figures["one_setting"])] if figures.get("one_setting") else []),
        *([render_promised(figures["path"], "cross_fit" in figures)] if "path" in figures else []),
        _savings(figures),
        *([_tau(figures)] if figures["tau"] else []),
        _prediction(figures),
        *([_label_noise(figures["label_noise"])] if figures.get("label_noise") else []),
        *([_support(figures)] if figures.get("support") else []),
        *([render_edits(figures["edits"])] if figures.get("edits") else []),
        _candidates(figures),
        _pair(figures),
    ]
    if plots:
        parts.append("## Plots\n\n" + "\n\n".join(f"![{PLOTS[p.stem]}]({p.name})\n{PLOTS[p.stem]}." for p in plots))
    return "\n\n".join(parts) + "\n"


def _head(f: Mapping[str, Any]) -> str:
    facts = f.get("about", {})
    lines = [f"# Evaluation: {facts.get('title', 'a router')}", ""]
    if f.get("quotable"):
        lines += [" ".join(f["quotable"]), ""]
    if facts.get("command"):
        lines += [f"Written by `{facts['command']}`; do not edit. Every figure is defined in docs/metrics.md.", ""]
    lines += [f"- {key}: {value}" for key, value in facts.items() if key not in ("title", "command", "source")]
    lines += [
        *([_seen(f["seen"], f["rows"]["test"])] if "seen" in f else []),
        *_rows(f),
        *([f"- **areas are undefined** (-): {f['axis']['degenerate']}"] if f["axis"]["degenerate"] else []),
        *(f"- **constant head** of {name}: {why}" for name, why in f["constant"].items()),
        *([f"- **no head** {SHOWN_BLIND}"] if len(f["constant"]) == len(f["candidates"]) else []),
        f"- worths swept: 0, then {f['worths']['settings'] - 1} from {f['worths']['least']:g} to {f['worths']['most']:g} USD",
        f"- operating points chosen on: {f['validation']}",
        f"- brackets: 95 % paired bootstrap intervals over questions, {f['draws']} draws, seed {f['seed']}",
    ]
    return "\n".join(lines)


def _rows(f: Mapping[str, Any]) -> list[str]:
    crossed = f.get("cross_fit")
    rows = f"{f['rows']['train']} train, {f['rows']['test']} test"
    if crossed is not None:
        rows = f"{f['rows']['test']}, each in one of {crossed['folds']} folds"
    cheapest, best = f["axis"]["cheapest"], f["axis"]["best"]
    where = "train" if crossed is None else "all of them"
    return [f"- rows: {rows}", f"- cost axis, chosen on {where}: cheapest `{cheapest}`, best single `{best}`"]


def _seen(seen: Mapping[str, Any], test: int) -> str:
    if seen["prompts"] is None:
        return f"- test prompts that the router was fitted on: not known, {seen['reason']}"
    if seen["prompts"]:
        return f"- **in-sample**: the router was fitted on {seen['prompts']} of the {test} test prompts, or on their questions"
    return "- test prompts that the router was fitted on: none, by the hashes that the bundle keeps"


def _routing(f: Mapping[str, Any]) -> str:
    rows = [
        [
            f"**{c['name']}**" if c["kind"] == "router" else c["name"],
            number(c["area"]),
            number(c["area_oracle"]),
            number(c["aiq"]),
            c["setting"],
        ]
        for c in f["contenders"]
    ]
    return (
        "## Quality over cost\n\nBounded-ARQGC: 0 = the cheapest candidate's quality everywhere; 1 = the best single's (second "
        "column), or the oracle's (third). AIQ is RouterBench's and takes an upper hull on test. The oracle and the hindsight "
        "hull use test outcomes: bounds, not routers.\n\n"
        + table(["", "Bounded-ARQGC (best single = 1)", "Bounded-ARQGC (oracle = 1)", "AIQ", "setting"], rows)
    )


def _differences(f: Mapping[str, Any]) -> str:
    routers = [c["name"] for c in f["contenders"] if c["kind"] == "router"]
    rows = [
        [c["name"], *(number(c["router_minus_this"].get(name), signed=True) for name in routers)]
        for c in f["contenders"]
        if c["kind"] != "router"
    ]
    return (
        "## The router minus each baseline, paired\n\nDifference of Bounded-ARQGC (best single = 1) on the same resamples. "
        "An interval above 0 is a win that is shown; one that holds 0 is not.\n\n"
        + table(["minus", *routers], rows)
        + "\n\nIn words, of the baselines and other routers (no correction for their number):\n\n"
        + "\n".join(verdict(f, name) for name in routers)
    )


def verdict(f: Mapping[str, Any], router: str) -> str:
    """Say in one sentence whom the interval of the difference shows this sweep to beat, to lose to, or neither."""
    parts: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
    for c in f["contenders"]:
        found = c["router_minus_this"].get(router)
        if c["kind"] in ("baseline", "other router") and found is not None and found["low"] is not None:
            key = "above" if found["low"] > 0 else "below" if found["high"] < 0 else "not told apart from"
            parts[key].append(c["name"])
    return f"- **{router}**: " + ". ".join(f"{key}: {'; '.join(names)}" for key, names in parts.items() if names) + "."


def _savings(f: Mapping[str, Any]) -> str:
    rows = []
    for c in f["contenders"]:
        if c["operating_points"]:
            cells = [
                f"{number(p['saved'], 1, percent=True)}; {number(p['kept'], 1, percent=True)}"
                for p in c["operating_points"]
            ]
            rows.append([c["name"], *cells])
    return (
        f"## Cost saved against the best single\n\nThe setting is chosen on the {f['validation']} as the cheapest that keeps the "
        "share of the best single's quality there, then read on test: cost saved; quality really kept. Where no setting "
        "keeps the share, the best single answers (0 % saved). Intervals are of this one setting. In the first table the setting "
        "is chosen anew in every resample, and prompts that the router was fitted on are left out: quote that one.\n\n"
        + table(["", *(f"keep {share:.0%}" for share in SHARES)], rows)
    )


def _tau(f: Mapping[str, Any]) -> str:
    rows = [
        [
            f"{t['tau']:g}",
            number(t["quality"]),
            f"{t['predicted_quality']:.3f}",
            number(per_1000(t["cost_usd"])),
            f"{1000 * t['predicted_cost_usd']:.3f}",
            number(t["saved"], 1, percent=True),
            f"{t['ece_of_chosen']:.3f}",
            f"{t['macro_f1']:.3f}",
            str(t["candidates_used"]),
        ]
        for t in f["tau"]
        if any(abs(t["tau"] - shown) < 1e-9 for shown in SHOWN_TAUS)
    ]
    head = [
        "tau",
        "quality",
        "expected",
        "USD per 1,000",
        "expected",
        "saved against best single",
        "ECE of chosen",
        "macro F1 of cheapest-best",
        "candidates used",
    ]
    return "## tau under `minmax`\n\n" + table(head, rows)


def _prediction(f: Mapping[str, Any]) -> str:
    keys = ("mae", "brier", "ece", "ece_of_best_predicted", "top1", "top1_where_differing", "top3_where_differing")
    rows = [
        [
            p["name"],
            *(plain(p[key]) for key in keys),
            plain(p["cost"]["median_relative"], ".0%"),
            plain(p["cost"]["bias"], ".2f"),
        ]
        for p in f["prediction"]
    ]
    differing = f["prediction"][0]["rows_differing"]
    head = [
        "", "MAE", "Brier", "ECE", "ECE of best predicted", "Top-1", f"Top-1 where candidates differ ({differing} rows)",
        "Top-3 where they differ", "cost: median error", "cost: predicted / real",
    ]  # fmt: skip
    return "## Prediction\n\nECE: ten bins of equal count. Top-k: one of the k attains the row's maximum.\n\n" + table(
        head, rows
    )


def _label_noise(noise: Mapping[str, Any]) -> str:
    return (
        "## Luck in the outcomes\n\n"
        + "\n".join(f"- {sentence}." for sentence in noise["sentences"])
        + "\n- Predictions that knew the expected score of every answer would still have a Brier score of about "
        f"{noise['brier_floor']:.3f}: the outcomes are means of up to {noise['samples']} samples."
    )


def _support(f: Mapping[str, Any]) -> str:
    rows, sentences = [], []
    for source in f["support"]:
        for name, line in ((source["name"], source["overall"]), *(("", line) for line in source["bins"])):
            least, mean, greatest = line["support"]
            figures = (number(line[key]) for key in ("brier", "brier_of_means", "regret", "regret_of_best_single"))
            label = f"**{name}**, {source['models']} candidates" if name else ""
            rows.append([label, f"{mean:.2f} ({least:.2f} to {greatest:.2f})", str(line["prompts"]), *figures])
        halves = source["low_minus_high"]
        if halves is not None:
            found = ", ".join(
                f"{label} {number(halves[key], signed=True)}"
                for key, label in (
                    ("brier", "Brier"),
                    ("brier_of_means", "Brier of training means"),
                    ("regret", "regret"),
                    ("regret_of_best_single", "regret of the best single"),
                )
            )
            sentences.append(f"- {source['name']}, support below its median minus the rest: {found}.")
    head = [
        "", "support: mean (range)", "prompts", "Brier", "Brier of training means", "regret", "regret of best single",
    ]  # fmt: skip
    return (
        "## Error against support\n\nBins of about equal count. Regret: the row's best quality minus that of the candidate predicted "
        "best. Beside both, what ignoring the prompt gives on the same prompts, since prompts differ in difficulty too.\n\n"
        + table(head, rows)
        + ("\n\n" + "\n".join(sentences) if sentences else "")
    )


def _candidates(f: Mapping[str, Any]) -> str:
    rows = [
        [
            c["name"],
            number(c["quality"]),
            *([f"{c['train_quality']:.3f}"] if "train_quality" in c else []),
            f"{c['predicted_quality']:.3f}",
            f"{c['brier']:.3f}",
            plain(c["ece"]) if c["constant"] is None else "- (constant)",
            number(per_1000(c["cost_usd"])),
            f"{1000 * c['predicted_cost_usd']:.3f}",
            plain(c["tokens"]["median_relative"], ".0%") if "tokens" in c else "-",
            plain(c["arena_score"]),
        ]
        for c in f["candidates"]
    ]
    on_train = ["on train"] if "train_quality" in f["candidates"][0] else []
    head = ["candidate", "quality", *on_train, "predicted", "Brier", "ECE", "USD per 1,000", "predicted"]
    head += ["tokens: median error", "RouterArena score"]
    return "## Candidates alone\n\n" + table(head, rows)


def _pair(f: Mapping[str, Any]) -> str:
    rows = [
        [p["name"], number(p["apgr"]), *(number(p[f"cpt_{level:.0%}"]) for level in CPT_LEVELS)]
        for p in f["pair"]["routers"]
    ]
    return (
        f"## RouteLLM's figures on the pair `{f['pair']['weak']}`, `{f['pair']['strong']}`\n\nAPGR: 0.5 is a random order. CPT: share "
        "of prompts the strong model must answer to recover that part of the gap.\n\n"
        + table(["", "APGR", *(f"CPT({level:.0%})" for level in CPT_LEVELS)], rows)
    )


def about(
    basis: CostBasis,
    train: Outcomes,
    test: Outcomes,
    *,
    isa: str,
    realised: str,
    predicts_tokens: bool,
    routers: Sequence[str],
    command: str,
) -> dict[str, Any]:
    """Return what a reader needs to repeat an evaluation, title first. No folder of the machine is named.

    Args:
        train, test: the complete rows. isa: the instruction set that the op ran. realised: what `CostBasis.report` says.
        predicts_tokens: whether the heads predict output tokens. routers: names of the others that were run. command: shown as what
            wrote the report.
    """
    names, bundle = basis.names, basis.bundle
    fitted = bundle.quality_heads.fitted_on
    priors = [f"{name}, {prior}" for name in names if (prior := prior_of(bundle, name)) is not None]
    if fitted.prompt_ids_sha256 == train.prompt_ids_sha256:
        overlap = "exactly the train rows read here: its predictions on train are in-sample"
    else:
        overlap = "not exactly the train rows read here, but some may be among them: in-sample then"
    return {
        "title": f"{bundle.name} bundle, {len(names)} candidate{'s' if len(names) > 1 else ''}, "
        f"on {test.source}, {len(test)} test prompts",
        "command": command,
        "bundle": f"{bundle.name} {bundle.hash}",
        "source": test.source,
        "outcomes": f"{test.source}; test prompt ids sha256 {test.prompt_ids_sha256}",
        "incomplete rows left out": f"{train.dropped} train, {test.dropped} test",
        "router fitted on": f"{fitted.prompts} prompts of {fitted.source}; {overlap}",
        **({"without outcomes of their own": "; ".join(priors)} if priors else {}),
        "decided by": f"the C++ op, {isa}" + _tiers(bundle),
        "realised cost": realised,
        "output tokens": "predicted" if predicts_tokens else "the source's means, since the heads predict none",
        **(
            {"other routers": f"{', '.join(routers)}; fitted on training outcomes, given the test prompts alone"}
            if routers
            else {}
        ),
        "versions": ", ".join(
            f"{name} {found}"
            for name in (*PACKAGES, *(name for name in RUN_BY_ROUTERS if name in sys.modules))
            if (found := _version(name))
        ),
    }


def _tiers(bundle: Bundle) -> str:
    spec = bundle.escalation
    return "" if spec is None else f"; where the gap is below {spec.gap:g} again by the second heads"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
