"""What a caller says a prompt is for decides where the bundle knows it, and is told wherever it does not."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import parse_task
from ipr_engine.audit.replay import ReplaySummary, replay
from ipr_engine.bundle import Bundle
from ipr_engine.bundle.task_names import LONGEST_TASK
from ipr_engine.loaded.loaded_bundle import LoadedBundle
from ipr_engine.request.asked_tasks import asked_tasks
from tests.support.bundles import make_bundle
from tests.support.decide_requests import bytes_of
from tests.support.task_bundles import TASKS, make_task_bundle
from tests.support.two_tier_bundles import make_prompts

PROMPTS = make_prompts(6, "asked tasks")
ASKED = ["sql", None, "unheard of", TASKS[1], "support-bot", "sql"]


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine.load(make_task_bundle(tmp_path_factory.mktemp("tasks"), surface=True))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return Engine.load(make_bundle(tmp_path_factory.mktemp("plain")))


def test_a_row_of_a_batch_is_that_prompt_alone_for_its_task(engine):
    many = engine.route_many(PROMPTS, tau=0.3, task=ASKED)
    for row, (prompt, task) in enumerate(zip(PROMPTS, ASKED, strict=True)):
        one = engine.route(prompt, tau=0.3, task=task)
        assert one.qualities.tobytes() == many.qualities[row].tobytes()
        assert (one.model, one.gap, one.task, one.task_known) == (
            many[row].model, many[row].gap, many[row].task, many[row].task_known,
        )  # fmt: skip
    assert [row.task for row in many] == ASKED
    assert [row.task_known for row in many] == [True, None, False, True, True, True]
    kept = engine.decide(engine.encode(PROMPTS, task=ASKED), tau=0.3)
    assert bytes_of(kept.result) == bytes_of(many.result)
    assert [row.task for row in kept] == ASKED


CHAT = {
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROMPTS[0]}],
    "max_tokens": 40,
}


@pytest.mark.parametrize("prompt", [PROMPTS[0], CHAT], ids=["text", "request"])
@pytest.mark.parametrize("task", ["sql", "unheard of"])
def test_a_prompt_for_a_task_is_one_call(engine, monkeypatch, prompt, task):
    [walked] = engine.route_many([prompt], tau=0.3, task=task)
    monkeypatch.setattr(LoadedBundle, "walk", None)
    policy = engine.policy(tau=0.3)
    for one in (engine.route(prompt, tau=0.3, task=task), engine.route(prompt, policy, task=task)):
        assert bytes_of(one.result) == bytes_of(walked.result)
        assert one.to_dict() == walked.to_dict()


@pytest.mark.parametrize("column", [-2, 10**6])
def test_a_column_that_x_has_not_is_refused(engine, column):
    router, policy = engine.loaded.router, engine.policy(tau=0.3).compiled
    with pytest.raises(InvalidInputError, match="task_column: expected -1 to "):
        router.route_one(PROMPTS[0], policy, column)
    with pytest.raises(InvalidInputError, match="task_column: expected -1 to "):
        router.route_request(PROMPTS[0], (), policy, None, -1, 1, column)


def test_the_task_enters_by_the_heads_own_weight(engine):
    skip = engine.bundle.quality_heads.tensors["skip"]
    column = engine.encoder.task_columns["sql"]
    without, told = (engine.route(PROMPTS[0], tau=0.3, task=task).qualities for task in (None, "sql"))
    logit = np.log(told / (1 - told)) - np.log(without / (1 - without))
    np.testing.assert_allclose(logit, skip[:, column], rtol=1e-3, atol=1e-4)


def test_a_task_that_no_head_knows_changes_nothing_and_is_told(engine, plain):
    for asked in (engine, plain):
        without, told = (asked.route(PROMPTS[0], tau=0.3, task=task) for task in (None, "unheard of"))
        assert bytes_of(told.result) == bytes_of(without.result)
        assert (told.task, told.task_known) == ("unheard of", False)
        assert (without.task, without.task_known) == (None, None)
        assert told.to_dict() == {**without.to_dict(), "task": "unheard of", "task_known": False}
        assert json.loads(told.to_json()) == told.to_dict()
        assert "task" not in json.loads(without.to_json())
        assert "task 'unheard of': not known to this bundle" in str(
            asked.explain(PROMPTS[0], tau=0.3, task="unheard of")
        )


def test_explain_tells_a_known_task(engine):
    explanation = engine.explain(PROMPTS[0], tau=0.3, task="sql")
    assert "task 'sql': the heads tell it apart" in str(explanation)
    assert explanation.to_dict()["decision"]["task_known"] is True


def test_another_task_on_a_kept_embedding_is_that_task(engine):
    kept = engine.encode(PROMPTS, task="sql")
    for task in ("support-bot", ASKED):
        again = engine.decide(kept, tau=0.3, task=task)
        assert bytes_of(again.result) == bytes_of(engine.route_many(PROMPTS, tau=0.3, task=task).result)
    bare = engine.decide(engine.encode(PROMPTS).x, tau=0.3, billed_tokens=9, task="sql")
    assert bare.qualities.tobytes() == engine.route_many(PROMPTS, tau=0.3, task="sql").qualities.tobytes()
    assert kept[2:4].tasks == kept.tasks[2:4]


def test_bad_prompts_leave_the_tasks_of_others_in_their_places(engine):
    prompts = [PROMPTS[0], "", PROMPTS[1], 7]
    made = engine.route_many(prompts, tau=0.3, task=["sql", "sql", None, "x"], on_error="status")
    assert [row.status for row in made] == ["ok", "invalid_input", "ok", "invalid_input"]
    assert [(row.task, row.task_known) for row in made] == [("sql", True), ("sql", True), (None, None), ("x", False)]
    assert made.qualities[0].tobytes() == engine.route(PROMPTS[0], tau=0.3, task="sql").qualities.tobytes()


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("", "task: expected a text of 1 to 200 characters that is not blank, or None, got ''"),
        ("x" * (LONGEST_TASK + 1), "task: expected a text of 1 to 200"),
        ("\ud800", "task: expected a text"),
        (7, "task: expected a text of 1 to 200 characters that is not blank, or None, got int"),
        ({"name": "x"}, "task: expected a text"),
        (["a"], "task: expected one a prompt, 2 in all, got 1"),
        (["a", 7], r"task\[1\]: expected a text"),
    ],
)
def test_what_is_no_task_is_refused_by_name(engine, task, expected):
    with pytest.raises(InvalidInputError, match=expected):
        engine.route_many(PROMPTS[:2], tau=0.3, task=task)
    with pytest.raises(InvalidInputError, match="task"):
        engine.encode(PROMPTS[:2], task=task)


def test_any_text_of_200_characters_is_a_task():
    name = "日\n" * (LONGEST_TASK // 2)
    assert asked_tasks(name, 1, {name})[0] == (name, True)
    assert asked_tasks(None, 3, ()) is None


def test_a_record_tells_the_task_and_replays_to_the_bit(engine, tmp_path):
    lines: list[bytes] = []
    recorder = engine.recorder(lines.append, min_words=0)
    recorder.route_many(PROMPTS, tau=0.3, task=ASKED)
    recorder.decide(engine.encode(PROMPTS[:1]), tau=0.3, task="sql")
    lines = b"".join(lines).splitlines(keepends=True)
    told = [Record.from_line(line).task for line in lines]
    assert [None if task is None else task.name for task in told] == [*ASKED, "sql"]
    assert [None if task is None else task.known for task in told] == [True, None, False, True, True, True, True]
    assert b'"task"' not in lines[1]
    summary = ReplaySummary()
    for replayed in replay(lines, engine):
        summary.add(replayed)
    assert (summary.equal, summary.records) == (len(lines), len(lines))


@pytest.mark.parametrize(
    "task", [None, "sql", {"name": "sql"}, {"name": "", "known": True}, {"name": "sql", "known": 1}]
)
def test_a_task_that_no_recorder_writes_is_refused(task):
    with pytest.raises(ValueError, match="task"):
        parse_task(task)


def test_a_decision_tells_its_task_in_another_process(engine):
    made = pickle.loads(pickle.dumps(engine.route(PROMPTS[0], tau=0.3, task="sql")))
    assert (made.task, made.task_known) == ("sql", True)


def test_a_swap_to_other_tasks_is_another_encoder(engine, tmp_path):
    assert isinstance(engine.bundle, Bundle)
    other = Engine.load(make_task_bundle(tmp_path))
    assert other.encoder.identity != engine.encoder.identity


def test_a_text_that_is_no_task_may_be_a_prompt_and_is_not_told(engine):
    for task in (text := "my secret " * 30, [None] * 5 + [text]):
        with pytest.raises(InvalidInputError, match="got a text of 300 characters") as caught:
            engine.route_many(PROMPTS, tau=0.3, task=task)
        assert "secret" not in str(caught.value)
    with pytest.raises(InvalidInputError, match="got one with a lone surrogate"):
        engine.route(PROMPTS[0], tau=0.3, task="a\ud800")
