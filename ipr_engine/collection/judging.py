"""Judges are asked as candidates are: their calls are noted in the ledger, and paid within the same cap."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ipr_engine.collection.asked_candidate import AskedCandidate
from ipr_engine.collection.calls import MOST_MARKS, Call, make_call, settled_keys
from ipr_engine.collection.collection_plan import CollectionPlan
from ipr_engine.collection.gradable import Gradable
from ipr_engine.collection.ledger import Ledger
from ipr_engine.grading.grade import Grade
from ipr_engine.grading.grader_specs import JudgeSpec
from ipr_engine.grading.judge import judge_requests, read_judgement

Pages = Callable[[str], Iterable[Sequence[Gradable]]]


@dataclass(frozen=True, kw_only=True)
class Judging:
    """A `Judging` is a grader of the kind judge at work. name: as the plan calls it."""

    name: str
    spec: JudgeSpec
    judge: AskedCandidate
    baseline: str | None


def judge_calls(judging: Judging, plan: CollectionPlan, page: Sequence[Gradable]) -> list[list[Call]]:
    """Return the calls that judge each answer of a page; none of one that cannot be judged."""
    provider = plan.providers[judging.judge.provider]
    baselines = {
        one.question: one.answer.answer for one in page if one.candidate == judging.baseline and one.sample == 0
    }
    return [
        [
            make_call(judging.judge, provider, _body(request, judging.judge), 0)
            for request in judge_requests(judging.spec, one.answer, baseline=baselines.get(one.question))
            if one.candidate != judging.baseline  # compared with itself it is a tie
        ]
        for one in page
    ]


def _body(request: Mapping[str, Any], judge: AskedCandidate) -> dict[str, Any]:
    """Return a judge's request as the plan asks it: its own limit and parameters are set beside it."""
    return {key: value for key, value in request.items() if key not in ("max_tokens", *judge.parameters)}


async def open_judge_calls(
    judgings: Sequence[Judging], ledger: Ledger, plan: CollectionPlan, pages: Pages, *, again: bool
) -> AsyncIterator[Call]:
    """Yield the calls to judges that have no answer yet. pages: grader -> the answers that it grades, page by page."""
    for judging in judgings:
        for page in pages(judging.name):
            calls = [call for one in judge_calls(judging, plan, page) for call in one]
            keys = [call.key for call in calls]
            settled = await asyncio.wrap_future(
                ledger.submit(lambda of, keys=keys: settled_keys(of, keys, again=again))  # type: ignore[misc]
            )
            for call in calls:
                if call.key not in settled:
                    yield call


def judged(judging: Judging, plan: CollectionPlan, ledger: Ledger, page: Sequence[Gradable]) -> list[Grade]:
    """Return the grades that a judge's answers give a page, as far as there are some."""
    calls = judge_calls(judging, plan, page)
    keys = [call.key for one in calls for call in one]
    texts = ledger.do(lambda of: dict(_texts(of, keys)))
    return [
        Grade(0.5, raw=0.5)
        if answer.candidate == judging.baseline
        else read_judgement(judging.spec, [texts.get(call.key) for call in one])
        for answer, one in zip(page, calls, strict=True)
    ]


def _texts(connection: sqlite3.Connection, keys: Sequence[bytes]) -> Iterator[tuple[bytes, str]]:
    for start in range(0, len(keys), MOST_MARKS):
        some = keys[start : start + MOST_MARKS]
        marks = ",".join("?" * len(some))
        yield from connection.execute(f"SELECT key, text FROM answer WHERE key IN ({marks})", some)
