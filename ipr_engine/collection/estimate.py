"""`estimate` says what a collection would still cost, before anything is sent."""

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
from ipr_engine.collection.graded_pages import pages_of_gradable
from ipr_engine.collection.judging import Judging, judge_calls
from ipr_engine.collection.ledger import Ledger, spent_so_far
from ipr_engine.grading.grader_specs import JudgeSpec

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
        known = _to_judge(ledger, plan, run, grader, again=again)
        made[judge.name] = _of_judge(plan, grader, judge, known, means.get(judge.name))
        made[judge.name].spent_usd = usd(spent.get(judge.name, 0))
    return made


class _ToJudge(NamedTuple):
    """What a judge has to judge: cells without an answer, its open and its settled calls of the others, mean bytes of their texts."""

    unanswered: int
    open: int
    settled: int
    prompt: float
    answer: float | None


def _to_judge(ledger: Ledger, plan: CollectionPlan, run: int, grader: str, *, again: bool) -> _ToJudge:
    one, asks, settled = plan.made_graders[grader], 0, 0
    assert isinstance(one.spec, JudgeSpec)
    judging = Judging(name=grader, spec=one.spec, judge=plan.judges[grader], baseline=one.baseline)
    for page in pages_of_gradable(ledger, plan, run, grader):
        keys = [call.key for calls in judge_calls(judging, plan, page) for call in calls]
        done = ledger.do(lambda of, keys=keys: settled_keys(of, keys, again=again))  # type: ignore[misc]
        asks, settled = asks + len(keys), settled + len([key for key in keys if key in done])
    unanswered, prompt, answer = ledger.do(lambda of: _unanswered(of, plan, run, grader))
    return _ToJudge(unanswered, asks - settled, settled, prompt or 0.0, answer)


def _unanswered(
    connection: sqlite3.Connection, plan: CollectionPlan, run: int, grader: str
) -> tuple[int, float | None, float | None]:
    """Return cells without an answer whose answer a judge will be asked of, and mean bytes of prompts and of answers so far."""
    one = plan.made_graders[grader]
    found: tuple[int, float | None, float | None] = connection.execute(
        "SELECT coalesce(sum(answer.key IS NULL), 0), avg(length(cast(body AS BLOB))), avg(length(cast(text AS BLOB))) "
        "FROM question JOIN cell ON cell.question = question.id LEFT JOIN answer ON answer.key = cell.key "
        "WHERE run = ? AND coalesce(question.grader, ?) = ? AND cell.candidate IS NOT ? AND (reference IS NOT NULL OR ?)",
        (run, next(iter(plan.graders)), grader, one.baseline, not one.needs_reference),
    ).fetchone()
    return found


def _of_judge(
    plan: CollectionPlan, grader: str, judge: AskedCandidate, known: _ToJudge, mean: float | None
) -> CandidateEstimate:
    """Return what a judge would cost, about: what it will have to read is not written yet."""
    pairwise = plan.made_graders[grader].baseline is not None
    calls = known.open + known.unanswered * (2 if pairwise else 1)
    longest = max(one.most_tokens for one in plan.asked) * BYTES_PER_TOKEN
    answer = longest if known.answer is None else known.answer
    texts = (1 + pairwise) * answer + known.prompt + RUBRIC_BYTES
    most_texts = (1 + pairwise) * longest + known.prompt + RUBRIC_BYTES + FRAME_TOKENS
    output = judge.most_tokens if mean is None else round(mean)
    expected = call_usd(judge.price, TokenUsage(input_tokens=round(texts / CHARACTERS_PER_TOKEN), output_tokens=output))
    most = most_call_usd(judge.price, round(most_texts), judge.most_tokens)
    return CandidateEstimate(
        calls=calls,
        settled=known.settled,
        most_usd=calls * most,
        expected_usd=calls * expected,
        mean_output_tokens=mean,
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
