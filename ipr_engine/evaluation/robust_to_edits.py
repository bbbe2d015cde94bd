"""`edit_figures` decides test prompts again after edits that ask for nothing else: how many decisions flip, what is lost, what it costs.

An edit is one of `EDITS`. Beside them stand suffixes, which somebody may put behind every prompt to be sent to a dearer candidate: a
sentence of mathematics, and words found by a search on training prompts. Outcomes and costs are those recorded of the prompts as they
are, so a figure says what another choice is worth, and nothing of how a candidate answers the edited text (docs/metrics.md, section 8).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data.prompt_edits import EDITS, MATHS
from ipr_engine.evaluation.baselines import kmeans
from ipr_engine.evaluation.evaluation_inputs import Split
from ipr_engine.evaluation.robust_to_edits_text import FAILS, HOLDS, NOTHING, OPEN, sentences_of, shown
from ipr_engine.evaluation.searched_suffix import searched_suffix, words_of
from ipr_engine.measures.resampling import Resamples, drawn_questions, estimate, resamples_of
from ipr_engine.measures.routing import Axis, WeightedOutcomes
from ipr_engine.measures.sweeps import worth_sweep

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Choices = npt.NDArray[np.integer]

SHARE = 0.98  # of the best single candidate's quality: the setting by worth
TAUS = (0.1, 0.3, 0.5)
LOST, RAISED = 0.01, 0.10  # the most of mean quality that an edit may lose, and by how much it may raise the mean cost
SUPPORTED = 0.02  # a prompt of less support may be told from others by `min_support` (docs/usage.md)
JUDGED = 256  # training prompts on which is told what the words found are worth
MOST_CLUSTERED = 3000  # prompts on which k-means is asked too
A_SENTENCE, SEARCHED = "a sentence of mathematics behind it", "searched words behind it"


@dataclass(frozen=True, eq=False)
class Redecided:
    """A `Redecided` holds decisions on some texts.

    Attributes:
        choices: (settings, texts) positions among the evaluated candidates. support: (texts,), None where none is measured.
        x: (texts, dim) embeddings without tasks and surface features.
    """

    choices: Choices
    support: Array | None
    x: Array


@dataclass(frozen=True, eq=False)
class EditedFor:
    """An `EditedFor` is what edits are judged on.

    Attributes:
        axis: whose best candidate sets the setting by worth.
        test: the split that is decided, its prompts, and the task of each, None where none is known.
        train_prompts, train_x, train_outcomes: of the training split, embeddings without tasks and surface features.
        folds: (train rows,) fold numbers, for k-means. crossed: whether both splits are the same rows, each decided by its fold's heads.
        worths: of the sweep "worth" of the test split. rule: of the settings by tau.
        decide: the engine's decisions on texts, each for a task, under each of some policy options. tokens: counts those of a text.
        searches: whether many more texts may be asked to search words.
    """

    axis: Axis
    test: Split
    prompts: Sequence[str]
    tasks: Sequence[str | None]
    train_prompts: Sequence[str]
    train_x: Array
    train_outcomes: WeightedOutcomes
    folds: npt.NDArray[np.int64]
    crossed: bool
    worths: Array
    rule: str
    decide: Callable[[Sequence[str], Sequence[str | None], Sequence[Mapping[str, Any]]], Redecided]
    tokens: Callable[[str], int]
    searches: bool


def edit_figures(
    on: EditedFor, *, draws: int, seed: int, progress: Callable[[str], None] = lambda message: None
) -> dict[str, Any]:
    """Return the figures as plain JSON.

    Returns:
        {"share", "share_kept", "limits": {"lost", "raised"}, "supported", "settings": [name, ...], "lines": [line, ...],
        "sentences": [text, ...]}; "share_kept" is false where no worth keeps the share, and the first setting then is the greatest. A
        line is {"name", "kind": "edit" or "suffix", "changed": share of prompts whose text is another, "settings": [{"flipped", "lost",
        "raised": estimates}, ...] in the order of "settings", "flipped_by_kmeans", "unsupported": [before, after] or None, "verdict",
        "because": [text, ...]}.
    """
    outcomes = on.test.outcomes
    resamples = resamples_of(on.test.groups, draws=draws, seed=seed)
    at, keeps = _reached(on.test.sweeps["worth"], outcomes.quality, on.axis)
    first = f"worth of {SHARE:.0%}" if keeps else "greatest worth"
    settings = {first: {"rule": "minmax", "tau": 1.0, "worth": float(on.worths[at])}}
    settings |= {f"tau {tau:g}": {"rule": on.rule, "tau": tau} for tau in TAUS}
    plan = list(settings.values())
    before = on.decide(on.prompts, on.tasks, plan)
    drawn = drawn_questions(on.test.groups, MOST_CLUSTERED, seed=seed)
    seen = [before.x[drawn]]
    lines: list[dict[str, Any]] = []
    for name, kind, texts in _rewritten(on, plan[0], seed, progress):
        progress(f"{name} ...")
        # A text without a token is refused: its prompt stays as it was.
        asked = [text if on.tokens(text) else prompt for text, prompt in zip(texts, on.prompts, strict=True)]
        changed = float(np.mean([text != prompt for text, prompt in zip(asked, on.prompts, strict=True)]))
        after = on.decide(asked, on.tasks, plan)
        choices, unsupported = after.choices, None
        if before.support is not None and after.support is not None:
            unsupported = [float((some < SUPPORTED).mean()) for some in (before.support, after.support)]
            if kind == "suffix":  # told apart, so it is the owner's to say who answers
                choices = np.where(after.support < SUPPORTED, before.choices, choices)
        figures = [redecided_figures(*pair, outcomes, resamples) for pair in zip(before.choices, choices, strict=True)]
        seen.append(after.x[drawn])
        lines.append({"name": name, "kind": kind, "changed": changed, "settings": figures, "unsupported": unsupported})
    for line, flipped in zip(lines, _flipped_by_kmeans(on, drawn, seen), strict=True):
        line |= {"flipped_by_kmeans": flipped, **verdict_of(list(settings), line["settings"])}
        if not line["changed"]:  # then nothing is withstood, either
            line["verdict"] = NOTHING
    return {
        "share": SHARE,
        "share_kept": keeps,
        "limits": {"lost": LOST, "raised": RAISED},
        "supported": SUPPORTED,
        "settings": list(settings),
        "lines": lines,
        "sentences": sentences_of(lines),
    }


def failed(figures: Mapping[str, Any]) -> list[str]:
    """Return the names of the edits and suffixes that fail."""
    return [line["name"] for line in figures["lines"] if line["verdict"] == FAILS]


def _reached(sweep: Choices, quality: Array, axis: Axis) -> tuple[int, bool]:
    """Return the cheapest setting that keeps `SHARE` of the best single's quality on these very prompts, and whether one does.

    Where none does it is the last: of a sweep of worth the greatest, of the highest predicted quality.
    """
    every = np.arange(len(quality))
    wanted = SHARE * quality[:, axis.best].mean()
    found = next((k for k, chosen in enumerate(sweep) if quality[every, chosen].mean() >= wanted), None)
    return (len(sweep) - 1, False) if found is None else (found, True)


def _rewritten(
    on: EditedFor, policy: Mapping[str, Any], seed: int, progress: Callable[[str], None]
) -> list[tuple[str, str, list[str]]]:
    """Return (name, kind, texts) of every edit and suffix. policy: under which the words are searched."""
    made = [(name, "edit", [edit(prompt) for prompt in on.prompts]) for name, edit in EDITS.items()]
    made.append((A_SENTENCE, "suffix", [prompt + MATHS for prompt in on.prompts]))
    if not on.searches:
        progress("no words are searched: that is done for a bundle itself, on a table")
        return made
    progress("searching words that send prompts to dearer candidates ...")
    spent = on.train_outcomes.cost.mean(axis=0)

    def cost(texts: Sequence[str]) -> Array:
        found = on.decide(texts, [None] * len(texts), [policy])
        # Whoever searches knows `min_support`, too: what it tells apart is nothing won.
        told = np.zeros(len(texts), np.bool_) if found.support is None else found.support < SUPPORTED
        return np.asarray(np.where(told, spent.min(), spent[found.choices[0]]))

    suffix = searched_suffix(words_of(on.train_prompts), on.train_prompts, cost, seed=seed)
    some = list(on.train_prompts[:JUDGED])
    plain, now = (float(cost(texts).mean()) for texts in (some, [text + suffix for text in some]))
    if now > plain > 0:
        progress(f"found; the mean cost of {len(some)} training prompts is raised by {now / plain - 1:.0%}:{suffix}")
    else:
        progress(f"no word raises the mean cost of {len(some)} training prompts; asked all the same:{suffix}")
    return [*made, (SEARCHED, "suffix", [prompt + suffix for prompt in on.prompts])]


def redecided_figures(
    before: Choices, after: Choices, outcomes: WeightedOutcomes, resamples: Resamples
) -> dict[str, Any]:
    """Return the share of decisions flipped, mean quality lost, and the mean cost over that before, less 1: an estimate each."""
    every = np.arange(len(before))
    quality, cost = outcomes.quality, outcomes.cost
    sums = resamples.sums(
        np.stack(
            [
                (before != after).astype(np.float64),
                quality[every, before] - quality[every, after],
                cost[every, before],
                cost[every, after],
            ],
            axis=1,
        )
    )  # (1 + draws, 4)
    paid = sums[:, 2]
    raised = np.divide(sums[:, 3], paid, out=np.full_like(paid, np.nan), where=paid > 0) - 1
    figures = {"flipped": sums[:, 0] / resamples.totals, "lost": sums[:, 1] / resamples.totals, "raised": raised}
    return {name: estimate(values).to_json() for name, values in figures.items()}


def _flipped_by_kmeans(on: EditedFor, drawn: Mask, seen: Sequence[Array]) -> list[float]:
    """Return the share of the drawn prompts that k-means decides otherwise after each edit, at its own setting of the share.

    seen: the embeddings of the drawn prompts, and then of each edit of them.
    """
    x, outcomes, folds = on.train_x, on.train_outcomes, on.folds
    models, rows = outcomes.models, len(seen[0])
    made = np.empty((len(seen), rows, 2 * models))
    stacked = np.stack(seen)
    parts = [(np.ones(len(x), np.bool_), np.ones(rows, np.bool_))]
    if on.crossed:
        parts = [(folds != fold, folds[drawn] == fold) for fold in np.unique(folds)]
    for fitted, asked in parts:
        at = stacked[:, asked].reshape(-1, x.shape[1])
        found = kmeans(x[fitted], outcomes.subset(fitted), folds[fitted], at)
        made[:, asked] = np.concatenate([found.quality, found.cost], axis=1).reshape(len(seen), -1, 2 * models)
    quality, cost = made[:, :, :models], made[:, :, models:]
    held = on.test.outcomes.subset(drawn)
    place, _ = _reached(worth_sweep(quality[0], cost[0], on.worths), held.quality, on.axis)
    chosen = [worth_sweep(q, c, on.worths[[place]])[0] for q, c in zip(quality, cost, strict=True)]
    return [float((after != chosen[0]).mean()) for after in chosen[1:]]


def verdict_of(settings: Sequence[str], figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Say of an edit whether it holds at every setting, fails at one, or cannot be told; and why it does not hold."""
    because, open_ = [], False
    for setting, found in zip(settings, figures, strict=True):
        for name, limit, text in (("lost", LOST, "quality lost"), ("raised", RAISED, "cost raised")):
            low, high = found[name]["low"], found[name]["high"]
            if low is None:  # no draw, or nothing was paid
                open_ = True
            elif low > limit:
                because.append(f"at {setting} {text} {shown(name, found[name])}")
            else:
                open_ |= high > limit
    return {"verdict": FAILS if because else OPEN if open_ else HOLDS, "because": because}
