"""`first_router` fits, certifies and evaluates the first bundle of a project on what was collected, and says what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine._files import temporary_folder
from ipr_engine._validate import shown, shown_each
from ipr_engine.audit.owner_key import OwnerKey, key_of_root
from ipr_engine.bundle import CalibrationMap, with_calibrations
from ipr_engine.bundle.conversation import ALL
from ipr_engine.calibration.calibrate import CandidateSet, CertifyOptions, Disjointness, calibrate
from ipr_engine.calibration.promises import TAUS
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.outcome_tables import CANDIDATES
from ipr_engine.data import Outcomes, load_outcomes, split_outcomes
from ipr_engine.data.outcome_files import OUTCOMES, PROMPTS, TASK, write_outcomes
from ipr_engine.data.task_rows import task_rows
from ipr_engine.engine import Engine
from ipr_engine.errors import InvalidInputError, IprError
from ipr_engine.evaluation import report
from ipr_engine.evaluation.costs import CostBasis
from ipr_engine.evaluation.evaluate import evaluate_engine
from ipr_engine.evaluation.promised import Kept
from ipr_engine.measures.resampling import estimate, resamples_of
from ipr_engine.onboarding.kept_router import KEPT, keep, let_go, made_of, read_kept
from ipr_engine.onboarding.needed_prompts import TAUS as NEEDED_AT
from ipr_engine.onboarding.needed_prompts import NeededPrompts, needed_prompts
from ipr_engine.training.train import train
from ipr_engine.training.train_options import BundleTarget, EncoderChoice, FitOptions, TrainingData
from ipr_engine.training.training_inputs import FEWEST_JUDGED

SHARES = {"train": 0.6, "calibration": 0.2, "test": 0.2}
SPLIT, BUNDLES, REPORT = "split", "bundles", "report"
TAU = 0.2
CALIBRATED, PATH = "calibrated", "path"
FEWEST_PROMPTS = 100
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class FirstRouter:
    """A `FirstRouter` says what came of a project.

    Attributes:
        bundle: its folder. tau, rule: of the figures, and of the line that serves.
        test_prompts, certified_on: so many the figures are of, and the promise was tested on; of all that were `collected`.
        figures: on the test prompts: mean quality kept, its difference to what tau promises, cost of the best single's; with intervals.
        certified: whether rule `calibrated` is at tau; why_not: where it is not. constant: candidate -> why its head is.
        needed: what promises would need. tasks: what heads tell apart -> prompts fitted on. standing: how far the router is, in lines.
    """

    bundle: Path
    test_prompts: int
    certified_on: int
    collected: int
    tau: float
    rule: str
    figures: Mapping[str, Any]
    certified: bool
    why_not: str | None
    constant: Mapping[str, str]
    needed: list[NeededPrompts] = field(default_factory=list)
    tasks: Mapping[str, int] = field(default_factory=dict)
    standing: list[str] = field(default_factory=list)


def first_router(
    plan: CollectionPlan,
    project: Path,
    *,
    tau: float = TAU,
    conversations: int = 0,
    say: Say = lambda message: None,
) -> FirstRouter:
    """Split, train, calibrate and evaluate on the outcomes that the plan's tables hold.

    Args:
        conversations: prompts with several turns of a user. The tables hold them as one text, so where there are any, one text is what
            the router encodes of such requests too: what is certified is what serves.

    Raises:
        InvalidInputError: too few outcomes; says of whom, and how many there are.
    """
    conversation = ALL if conversations else None
    digest, root, split = made_of(plan, tau, conversation), project / BUNDLES, project / SPLIT
    kept = read_kept(project, digest, root, split, project / REPORT / "report.md")
    if kept is not None:
        say(f"nothing changed since the bundle was made: it stands (take {project / KEPT} away to make it anew)")
        stands = _kept(kept, root)
        for line in stands.standing:
            say(line)
        return stands
    outcomes = load_outcomes(plan.out_folder)
    _check_enough(outcomes, plan)
    shared = _split(outcomes, plan.seed, say)
    for table in own_split(project):  # made of the tables anew each time
        table.unlink()
    write_outcomes(shared, split, format=plan.format)
    candidates = plan.out_folder / CANDIDATES
    name, created = project.absolute().name or "first", time.strftime("%Y-%m-%d")
    column = TASK if shared.of_split("train").tasks else None  # heads cannot learn what held out prompts alone state
    if column is not None:
        say(f"prompts say what they are for: heads are fitted with their tasks (--task-column {column})")
    if conversation is not None:
        say(
            "some prompts hold several turns of a user: the router encodes all of them as one text (--conversation all)"
        )
    encoder = EncoderChoice(conversation=conversation)
    data = TrainingData(outcomes=split, candidates=candidates, encoder=encoder, task_column=column)
    key = key_of_root(root)
    with temporary_folder(root) as staging:
        target = BundleTarget(root=staging, name=name, created=created, activate=False, key=key)
        fit = FitOptions(allow_constant=True, seed=plan.seed, standing=True)
        trained = train(data, target, fit=fit, progress=say)
        fitted = Engine.load(trained.folder)
        made, why_not = _calibrated(fitted, split, tau, key, say)
        # CURRENT moves once, to what is certified: until then the bundle of before serves.
        let_go(project)
        folder = with_calibrations(fitted.bundle, [] if made is None else [made], root=root)
    engine = Engine.load(folder)
    knot = None if made is None else next(one for one in made.knots if one.level == tau)
    certified = knot is not None and not knot.insufficient
    rule = CALIBRATED if certified else PATH
    names = list(engine.bundle.names)
    ends = _ends(engine, made, shared.of_split("train").select(names))
    figures = _figures(engine, shared.of_split("test"), ends, tau, rule, plan.seed)
    router = FirstRouter(
        bundle=engine.bundle.path,
        test_prompts=figures["prompts"],
        certified_on=0 if made is None else made.sample.prompts,
        collected=len(shared),
        tau=tau,
        rule=rule,
        figures=figures,
        certified=certified,
        why_not=None if certified else why_not or "the prompts do not tell",
        constant=trained.constant,
        needed=needed_prompts(shared.select(names).quality, *ends, taus=sorted({*NEEDED_AT, tau})),
        tasks=dict(trained.tasks),
        standing=[] if trained.standing is None else trained.standing.text(),
    )
    _evaluate(engine, split, project, what_came(router), say)
    facts = {**asdict(router), "bundle": engine.bundle.hash, "constant": dict(router.constant)}
    keep(project, digest, engine.bundle.hash, split, facts)
    return router


def _kept(facts: Mapping[str, Any], root: Path) -> FirstRouter:
    needed = [NeededPrompts(**one) for one in facts["needed"]]
    return FirstRouter(**{**facts, "bundle": root / facts["bundle"], "needed": needed})


def _split(outcomes: Outcomes, seed: int, say: Say) -> Outcomes:
    """Return the outcomes with splits: those that the prompts state, where all of them do, else new ones."""
    stated = set(outcomes.splits)
    if set(SHARES) <= stated and "" not in stated:
        say("splits are those that the prompts state")
        return outcomes
    if stated != {""}:
        say(f"splits that prompts state are not taken: expected {', '.join(SHARES)} on all of them")
    say("splitting ...")
    return split_outcomes(outcomes, SHARES, seed=seed)[0]


def own_split(project: Path) -> list[Path]:
    """Return the files of a project's split.

    Raises:
        InvalidInputError: something else lies among them, which is somebody's own.
    """
    split = project / SPLIT
    files = sorted(split.iterdir()) if split.is_dir() else []
    others = [file.name for file in files if file.is_dir() or file.stem not in (PROMPTS, OUTCOMES)]
    if others:
        raise InvalidInputError(
            f"{split}: holds {shown(others[0])}, and would be replaced; name another folder with --out"
        )
    return files


def _check_enough(outcomes: Outcomes, plan: CollectionPlan) -> None:
    judged = {name: int((~np.isnan(outcomes.quality[:, i])).sum()) for i, name in enumerate(outcomes.models)}
    few = [one.name for one in plan.asked if judged.get(one.name, 0) < 2 * FEWEST_JUDGED]
    if few:
        told = ", ".join(f"{name} ({judged.get(name, 0)})" for name in few)
        raise InvalidInputError(
            f"outcomes: a candidate needs at least {2 * FEWEST_JUDGED} graded answers, and these have fewer: {told}; give more "
            "prompts or more budget, or leave the candidate out"
        )
    if len(outcomes) < FEWEST_PROMPTS:
        raise InvalidInputError(f"outcomes: expected at least {FEWEST_PROMPTS} prompts, got {len(outcomes)}")


def _ends(engine: Engine, made: CalibrationMap | None, train_rows: Outcomes) -> tuple[int, int]:
    """Return the columns of the best and the cheapest single candidate, between which a promise of tau lies."""
    names = list(engine.bundle.names)
    promise = engine.policy(tau=TAU, rule=PATH).promise if made is None else None
    if made is not None:
        return names.index(made.best), names.index(made.cheapest)
    if promise is not None:
        return names.index(promise.best), names.index(promise.cheapest)
    cost = np.where(np.isnan(train_rows.cost_usd).all(axis=0), np.inf, np.nanmean(train_rows.cost_usd, axis=0))
    return int(np.nanmean(train_rows.quality, axis=0).argmax()), int(cost.argmin())


def _calibrated(
    engine: Engine, split: Path, tau: float, key: OwnerKey, say: Say
) -> tuple[CalibrationMap | None, str | None]:
    """Certify; return the map, or why there is none."""
    try:
        made = calibrate(
            engine,
            load_outcomes(split, split="calibration"),
            load_outcomes(split, split="train"),
            of=CandidateSet(),
            options=CertifyOptions(taus=sorted({*TAUS, tau})),
            disjoint=Disjointness(key=key),
            progress=say,
        )
    except InvalidInputError as error:
        return None, str(error)
    return made, None


def _figures(
    engine: Engine, test: Outcomes, ends: tuple[int, int], tau: float, rule: str, seed: int
) -> Mapping[str, Any]:
    """Return what a rule costs and keeps at tau on the test prompts that all candidates are known on, with intervals.

    ends: the best and the cheapest single candidate, by their place in the bundle.
    """
    names = list(engine.bundle.names)
    basis = CostBasis.of(engine.bundle, test, names, names)
    rows = basis.complete(test)
    tasks = list(task_rows(engine.bundle, rows)) if engine.bundle.tasks else None
    decided = engine.route_many(list(rows.prompts), engine.policy(tau=tau, rule=rule), task=tasks)
    choices = np.asarray(decided.result.index, np.int64)[None, :]
    cost = basis.realised(rows, decided.billed_tokens, decided.own_tokens).cost
    resamples = resamples_of(rows.question_keys, seed=seed)
    best, cheapest = ends
    kept = Kept.of([tau], choices, rows.quality, cost, best=best, cheapest=cheapest, resamples=resamples)
    return {
        "prompts": len(rows),
        "best": names[best],
        "of_best_cost": estimate(kept.of_best_cost[:, 0]).to_json(),
        "kept": estimate(kept.quality[:, 0]).to_json(),
        "kept_minus_promised": estimate(kept.excess[:, 0]).to_json(),
    }


def _evaluate(engine: Engine, split: Path, project: Path, served: str, say: Say) -> None:
    """Write the report of `ipr eval`. served: what came of the project, which stands at its head."""
    say("evaluating beside every baseline ...")
    summary = evaluate_engine(engine, load_outcomes(split), command="ipr init")
    summary.figures["about"] = {"served": served, **summary.figures["about"]}
    folder = project / REPORT
    try:
        from ipr_engine.evaluation.plots import draw_all

        plots = draw_all(summary, folder, summary.figures["about"]["title"])
    except IprError as error:
        say(f"no plots: {error}")
        plots = []
    report.write(summary.figures, plots, folder)


def what_came(made: FirstRouter) -> str:
    """Return what came of a project in two sentences, and a third where heads tell tasks apart."""
    tests, figures = made.test_prompts, made.figures
    first = (
        f"On {tests} test prompts tau {made.tau:g} (rule {made.rule}) costs {_share(figures['of_best_cost'])} of what "
        f"{figures['best']} alone costs; its mean quality is {_plain(figures['kept'])}, "
        f"{_signed(figures['kept_minus_promised'])} beside what it promises."
    )
    if made.certified:
        second = f"The promise is certified on {made.certified_on} prompts that no head has seen (risk 10 %)."
    else:
        need = next((one for one in made.needed if one.tau == made.tau), None)
        # Where nothing was tested, no count of prompts would help.
        more = need is not None and made.certified_on > 0 and need.prompts > made.collected
        enough = f"; about {need.prompts:,} collected prompts may" if need is not None and more else ""
        second = f"The promise is not certified: {made.why_not}{enough}."
    return f"{first} {second}{_of_tasks(made.tasks)}"


def _of_tasks(tasks: Mapping[str, int]) -> str:
    if not tasks:
        return ""
    named = shown_each(sorted(tasks))
    return f" Heads tell {len(tasks)} tasks apart ({named}): name a request's own with it, as header x-ipr-task or as task=."


def _plain(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    return "unknown" if value is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _share(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    return "an unknown share" if value is None else f"{value:.0%} [{low:.0%}, {high:.0%}]"


def _signed(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    return "an unknown amount" if value is None else f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"
