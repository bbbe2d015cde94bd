"""What a prompt is for: a table's column, what callers told a gateway, our records; what is no name is told and left out."""

from __future__ import annotations

import csv
import json

import pytest

from ipr_engine import Engine
from ipr_engine.collection.sources import PromptSource, SourceReport, read_questions
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import questions, write_lines

MESSAGES = [{"role": "user", "content": "Where is my order?"}]
NO_NAME = "tasks that are not a text of 1 to 200 characters that is not blank, taken for none"


def test_a_column_of_a_table_names_the_task(tmp_path):
    rows = [
        {"prompt": "a", "task": "support-bot"},
        {"prompt": "b", "task": 7},
        {"prompt": "c", "task": ""},
        {"prompt": "d"},
    ]
    assert [q.task for q in questions(write_lines(tmp_path / "p.jsonl", rows))] == ["support-bot", "7", None, None]
    with open(tmp_path / "p.csv", "w", newline="") as file:
        csv.writer(file).writerows([["prompt", "app"], ["a", "support-bot"], ["b", ""]])
    assert [q.task for q in questions(tmp_path / "p.csv", columns={"task": "app"})] == ["support-bot", None]


def test_a_source_names_the_task_of_prompts_that_state_none(tmp_path):
    rows = [{"prompt": "a", "task": "support-bot"}, {"prompt": "b"}]
    assert [q.task for q in questions(write_lines(tmp_path / "p.jsonl", rows), task="sql")] == ["support-bot", "sql"]
    with pytest.raises(InvalidInputError, match="task: expected a text of 1 to 200 characters"):
        PromptSource(path="p.jsonl", task=" ")


@pytest.mark.parametrize("task", [["x"], {"name": "x"}, True, 1.5, " ", "x" * 201, "\ud800"])
def test_what_is_no_name_refuses_no_prompt_and_is_told(tmp_path, task):
    report = SourceReport()
    rows = [{"prompt": "a", "task": task}, {"prompt": "b", "task": "sql"}]
    assert [q.task for q in questions(write_lines(tmp_path / "p.jsonl", rows), report)] == [None, "sql"]
    assert report.lines == [NO_NAME]


def test_a_prompt_of_two_tasks_is_one_question_of_the_first_and_that_is_told(tmp_path):
    report = SourceReport()
    rows = [
        {"prompt": "a"},
        {"prompt": "a", "task": "sql"},
        {"prompt": "a", "task": "chat"},
        {"prompt": "a", "task": "sql"},
    ]
    (found,) = questions(write_lines(tmp_path / "p.jsonl", rows), report)
    assert found.task == "sql"
    assert report.lines == ["prompts that are asked for another task as well, of which the first is taken"]


@pytest.mark.parametrize(
    "more",
    [
        {"metadata": {"requester_metadata": {"ipr_task": "support-bot"}, "ipr_task": "of the proxy"}},
        {"metadata": json.dumps({"ipr_task": "support-bot"})},
        {"proxy_server_request": {"headers": {"X-IPR-Task": " support-bot "}, "body": {"messages": MESSAGES}}},
        {"proxy_server_request": {"body": {"messages": MESSAGES, "metadata": {"ipr_task": "support-bot"}}}},
        {"proxy_server_request": json.dumps({"messages": MESSAGES, "metadata": {"ipr": '{"task": "support-bot"}'}})},
        {"proxy_server_request": {"body": {"messages": MESSAGES, "ipr": {"task": "support-bot", "tau": 0.1}}}},
    ],
)
def test_a_log_of_litellm_tells_what_callers_told_the_proxy(tmp_path, more):
    record = {
        "call_type": "acompletion",
        "model": "m",
        "messages": MESSAGES,
        "response": None,
        "request_tags": [],
        **more,
    }
    (found,) = questions(write_lines(tmp_path / "l.jsonl", [record]), layout="litellm")
    assert (found.task, found.prompt) == ("support-bot", "Where is my order?")
    assert "metadata" not in found.body


def test_metadata_of_langfuse_and_of_a_batch_name_the_task(tmp_path):
    seen = {"type": "GENERATION", "input": MESSAGES, "model": "m", "metadata": {"ipr_task": "support-bot"}}
    (found,) = questions(write_lines(tmp_path / "l.jsonl", [seen]), layout="langfuse")
    assert found.task == "support-bot"
    body = {"model": "m", "messages": MESSAGES, "metadata": {"ipr_task": "support-bot"}}
    asked = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (found,) = questions(write_lines(tmp_path / "b.jsonl", [asked]), layout="openai-batch")
    assert found.task == "support-bot"


def test_our_records_name_it_known_or_not(tmp_path):
    with Engine.load().recorder(tmp_path / "log.jsonl", keep_prompts=True) as recorder:
        recorder.route("Where is my order?", tau=0.2, id="1", task="support-bot")
        recorder.route("And when?", tau=0.2, id="2")
    assert [q.task for q in read_questions(tmp_path / "log.jsonl")] == ["support-bot", None]
