"""`collect` carries out a plan: prompts in, calls out, every one noted in the ledger, answers graded, outcome tables written."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from ipr_engine._files import writable_folder
from ipr_engine._version import __version__
from ipr_engine.collection.asked_candidate import AskedCandidate
from ipr_engine.collection.asking import Desk, Progressed, Site, ask_all
from ipr_engine.collection.bill import nanousd, usd
from ipr_engine.collection.budget import Budget
from ipr_engine.collection.buying_rounds import BuyingRounds
from ipr_engine.collection.callers import make_caller
from ipr_engine.collection.calls import Call, note_price
from ipr_engine.collection.cells import TakenIn, Turns, open_calls, take_in, write_cells
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.estimate import CandidateEstimate, estimate
from ipr_engine.collection.grade_calibrations import calibrate_graders
from ipr_engine.collection.grading_step import GradedCounts, PlanGraders
from ipr_engine.collection.judging import open_judge_calls
from ipr_engine.collection.ledger import LEDGER, Ledger, spent_so_far
from ipr_engine.collection.other_ledgers import check_ledgers, take_answers
from ipr_engine.collection.outcome_tables import CandidateSums, Filed, WrittenTables, write_tables
from ipr_engine.collection.question import Question
from ipr_engine.errors import IprError
from ipr_engine.grading.grader_calibration import GraderCalibration
from ipr_engine.grading.label_noise import LabelNoise

Tell = Callable[[Progressed, Budget], None]
GradingStep = Callable[[PlanGraders, Ledger, int], dict[str, GradedCounts]]


@dataclass(frozen=True, kw_only=True)
class CollectOptions:
    """A `CollectOptions` says how far one run goes.

    Attributes:
        dry_run: say what it would cost, and send nothing.
        retry_failed: send again what failed for a reason of the request itself; what failed otherwise always is.
        ask: send calls; else the tables are made of what the ledger has.
        grade: how answers are graded: here, or by `on_ray.grade_on_ray`.
    """

    dry_run: bool = False
    retry_failed: bool = False
    ask: bool = True
    grade: GradingStep = PlanGraders.grade


@dataclass(frozen=True, kw_only=True)
class GraderReport:
    """A `GraderReport` says what a grader did in a run. lacking: why it has no calibration, where the plan wants one."""

    counts: GradedCounts
    calibration: GraderCalibration | None
    lacking: str | None


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A `Collected` says what a run did.

    Attributes:
        folder: of the ledger and the tables. taken: what the plan's files held. copied: folder of `ledgers` -> answers that were new.
        estimates: candidate -> what is still open, of a dry run; else None.
        done: what became of the calls of this run; None where none were to be sent.
        candidates: candidate -> how it did, over all runs; empty of a dry run. noise: see `WrittenTables`.
        graders: grader -> what it did, and what its scores are worth; filed: where its grades are found in the ledger.
        spent_usd: by all runs of the ledger; spent_by_usd: candidate or judge -> its part. unbilled_usd: of that, charged for calls
            whose bill is not known.
    """

    folder: Path
    taken: TakenIn
    copied: Mapping[Path, int]
    estimates: Mapping[str, CandidateEstimate] | None
    done: Progressed | None
    candidates: Mapping[str, CandidateSums]
    noise: LabelNoise | None
    graders: Mapping[str, GraderReport]
    filed: Mapping[str, Filed]
    spent_usd: float
    spent_by_usd: Mapping[str, float]
    unbilled_usd: float


def collect(
    plan: CollectionPlan,
    questions: Iterable[Question],
    options: CollectOptions = CollectOptions(),
    *,
    tell: Tell = lambda done, budget: None,
    say: Callable[[str], None] = lambda message: None,
) -> Collected:
    """Carry out a plan, from where its ledger stands.

    Args:
        questions: the plan's prompts (`read_questions`).
        tell: called after every call. say: called with how many answers are graded, at every few.
    Raises:
        InvalidInputError: a key cannot be had, the ledger is in use, a prompt cannot be asked.
        IprError: the ledger cannot be written; what was noted stays.
    """
    asks = options.ask and not options.dry_run
    if asks:  # before anything is read that may be long
        for name in {one.provider for one in plan.everyone}:
            plan.providers[name].key(f"providers.{name}")
    graders = PlanGraders(plan, {} if options.dry_run else plan.made_graders, say)
    folder = writable_folder(plan.out_folder, "out")
    plan.check_folder()
    check_ledgers(plan.other_folders, folder)
    _make_private(folder)
    with Ledger(folder / LEDGER) as ledger:
        run = ledger.do(lambda of: _begin(of, plan))
        made, outcome = _Made(), "failed"
        try:
            made.taken = take_in(ledger, plan, questions, run)
            made.copied = take_answers(ledger, plan.other_folders)
            if options.dry_run:
                made.estimates = asyncio.run(estimate(ledger, plan, run, again=options.retry_failed))
            else:
                _carry_out(_Run(ledger, plan, run, options, tell), graders, folder, made, asks=asks)
            interrupted = made.done is not None and made.done.interrupted
            outcome = "dry run" if options.dry_run else "interrupted" if interrupted else "done"
        finally:
            ledger.do(lambda of: _end(of, run, outcome))
        spent, unbilled = ledger.do(_spent)
        parts = ledger.do(spent_so_far)
    assert made.taken is not None
    return Collected(
        folder=folder,
        taken=made.taken,
        copied=made.copied,
        estimates=made.estimates,
        done=made.done,
        candidates=made.tables.sums,
        noise=made.tables.noise,
        graders=made.graders,
        filed=made.filed,
        spent_usd=spent,
        spent_by_usd={one.name: usd(parts.get(one.name, 0)) for one in plan.everyone},
        unbilled_usd=unbilled,
    )


def _make_private(folder: Path) -> None:
    """Make a folder, where it is not there, that its owner alone can read: tables and ledger hold prompts."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


class _Run(NamedTuple):
    """One run: what everything in it is done with."""

    ledger: Ledger
    plan: CollectionPlan
    id: int
    options: CollectOptions
    tell: Tell


@dataclass
class _Made:
    """What a run has come to so far."""

    taken: TakenIn | None = None
    copied: Mapping[Path, int] = field(default_factory=dict)
    estimates: Mapping[str, CandidateEstimate] | None = None
    done: Progressed | None = None
    tables: WrittenTables = field(default_factory=lambda: WrittenTables({}, None))
    graders: Mapping[str, GraderReport] = field(default_factory=dict)
    filed: Mapping[str, Filed] = field(default_factory=dict)


def _carry_out(run: _Run, graders: PlanGraders, folder: Path, made: _Made, *, asks: bool) -> None:
    """Ask candidates, grade, ask judges, calibrate, and write the tables; round by round, where a part of the table is bought."""
    ledger, plan, again = run.ledger, run.plan, run.options.retry_failed
    if not asks or plan.acquisition is not None:
        asyncio.run(write_cells(ledger, plan, run.id))
    if not asks:
        _grade(run, graders, folder, made)
    elif plan.acquisition is None and graders.judgings:
        made.done, turns = Progressed(), Turns(ledger, plan, run.id, again=again)
        _judge(run, graders, made)  # of what was answered before
        while turns.left and not (made.done.interrupted or made.done.stops_all):
            made.done.add(asyncio.run(_ask(run, plan.asked, turns.calls(), made.done.stopped)))
            _judge(run, graders, made, turns.questions)
        if turns.left:  # not all cells were come to
            asyncio.run(write_cells(ledger, plan, run.id))
        _grade(run, graders, folder, made)
    elif plan.acquisition is None:
        made.done = asyncio.run(_ask(run, plan.asked, open_calls(ledger, plan, run.id, again=again)))
        if made.done.interrupted or made.done.stops_all:  # not all cells were come to
            asyncio.run(write_cells(ledger, plan, run.id))
        _grade(run, graders, folder, made)
    else:
        _grade(run, graders, folder, made)
        made.done, rounds = Progressed(), BuyingRounds(ledger, plan, run.id)
        for number in range(1, plan.acquisition.rounds + 1):
            made.done.add(asyncio.run(_ask(run, plan.asked, rounds.calls(number, again=again), made.done.stopped)))
            _judge(run, graders, made)
            _grade(run, graders, folder, made)
            if made.done.interrupted or made.done.stops_all:
                return


def _judge(run: _Run, graders: PlanGraders, made: _Made, only: Collection[int] | None = None) -> None:
    """Ask judges of the answers that have none of theirs yet. only: numbers of the prompts to look at; None: all."""
    judgings = list(graders.judgings.values())
    assert made.done is not None
    if judgings and not (made.done.interrupted or made.done.stops_all):
        calls = open_judge_calls(
            judgings,
            run.ledger,
            run.plan,
            lambda name: graders.pages(name, run.ledger, run.id, only),
            again=run.options.retry_failed,
        )
        made.done.add(asyncio.run(_ask(run, [one.judge for one in judgings], calls, made.done.stopped)))


def _grade(run: _Run, graders: PlanGraders, folder: Path, made: _Made) -> None:
    """Grade, calibrate, and write the tables of what the ledger has."""
    ledger, plan = run.ledger, run.plan
    counts = run.options.grade(graders, ledger, run.id)
    calibrations, lacking = calibrate_graders(ledger, plan, run.id, plan.made_graders, graders.filed, folder)
    made.graders = {
        name: GraderReport(
            counts=counts[name] + made.graders[name].counts if name in made.graders else counts[name],
            calibration=calibrations.get(name),
            lacking=lacking.get(name),
        )
        for name in graders.filed
    }
    filed = {
        name: Filed(digest, calibrations[name].map if name in calibrations else None)
        for name, digest in graders.filed.items()
    }
    made.filed = filed
    made.tables = write_tables(ledger, plan, run.id, filed, folder)


async def _ask(
    run: _Run,
    asked: Sequence[AskedCandidate],
    calls: AsyncIterator[Call],
    stopped: Mapping[str, str] = MappingProxyType({}),
) -> Progressed:
    ledger, plan = run.ledger, run.plan
    budget = Budget(
        nanousd(plan.budget_usd),
        {one.name: None if one.budget_usd is None else nanousd(one.budget_usd) for one in plan.everyone},
        ledger.do(spent_so_far),
    )
    prices = {
        one.name: ledger.do(lambda of, one=one: note_price(of, one, plan.prices_date))  # type: ignore[misc]
        for one in asked
    }
    sites = {
        name: Site(
            caller=make_caller(name, plan.providers[name]),
            limits=plan.providers[name].limits,
            candidates={one.name: one for one in asked if one.provider == name},
        )
        for name in dict.fromkeys(one.provider for one in asked)
    }
    stop, halt = asyncio.Event(), asyncio.Event()
    desk = Desk(
        ledger=ledger,
        budget=budget,
        run=run.id,
        prices=prices,
        stop=stop,
        halt=halt,
        tell=lambda done: run.tell(done, budget),
    )
    try:
        with _interrupts(stop, halt):
            return await ask_all(calls, sites, desk, stopped)
    except* IprError as errors:
        raise _first(errors) from None
    finally:
        for site in sites.values():
            await site.caller.close()


def _first(errors: BaseExceptionGroup[IprError]) -> IprError:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


@contextlib.contextmanager
def _interrupts(*stops: asyncio.Event) -> Iterator[None]:
    """Have the first Ctrl-C, or SIGTERM, let calls in flight finish; the second ends the process as ever."""
    loop, kinds = asyncio.get_running_loop(), (signal.SIGINT, signal.SIGTERM)
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stopping() -> None:
        for stop in stops:
            stop.set()
        for kind in kinds:
            loop.remove_signal_handler(kind)

    for kind in kinds:
        loop.add_signal_handler(kind, stopping)
    try:
        yield
    finally:
        for kind in kinds:
            loop.remove_signal_handler(kind)


def _begin(connection: sqlite3.Connection, plan: CollectionPlan) -> int:
    made = connection.execute(
        "INSERT INTO run (started, plan_sha256, version, budget_nanousd) VALUES (?, ?, ?, ?)",
        (_now(), plan.sha256, __version__, nanousd(plan.budget_usd)),
    )
    assert made.lastrowid is not None
    connection.execute("DELETE FROM cell")  # those of an earlier plan may be others
    return made.lastrowid


def _end(connection: sqlite3.Connection, run: int, outcome: str) -> None:
    connection.execute("UPDATE run SET ended = ?, outcome = ? WHERE id = ?", (_now(), outcome, run))


def _spent(connection: sqlite3.Connection) -> tuple[float, float]:
    (unbilled,) = connection.execute(
        "SELECT coalesce(sum(charged_nanousd), 0) FROM attempt WHERE state IN ('failed', 'lost')"
    ).fetchone()
    return usd(sum(spent_so_far(connection).values())), usd(unbilled)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
