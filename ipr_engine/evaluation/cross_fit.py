"""A recipe is judged where no prompts were held out: heads are fitted anew on all folds of questions but one, and decide that one.

What is judged is how the bundle was fitted, on these outcomes, and not its own heads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Unpack, cast

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import shown
from ipr_engine.bundle import Bundle, RuleConstants
from ipr_engine.bundle.context_windows import own_tokens
from ipr_engine.data import Outcomes
from ipr_engine.data.task_rows import task_rows
from ipr_engine.decision.decisions import Decisions
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.embedded import DecidingEngine, embed_rows
from ipr_engine.evaluation.evaluation_inputs import EvaluationOptions
from ipr_engine.measures.resampling import grouped_folds, one_thread
from ipr_engine.policy.policy import Policy
from ipr_engine.request.route_request import RouteOptions
from ipr_engine.training.estimators.by_name import CLOSED_FORM, OPTIONS
from ipr_engine.training.fitted_heads import MOST_COPIES, HeadRows, column_kinds, fit_heads
from ipr_engine.training.seen_otherwise import seen_otherwise
from ipr_engine.training.selection import compare_estimators, prompt_costs, winner
from ipr_engine.training.training_inputs import FEWEST_JUDGED

FOLDS = 5
MOST_CROSSED = 25_000  # prompts: of more, a test split is large enough
INSTEAD = "hold prompts out (`ipr data split`), train on the others, and evaluate on those"


@dataclass(frozen=True)
class Recipe:
    """A `Recipe` says how a bundle's heads were fitted.

    Attributes:
        estimator: its name; "auto": the best of `compared`. seed: of the fit. options: of the estimator, as applied (of "auto":
            none). augment: copies of every prompt, written otherwise, that the fit saw too.
        compared: the estimators that "auto" chose among.
    """

    estimator: str
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    compared: tuple[str, ...] = ()
    augment: int = 0

    @classmethod
    def of(cls, bundle: Bundle, because: str) -> Recipe:
        """Read the recipe that `ipr train` left in the bundle's provenance.

        Args:
            because: why it is asked for, as an error begins.
        Raises:
            InvalidInputError: the bundle does not say it, or was made in a way that is not repeated fold by fold.
        """
        made = bundle.provenance
        settings = made.get("settings")
        estimator, seed = (
            settings.get(key) if isinstance(settings, Mapping) else None for key in ("estimator", "seed")
        )
        sources = made.get("outcomes")
        why = None
        if bundle.escalation is not None:
            why = "it has two tiers"
        elif made.get("recipe") != "ipr train" or not isinstance(estimator, str) or not isinstance(seed, int):
            why = "its provenance does not say how `ipr train` fitted it"
        elif not isinstance(sources, list) or len(sources) != 1:
            why = "it was fitted on several sources"
        elif made.get("added") or made.get("removed"):
            why = "candidates were added or removed after the fit"
        elif made.get("compared") and not _names(made["compared"]):
            why = f"its provenance names other estimators that were compared than {', '.join(CLOSED_FORM)}"
        elif estimator not in CLOSED_FORM:
            why = f"its estimator {shown(estimator)} is fitted by steps; those that are fitted anew are {', '.join(CLOSED_FORM)}"
        elif type(made.get("augment", 0)) is not int or not 0 <= made.get("augment", 0) <= MOST_COPIES:
            why = f"its provenance names {shown(made['augment'])} copies of every prompt"
        elif not made.get("compared") and not set(OPTIONS.get(estimator, ())) <= set(settings or ()):
            why = f"its provenance does not say with which {', '.join(OPTIONS[estimator])} it was fitted"
        if why is not None:
            raise InvalidInputError(f"{because}: the bundle's heads cannot be fitted anew, {why}; {INSTEAD}")
        if made.get("compared"):
            # Not those of today: another installation, or an earlier version, may have compared others.
            return cls("auto", int(cast(int, seed)), compared=_names(made["compared"]), augment=made.get("augment", 0))
        options = {key: cast(Any, settings)[key] for key in OPTIONS.get(str(estimator), ())}
        return cls(str(estimator), int(cast(int, seed)), options, augment=made.get("augment", 0))


def _names(compared: object) -> tuple[str, ...]:
    """Return the estimators of a comparison in a bundle's provenance (`selection.as_json`); none where one is not known here."""
    lines = compared if isinstance(compared, (list, tuple)) else []
    names = tuple(str(line.get("estimator")) if isinstance(line, Mapping) else "" for line in lines)
    return names if set(names) <= set(CLOSED_FORM) else ()


def lacks_test_split(outcomes: Outcomes) -> bool:
    """Tell whether a source states no split but "train": nothing of it was held out."""
    return set(outcomes.splits) <= {"", "train"}


def judges_recipe(outcomes: Outcomes, also: Sequence[Outcomes], options: EvaluationOptions) -> bool:
    """Tell whether the recipe is judged, by folds of all prompts: it is asked for, or nothing is held out.

    Raises:
        InvalidInputError: the source states splits, but not both that an evaluation of the bundle itself needs; or the recipe is judged,
            and something is asked for that needs a train or a test split of its own.
    """
    if options.cross_fit or lacks_test_split(outcomes):
        apart = (("also (--also)", also), ("validate_on_train (--validation train)", options.validate_on_train))
        for name, given in apart:
            if given:
                raise InvalidInputError(
                    f"{name}: needs a test split, and none is held out here; leave it out, or {INSTEAD}"
                )
        return True
    lacking = [name for name in ("train", "test") if name not in outcomes.splits]
    if lacking:
        stated = ", ".join(repr(name) for name in sorted(set(outcomes.splits)))
        raise InvalidInputError(
            f"outcomes: expected splits 'train' and 'test', {outcomes.source} states {stated} and lacks {lacking[0]!r}; split it by "
            "question with `ipr data split`, or judge the bundle's recipe by folds of all prompts with --cross-fit"
        )
    return False


def question_folds(rows: Outcomes, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of each row; copies of one question share one.

    Raises:
        InvalidInputError: there are fewer different questions than folds.
    """
    distinct = len(set(rows.question_keys))
    if distinct < FOLDS:
        raise InvalidInputError(
            f"outcomes: at least {FOLDS} different training questions are needed, a fold each, and {rows.source} has {distinct}; collect "
            "more, or give different questions a question_key of their own"
        )
    return grouped_folds(rows.question_keys, FOLDS, seed)


def because_of(outcomes: Outcomes) -> str:
    """Say why a recipe is judged, as an error begins: nothing is held out, or it was asked for."""
    if lacks_test_split(outcomes):
        return f"outcomes: {outcomes.source} states no test split, so the bundle's recipe is judged by folds"
    return "cross_fit (--cross-fit)"


@dataclass(frozen=True, eq=False)
class JoinedDecisions:
    """`JoinedDecisions` are the decisions of several folds in the rows' order: what an evaluation reads of `Decisions`."""

    qualities: npt.NDArray[Any]
    costs_usd: npt.NDArray[Any]
    tokens_out: npt.NDArray[Any]
    index: npt.NDArray[Any]
    billed_tokens: npt.NDArray[Any]
    own_tokens: npt.NDArray[Any] | None
    support: None = None


class CrossFittedEngine:
    """A `CrossFittedEngine` decides each row of one source by heads that were fitted on the other folds: a `DecidingEngine` of these rows.

    Attributes:
        bundle: whose recipe is judged, without what its own fit left: path rows, support and who answers by it, calibrations.
            recipe: the recipe.
        folds: (rows,) of the complete rows, as they are decided.
    """

    def __init__(
        self, engine: DecidingEngine, recipe: Recipe, engines: Sequence[DecidingEngine], folds: npt.NDArray[np.int64]
    ) -> None:
        self.bundle, self.recipe, self.folds = _bare(engine.bundle), recipe, folds
        self.encoder, self.second_encoder, self.plan = engine.encoder, None, engine.plan
        self.policy = engine.policy
        self._engines = engines

    def decide(
        self,
        x: Encoded,
        policy: Policy | None = None,
        *,
        second: Encoded | None = None,
        **options: Unpack[RouteOptions],
    ) -> Decisions:
        """Decide every row of the source, each by its fold's heads."""
        rows = [np.flatnonzero(self.folds == fold) for fold in range(len(self._engines))]
        parts = [engine.decide(x[at], policy, **options) for engine, at in zip(self._engines, rows, strict=True)]
        order = np.argsort(np.concatenate(rows), kind="stable")

        def joined(name: str) -> npt.NDArray[Any]:
            return np.concatenate([np.asarray(getattr(part, name)) for part in parts])[order]

        return cast(
            Decisions,
            JoinedDecisions(
                qualities=joined("qualities"),
                costs_usd=joined("costs_usd"),
                tokens_out=joined("tokens_out"),
                index=joined("index"),
                billed_tokens=joined("billed_tokens"),
                own_tokens=None if any(part.own_tokens is None for part in parts) else joined("own_tokens"),
            ),
        )


def cross_fitted(
    engine: DecidingEngine,
    outcomes: Outcomes,
    called: Sequence[str],
    complete: Outcomes,
    *,
    cache: str | os.PathLike[str] | None,
    seed: int,
    progress: Callable[[str], None],
) -> CrossFittedEngine:
    """Fit the bundle's recipe on all folds but one, for each of them.

    Args:
        called: what the source calls the bundle's candidates, in order. complete: the rows that are judged.
    Raises:
        InvalidInputError: the recipe cannot be repeated, or the source holds too little or too much for it.
    """
    bundle, because = engine.bundle, because_of(outcomes)
    recipe = Recipe.of(bundle, because)
    if len(outcomes) > MOST_CROSSED:
        raise InvalidInputError(f"{because}: expected at most {MOST_CROSSED} prompts, got {len(outcomes)}; {INSTEAD}")
    missing = [name for name, source in zip(bundle.names, called, strict=True) if source not in outcomes.models]
    if missing:
        raise InvalidInputError(
            f"{because}: heads are fitted anew of every candidate, and {outcomes.source} has no outcomes of {shown(missing[0])}; name it "
            "with --map NAME=SOURCE, or train a bundle without it"
        )
    rows = outcomes.select(called)
    folds = question_folds(rows, seed)
    fold_of = dict(zip(rows.prompt_ids, folds.tolist(), strict=True))
    judged = np.array([fold_of[id] for id in complete.prompt_ids], np.int64)
    if len(np.unique(judged)) < FOLDS:
        raise InvalidInputError(
            f"{because}: expected prompts in each of {FOLDS} folds on which every evaluated candidate has an outcome, found some in "
            f"{len(np.unique(judged))}: {len(set(complete.question_keys))} different questions of {outcomes.source} have all outcomes; "
            "collect the missing ones, or leave a candidate out with --allow"
        )
    encoded = embed_rows(engine, rows, cache=cache, progress=progress).first
    billed = np.asarray(encoded.billed_tokens, np.float64)
    whole = HeadRows(
        np.asarray(encoded.x),
        rows.quality,
        rows.output_tokens,
        rows.question_keys,
        otherwise=seen_otherwise(
            engine.encoder,
            rows.prompts,
            recipe.augment,
            tasks=task_rows(bundle, rows),
            seed=recipe.seed,
            cache=cache,
            progress=progress,
        ),
        **column_kinds(engine.encoder),
    )
    costs = prompt_costs(bundle.candidates, bundle.prices, billed, _own(bundle, encoded, billed), rows.output_tokens)
    engines = []
    for fold in range(FOLDS):
        kept = (folds != fold) & ~np.isnan(rows.quality).all(axis=1)
        part = whole.take(kept)
        _require_judged(bundle, part, outcomes.source, because)
        estimator = recipe.estimator
        with one_thread():
            if estimator == "auto":
                progress(f"fold {fold + 1} of {FOLDS}: comparing estimators ...")
                estimator = winner(compare_estimators(part, costs.take(kept), estimators=recipe.compared))
            progress(
                f"fold {fold + 1} of {FOLDS}: fitting heads on {int(kept.sum())} prompts, estimator {estimator} ..."
            )
            heads = fit_heads(part, estimator=estimator, options=recipe.options, seed=recipe.seed)
        spec = replace(
            bundle.quality_heads,
            tensors=heads.tensors,
            activation=heads.activation,
            rule_constants=RuleConstants(**heads.rule_constants),
        )
        fitted: Any = type(engine)
        engines.append(fitted(replace(_bare(bundle), heads=(spec,)), **asdict(cast(Any, engine).options)))
    return CrossFittedEngine(engine, recipe, engines, judged)


def _bare(bundle: Bundle) -> Bundle:
    """Return the bundle without what its own fit left beside its heads."""
    # Who answers unsupported prompts goes with the support: without it no prompt is one.
    return replace(bundle, support=None, unsupported=None, path_rows=None, calibrations=())


def _own(bundle: Bundle, encoded: Encoded, billed: npt.NDArray[np.float64]) -> npt.NDArray[np.float32] | None:
    return None if encoded.terms is None else own_tokens(bundle.candidates, encoded.terms, billed)


def _require_judged(bundle: Bundle, part: HeadRows, source: str, because: str) -> None:
    for values, what in ((part.quality, "quality"), (part.tokens, "output_tokens")):
        known = (~np.isnan(values)).sum(axis=0)
        for name, count in zip(bundle.names, known, strict=True):
            if count < FEWEST_JUDGED:
                raise InvalidInputError(
                    f"{because}: {shown(name)} has {what} on {count} prompts of {source} outside a fold, at least {FEWEST_JUDGED} are "
                    "needed; collect more outcomes of it"
                )


def about_recipe(
    facts: Mapping[str, Any], engine: CrossFittedEngine, names: Sequence[str], rows: Outcomes
) -> dict[str, Any]:
    """Return the facts of a report on the recipe: what is judged, in place of what the very bundle was fitted on.

    Args:
        rows: the complete rows, which are both splits.
    """
    how = (
        "the best closed form, chosen anew in each fold"
        if engine.recipe.estimator == "auto"
        else engine.recipe.estimator
    )
    augmented = {"augment": engine.recipe.augment} if engine.recipe.augment else {}
    settings = ", ".join(
        f"{key} {' and '.join(value) if key == 'forms' else value}"
        for key, value in {"seed": engine.recipe.seed, **augmented, **engine.recipe.options}.items()
    )
    judged = (
        f"the recipe of this bundle (estimator: {how}; {settings}), not the very bundle: each prompt is decided by heads "
        f"fitted on the other {FOLDS - 1} of {FOLDS} folds of questions, and so are the baselines and the hull; the axis is chosen on "
        "all prompts, prices and tokenizers are the bundle's"
    )
    return {
        **{key: value for key, value in facts.items() if key != "router fitted on"},
        "incomplete rows left out": rows.dropped,
        "title": f"the recipe of the {engine.bundle.name} bundle, {len(names)} candidates, cross-fitted on {rows.source}, {len(rows)} "
        "prompts",
        "judged": judged,
    }
