"""This study asks what of a conversation an encoder should see: its last turn, all of the user's turns, or the earlier ones with less
weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.conversation import RECENCY
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.conversations import encode_conversations
from ipr_engine.measures.resampling import Estimate, drawn_questions, estimate, one_thread, resamples_of
from ipr_engine.measures.routing import Axis, WeightedOutcomes, bounded_arqgc, single_curve, sweep_curve
from ipr_engine.measures.sweeps import worth_grid, worth_sweep
from ipr_engine.prompts import ParsedRequest
from ipr_engine.training.fitted_heads import FittedHeads, HeadRows, fit_heads, predict
from ipr_engine.training.train_options import EncoderChoice
from studies.cases import Case
from studies.crossed import ESTIMATOR, FOLDS, folds_of, kept
from studies.instructions import INSTRUCTIONS, instructed
from studies.plots import intervals
from studies.study import Study
from studies.trials import NANO, shown, shown_difference

Array = npt.NDArray[np.float64]
Turns = tuple[str, ...]

SOURCES = ("zeroeval", "mmlu_pro")
MOST = 1500  # prompts of a source
EARLIER = (1, 4)  # turns before the last one, at least and at most
CUT = 16  # words that are left of an earlier turn
FADING = 0.5  # weight of a turn over that of the next one, as `recency` has it
HEAD = 16  # tokens of the head view
ALL = "all joined"


def _cut(turns: Turns) -> str:
    return "\n\n".join([*(" ".join(turn.split()[:CUT]) for turn in turns[:-1]), turns[-1]])


# What the encoder gets of a conversation, as a text.
TEXTS: Mapping[str, Callable[[Turns], str]] = MappingProxyType(
    {
        ALL: "\n\n".join,
        "last turn alone": lambda turns: turns[-1],
        "last, earlier cut": _cut,
        "newest first": lambda turns: "\n\n".join(reversed(turns)),
    }
)
FADED = "recency-weighted"
WITH_HEAD = (ALL, "newest first", "last turn alone")  # these with a head view too
# kind of conversations -> what the picture calls it
SHORT: Mapping[str, str] = MappingProxyType(
    {
        "earlier turns of the same dataset": "same dataset",
        "earlier turns of other datasets": "other datasets",
        "the same document, another instruction": "other instruction",
    }
)
SINGLE, SAME = "fitted on single prompts", "fitted on conversations"


@dataclass(frozen=True, eq=False)
class Talks:
    """`Talks` are conversations whose last turn has outcomes.

    Attributes:
        single: (rows,) the last turn as a prompt of its own. turns: (rows,) of the user, in order. keys: (rows,) questions.
        outcome: (rows, models) that heads are fitted on. judged_by: (rows, models). cost: (rows, models) USD, None of a constructed set.
    """

    single: list[str]
    turns: list[Turns]
    keys: list[str]
    outcome: Array
    judged_by: Array
    cost: Array | None = None


def run(study: Study) -> list[Path]:
    title = "What of a conversation is encoded"
    page = study.page("conversations", title)
    page.say(
        f"""A bundle says what of several turns of a user is encoded ([encoders.md](../encoders.md#conversations)). *All joined* is one
        text, with blank lines between turns: the other views are held against it. Conversations are built here: the last turn is a
        prompt of a source with its recorded outcomes (at most {MOST}), before it stand {EARLIER[0]} to {EARLIER[1]} prompts drawn from the
        same dataset, or from other datasets of the source. The outcome is taken to be that of the last turn asked alone: **the earlier
        turns do not matter for it**, which no real conversation promises. So a third kind is constructed: a document under one instruction,
        and then another instruction alone (studies/instructions.py), whose outcome depends on the document and on the last instruction.
        *Last, earlier cut*: earlier turns cut to {CUT} words. *Recency-weighted*: the embeddings of turns, each weighing {FADING:g} of the
        next. *Newest first*: all joined, in reverse, which a mean does not see and a head view of {HEAD} tokens does. Estimator
        `{ESTIMATOR}`, {FOLDS} folds by question; earlier turns are of the last one's fold. Intervals: 95 %, {study.draws} paired
        draws of questions; bold where zero is outside."""
    )
    figures: dict[str, object] = {}
    panels: dict[str, dict[str, list[Estimate]]] = {}
    views: list[str] = []
    for name in study.names(SOURCES):
        case = study.case(name)
        made = (_built(case, same=True), _built(case, same=False), _reinstructed(case))
        for kind, talks in zip(SHORT, made, strict=True):
            for fitted in (SINGLE, SAME):
                study.progress(f"{name}: {kind}, {fitted} ...")
                errors, areas = _judged(talks, fitted, study.draws)
                views = [view for view in errors if view != ALL]
                panels.setdefault(f"{name}: {SHORT[kind]}", {})[fitted] = [
                    estimate(1000 * (errors[view] - errors[ALL])) for view in views
                ]
                page.say(f"## {name}: {kind}; {fitted}")
                page.table(
                    ["encoded", "squared error", "minus all joined", *(["area", "minus all joined"] if areas else [])],
                    [
                        [
                            view,
                            f"{values[0]:.4f}",
                            "" if view == ALL else shown_difference(values, errors[ALL], digits=4),
                            *(
                                [shown(areas[view]), "" if view == ALL else shown_difference(areas[view], areas[ALL])]
                                if areas
                                else []
                            ),
                        ]
                        for view, values in errors.items()
                    ],
                )
                figures[f"{name}, {kind}, {fitted}"] = {
                    "squared_error": {view: estimate(values).to_json() for view, values in errors.items()},
                    "area": {view: estimate(values).to_json() for view, values in areas.items()},
                }
    page.figures["conversations"] = figures
    plot = intervals(
        study.out / "conversations.png",
        panels,
        views,
        "squared error minus that of all joined, in thousandths: below 0 is better",
        title=title,
        zero=0.0,
        per_row=3,
    )
    page.plot(plot, "Squared error of what is encoded minus that of all turns joined; 95 % intervals")
    return [*page.write(study.out), plot]


def _built(case: Case, *, same: bool) -> Talks:
    """Build conversations of a source's prompts; earlier turns are of the same dataset or of another one, and of the last turn's fold."""
    parts = (case.train, case.test)
    keys = [key for part in parts for key in part.data.question_keys]
    chosen = drawn_questions(keys, MOST, seed=0) if len(keys) > MOST else np.ones(len(keys), np.bool_)
    prompts, keys = kept([prompt for part in parts for prompt in part.data.prompts], chosen), kept(keys, chosen)
    dataset = np.array(kept([name for part in parts for name in part.data.datasets], chosen))
    quality, cost = (np.concatenate([getattr(part, name) for part in parts])[chosen] for name in ("quality", "cost"))
    folds, random = folds_of(keys), np.random.default_rng(1)
    turns: list[Turns] = []
    for row, last in enumerate(prompts):
        others = (folds == folds[row]) & ((dataset == dataset[row]) == same)
        others[row] = False
        drawn = random.choice(np.flatnonzero(others), random.integers(EARLIER[0], EARLIER[1] + 1), replace=True)
        turns.append((*(prompts[at] for at in drawn), last))
    return Talks(prompts, turns, keys, quality, quality, cost)


def _reinstructed(case: Case) -> Talks:
    """Ask for something else of a document that an earlier turn has: the last turn is an instruction alone."""
    made, random = instructed(case, ""), np.random.default_rng(1)
    turns: list[Turns] = []
    for prompt, k in zip(made.prompts, made.instruction, strict=True):
        instruction = INSTRUCTIONS[k]
        before = INSTRUCTIONS[random.choice([other for other in range(len(INSTRUCTIONS)) if other != k])]
        turns.append((before + prompt.removeprefix(instruction), instruction))
    return Talks(made.prompts, turns, made.keys, made.drawn, made.expected)


def _judged(talks: Talks, fitted: str, draws: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return of each view the squared error and the area, (1 + draws,) each; no areas of a constructed set."""
    encoder = EncoderChoice(head_tokens=HEAD).open().encoder
    views = _views(encoder, talks.turns)
    single = np.asarray(encoder.encode(talks.single).x, np.float64)
    cost = np.ones_like(talks.outcome) if talks.cost is None else talks.cost
    resamples, folds = resamples_of(talks.keys, draws=draws), folds_of(talks.keys)
    quality, paid = ({view: np.empty_like(talks.outcome) for view in views} for _ in range(2))
    with one_thread():
        for fold in range(FOLDS):
            out, on_single = folds == fold, dict[int, FittedHeads]()
            for view, x in views.items():
                width = x.shape[1]
                if fitted == SAME:
                    heads = _fit(x, talks, cost, ~out)
                elif width in on_single:
                    heads = on_single[width]
                else:
                    heads = on_single[width] = _fit(single[:, :width], talks, cost, ~out)
                quality[view][out], paid[view][out] = predict(heads.tensors, x[out], heads.activation)
    errors, areas = {}, {}
    for view in views:
        errors[view] = resamples.means(np.square(quality[view] - talks.judged_by).mean(axis=1))
        if talks.cost is not None:
            outcomes = WeightedOutcomes.complete(talks.outcome, talks.cost)
            sweep = worth_sweep(quality[view], paid[view] / NANO, worth_grid(talks.cost))
            curve = sweep_curve(sweep, outcomes, resamples)
            areas[view] = bounded_arqgc(curve, Axis.of(outcomes), single_curve(outcomes, resamples))
    return errors, areas


def _fit(x: Array, talks: Talks, cost: Array, fit: npt.NDArray[np.bool_]) -> FittedHeads:
    return fit_heads(HeadRows(x[fit], talks.outcome[fit], cost[fit] * NANO, kept(talks.keys, fit)), estimator=ESTIMATOR)


def _views(encoder: Encoder, turns: Sequence[Turns]) -> dict[str, Array]:
    """Return what is encoded of conversations, by view: (rows, dim), or with a head view twice as wide."""
    whole = encoder.dim // 2
    found, with_head = {}, {}
    for name, text in TEXTS.items():
        x = np.asarray(encoder.encode([text(of) for of in turns]).x, np.float64)
        if name != "newest first":  # of which the whole alone is that of all joined, but for what a long one is cut to
            found[name] = x[:, :whole]
        if name in WITH_HEAD:
            with_head[f"{name}, head view"] = x
    requests = [ParsedRequest("\n\n".join(of), turns=of) for of in turns]  # at least two turns each
    found[FADED] = np.asarray(encode_conversations(encoder, requests, RECENCY).x, np.float64)[:, :whole]
    return {**found, **with_head}
