"""Render the model card of the default bundle: every number in it comes from the figures of the run that wrote it."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np

from ipr_engine.training.default_candidates import DEFAULT_CANDIDATES
from ipr_engine.training.figures import DRAWS, SHARES
from ipr_engine.training.ridge import FORMS, RANKS
from ipr_engine.training.tokens import CAP_PERCENTILE

_FORM_TEXT = {
    "plain": "plain ridge, a penalty per candidate",
    "advantage_shared": "difficulty + advantage, one penalty for all advantages",
    "advantage_each": "difficulty + advantage, a penalty per advantage",
    **{f"advantage_rank{rank}": f"the same, advantages projected to rank {rank}" for rank in RANKS},
}
_CURVE_TEXT = {
    "hull": "hull of single candidates",
    "minmax": "`minmax`, sweep of tau",
    "worth": "sweep of `worth` at tau 1",
    "task": "the task's mean quality instead of heads, sweep of `worth`",
}


def render(figures: dict[str, Any], provenance: dict[str, Any]) -> str:
    """The card as Markdown."""
    blocks = [
        *_meaning(figures, provenance),
        *_recipe(figures, provenance),
        *_forms(figures),
        *_candidates(figures),
        *_routing(figures["routing"]),
        *_limits(figures),
        *_sources(provenance),
    ]
    return "\n\n".join(blocks) + "\n"


def _meaning(figures: dict[str, Any], provenance: dict[str, Any]) -> list[str]:
    families = len({c.family for c in DEFAULT_CANDIDATES})
    counts = ", ".join(f"{name} {rows}" for name, rows in figures["datasets"].items())
    return [
        "# Model card: the default bundle",
        f"Written by `{provenance['command']}`; do not edit.",
        _fill(
            f"{len(DEFAULT_CANDIDATES)} candidates of {families} families: "
            + ", ".join(f"`{c.name}`" for c in DEFAULT_CANDIDATES)
            + "."
        ),
        "## What quality means here",
        _fill("""The chance that the candidate's one answer is **correct** (0/1) on grade-school maths (GSM8K),
            competition maths (MATH level 5) and Python output prediction (CRUX). That is all these heads were fitted
            on. On chat, writing, retrieval or tool calls the predictions are **extrapolation**: read `support` beside
            every decision (1 = nearer to the fitting prompts than any prompt held out, 0 = farther than all of them)
            and fit heads of your own where it is low. The bundle exists so that the library works at once and its
            figures can be checked, not as a judge of LLMs."""),
        _fill(f"""Test prompts by task: {counts}. Mean support of the test prompts: {figures["support"]:.2f}
            (about 0.5 is expected for prompts of the fitting kind)."""),
    ]


def _recipe(figures: dict[str, Any], provenance: dict[str, Any]) -> list[str]:
    encoder, heads, routing = provenance["encoder"], provenance["heads"], figures["routing"]
    cosine = encoder["cosine_to_float32"]
    partial = ", ".join(f"{name} {share:.1%}" for name, share in figures["coverage"].items() if share < 1)
    train_all, test_all = figures["train_rows"] + figures["train_dropped"], routing["rows"] + figures["test_dropped"]
    steps = [
        f"""**Encoder**: {encoder["source"]} distilled by model2vec into {encoder["rows"]} tokens x {encoder["dim"]}
        dimensions (SIF {encoder["sif"]}), {encoder["dtype"]} with a scale per token. Cosine to the float32 table's
        sentence embeddings over {cosine["probes"]} random sentences: mean {cosine["mean"]:.6f}, least
        {cosine["least"]:.6f}.""",
        f"""**Rows**: only prompts on which every candidate has an outcome: {figures["train_rows"]} of {train_all}
        training prompts, {routing["rows"]} of {test_all} test prompts. Incomplete rows are left out, nothing is
        imputed. Share of training prompts that a candidate covers: {partial + ", " if partial else ""}the others
        100 %.""",
        f"""**Quality**: closed-form ridge, form `{heads["form"]}` of the table below, penalties chosen on
        {heads["folds"]} folds of the training split grouped by question; folded into one linear head per candidate.
        Then Platt's map per candidate on out-of-fold scores, folded into weights and bias.""",
        f"""**Output tokens**: ridge on log tokens; Duan's smearing factor (out-of-fold residuals) folded into the
        bias; capped at the {CAP_PERCENTILE}th percentile of the candidate's training tokens.""",
        f"""**Support**: {provenance["support"]["centroids"]} k-means centroids of the training embeddings; percentiles
        of the nearest distance over held-out folds.""",
        f"""**token_ratio is 1.0** for every candidate. The source's input token counts are estimates from the whole
        instruction (the frame around the question included), equal for all candidates, so no real ratio can be learned
        from them; in sum they are {figures["estimated_per_billed"]:.2f} times our counts of the question, which is why
        predicted costs come out somewhat low. Measure yours and set it.""",
        """**Prices** are list prices of 2024 as recorded beside the outcomes; the bundle states the basis of each.
        Check them before quoting a cost. Context windows and features are the providers' public statements.""",
    ]
    return ["## How it was made", "\n".join(_fill(step, f"{i}. ") for i, step in enumerate(steps, 1))]


def _forms(figures: dict[str, Any]) -> list[str]:
    scores = sorted(figures["forms"], key=lambda score: FORMS.index(score.form))
    rows = [
        [
            f"`{s.form}`: {_FORM_TEXT[s.form]}",
            _spread(s.area_tau),
            _spread(s.area_worth),
            f"{np.mean(s.brier):.4f}",
            f"{figures['forms_on_test'][s.form]:.3f}",
        ]
        for s in scores
    ]
    return [
        "## Choice of the form (training split only)",
        _fill(f"""Nested 5-fold cross-validation, repeated {len(scores[0].brier)} times; mean and standard deviation
            over repeats. Area: realised quality over cost between the cheapest and the best single candidate (0 = the
            cheapest's quality everywhere, 1 = the best's). The form of greatest `minmax` area ships; the test split
            has no part in the choice, its column stands for the record (the interval of the shipped one is below).
            The rank forms joined the list after a first look at the test figures of the other three."""),
        _table(["form", "area, `minmax`", "area, `worth` sweep", "Brier", "area, `minmax`, test"], rows),
    ]


def _candidates(figures: dict[str, Any]) -> list[str]:
    columns = ("candidates", "tokens", "mean_cost", "predicted_cost")
    rows = [
        [
            candidate.name,
            _with(own["quality"]),
            f"{own['predicted']:.3f}",
            _with(own["brier"]),
            f"{own['brier_of_mean']:.3f}",
            f"{own['ece']:.3f}",
            f"{1000 * cost:.3f} ({1000 * expected:.3f})",
            f"{tokens['median_error']:.0%}",
        ]
        for candidate, own, tokens, cost, expected in zip(
            DEFAULT_CANDIDATES, *(figures[column] for column in columns), strict=True
        )
    ]
    return [
        f"## Candidates on the test split ({figures['routing']['rows']} prompts)",
        _fill(f"""Brackets: 95 % bootstrap interval over prompts, {DRAWS} draws. Brier of the mean: always predicting
            the candidate's own test mean. ECE: expected calibration error, ten bins of equal size. Cost: USD per 1,000
            prompts, list price x the source's estimated tokens; predicted: by the router. Token error: median of
            |predicted - real| / real output tokens, where real is the source's estimate."""),
        _table(
            [
                "candidate",
                "quality",
                "predicted",
                "Brier",
                "Brier of the mean",
                "ECE",
                "cost (predicted)",
                "token error",
            ],
            rows,
        ),
    ]


def _routing(routing: dict[str, Any]) -> list[str]:
    cheapest, best = (DEFAULT_CANDIDATES[routing[key]].name for key in ("cheapest", "best"))
    on_hull = ", ".join(DEFAULT_CANDIDATES[m].name for m in routing["hull"])
    points = [[f"{tau:g}", *_point(point)] for tau, point in routing["points"].items()]
    points.append(["oracle (knows the outcomes)", *_point(routing["oracle"])])
    curves = [
        [
            _CURVE_TEXT[name],
            _with(curve["area"]),
            _with(curve["over_hull"], sign=True) if "over_hull" in curve else "",
            *("-" if np.isnan(saved) else f"{saved:.0%}" for saved in curve["savings"]),
        ]
        for name, curve in routing["curves"].items()
    ]
    kept = [
        [f"{row['share']:.0%}", f"{row['tau']:g}", _percent(row["point"]["kept"]), _percent(row["point"]["saved"])]
        if row["point"]
        else [f"{row['share']:.0%}", "none reaches it", "", ""]
        for row in routing["chosen_on_train"]
    ]
    return [
        "## Routing on the test split",
        _fill(f"""Cheapest single: {cheapest}. Best single on test: {best}; savings are against its cost. Hull of single
            candidates (what random mixtures of them reach; picked on test, so in their favour): {on_hull}."""),
        _table(["`minmax`, tau", "quality", "USD per 1,000 prompts", "cost saved", "candidates used"], points),
        _fill("""Whole curves. Savings are where the curve, read on test, first reaches that share of the best single's
            quality (- = nowhere)."""),
        _table(["curve", "area", "area minus hull's", *(f"saved at {share:.0%}" for share in SHARES)], curves),
        _fill("""tau chosen on the training split (the greatest that keeps that share of the best single's quality
            there, out of fold), then applied to the test split once, against the best single on test:"""),
        _table(["share wanted", "tau", "quality kept on test", "cost saved on test"], kept),
        _verdict(routing["curves"]),
    ]


def _verdict(curves: dict[str, Any]) -> str:
    """In words, by the interval of the difference to the hull."""
    said = []
    for name in ("minmax", "worth"):
        value, (low, high) = curves[name]["over_hull"]
        word = "beats" if low > 0 else "is worse than" if high < 0 else "is not shown to beat"
        said.append(f"{_CURVE_TEXT[name]}, {word} it ({value:+.3f}, {low:+.3f} to {high:+.3f})")
    task = curves["task"]["area"][0]
    heads = curves["worth"]["area"][0]
    lesson = (
        "what is learned beyond the task does not show on this split" if heads <= task else "the rest is the prompt's"
    )
    return _fill(f"""**In words**, by area against the hull of single candidates on this split: {"; ".join(said)}.
        Knowing only which of the three tasks a prompt belongs to, and nothing else of it, reaches {task:.3f}; the heads
        reach {heads:.3f} by the same sweep: {lesson}.""")


def _limits(figures: dict[str, Any]) -> list[str]:
    points = [
        "One sampled answer per prompt and candidate: part of every gap to the oracle is noise.",
        f"""{figures["advantage_share"]:.0%} of the variance of training outcomes lies between candidates on the same
        prompt, which is what routing can use; the rest is how hard the prompt is.""",
        """One small test split of the same three tasks: the intervals cover its sampling, not another workload.""",
        """Costs are list prices x token counts estimated from stored text, not bills.""",
        "Models, prices and providers change; these are candidates of 2024.",
    ]
    return ["## Limits", "\n".join(_fill(point, "- ") for point in points)]


def _sources(provenance: dict[str, Any]) -> list[str]:
    outcomes, encoder = provenance["outcomes"], provenance["encoder"]
    points = [
        f"""Outcomes: {outcomes["source"]}, commit {outcomes["commit"]}, {outcomes["licence"]}. No prompt and no
        outcome is contained in the bundle.""",
        f"""Encoder: {encoder["source"]}, {encoder["licence"]}, weights sha256 `{encoder["source_weights_sha256"]}`;
        distilled with model2vec {encoder["versions"]["model2vec"]} (MIT).""",
        "Method: IPR, *Intelligent Prompt Routing*, arXiv 2509.06274; Platt (1999); Duan (1983).",
    ]
    return ["## Sources and licences", "\n".join(_fill(point, "- ") for point in points)]


def _fill(text: str, bullet: str = "") -> str:
    return textwrap.fill(
        " ".join(text.split()),
        120,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _with(value: tuple[float, tuple[float, float]], *, sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    middle, (low, high) = value
    return f"{middle:{form}} [{low:{form}}, {high:{form}}]"


def _percent(value: tuple[float, tuple[float, float]]) -> str:
    middle, (low, high) = value
    return f"{middle:.1%} [{low:.1%}, {high:.1%}]"


def _point(point: dict[str, Any]) -> list[str]:
    middle, (low, high) = point["cost"]
    cost = f"{1000 * middle:.3f} [{1000 * low:.3f}, {1000 * high:.3f}]"
    return [_with(point["quality"]), cost, _percent(point["saved"]), str(point["candidates_used"])]


def _spread(values: Sequence[float]) -> str:
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
