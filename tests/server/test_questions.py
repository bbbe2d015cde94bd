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
        assert over.status == (422 if path == "/v1/systemone" else 400)
        assert f"at most {MOST_SETS} different sets" in over.body["error"]["message"]
        assert decisions(server.counted(before)) == MOST_SETS
    each = [engine.route("why python", rule="minmax", tau=0.3, allowed=some).model for some in SETS[:MOST_SETS]]
    answers = most.body["answers"]
    assert [one["choice"] for one in (answers.values() if isinstance(answers, dict) else answers)] == each


@pytest.mark.parametrize("path", PATHS)
def test_of_several_sets_each_decision_is_told_with_its_questions(engine: Engine, path: str) -> None:
    first, second = SETS[0], SETS[-1]
    with LocalServer(engine, CONFIG) as server:
        one = server.post(path, asked(path, [first, first])).body["ipr"]
        body = server.post(path, asked(path, [first, second, first])).body
        none = server.post("/v1/decisions", {"input": "why", "questions": [{"type": "score"}]}).body["ipr"]
    assert none is None
    assert one["model"] == engine.route("why python", rule="minmax", tau=0.3, allowed=first).model
    names = ["q0", "q1", "q2"] if path == "/v1/systemone" else [0, 1, 2]
    told = body["ipr"]["decisions"]
    assert [decision["questions"] for decision in told] == [[names[0], names[2]], [names[1]]]
    for decision, among in zip(told, (first, second), strict=True):
        assert decision["model"] == engine.route("why python", rule="minmax", tau=0.3, allowed=among).model
        assert set(decision["ranked"]) == set(among)
    assert len({decision["id"] for decision in told}) == 2


@pytest.mark.parametrize(("path", "status"), [("/v1/decisions", 400), ("/v1/systemone", 422)])
def test_a_choice_that_is_no_candidate_is_told_in_the_formats_own_way(engine: Engine, path: str, status: int) -> None:
    with LocalServer(engine, CONFIG) as server:
        reply = server.post(path, asked(path, [SETS[0], [*SETS[1], "nobody"]]))
    error = reply.body["error"]
    assert reply.status == status
    assert error.get("field", error.get("param")) in ("questions.q1.criteria", "questions[1].choices")
    assert "'nobody' is no candidate" in error["message"]


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
