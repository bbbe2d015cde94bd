"""`evaluate_engine` takes every figure of docs/metrics.md of a bundle's engine, which decides a source of known outcomes."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.origin import constant_of
from ipr_engine.data import Outcomes as OutcomeData
from ipr_engine.data import name_in_source
from ipr_engine.data.repeated_scores import RepeatedScores
from ipr_engine.data.task_rows import task_rows
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.contenders import Contender
from ipr_engine.evaluation.costs import CostBasis
from ipr_engine.evaluation.cross_fit import FOLDS, about_recipe, cross_fitted, judges_recipe, question_folds
from ipr_engine.evaluation.embedded import DecidingEngine, EmbeddedPrompts, embed_for, embed_rows
from ipr_engine.evaluation.equal_quality_text import quotable
from ipr_engine.evaluation.error_by_support import Judged, support_figures
from ipr_engine.evaluation.evaluation_inputs import Baselines, EvaluatedCandidates, EvaluationOptions
from ipr_engine.evaluation.promised import broken_promises, promised_figures
from ipr_engine.evaluation.read_split import (
    Embed,
    ReadSplit,
    choices_of,
    path_choices,
    predicts_tokens,
    read_split,
    swept,
)
from ipr_engine.evaluation.report import about
from ipr_engine.evaluation.robust_to_edits import EditedFor, Redecided, edit_figures
from ipr_engine.evaluation.router_inputs import KnownEmbeddings, seen_by_routers
from ipr_engine.evaluation.router_runs import TrainingFolds, contenders_of
from ipr_engine.evaluation.seen_prompts import seen_prompts, unasked
from ipr_engine.evaluation.summary import Summary, summarise
from ipr_engine.grading.label_noise import label_noise
from ipr_engine.measures.resampling import drawn_questions, resamples_of
from ipr_engine.measures.sweeps import worth_grid
from ipr_engine.policy.paths import Paths

Array = npt.NDArray[np.float64]

EVERY_CANDIDATE, DEFAULTS = EvaluatedCandidates(), EvaluationOptions()
MOST_TRAIN = 25_000  # training prompts: kNN compares each with every test prompt
DRAWN = 3000  # seed of their draw


def evaluate_engine(
    engine: DecidingEngine,
    outcomes: OutcomeData,
    *,
    candidates: EvaluatedCandidates = EVERY_CANDIDATE,
    also: Sequence[OutcomeData] = (),
    options: EvaluationOptions = DEFAULTS,
    command: str = "",
    cache: str | os.PathLike[str] | None = None,
    progress: Callable[[str], None] = lambda message: None,
) -> Summary:
    """Evaluate on the source's split "test"; baselines and the cost axis come from its split "train". Complete rows only.

    Training prompts that ask a question of the test are left out. Of more of them than `MOST_TRAIN` as many are drawn, whole questions
    by chance.

    Realised costs are the recorded tokens at the bundle's prices (costs.py).

    A two-tier bundle is judged by what both tiers together choose at its gap; predictions are those of the heads that decide at
    tau 0, and baselines see the first encoder's embeddings.

    Args:
        outcomes: a source with both splits, and output tokens or costs of every candidate. Where it holds no prompts out, or with
            `options.cross_fit`, the bundle's recipe is judged in its place, by folds of all prompts (cross_fit.py).
        also: other sources that have some of the candidates, for error against support alone: their split "test" (all of a
            source without one), less the questions of the train split.
        command: shown as what wrote the report.
        cache: folder that keeps a transformer's embeddings.
    Returns:
        Summary; its figures also hold "quotable" (`equal_quality_text.quotable`), "seen" (how many test prompts the heads were fitted
        on, or why that is not known), "path" (`promised.promised_figures`), "support" (`error_by_support.support_figures`, a source
        each; empty where the bundle has no centroids), "label_noise" (of `options.repeated`, None without), "edits" with
        `options.edits` (`robust_to_edits.edit_figures`) and "about": what a reader needs to repeat it. No folder of the machine is named.
    Raises:
        InvalidInputError: no candidate is in a source, or there is no complete row.
        InvalidInputError: a router of `options.routers` fails, or chooses what is no candidate (router_runs.py).
        BackendUnavailableError: the extra [eval] is missing, or what such a router needs.
    """
    names, draws, seed = candidates.names, options.draws, options.seed
    known = source_names(engine, outcomes, names)
    # A candidate may be named differently in each source, so a name is wrong only where no source has it.
    have = {model for source in (outcomes, *also) for model in source.models}
    for asked in (asked for several in names.values() for asked in several):
        if asked not in have:
            raise InvalidInputError(f"names: {asked!r} is in no source; known: {', '.join(sorted(have))}")
    wanted = engine.policy(tau=0.0, allowed=candidates.allowed, family=candidates.family).allowed
    shared = [name for name in wanted if known[name] in outcomes.models]
    left_out = [name for name in wanted if name not in shared]
    if left_out:
        progress(f"not in the source, left out: {', '.join(left_out)}; name them with --map NAME=SOURCE")
    if not shared:
        raise InvalidInputError(
            f"outcomes: no candidate is in the source {outcomes.source}; it has {', '.join(sorted(outcomes.models))}"
        )
    progress(f"{len(shared)} candidates")
    columns = [known[name] for name in shared]
    basis = CostBasis.of(engine.bundle, outcomes, shared, columns)
    _require_expected_tokens(engine, basis, outcomes.source)
    crossing, asked_too = None, 0
    if judges_recipe(outcomes, also, options):
        progress(f"the bundle's recipe is judged, not the bundle: heads are fitted anew in {FOLDS} folds of questions")
        called = [known[name] for name in engine.bundle.names]
        engine = crossing = cross_fitted(
            engine, outcomes, called, basis.complete(outcomes), cache=cache, seed=seed, progress=progress
        )

    def embed(rows: OutcomeData) -> EmbeddedPrompts:
        return embed_rows(engine, rows, cache=cache, progress=progress)

    if crossing is not None:
        train = test = read_split(embed, basis, outcomes)
        reads = [test]
    else:
        whole, held_out = outcomes.of_split("train"), outcomes.of_split("test")
        apart = unasked(whole, held_out, progress)
        asked_too = len(whole) - len(apart)
        train = read_split(embed, basis, _at_most(MOST_TRAIN, apart, progress))
        test = read_split(embed, basis, held_out)
        reads = [train, test]
    worths = worth_grid(train.outcomes.cost)  # one grid for both splits: a setting chosen on one is run on the other
    seen, unknown = (None, None) if crossing is not None else seen_prompts(engine.bundle, test.rows, options.key)
    if seen is not None and seen.any():
        progress(
            f"in-sample: the bundle was fitted on {seen.sum()} of the {len(test.rows)} test prompts; --cross-fit judges its recipe"
        )
    noise = None if options.repeated is None else _noise(options.repeated, test.rows, columns)
    judged = _judge(engine, embed, test, train, shared, also, names)
    folds = question_folds(train.rows, seed) if crossing is None else crossing.folds
    summary = summarise(
        shared,
        swept(train, shared, worths),
        replace(swept(test, shared, worths), path_choices=path_choices(engine, test, shared), seen=seen),
        Baselines(folds, worths, _others(train, test, shared, folds, options, progress), crossed=crossing is not None),
        constant=constant_of(engine.bundle),
        options=options,
        progress=progress,
    )
    summary.figures["path"] = promised_figures(
        engine.bundle,
        shared,
        lambda tau: engine.policy(tau=tau, rule="path", allowed=shared),
        lambda plan: choices_of(test, shared, plan),
        test.outcomes,
        resamples_of(test.rows.question_keys, draws=draws, seed=seed),
    )
    summary.figures["about"] = about(
        basis,
        train.rows,
        test.rows,
        isa=engine.plan.isa,
        realised=basis.report(
            sum(read.stand_ins for read in reads), int(basis.priced.sum()) * sum(len(read.rows) for read in reads)
        ),
        predicts_tokens=predicts_tokens(engine),
        routers=tuple(options.routers),
        command=command,
    )
    if crossing is not None:
        summary.figures["about"] = about_recipe(summary.figures["about"], crossing, shared, test.rows)
        summary.figures["path"] = {"reason": "each fold's heads have a path of their own", "taus": []}
        summary.figures["cross_fit"] = {"folds": FOLDS, "estimator": crossing.recipe.estimator}
    else:
        if asked_too:
            summary.figures["about"]["training prompts left out"] = f"{asked_too}, since the test asks their question"
        summary.figures["seen"] = {"prompts": None if seen is None else int(seen.sum()), "reason": unknown}
    summary.figures["quotable"] = [*quotable(summary.figures), *broken_promises(summary.figures["path"])]
    summary.figures["label_noise"] = noise
    if options.edits:
        edited = _edited_for(summary, train, test, worths, folds, partial(embed_for, engine, cache=cache))
        summary.figures["edits"] = edit_figures(edited, draws=draws, seed=seed, progress=progress)
    summary.figures["support"] = [support_figures(part, draws=draws, seed=seed) for part in judged]
    return summary


def _others(
    train: ReadSplit,
    test: ReadSplit,
    shared: Sequence[str],
    folds: npt.NDArray[np.int64],
    options: EvaluationOptions,
    progress: Callable[[str], None],
) -> list[Contender]:
    """Fit the routers of `options` on training outcomes and run them on test prompts; fold by fold where both are the same rows."""
    if not options.routers:
        return []
    engine, crossed = train.embedded.engine, train is test
    embed = KnownEmbeddings(
        [(read.rows.prompts, np.asarray(read.embedded.first.x, np.float64)) for read in (train, test)],
        lambda others: np.asarray(embed_for(engine, others).first.x, np.float64),
    )
    seen = seen_by_routers(engine.bundle, shared, train.rows, train.outcomes, embed, options.seed)
    held = TrainingFolds(train.rows.prompts, folds) if crossed or options.validate_on_train else None
    return contenders_of(options.routers, seen, None if crossed else test.rows.prompts, held, progress)


def _edited_for(
    summary: Summary,
    train: ReadSplit,
    test: ReadSplit,
    worths: Array,
    folds: npt.NDArray[np.int64],
    embed_texts: Callable[[Sequence[str], Sequence[str | None]], EmbeddedPrompts],
) -> EditedFor:
    """Return what edits of the test prompts are judged on."""
    engine, names, crossed = test.embedded.engine, summary.models, train is test

    def decide(texts: Sequence[str], tasks: Sequence[str | None], plan: Sequence[Mapping[str, Any]]) -> Redecided:
        read = replace(test, embedded=embed_texts(texts, tasks))
        support = None
        if engine.bundle.support is not None:
            support = np.asarray(
                read.embedded.decide(tau=0.0, allowed=names, tokens_out=test.tokens).support, np.float64
            )
        return Redecided(choices_of(read, names, plan), support, read.embedded.embedding)

    encoders = [encoder for encoder in (engine.encoder, engine.second_encoder) if encoder is not None]
    return EditedFor(
        axis=summary.axis,
        test=summary.test,
        prompts=test.rows.prompts,
        tasks=task_rows(engine.bundle, test.rows),
        train_prompts=train.rows.prompts,
        train_x=train.embedded.embedding,
        train_outcomes=train.outcomes,
        folds=folds,
        crossed=crossed,
        worths=worths,
        rule="minmax" if crossed or Paths(engine.bundle).lacking(names) is not None else "path",
        decide=decide,
        tokens=engine.encoder.count_tokens,
        # A search asks many texts: of tables alone. Heads of a fold decide the fold's rows and no other text.
        searches=not crossed and all(encoder.native is not None for encoder in encoders),
    )


def _noise(repeated: RepeatedScores, test: OutcomeData, columns: Sequence[str]) -> dict[str, Any]:
    """Take the samples of the test prompts apart."""
    try:
        found = label_noise(repeated.of(test.prompt_ids, columns))
    except InvalidInputError as error:
        raise InvalidInputError(f"samples: of the test prompts: {error}") from None
    return {**found.to_json(), "brier_floor": found.within_mean, "sentences": found.sentences()}


def source_names(engine: DecidingEngine, outcomes: OutcomeData, names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return every candidate's name in a source: the first asked for that the source has, else what the bundle's provenance says."""
    unknown = sorted(set(names) - set(engine.bundle.names))
    if unknown:
        raise InvalidInputError(f"names: unknown {unknown[0]!r}; the candidates are {', '.join(engine.bundle.names)}")
    trained_as = engine.bundle.provenance.get("sources", {})
    recorded = {name: name_in_source(trained_as, name, outcomes.source) for name in engine.bundle.names}
    return recorded | {
        name: asked for name, several in names.items() for asked in reversed(several) if asked in outcomes.models
    }


def _at_most(most: int, split: OutcomeData, progress: Callable[[str], None]) -> OutcomeData:
    """Return the split, or of more prompts than `most` as many, whole questions drawn by chance."""
    if len(split) <= most:
        return split
    drawn = drawn_questions(split.question_keys, most, seed=DRAWN)
    progress(f"of {len(split)} training prompts {int(drawn.sum())} are drawn for the baselines and the cost axis")
    return split.take(drawn)


def _require_expected_tokens(engine: DecidingEngine, basis: CostBasis, source: str) -> None:
    """Refuse candidates without output tokens where the heads predict none: their cost cannot be expected."""
    lacking = [name for name, priced in zip(basis.called, basis.priced, strict=True) if not priced]
    if lacking and not predicts_tokens(engine):
        raise InvalidInputError(
            f"outcomes: {', '.join(map(repr, lacking))} has no output_tokens in {source} and the bundle's heads predict none, so "
            "no cost can be expected; record them, or fit heads that predict tokens"
        )


def _judge(
    engine: DecidingEngine,
    embed: Embed,
    test: ReadSplit,
    train: ReadSplit,
    shared: Sequence[str],
    also: Sequence[OutcomeData],
    names: Mapping[str, Sequence[str]],
) -> list[Judged]:
    """Return the prompts that error against support is taken on: the test split's, then each other source's."""
    if test.support is None:
        if also:
            raise InvalidInputError("also: the bundle measures no support, so other sources cannot be held against it")
        return []
    means = train.outcomes.quality.mean(axis=0)
    judged = [
        Judged(test.rows.source, test.support, test.predicted, test.outcomes.quality, means, test.rows.question_keys)
    ]
    by_name = dict(zip(shared, means, strict=True))
    return judged + [_elsewhere(engine, embed, other, names, by_name, train.rows) for other in also]


def _elsewhere(
    engine: DecidingEngine,
    embed: Embed,
    other: OutcomeData,
    names: Mapping[str, Sequence[str]],
    means: Mapping[str, float],
    train: OutcomeData,
) -> Judged:
    """Judge another source's held-out prompts, on the evaluated candidates that it has."""
    known = source_names(engine, other, names)
    shared = [name for name in means if known[name] in other.models]
    if not shared:
        have = ", ".join(sorted(other.models))
        raise InvalidInputError(
            f"also: no evaluated candidate is in {other.source}; it has {have}; name them with --map"
        )
    # A source without splits is read whole, less the questions of the train split.
    held_out = other.of_split("test") if "test" in other.splits else other
    rows = held_out.without_questions_of(train).complete([known[name] for name in shared])
    columns = [engine.bundle.names.index(name) for name in shared]
    tokens = None if predicts_tokens(engine) else np.zeros(len(engine.bundle.names), np.float32)  # costs play no part
    decisions = embed(rows).decide(tau=0.0, allowed=shared, tokens_out=tokens)
    return Judged(
        other.source,
        np.asarray(decisions.support, np.float64),
        np.asarray(decisions.qualities[:, columns], np.float64),
        rows.quality,
        np.array([means[name] for name in shared]),
        rows.question_keys,
    )
