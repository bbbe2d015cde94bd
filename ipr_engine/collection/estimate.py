"""An `Estimated` says what a collection would still cost, before anything is sent."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ipr_engine.collection.asked_candidate import AskedCandidate
from ipr_engine.collection.bill import FRAME_TOKENS, MESSAGE_TOKENS, TokenUsage, call_usd, most_call_usd, usd
from ipr_engine.collection.calls import Call, settled_keys
from ipr_engine.collection.cells import pages_of_cells
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.ledger import Ledger, spent_so_far

ENOUGH = 10  # answers of a candidate, for their mean to be expected of the next
RUBRIC_BYTES = 2500  # of a judge's request, about: its rubric and its frame
BYTES_PER_TOKEN = 8  # of a long answer, at most
CHARACTERS_PER_TOKEN = 4  # of the text of a request, roughly


@dataclass
class CandidateEstimate:
    """A `CandidateEstimate` is what one candidate would cost.

    Attributes:
        calls: still to be sent. settled: answered, or failed for good. most_usd: what they can cost at most.
        expected_usd: what they are likely to cost: by the mean output of its answers so far, or `max_tokens` where there are too few.
        mean_output_tokens: of those answers; None where there are too few. spent_usd: in the ledger already.
    """

    calls: int = 0
    settled: int = 0
    most_usd: float = 0.0
    expected_usd: float = 0.0
    mean_output_tokens: float | None = None
    spent_usd: float = 0.0


async def estimate(ledger: Ledger, plan: CollectionPlan, run: int, *, again: bool) -> Mapping[str, CandidateEstimate]:
    """Return candidate, or judge, -> what its open calls would cost."""
    made = {one.name: CandidateEstimate() for one in plan.asked}
    prices = {one.name: (one.price, one.most_tokens) for one in plan.asked}
    spent, means = await asyncio.wrap_future(ledger.submit(lambda of: (spent_so_far(of), mean_outputs(of))))
    for name, one in made.items():
        one.spent_usd, one.mean_output_tokens = usd(spent.get(name, 0)), means.get(name)
    async for cells in pages_of_cells(ledger, plan, run):
        keys = [cell.call.key for cell in cells]
        settled = await asyncio.wrap_future(ledger.submit(lambda of, keys=keys: settled_keys(of, keys, again=again)))  # type: ignore[misc]
        for cell in cells:
            one, (price, most) = made[cell.call.candidate], prices[cell.call.candidate]
            if cell.call.key in settled:
                one.settled += 1
                continue
            one.calls += 1
            one.most_usd += usd(cell.call.most)
            given = likely_input_tokens(cell.call, most)
            output = most if one.mean_output_tokens is None else round(one.mean_output_tokens)
            one.expected_usd += call_usd(price, TokenUsage(input_tokens=given, output_tokens=output), cell.call.images)
    for grader, judge in plan.judges.items():
        known = await asyncio.wrap_future(
            ledger.submit(lambda of, grader=grader, judge=judge: _judged(of, plan, run, grader, judge.name))  # type: ignore[misc]
        )
        made[judge.name] = _of_judge(plan, grader, judge, known, means.get(judge.name))
        made[judge.name].spent_usd = usd(spent.get(judge.name, 0))
    return made


class _Judged(NamedTuple):
    """What a judge has to judge: answers there can be, mean bytes of a prompt and of an answer, and its own answers so far."""

    cells: int
    prompt: float
    answer: float | None
    done: int


def _judged(connection: sqlite3.Connection, plan: CollectionPlan, run: int, grader: str, judge: str) -> _Judged:
    first = next(iter(plan.graders))
    cells, prompt = connection.execute(
        "SELECT count(*), avg(length(cast(body AS BLOB))) FROM cell JOIN question ON cell.question = question.id "
        "WHERE run = ? AND coalesce(grader, ?) = ?",
        (run, first, grader),
    ).fetchone()
    (answer,) = connection.execute(
        "SELECT avg(length(cast(text AS BLOB))) FROM answer WHERE candidate <> ?", (judge,)
    ).fetchone()
    (done,) = connection.execute("SELECT count(*) FROM answer WHERE candidate = ?", (judge,)).fetchone()
    return _Judged(cells, prompt or 0.0, answer, done)


def _of_judge(
    plan: CollectionPlan, grader: str, judge: AskedCandidate, known: _Judged, mean: float | None
) -> CandidateEstimate:
    """Return what a judge would cost, about: what it will have to read is not written yet."""
    pairwise = plan.made_graders[grader].baseline is not None
    calls = max(0, known.cells * (2 if pairwise else 1) - known.done)
    longest = max(one.most_tokens for one in plan.asked) * BYTES_PER_TOKEN
    answer = longest if known.answer is None else known.answer
    texts = (1 + pairwise) * answer + known.prompt + RUBRIC_BYTES
    most_texts = (1 + pairwise) * longest + known.prompt + RUBRIC_BYTES + FRAME_TOKENS
    output = judge.most_tokens if mean is None else round(mean)
    expected = call_usd(judge.price, TokenUsage(input_tokens=round(texts / CHARACTERS_PER_TOKEN), output_tokens=output))
    most = most_call_usd(judge.price, round(most_texts), judge.most_tokens)
    return CandidateEstimate(
        calls=calls, settled=known.done, most_usd=calls * most, expected_usd=calls * expected, mean_output_tokens=mean
    )


def likely_input_tokens(call: Call, most_output_tokens: int) -> int:
    """Return about how many input tokens a call has: of its text alone, not of the frame that the most allows for."""
    messages = call.body.get("messages") or ()
    text = call.most_tokens - most_output_tokens - FRAME_TOKENS - MESSAGE_TOKENS * len(messages)
    return max(1, text // CHARACTERS_PER_TOKEN)


def mean_outputs(connection: sqlite3.Connection) -> dict[str, float]:
    """Return candidate -> the mean output tokens of its answers, where there are enough."""
    found = connection.execute(
        "SELECT candidate, avg(output_tokens) FROM answer WHERE output_tokens IS NOT NULL GROUP BY candidate HAVING count(*) >= ?",
        (ENOUGH,),
    )
    return dict(found.fetchall())
