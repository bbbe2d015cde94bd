"""This study stands beside RouteLLM (arXiv 2406.18665): GPT-4 or Mixtral 8x7B, its test prompts and figures; heads of other outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipr_engine.data import Outcomes, load_outcomes
from ipr_engine.evaluation.prediction_lines import CPT_LEVELS, apgr, cpt, pair_curve
from ipr_engine.measures.resampling import Resamples, estimate, one_thread
from ipr_engine.training.fitted_heads import FittedHeads, HeadRows, fit_heads, predict
from studies.bars import Series, intervals
from studies.pages import Page
from studies.study import Study
from studies.trials import shown

Array = npt.NDArray[np.float64]

SOURCE = "routellm"
WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
DATASETS = ("mmlu", "gsm8k", "mt_bench")
ESTIMATORS = ("plain", "caps")
ITSELF = "routellm itself"

# APGR as it can be read off RouteLLM's benchmark page, +-0.01.
PUBLISHED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "gsm8k": {"causal LLM": 0.62, "matrix factorisation": 0.57, "BERT": 0.53},
        "mt_bench": {"SW-ranking with augmentation": 0.76, "SW-ranking": 0.61},
    }
)
PUBLISHED_ENDS: Mapping[str, str] = MappingProxyType(
    {"mmlu": "68.1 / 80.6", "gsm8k": "63.7 / 85.8", "mt_bench": "8.28 / 9.21"}
)


@dataclass(frozen=True)
class Training:
    """A `Training` is a source to fit on, with its names of the weak and the strong candidate, None where it has no such column."""

    source: str
    weak: str | None
    strong: str | None


ROUTERBENCH = Training("routerbench_sub", "mistralai/mixtral-8x7b-chat", "gpt-4-1106-preview")
BFCL = Training("bfcl", "open-mixtral-8x7b", "gpt-4-1106-preview")
MMLU_PRO, OPENLLM = "mmlu_pro", "openllm19"
MIXTRAL = "Mixtral-8x7B-Instruct-v0.1"

SETS: Mapping[str, tuple[Training, ...]] = MappingProxyType(
    {
        "routerbench_sub": (ROUTERBENCH,),
        "+ bfcl": (ROUTERBENCH, BFCL),
        "+ Mixtral of mmlu_pro, openllm19": (
            ROUTERBENCH,
            Training(MMLU_PRO, MIXTRAL, None),
            Training(OPENLLM, f"mistralai/{MIXTRAL}", None),
        ),
        "+ the same, with stand-ins": (
            ROUTERBENCH,
            Training(MMLU_PRO, MIXTRAL, "gemini-1.5-pro-002"),
            Training(OPENLLM, f"mistralai/{MIXTRAL}", "Qwen/Qwen2.5-72B-Instruct"),
        ),
    }
)


@dataclass(frozen=True, eq=False)
class Pair:
    """A `Pair` holds prompts with the quality (rows, 2) of the weak and the strong candidate, NaN where a source has no such column."""

    prompts: list[str]
    keys: list[str]
    source: npt.NDArray[np.int64]
    quality: Array


def load_pair(study: Study, parts: Sequence[Training], test: Outcomes) -> Pair:
    """Read all prompts of the sources (both splits: the test is elsewhere) whose question `test` does not ask."""
    prompts: list[str] = []
    keys: list[str] = []
    numbers, tables = [], []
    for number, part in enumerate(parts):
        study.progress(f"reading {part.source} ...")
        data = load_outcomes(study.outcomes / part.source).without_questions_of(test)
        quality = np.full((len(data), 2), np.nan)
        for column, name in enumerate((part.weak, part.strong)):
            if name is not None:
                quality[:, column] = data.quality[:, data.models.index(name)]
        prompts += [last_question(prompt) if part is ROUTERBENCH else prompt for prompt in data.prompts]
        keys += data.question_keys
        numbers.append(np.full(len(data), number, np.int64))
        tables.append(quality)
    return Pair(prompts, keys, np.concatenate(numbers), np.concatenate(tables))


def last_question(prompt: str) -> str:
    """Return the last block of a few-shot prompt: the worked examples above it are the same for every prompt of a task.

    Example:
        >>> last_question("1 + 1? Answer: 2\\n\\n2 + 3? Answer:")
        '2 + 3? Answer:'
    """
    return prompt.rstrip().rpartition("\n\n")[2]


def advantage(x: Array, pair: Pair, test_x: Array, estimator: str) -> Array:
    """Return predicted quality of the strong candidate less that of the weak one, (test rows,)."""
    heads = _fit(x, pair, estimator)
    quality, _ = predict(heads.tensors, test_x, heads.activation)
    return np.asarray(quality[:, 1] - quality[:, 0])


def section(page: Page, study: Study, views: Sequence[str]) -> list[Path]:
    """Write RouteLLM's part of the page; return the plot's path."""
    study.progress(f"reading {SOURCE} ...")
    test = load_outcomes(study.outcomes / SOURCE).select((WEAK, STRONG)).complete()
    page.say("## RouteLLM's pair: GPT-4 (1106) or Mixtral 8x7B")
    page.say(
        f"""RouteLLM's outcomes and test prompts ({len(test)}), its figures (docs/metrics.md section 3): APGR, the share of
        the quality gap recovered on average over shares of GPT-4 calls (0.5 = random), and CPT(y), the share of GPT-4
        calls that recovers y of the gap (y = random), lower is better. A prompt's score is predicted quality of GPT-4
        less that of Mixtral. **Comparable:** candidates, outcomes, test prompts, figures. **Not comparable: the
        training data.** RouteLLM's routers are trained on human comparisons of Chatbot Arena, the augmented ones also
        on judged or labelled prompts near the benchmarks; here heads are fitted on the outcomes named in the first
        column (+: beside routerbench_sub), questions that RouteLLM's test asks too removed by question key.
        routerbench_sub holds ARC, Winogrande and MBPP prompts only: neither mathematics nor chat. *Stand-ins*: Gemini
        1.5 Pro (mmlu_pro) and Qwen 2.5 72B (openllm19) fill the column of a GPT-4 that those sources lack. Every source
        but the first has an intercept. *{ITSELF}*: the same heads fitted on RouteLLM's own test prompts, each scored
        out of fold: no competitor, but what outcomes of the same kind give on these embeddings. Published APGR are read
        off RouteLLM's benchmark page (+-0.01); no CPT of these three sets could be read there, and no APGR of MMLU."""
    )
    scores = _scores(test, study, views)
    sets = {name: np.asarray(test.datasets) == name for name in DATASETS}
    apgrs: dict[str, dict[str, Array]] = {name: {} for name in DATASETS}
    for dataset, rows in sets.items():
        resamples = Resamples(int(rows.sum()), draws=study.draws)
        table = []
        for name, score in scores.items():
            sent, quality = pair_curve(score[rows], test.quality[rows, 0], test.quality[rows, 1], resamples)
            apgrs[dataset][name] = apgr(sent, quality)
            table.append(
                [
                    *name.rsplit("; ", 2),
                    shown(apgrs[dataset][name]),
                    *(shown(cpt(sent, quality, y)) for y in CPT_LEVELS),
                ]
            )
        weak, strong = (resamples.means(test.quality[rows, column])[0] for column in (0, 1))
        ends = (1 + 9 * weak, 1 + 9 * strong) if dataset == "mt_bench" else (100 * weak, 100 * strong)
        page.say(f"### {dataset}")
        page.say(
            f"""{int(rows.sum())} prompts. Mixtral / GPT-4 alone: {ends[0]:.2f} / {ends[1]:.2f}, published
            {PUBLISHED_ENDS[dataset]}. Published APGR: {
                "; ".join(f"{name} {value}" for name, value in PUBLISHED.get(dataset, {}).items())
                or "none that could be read"
            }."""
        )
        page.table(["fitted on", "estimator", "view", "APGR", *(f"CPT({100 * y:.0f} %)" for y in CPT_LEVELS)], table)
    plot = intervals(
        study.out / "published_routellm.png",
        list(scores),
        [Series(dataset, {name: estimate(values) for name, values in by.items()}) for dataset, by in apgrs.items()],
        title="RouteLLM's pair: average share of the quality gap recovered",
        axis="APGR with 95 % bootstrap intervals; dotted: random",
        lines=(0.5,),
        limits=(0.2, 0.9),
    )
    page.plot(plot, "APGR by training data, estimator and view; an arrow: the interval goes on beyond the axis")
    page.figures[SOURCE] = {
        "published_apgr": {name: dict(values) for name, values in PUBLISHED.items()},
        "apgr": {d: {name: estimate(values).to_json() for name, values in by.items()} for d, by in apgrs.items()},
    }
    return [plot]


def _scores(test: Outcomes, study: Study, views: Sequence[str]) -> dict[str, Array]:
    """Map "training set; estimator; view" to scores of the test prompts."""
    pairs = {
        name: load_pair(study, parts, test)
        for name, parts in SETS.items()
        if all((study.outcomes / part.source).is_dir() for part in parts)
    }
    itself = Pair(list(test.prompts), list(test.question_keys), np.zeros(len(test), np.int64), test.quality)
    scores = {}
    for view in views:
        study.progress(f"{SOURCE}: embedding, {view} ...")
        test_x = study.views.see(view, test.prompts)
        for name, pair in pairs.items():
            x = study.views.see(view, pair.prompts)
            for estimator in ESTIMATORS:
                study.progress(f"{name}: {estimator}, {view} ...")
                scores[f"{name}; {estimator}; {view}"] = advantage(x, pair, test_x, estimator)
        for estimator in ESTIMATORS:
            study.progress(f"{ITSELF}: {estimator}, {view} ...")
            held_out = _fit(test_x, itself, estimator).out_of_fold_quality
            scores[f"{ITSELF}; {estimator}; {view}"] = held_out[:, 1] - held_out[:, 0]
    return scores


def _fit(x: Array, pair: Pair, estimator: str) -> FittedHeads:
    several = pair.source if pair.source.max() > 0 else None
    with one_thread():  # no token counts that would matter here: the figures count calls
        return fit_heads(
            HeadRows(x, pair.quality, np.ones_like(pair.quality), pair.keys, source=several), estimator=estimator
        )
