"""This study asks how far seconds to the first and per output token explain recorded answers, and what weighing seconds buys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.measures.resampling import Estimate
from studies.pages import Page
from studies.performance_answers import SOURCE, RatedAnswers, read_rated_answers
from studies.performance_plots import plot_answers, plot_trade
from studies.performance_trade import (
    ASKED,
    ESTIMATOR,
    FOLDS,
    MEASURES,
    WEIGHTS,
    Trade,
    TradePoint,
    folds_of,
    route_by_weight,
    timing_of,
)
from studies.study import Study

Array = npt.NDArray[np.float64]

FEW = "haiku"  # in the names that the second set leaves out: both are among the cheapest and the fastest
SHOWN = (0.0, 1e-4, 1e-3, 1e-2, 1.0)  # weights in the table; the plot and the JSON have them all


def run(study: Study) -> list[Path]:
    study.names((SOURCE,))
    study.progress(f"reading {SOURCE} ...")
    answers = read_rated_answers(study.outcomes / SOURCE)
    page = study.page("performance", "Speed: from recorded answers to routing by seconds")
    few = tuple(name for name in answers.models if FEW in name)
    sets = {"all": (), **({"without Haiku": few} if few else {})}
    trade = route_by_weight(answers, sets, study.draws, study.progress)
    _opening(page, answers, study.draws)
    plots = [_explained(page, answers, trade, study.out), _traded(page, answers, trade, study.out)]
    return [*page.write(study.out), *plots]


def _opening(page: Page, answers: RatedAnswers, draws: int) -> None:
    count = int((~np.isnan(answers.seconds)).sum())
    page.say(
        f"""{SOURCE}: {len(answers.prompts)} prompts that sound like business or science and mean nothing, {count} answers of
        {len(answers.models)} models with their output tokens, USD and seconds, as OpenRouter recorded them once each; quality: the
        mean of the judges, 0 (plays along) to 1 (says that it is nonsense). The two judges that rated every answer correlate at
        {answers.raters_agree:.2f}. Answers come from petergpt/bullshit-benchmark (MIT)."""
    )
    page.say(
        f"""**What it can show**: whether a line through whole answers tells seconds, and that weighing seconds moves choices as it
        should. **What it cannot**: {len(answers.prompts)} prompts of one odd kind say little about quality on other prompts; one
        recording of one provider at one time says nothing about another day or another provider; time to the first token was not
        recorded, and thinking is counted in output tokens by some models and not by others. Intervals: 95 %, {draws} bootstrap
        resamples of prompts."""
    )


def _explained(page: Page, answers: RatedAnswers, trade: Trade, out: Path) -> Path:
    page.say("## Does a line through output tokens tell seconds?")
    page.say(
        f"""`seconds = ttft_s + tpot_s * output tokens`, fitted by `ipr performance fit` (Huber's loss, 95 % intervals). *Error*:
        mean absolute error in seconds on answers that the fit has not seen ({FOLDS} folds of prompts): of this line, of least squares,
        of the model's mean, and of the line with output tokens *predicted* by heads of the other folds, which is what a router has.
        *Explained*: 1 - squared error over that of the mean, out of fold. *Bias*: mean of predicted - recorded."""
    )
    whole = timing_of(answers, np.arange(len(answers.prompts)))
    errors = _errors(answers, trade.tokens)
    rows = []
    for m, (name, fit) in enumerate(zip(answers.models, whole, strict=True)):
        own = errors[name]
        ttft, tpot = (
            " ".join((f"{scale * part.value:.3g}", f"[{scale * part.low:.3g}, {scale * part.high:.3g}]"))
            for part, scale in ((fit.ttft_s, 1), (fit.tpot_s, 1000))
        )
        rows.append(
            [
                name, str(fit.answers), f"{np.nanmean(answers.seconds[:, m]):.1f}", ttft, tpot,
                *(f"{own[key]:.2f}" for key in ("line", "least_squares", "mean", "predicted_tokens")),
                f"{own['explained']:.0%}", f"{own['bias']:+.2f}",
            ]
        )  # fmt: skip
    header = ["model", "answers", "mean s", "ttft_s", "tpot, ms", "error: line", "least squares", "mean",
              "line, predicted tokens", "explained", "bias"]  # fmt: skip
    page.table(header, rows)
    line, mean = (np.array([errors[name][key] for name in answers.models]) for key in ("line", "mean"))
    explained = sorted(errors.items(), key=lambda item: item[1]["explained"])
    tokens = np.array([errors[name]["predicted_tokens"] for name in answers.models])
    page.say(
        f"""The line's error is {line.sum() / mean.sum():.0%} of the mean's, summed over models; it explains
        {explained[0][1]["explained"]:.0%} ({explained[0][0]}) to {explained[-1][1]["explained"]:.0%} ({explained[-1][0]}) of a
        model's variance. With predicted output tokens its error is {tokens.sum() / mean.sum():.0%} of the mean's: what a router
        knows of one prompt's seconds is mostly which model answers."""
    )
    page.figures["explained"] = {
        name: {**fit.to_json(), "out_of_fold": errors[name]} for name, fit in zip(answers.models, whole, strict=True)
    }
    path = plot_answers(out / "performance_answers.png", answers, whole)
    page.plot(path, "Seconds over output tokens, a point an answer, with the fitted line of each model")
    return path


def _errors(answers: RatedAnswers, predicted_tokens: Array) -> dict[str, dict[str, float]]:
    """Return out-of-fold figures of each model; predicted_tokens: (prompts, models), of heads of the other folds."""
    fold = folds_of(answers)
    made = {
        kind: np.full_like(answers.seconds, np.nan) for kind in ("line", "least_squares", "mean", "predicted_tokens")
    }
    for number in range(FOLDS):
        inside, outside = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        for m, fit in enumerate(timing_of(answers, inside)):
            own = inside[~np.isnan(answers.seconds[inside, m])]
            tokens, seconds = answers.output_tokens[own, m], answers.seconds[own, m]
            plain = np.linalg.lstsq(np.stack([np.ones(len(own)), tokens], axis=1), seconds, rcond=None)[0]
            of = answers.output_tokens[outside, m]
            made["line"][outside, m] = fit.ttft_s.value + fit.tpot_s.value * of
            made["least_squares"][outside, m] = plain[0] + plain[1] * of
            made["mean"][outside, m] = seconds.mean()
            made["predicted_tokens"][outside, m] = fit.ttft_s.value + fit.tpot_s.value * predicted_tokens[outside, m]
    found = {}
    for m, name in enumerate(answers.models):
        miss = {kind: (values - answers.seconds)[:, m] for kind, values in made.items()}
        own = {kind: float(np.nanmean(np.abs(error))) for kind, error in miss.items()}
        own["explained"] = float(1 - np.nanmean(miss["line"] ** 2) / np.nanmean(miss["mean"] ** 2))
        own["bias"] = float(np.nanmean(miss["line"]))
        found[name] = own
    return found


def _traded(page: Page, answers: RatedAnswers, trade: Trade, out: Path) -> Path:
    page.say("## What weighing seconds buys")
    bad, heads = trade.constant
    page.say(
        f"""A bundle by `ipr train` ({ESTIMATOR}) without each of {FOLDS} folds, with figures fitted without it; then
        `engine.policy(..., cost_weights={{"usd": 1, "ttft_s": w, "generation_s": w}})` on the fold, with a tau under rule `path`, or at
        a fixed worth of quality (`rule="minmax", tau=1, worth=0.2`).
        {len(answers.complete)} prompts that every model answered are counted, with the recorded quality, USD and seconds of whoever
        was chosen. {bad} of the {heads} heads are constant by the test of `ipr train`: with so few prompts, most of what is
        predicted is the model's mean. So read this as a trade between models, not between prompts."""
    )
    page.say(
        """Tau is the share of the way from the best candidate's quality to the cheapest's that may be lost, and with weights *cheapest*
        means the least weighted sum. So as another candidate becomes the cheapest, the same tau promises another quality, and mean
        seconds may rise with the weight. At tau 1, or at a fixed worth, expected seconds do not."""
    )
    page.say("The models alone:")
    page.table(
        ["model", *MEASURES], [[name, *_shown(p)] for name, p in zip(answers.models, trade.singles, strict=True)]
    )
    for name in dict.fromkeys(key[0] for key in trade.lines):
        left = [model for model in answers.models if FEW in model] if name != "all" else []
        page.say(f"### {name}" + (f": {', '.join(left)} excluded" if left else ""))
        rows = []
        for asked in ASKED:
            for point in trade.lines[name, asked]:
                if point.weight in SHOWN:
                    chosen = sorted(zip(answers.models, point.shares, strict=True), key=lambda pair: -pair[1])
                    most = ", ".join(f"{model} {share:.0%}" for model, share in chosen[:3] if share > 0)
                    rows.append([asked, f"{point.weight:g}", *_shown(point), f"{point.expected_s:.1f}", most])
        page.table(["asked", "USD per second", *MEASURES, "seconds expected", "mostly chosen"], rows)
        page.say(_verdict(trade, name))
    page.figures["trade"] = [
        {"set": name, "asked": asked, "points": [_json(answers, point) for point in points]}
        for (name, asked), points in trade.lines.items()
    ]
    page.figures["constant_heads"] = {"constant": bad, "heads": heads}
    page.figures["singles"] = {name: _json(answers, p) for name, p in zip(answers.models, trade.singles, strict=True)}
    path = plot_trade(out / "performance.png", trade)
    page.plot(
        path, "Realised means over the weight on seconds, a line a way to ask, 95 % bootstrap bands; left: USD alone"
    )
    return path


def _verdict(trade: Trade, name: str) -> str:
    parts = []
    for asked in ASKED:
        first, last = trade.lines[name, asked][0], trade.lines[name, asked][-1]
        parts.append(
            f"{asked}: seconds {first.seconds.value:.1f} to {last.seconds.value:.1f}, USD per 1,000 prompts {first.usd.value:.2f} to "
            f"{last.usd.value:.2f}, quality {first.quality.value:.2f} to {last.quality.value:.2f}"
        )
    return f"From USD alone to {WEIGHTS[-1]:g} USD per second: {'; '.join(parts)}."


def _shown(point: TradePoint) -> list[str]:
    def stated(part: Estimate, digits: int) -> str:
        return f"{part.value:.{digits}f} [{part.low:.{digits}f}, {part.high:.{digits}f}]"

    return [stated(point.quality, 2), stated(point.usd, 2), stated(point.seconds, 1)]


def _json(answers: RatedAnswers, point: TradePoint) -> dict[str, Any]:
    return {
        "usd_per_second": point.weight,
        "quality": point.quality.to_json(),
        "usd_per_1k": point.usd.to_json(),
        "seconds": point.seconds.to_json(),
        "seconds_expected": None if np.isnan(point.expected_s) else point.expected_s,
        "shares": {name: float(s) for name, s in zip(answers.models, point.shares, strict=True) if s > 0},
    }
