"""`new_candidate` adds a candidate to a bundle from chosen prompts: draw, calls, grades, row, certificate (`ipr add-model --plan`).

The row is fitted on prompts of the fitting split, drawn at random or where the other candidates disagree. The certificate is of prompts
of another split, always drawn at random: no head has seen them, and contested ones would be no fair sample.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine._files import temporary_folder
from ipr_engine._validate import shown
from ipr_engine.audit.owner_key import OwnerKey, keys_beside
from ipr_engine.bundle import Bundle, CalibrationMap, with_calibrations
from ipr_engine.bundle.edit import require_one_tier
from ipr_engine.bundle.origin import constant_throughout
from ipr_engine.calibration.calibrate import (
    CandidateSet,
    CertifyOptions,
    Disjointness,
    calibrate,
    free_notice,
    prior_notice,
)
from ipr_engine.calibration.promises import TAUS
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.outcome_tables import CANDIDATES
from ipr_engine.collection.question import Question
from ipr_engine.collection.sources import read_prompts
from ipr_engine.data import (
    MEASURES,
    Outcomes,
    key_of_hashes,
    load_outcomes,
    name_in_source,
    overlap,
    prompt_hashes,
    write_outcomes,
)
from ipr_engine.data.outcome_files import OUTCOMES, PROMPTS
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError
from ipr_engine.onboarding.needed_prompts import NeededPrompts, needed_prompts
from ipr_engine.training.add.add_model import add_model
from ipr_engine.training.add.chosen_prompts import choose_prompts
from ipr_engine.training.add.interface import Added, AddTarget, Evidence, old_quality, unseen
from ipr_engine.training.training_inputs import FEWEST_JUDGED

Say = Callable[[str], None]
Indices = npt.NDArray[np.int64]

RANDOM, CONTESTED = "random", "contested"
DRAWS = (RANDOM, CONTESTED)
MERGED = "with-new"  # the folder, in the plan's `out`, of the table with the new candidate's column


@dataclass(frozen=True, kw_only=True)
class ChosenOptions:
    """`ChosenOptions` say how many prompts the new candidate is asked.

    Attributes:
        choose: prompts that its row is fitted on, at least 20. draw: one of DRAWS, how they are drawn: at random, or more often
            where the other candidates disagree (`choose_prompts`). certify: prompts that the promise is tested on, 0 for none.
        certify_split: of the outcome table. tau: what is certified.
    """

    choose: int = 200
    draw: str = RANDOM
    certify: int = 200
    certify_split: str = "calibration"
    tau: float = 0.2

    def __post_init__(self) -> None:
        if type(self.choose) is not int or self.choose < FEWEST_JUDGED:
            raise InvalidInputError(f"choose: expected an int >= {FEWEST_JUDGED}, got {self.choose!r}")
        if self.draw not in DRAWS:
            raise InvalidInputError(f"draw: expected one of {', '.join(DRAWS)}, got {self.draw!r}")
        if type(self.certify) is not int or self.certify < 0:
            raise InvalidInputError(f"certify: expected an int >= 0, got {self.certify!r}")
        if not 0 < self.tau < 1:
            raise InvalidInputError(f"tau: expected a number between 0 and 1, got {self.tau!r}")


@dataclass(frozen=True, kw_only=True)
class ChosenQuestions:
    """`ChosenQuestions` are the prompts that the new candidate is asked.

    Attributes:
        table: the outcome table that they are of. name: the candidate's. evidence: how its row is fitted; its outcomes are the table.
        fit, certify: rows of the table. not_asked: why nothing is certified, None where something may be.
        rests_on_new: whether every head of the bundle is constant: something is certified only if the new one's is not.
        seen: prompts of the split to certify that are left out, since a head was fitted on them or their questions.
    """

    plan: CollectionPlan
    evidence: Evidence
    options: ChosenOptions
    table: Outcomes
    name: str
    fit: Indices
    certify: Indices
    not_asked: str | None
    rests_on_new: bool = False
    seen: int = 0

    def questions(self) -> Iterator[Question]:
        """Return the plan's questions among them, in the plan's order."""
        texts = {self.table.prompts[row] for row in (*self.fit, *self.certify)}
        return (question for question in read_prompts(self.plan) if question.prompt in texts)


@dataclass(frozen=True, kw_only=True)
class CollectedCandidate:
    """A `CollectedCandidate` says what came of it.

    Attributes:
        bundle: its folder. added: what `add_model` says. fitted_on, certified_on: prompts with an outcome of the candidate.
        unanswered: prompts to certify whose answer has no outcome (it failed, or was cut): the promise is not about such.
        certified: whether rule `calibrated` is at tau; why_not: where it is not. needed: what promises would need.
        seconds: from the outcomes to the bundle.
    """

    bundle: Path
    added: Added
    fitted_on: int
    certified_on: int
    unanswered: int
    certified: bool
    why_not: str | None
    needed: list[NeededPrompts]
    seconds: float


def choose_questions(
    plan: CollectionPlan, bundle: Path | str, evidence: Evidence, options: ChosenOptions = ChosenOptions()
) -> ChosenQuestions:
    """Choose what to ask the one candidate of a plan, among its prompts that stand in the outcome table.

    Args:
        evidence: its outcomes are the table of the other candidates; its seed is of the draws, too.
    Raises:
        KeyMismatchError: the bundle's prompt hashes are of another key than what is at hand.
        InvalidInputError: the plan has another number of candidates, the bundle has this one already, or too few prompts are the plan's
            and have outcomes of the bundle's candidates.
    """
    if evidence.outcomes is None or evidence.split is None or evidence.split == options.certify_split:
        raise InvalidInputError(
            f"evidence: expected outcomes, and a split to fit on that is not {options.certify_split!r}: a promise is tested on prompts "
            "that no head has seen"
        )
    if evidence.consistency is not None:
        raise InvalidInputError("consistency: refreshes the trunk, and here everything else stays; leave it out")
    base, table = Bundle.load(bundle), load_outcomes(evidence.outcomes)
    require_one_tier(base)
    keys = keys_beside(base.path.parent, evidence.key)
    key_of_hashes(base.quality_heads.fitted_on, keys)  # refused before anything is paid
    evidence = replace(evidence, key=keys[0] if keys else None)
    split, seed = evidence.split, evidence.seed
    if len(plan.asked) != 1:
        raise InvalidInputError(f"candidates: expected the new candidate alone, got {len(plan.asked)}")
    name = plan.asked[0].name
    if name in base.names:
        raise InvalidInputError(
            f"candidates[0].name: {shown(name)} is in the bundle already; `ipr remove-model` takes it out, and then this command "
            "goes on from the answers that are paid for"
        )
    if name in table.models and not np.isnan(table.quality[:, table.models.index(name)]).all():
        raise InvalidInputError(
            f"candidates[0].name: {shown(name)} has outcomes in {table.source} already, and new answers would replace them; add it "
            "from these (--candidates, without --plan), or give the new one another name"
        )
    if plan.acquisition is not None:
        raise InvalidInputError("acquisition: is for tables of several candidates; leave it out")
    askable = {question.prompt for question in read_prompts(plan) if _gradable(question, plan, name)}
    outcome = old_quality(table, base)
    asked = np.array([prompt in askable for prompt in table.prompts])
    fit = _distinct(table, asked & _in_split(table, split) & ~np.isnan(outcome).all(axis=1))
    if len(fit) < FEWEST_JUDGED:
        raise InvalidInputError(
            f"prompts: expected at least {FEWEST_JUDGED} of the plan's, with a reference or a label, that are prompts of {table.source}, "
            f"split {shown(split)}, and have outcomes of the bundle's candidates; got {len(fit)} (its splits: "
            f"{', '.join(shown(one) for one in sorted(set(table.splits)))})"
        )
    if options.draw == CONTESTED:
        chosen = fit[choose_prompts(outcome[fit], options.choose, seed=seed)]
    else:
        chosen = np.sort(np.random.default_rng([seed, 0]).permutation(fit)[: options.choose])
    test, why, seen = np.zeros(0, np.int64), _never_certified(base, plan, options), 0
    if why is None:
        whole = ~np.isnan(outcome).any(axis=1)  # a promise is tested where every candidate is judged
        test = _distinct(table, asked & _in_split(table, options.certify_split) & whole)
        fresh = _fresh(base, table.take(test), table.take(_in_split(table, split)), keys)
        test, seen = test[fresh], int((~fresh).sum())
        test = np.sort(np.random.default_rng([seed, 1]).permutation(test)[: options.certify])
        if not len(test):
            why = (
                f"no prompt of split {shown(options.certify_split)} that no head has seen is the plan's and has outcomes of every "
                "candidate"
            )
    return ChosenQuestions(
        plan=plan,
        evidence=evidence,
        options=options,
        table=table,
        name=name,
        fit=chosen,
        certify=test,
        not_asked=why,
        rests_on_new=why is None and constant_throughout(base) >= set(base.names),
        seen=seen,
    )


def _never_certified(base: Bundle, plan: CollectionPlan, options: ChosenOptions) -> str | None:
    """Return why nothing is certified whatever is answered; None where something may be."""
    new = plan.asked[0]
    if not options.certify:
        return "no prompts were to be asked for it"
    if base.quality_heads.fitted_on.prompt_hashes is None:
        return (
            "the bundle keeps no hashes of its fitting prompts, so nobody can check that no head has seen those to certify; "
            f"train it anew with `ipr train`, on the table in {MERGED}/ of the plan's out"
        )
    free = free_notice({**base.prices.prices, new.name: new.price}, (*base.names, new.name))
    return prior_notice(base, base.names) or (None if free is None else f"prices: {free}")


def _fresh(base: Bundle, rows: Outcomes, fitting: Outcomes, keys: Sequence[OwnerKey]) -> npt.NDArray[np.bool_]:
    """Tell for each row whether neither it nor its question was fitted on, or may be: (rows,)."""
    return unseen(base, rows, keys) & ~overlap(rows, prompt_hashes(fitting.prompts, fitting.question_keys))


def _distinct(table: Outcomes, wanted: npt.NDArray[np.bool_]) -> Indices:
    """Return the rows that are wanted, the first of each text: an answer is evidence once."""
    first: dict[str, int] = {}
    for row in np.flatnonzero(wanted).tolist():
        first.setdefault(table.prompts[row], row)
    return np.array(list(first.values()), np.int64)


def _in_split(table: Outcomes, split: str | None) -> npt.NDArray[np.bool_]:
    return np.array([one == split for one in table.splits])


def _gradable(question: Question, plan: CollectionPlan, name: str) -> bool:
    """Return whether an answer to a question can get a quality, as far as that is known before it is there."""
    if name in plan.by_candidate(question.labels):
        return True
    grader = question.grader or next(iter(plan.graders), None)
    made = plan.made_graders.get(grader) if grader is not None else None
    return made is not None and (question.reference is not None or not made.needs_reference)


def new_candidate(
    chosen: ChosenQuestions,
    bundle: Path | str,
    *,
    created: str,
    out: Path | str | None = None,
    say: Say = lambda message: None,
) -> CollectedCandidate:
    """Add the candidate from what was collected; everything else of the bundle stays.

    Raises:
        InvalidInputError: too few of its answers have a quality.
    """
    start = time.monotonic()
    plan, name, options = chosen.plan, chosen.name, chosen.options
    merged = merge(chosen.table, load_outcomes(plan.out_folder), name, (*chosen.fit, *chosen.certify))
    judged = ~np.isnan(merged.quality[:, merged.models.index(name)])
    folder = plan.out_folder / MERGED / chosen.table.source  # provenance names candidates by source
    for table in (PROMPTS, OUTCOMES):
        (folder / f"{table}.{plan.format}").unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_outcomes(merged, folder, format=plan.format)
    root = Bundle.load(bundle).path.parent if out is None else Path(out)
    with temporary_folder(root) as staging:
        added = add_model(
            bundle,
            plan.out_folder / CANDIDATES,
            AddTarget(created=created, root=staging, activate=False),
            name=name,
            evidence=replace(chosen.evidence, outcomes=folder),
            progress=say,
        )
        sample = merged.take(chosen.certify[judged[chosen.certify]])
        made, why, grown = None, chosen.not_asked, Bundle.load(added.folder)
        if why is None:
            say(f"certifying on {len(sample)} prompts ...")
            made, why = _certified(grown, chosen, sample, merged)
        # CURRENT moves once, to what is certified: until then the old bundle serves.
        written = with_calibrations(grown, [] if made is None else [made], root=root)
    knot = None if made is None else next(one for one in made.knots if one.level == options.tau)
    certified = knot is not None and not knot.insufficient
    needed: list[NeededPrompts] = []
    if made is not None:
        ends = (grown.names.index(made.best), grown.names.index(made.cheapest))
        needed = needed_prompts(old_quality(sample, grown), *ends, taus=[options.tau])
    return CollectedCandidate(
        bundle=written,
        added=replace(added, folder=written),
        fitted_on=int(judged[chosen.fit].sum()),
        certified_on=0 if made is None else made.sample.prompts,
        unanswered=len(chosen.certify) - len(sample),
        certified=certified,
        why_not=None if certified else why or "the prompts do not tell",
        needed=needed,
        seconds=time.monotonic() - start,
    )


def merge(table: Outcomes, collected: Outcomes, name: str, rows: Sequence[int]) -> Outcomes:
    """Return a table with a candidate's column more, of what was collected on these rows; prompts are known by their text."""
    at = {prompt: row for row, prompt in enumerate(collected.prompts)}
    column = collected.models.index(name) if name in collected.models else None
    measures = {measure: np.full(len(table), np.nan) for measure in MEASURES}
    for row in rows:
        found = at.get(table.prompts[row])
        if found is not None and column is not None:
            for measure, values in measures.items():
                values[row] = getattr(collected, measure)[found, column]
    kept = [model for model in table.models if model != name]
    left = table.select(kept)
    whole = {measure: np.column_stack([getattr(left, measure), values]) for measure, values in measures.items()}
    return replace(
        left,
        models=(*left.models, name),
        quality=whole["quality"],
        input_tokens=whole["input_tokens"],
        output_tokens=whole["output_tokens"],
        cost_usd=whole["cost_usd"],
    )


def _certified(
    grown: Bundle, chosen: ChosenQuestions, sample: Outcomes, merged: Outcomes
) -> tuple[CalibrationMap | None, str | None]:
    """Certify the bundle with the new candidate; return the map, or why there is none."""
    evidence = chosen.evidence
    loading = {} if evidence.encoder_options is None else vars(evidence.encoder_options)
    engine = Engine.load(grown.path, **loading)
    trained = grown.provenance.get("sources", {})
    sources = {name: name_in_source(trained, name, sample.source) for name in grown.names}
    try:
        made = calibrate(
            engine,
            sample,
            merged.of_split(evidence.split or ""),
            of=CandidateSet(sources=sources),
            options=CertifyOptions(taus=sorted({*TAUS, chosen.options.tau}), seed=evidence.seed),
            disjoint=Disjointness(key=evidence.key),
            cache=evidence.cache,
        )
    except InvalidInputError as error:
        return None, str(error)
    return made, None


def told(made: CollectedCandidate, name: str, tau: float) -> str:
    """Return what came of it, in sentences."""
    added = made.added
    first = f"{name} is added, fitted on {made.fitted_on} answers of its own and {added.imputed:,} imputed outcomes."
    if made.unanswered:
        first += (
            f" {made.unanswered} answers to certify on have no outcome; the promise is not about prompts like these."
        )
    if added.constant:
        first += f" Its scores count as constant: {added.constant}."
    if made.certified:
        return f"{first} tau {tau:g} is certified on {made.certified_on} prompts that no head has seen (risk 10 %)."
    need = next((one.calibration for one in made.needed if one.tau == tau), None)
    more = f"; about {need:,} such prompts may" if need is not None and need > made.certified_on else ""
    return f"{first} tau {tau:g} is not certified: {made.why_not}{more}."
