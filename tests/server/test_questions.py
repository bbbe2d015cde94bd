"""Many questions about one prompt are decided once a set of choices, and not at all once nobody waits for them."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from ipr_engine import Engine
from tests.support import skips
from tests.support.bundles import NAMES
from tests.support.local_server import LocalServer

pytest.importorskip("uvicorn", reason=skips.SERVE)
from ipr_engine.server.chooser import MOST_SETS
from ipr_engine.server.question_endpoints import MOST_OF_SYSTEMONE, MOST_QUESTIONS

FIVE = NAMES[:5]
SETS = [list(some) for size in (2, 3, 4) for some in combinations(FIVE, size)]
CONFIG = {"policy": {"rule": "minmax", "tau": 0.3}}


def decisions(counted: dict[str, float]) -> float:
    return sum(value for name, value in counted.items() if name.startswith("ipr_decisions_total"))


def asked(path: str, sets: list[list[str]]) -> dict[str, Any]:
    """Return a question for each set of choices."""
    if path == "/v1/systemone":
        questions = {f"q{n}": {"type": "choice", "criteria": dict.fromkeys(some)} for n, some in enumerate(sets)}
        return {"state": "why python", "questions": questions}
    choices = [[{"value": one} for one in some] for some in sets]
    return {"input": "why python", "questions": [{"type": "choice", "name": "who", "choices": one} for one in choices]}


PATHS = {"/v1/decisions": MOST_QUESTIONS, "/v1/systemone": MOST_OF_SYSTEMONE}


@pytest.mark.parametrize("path", PATHS)
def test_one_set_of_choices_is_decided_once(engine: Engine, path: str) -> None:
    orders = [SETS[-1], SETS[-1][::-1], [name.upper() for name in SETS[-1]]]
    with LocalServer(engine, CONFIG) as server:
        before = server.metrics()
        reply = server.post(path, asked(path, [orders[number % 3] for number in range(PATHS[path])]))
        counted = server.counted(before)
    assert reply.status == 200
    answers = reply.body["answers"]
    chosen = [one["choice"] for one in (answers.values() if isinstance(answers, dict) else answers)]
    assert len(chosen) == PATHS[path]
    expected = engine.route("why python", rule="minmax", tau=0.3, allowed=SETS[-1]).model
    assert chosen[:3] == [expected, expected, expected.upper()]  # as each question spells it
    assert decisions(counted) == 1
    assert sum(value for name, value in counted.items() if name.startswith("ipr_cost_usd_total")) == pytest.approx(
        reply.body["ipr"]["cost_usd"]
    )


@pytest.mark.parametrize("path", PATHS)
def test_so_many_sets_are_decided_and_one_more_is_refused(engine: Engine, path: str) -> None:
    with LocalServer(engine, CONFIG) as server:
        before = server.metrics()
        most = server.post(path, asked(path, SETS[:MOST_SETS]))
        assert (most.status, decisions(server.counted(before))) == (200, MOST_SETS)
        over = server.post(path, asked(path, SETS[: MOST_SETS + 1]))
        assert (over.status, f"at most {MOST_SETS} different sets" in over.body["error"]["message"]) == (400, True)
        assert decisions(server.counted(before)) == MOST_SETS
    each = [engine.route("why python", rule="minmax", tau=0.3, allowed=some).model for some in SETS[:MOST_SETS]]
    answers = most.body["answers"]
    assert [one["choice"] for one in (answers.values() if isinstance(answers, dict) else answers)] == each


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_leaves_ends_it(engine: Engine, path: str) -> None:
    with LocalServer(engine, CONFIG) as server:
        before = server.metrics()
        assert server.post(path, asked(path, SETS[:MOST_SETS]), waits=False).status == 0
        left = f'ipr_requests_total{{path="{path}",status="499",tenant="anybody"}}'
        counted = server.counted(before)
        assert (counted[left], decisions(counted) < MOST_SETS) == (1, True)
        server.until(lambda: True)
        assert decisions(server.counted(before)) == decisions(counted)
