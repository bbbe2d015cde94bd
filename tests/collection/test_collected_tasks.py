"""What prompts are for goes through the ledger into the outcome tables; tables of prompts that say nothing are as they were."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace

import pytest

from ipr_engine.cli.main import main
from ipr_engine.collection.cells import take_in
from ipr_engine.collection.ledger import LEDGER, Ledger
from ipr_engine.collection.outcome_tables import write_tables
from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from tests.support.collections import plan_for, questions


def tables(folder, asked):
    """Take prompts with labels into a ledger in `folder`, and write its tables there."""
    plan = plan_for(folder, "http://127.0.0.1:9/v1")
    labelled = [replace(question, labels={"plain": n % 2}) for n, question in enumerate(asked)]
    with Ledger(folder / LEDGER) as ledger:
        taken = take_in(ledger, plan, labelled, 1)
        write_tables(ledger, plan, 1, {}, folder / "collected")
    return taken, [json.loads(line) for line in (folder / "collected" / "prompts.jsonl").read_text().splitlines()]


def test_tables_have_the_column_where_some_prompt_states_a_task(tmp_path):
    first, second, third = questions(3)
    asked = [replace(first, task="support-bot"), second, replace(third, task="sql")]
    taken, rows = tables(tmp_path, asked)
    assert taken.tasks == {"support-bot": 1, "sql": 1}
    assert [row["task"] for row in rows] == ["support-bot", None, "sql"]
    assert load_outcomes(tmp_path / "collected").tasks_by("task") == ("support-bot", None, "sql")


def test_tables_without_tasks_have_no_such_column(tmp_path):
    taken, rows = tables(tmp_path, questions(2))
    assert not taken.tasks
    assert all("task" not in row for row in rows)
    assert load_outcomes(tmp_path / "collected").tasks == ()


def test_a_task_that_is_taken_away_or_stated_later_is_that_of_the_last_run(tmp_path):
    asked = questions(2)
    tables(tmp_path, [replace(one, task="sql") for one in asked])
    _, rows = tables(tmp_path, asked)
    assert all("task" not in row for row in rows)
    _, rows = tables(tmp_path, [replace(asked[0], task="chat"), asked[1]])
    assert [row["task"] for row in rows] == ["chat", None]


def test_prompts_with_several_turns_of_a_user_are_counted(tmp_path):
    single, chat, parted = questions(3)
    turn = {"role": "user", "content": "and of it?"}
    answered = {"role": "assistant", "content": "it is so"}
    chat = replace(
        chat, body={"messages": [*chat.body["messages"], answered, turn]}, prompt=f"{chat.prompt}\n\nand of it?"
    )
    parts = [{"type": "text", "text": text} for text in ("one", "two")]
    parted = replace(parted, body={"messages": [{"role": "user", "content": parts}, answered]})
    taken, rows = tables(tmp_path, [single, chat, parted])
    assert taken.conversations == 1
    assert rows[1]["prompt"].endswith("\n\nand of it?")


@pytest.mark.parametrize("task", ["", "x" * 201, ["sql"]])
def test_a_question_of_ones_own_with_no_name_for_a_task_is_refused(tmp_path, task):
    with pytest.raises(InvalidInputError, match=r"prompt 'q00000': task: expected a text of 1 to 200 characters"):
        tables(tmp_path, [replace(questions(1)[0], task=task)])


def test_a_ledger_of_an_earlier_release_is_gone_on_with(tmp_path):
    tables(tmp_path, questions(2))
    with sqlite3.connect(tmp_path / LEDGER) as earlier:
        earlier.execute("ALTER TABLE question DROP COLUMN task")
    earlier.close()
    _, rows = tables(tmp_path, [replace(one, task="sql") for one in questions(3)])
    assert [row["task"] for row in rows] == ["sql"] * 3


def test_a_split_keeps_them(tmp_path):
    pytest.importorskip("pyarrow", reason="needs extra [train]: a source in Parquet")
    tables(tmp_path, [replace(one, task=f"t{n % 2}") for n, one in enumerate(questions(20))])
    assert (
        main(["data", "split", str(tmp_path / "collected"), str(tmp_path / "split"), "--shares", "train=0.5,test=0.5"])
        == 0
    )
    kept = load_outcomes(tmp_path / "split")
    assert kept.tasks == tuple(f"t{n % 2}" for n in range(20))
