"""A cell is one sample of one candidate's answer to one prompt; prompts are taken into a ledger here, and their cells' calls come out."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from typing import Any

from ipr_engine.bundle.task_names import task_problem
from ipr_engine.collection.asked_candidate import SET_PER_CALL, AskedCandidate
from ipr_engine.collection.bill import TokenUsage, call_usd
from ipr_engine.collection.calls import Call, make_call, settled_keys
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.ledger import PAGE, Ledger
from ipr_engine.collection.question import LoggedAnswer, Question
from ipr_engine.documents.typed_document import told
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.parse import parse_request

_TAKE_IN = """
INSERT INTO question (prompt_id, turn, prompt, body, reference, grader, dataset, split, question_key, labels, run, task)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (prompt_id) DO UPDATE SET turn = excluded.turn, prompt = excluded.prompt, body = excluded.body,
reference = excluded.reference, grader = excluded.grader, dataset = excluded.dataset, split = excluded.split,
question_key = excluded.question_key, labels = excluded.labels, run = excluded.run, task = excluded.task
"""


_SET_PER_CALL = frozenset(SET_PER_CALL) - {"messages", "tools"}


@dataclass(kw_only=True)
class TakenIn:
    """A `TakenIn` counts what a plan's files held.

    Attributes:
        answers: of the plan's candidates, read from logs. labels: of them, given by their owner.
        strange_labels: name that is no candidate -> labels of it. unreferenced: grader that needs a reference -> prompts without one.
        tasks: what prompts say that they are for -> so many. conversations: prompts with several turns of a user, which are one text of the
            tables.
    """

    prompts: int = 0
    answers: int = 0
    labels: int = 0
    strange_labels: Counter[str] = field(default_factory=Counter)
    unreferenced: Counter[str] = field(default_factory=Counter)
    tasks: Counter[str] = field(default_factory=Counter)
    conversations: int = 0


def take_in(ledger: Ledger, plan: CollectionPlan, questions: Iterable[Question], run: int) -> TakenIn:
    """Write the prompts of a plan into the ledger, with the answers and labels that came with them.

    Raises:
        InvalidInputError: a prompt has parts without text and the plan does not say how many tokens they are, names a grader that is
            none of the plan's, or has a task that is no name; or there are no prompts.
    """
    taken, rest = TakenIn(), iter(questions)
    while page := list(islice(rest, PAGE)):
        for question in page:
            _check_body(question)
            _look_at_turns(question, plan, taken)
            _look_at_grades(question, plan, taken)
            _look_at_task(question, taken)
        rows = [_row(question, plan, run) for question in page]
        logged = list(_logged(page, plan))
        ledger.do(lambda of, rows=rows, logged=logged: _write(of, rows, logged))  # type: ignore[misc]
        taken.prompts += len(page)
        taken.answers += len(logged)
    if not taken.prompts:
        raise InvalidInputError("prompts: expected at least one, the files hold none")
    return taken


def _look_at_task(question: Question, taken: TakenIn) -> None:
    """Count what a prompt says that it is for."""
    if question.task is None:
        return
    problem = task_problem(question.task)
    if problem is not None:
        raise InvalidInputError(f"prompt {question.prompt_id!r}: task: expected {problem}; leave it out, or name it")
    taken.tasks[question.task] += 1


def _look_at_grades(question: Question, plan: CollectionPlan, taken: TakenIn) -> None:
    """Count what a prompt says of its grades, and what it lacks for one."""
    for name in question.labels:
        if name in plan.called:
            taken.labels += 1
        else:
            taken.strange_labels[name] += 1
    if question.grader is not None and question.grader not in plan.graders:
        known = ", ".join(plan.graders) or "it has none"
        raise InvalidInputError(
            f"prompts: prompt {question.prompt_id!r} names the grader {told(question.grader)}, which is none of the plan's: {known}"
        )
    grader = question.grader or next(iter(plan.graders), None)
    if grader is not None and question.reference is None and plan.made_graders[grader].needs_reference:
        taken.unreferenced[grader] += 1


def _write(connection: sqlite3.Connection, rows: list[tuple[Any, ...]], logged: list[tuple[Any, ...]]) -> None:
    connection.executemany(_TAKE_IN, rows)
    connection.executemany(f"INSERT OR IGNORE INTO answer VALUES ({', '.join('?' * 13)})", logged)


def _check_body(question: Question) -> None:
    """Refuse what is set with each call: `n` answers for one, say, would cost more than a call can."""
    own = sorted(set(question.body) & _SET_PER_CALL)
    if own:
        raise InvalidInputError(f"prompt {question.prompt_id!r}: body.{own[0]}: is set with each call; leave it out")


def _look_at_turns(question: Question, plan: CollectionPlan, taken: TakenIn) -> None:
    """Count a prompt with several turns of a user, and refuse parts whose tokens nobody states."""
    parsed = parse_request(question.body, where=f"prompt {question.prompt_id!r}")
    taken.conversations += len(parsed.turns) > 1
    if plan.part_tokens is None and parsed.uncountable:
        raise InvalidInputError(
            f"part_tokens: is missing; prompt {question.prompt_id!r} holds {parsed.uncountable[0]}, whose input tokens cannot be "
            "counted: state the most that one can be billed for"
        )


def _row(question: Question, plan: CollectionPlan, run: int) -> tuple[Any, ...]:
    named = sha256(f"{plan.seed}:{question.prompt_id}".encode("utf-8", "surrogatepass")).digest()
    return (
        question.prompt_id,
        int.from_bytes(named[:8], "big") >> 1,
        question.prompt,
        json.dumps(question.body, ensure_ascii=False, default=dict),
        None if question.reference is None else json.dumps(question.reference, ensure_ascii=False),
        question.grader,
        question.dataset,
        question.split,
        question.question_key,
        json.dumps(dict(question.labels)) if question.labels else None,
        run,
        question.task,
    )


def _logged(page: Sequence[Question], plan: CollectionPlan) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of answers that were read from logs, of candidates of the plan."""
    of_name = {one.name: one for one in plan.asked}
    for question in page:
        for name, answer in plan.by_candidate(question.answers).items():
            asked, parsed = of_name[name], parse_request(question.body, where=f"prompt {question.prompt_id!r}")
            call = make_call(asked, plan.providers[asked.provider], question.body, 0, plan.part_tokens or 0, parsed)
            yield _logged_row(call, answer, asked)


def _logged_row(call: Call, answer: LoggedAnswer, asked: AskedCandidate) -> tuple[Any, ...]:
    tokens = (answer.input_tokens, answer.output_tokens, None, None)
    usd = answer.cost_usd
    if usd is None and answer.input_tokens is not None and answer.output_tokens is not None:
        usage = TokenUsage(input_tokens=answer.input_tokens, output_tokens=answer.output_tokens)
        usd = call_usd(asked.price, usage, call.images)
    cost = (usd, None, answer.seconds, None, None)
    return (call.key, call.candidate, answer.text, answer.finish_reason, *tokens, *cost)


@dataclass(frozen=True, kw_only=True)
class AskedCell:
    """An `AskedCell` is one sample of one candidate's answer to one prompt. question: the number of its row in the ledger."""

    question: int
    sample: int
    call: Call


def cells_of(row: tuple[Any, ...], plan: CollectionPlan) -> list[AskedCell]:
    """Return the cells of one prompt: of every candidate that has what the prompt needs. row: its number, turn and body."""
    number, _, text = row
    body = json.loads(text)
    parsed = parse_request(body, where="prompt")
    return [
        AskedCell(
            question=number,
            sample=sample,
            call=make_call(asked, plan.providers[asked.provider], body, sample, plan.part_tokens or 0, parsed),
        )
        for asked in plan.asked
        if set(parsed.features) <= set(asked.candidate.features)
        for sample in range(plan.samples)
    ]


async def pages_of_cells(ledger: Ledger, plan: CollectionPlan, run: int) -> AsyncIterator[list[AskedCell]]:
    """Yield the cells of a run's prompts in turn, those of some prompts together; they are written into the ledger before."""
    last = (-1, -1)
    while True:
        rows = await asyncio.wrap_future(ledger.submit(lambda of, last=last: _page(of, run, last)))  # type: ignore[misc]
        if not rows:
            return
        last = (rows[-1][1], rows[-1][0])
        yield _noted_cells(ledger, plan, rows)


def _noted_cells(ledger: Ledger, plan: CollectionPlan, rows: Sequence[tuple[Any, ...]]) -> list[AskedCell]:
    """Return the cells of prompts, and have the ledger note them."""
    cells = [cell for row in rows for cell in cells_of(row, plan)]
    written = [(cell.question, cell.call.candidate, cell.sample, cell.call.key) for cell in cells]
    ledger.submit(lambda of: _write_cells(of, written))
    return cells


async def _open(ledger: Ledger, cells: Sequence[AskedCell], *, again: bool) -> AsyncIterator[Call]:
    keys = [cell.call.key for cell in cells]
    settled = await asyncio.wrap_future(ledger.submit(lambda of: settled_keys(of, keys, again=again)))
    for cell in cells:
        if cell.call.key not in settled:
            yield cell.call


def _page(connection: sqlite3.Connection, run: int, last: tuple[int, int]) -> list[tuple[Any, ...]]:
    return connection.execute(
        "SELECT id, turn, body FROM question WHERE run = ? AND (turn, id) > (?, ?) ORDER BY turn, id LIMIT ?",
        (run, *last, PAGE),
    ).fetchall()


def _write_cells(connection: sqlite3.Connection, written: list[tuple[int, str, int, bytes]]) -> None:
    connection.executemany("INSERT OR REPLACE INTO cell VALUES (?, ?, ?, ?)", written)


async def write_cells(ledger: Ledger, plan: CollectionPlan, run: int) -> None:
    """Write the cells of a run's prompts: which answers are theirs, by the plan as it is now."""
    async for _ in pages_of_cells(ledger, plan, run):
        pass


class Turns:
    """A `Turns` gives a run's open calls some prompts at a time, so that their answers are judged before more are bought."""

    def __init__(self, ledger: Ledger, plan: CollectionPlan, run: int, *, again: bool) -> None:
        self._ledger, self._plan, self._run, self._again = ledger, plan, run, again
        self._last = (-1, -1)
        self.left = True
        self.questions: list[int] = []  # numbers of the prompts whose calls were given last

    async def calls(self) -> AsyncIterator[Call]:
        """Yield the open calls of the next prompts; none, and `left` is False, where there are no more."""
        rows = await asyncio.wrap_future(self._ledger.submit(lambda of: _page(of, self._run, self._last)))
        self.left, self.questions = bool(rows), [row[0] for row in rows]
        if rows:
            self._last = (rows[-1][1], rows[-1][0])
            cells = _noted_cells(self._ledger, self._plan, rows)
            async for call in _open(self._ledger, cells, again=self._again):
                yield call


async def open_calls(ledger: Ledger, plan: CollectionPlan, run: int, *, again: bool) -> AsyncIterator[Call]:
    """Yield the calls that have no answer yet. again: also those that have failed for good."""
    async for cells in pages_of_cells(ledger, plan, run):
        async for call in _open(ledger, cells, again=again):
            yield call
