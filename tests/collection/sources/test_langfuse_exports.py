"""Langfuse's exports: observations of the blob storage, of the API and of the user interface, and traces with observations in them."""

from __future__ import annotations

import csv
import json

import pytest

from ipr_engine.collection.sources import SourceReport
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import questions, said, write_lines

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is 17 * 23?"}]
BLOB = {
    "id": "o1",
    "trace_id": "t1",
    "type": "GENERATION",
    "start_time": "2026-05-29 13:46:19.963000",
    "end_time": "2026-05-29 13:46:21.463000",
    "level": "DEFAULT",
    "input": json.dumps(MESSAGES),
    "output": json.dumps({"role": "assistant", "content": "391"}),
    "provided_model_name": "gpt-4o-mini",
    "model_parameters": '{"temperature":0.7}',
    "usage_details": {"input": 20, "input_cached_tokens": 4, "output": 2, "total": 26},
    "cost_details": {"input": 0.00001, "output": 0.00002, "total": 0.00003},
    "total_cost": 0.00003,
    "tool_definitions": {},
}
SHOWN = {
    "id": "o1",
    "traceId": "t1",
    "type": "GENERATION",
    "startTime": "2026-05-29T13:46:19.963Z",
    "endTime": "2026-05-29T13:46:21.463Z",
    "level": "DEFAULT",
    "model": "gpt-4o-mini",
    "input": {"messages": MESSAGES},
    "output": {"role": "assistant", "content": "391"},
    "usageDetails": {"input": 20, "input_cached_tokens": 4, "output": 2, "total": 26},
    "costDetails": {"input": 0.00001, "output": 0.00002, "total": 0.00003},
    "correct": [1],
    "tone": [0.2, 0.4],
}


def write_csv(path, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
        writer.writerow(rows[0])
        for row in rows:
            writer.writerow([cell if isinstance(cell, str) else json.dumps(cell) for cell in row.values()])
    return path


@pytest.mark.parametrize("row", [BLOB, SHOWN])
@pytest.mark.parametrize("form", ["jsonl", "json", "csv"])
def test_an_observation_becomes_a_question_with_its_answer(tmp_path, row, form):
    file = tmp_path / f"o.{form}"
    if form == "csv":
        write_csv(file, [row])
    elif form == "json":
        file.write_text(json.dumps([row]))
    else:
        write_lines(file, [row])
    (found,) = questions(file)
    assert said(found) == [("system", "Be brief."), ("user", "What is 17 * 23?")]
    answer = found.answers["gpt-4o-mini"]
    assert (answer.text, answer.input_tokens, answer.output_tokens) == ("391", 24, 2)
    assert (answer.cost_usd, answer.seconds) == (0.00003, pytest.approx(1.5))
    assert found.labels == {}


@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_the_stated_score_is_the_label(tmp_path, form):
    file = write_lines(tmp_path / "o.jsonl", [SHOWN]) if form == "jsonl" else write_csv(tmp_path / "o.csv", [SHOWN])
    assert questions(file, score="correct")[0].labels == {"gpt-4o-mini": 1.0}
    assert questions(file, score="tone")[0].labels == {"gpt-4o-mini": pytest.approx(0.3)}  # the mean of two


def test_the_only_score_is_the_label_and_of_several_one_must_be_stated(tmp_path):
    scores = [
        {"name": "correct", "value": 1, "dataType": "BOOLEAN"},
        {"name": "why", "value": 0, "dataType": "CATEGORICAL"},
    ]
    file = write_lines(tmp_path / "o.jsonl", [{**SHOWN, "scores": scores}])
    assert questions(file)[0].labels == {"gpt-4o-mini": 1.0}
    other = {**SHOWN, "input": "Why?", "scores": [{"name": "tone", "value": 0.5, "dataType": "NUMERIC"}]}
    file = write_lines(tmp_path / "o.jsonl", [{**SHOWN, "scores": scores}, other])
    with pytest.raises(InvalidInputError, match="row 2: holds the scores 'correct', 'tone'; say with score"):
        questions(file)


def test_a_trace_gives_each_of_its_generations(tmp_path):
    failed = {**SHOWN, "input": "Why?", "level": "ERROR", "output": None}
    trace = {"id": "t1", "input": "x", "observations": [{"type": "SPAN"}, SHOWN, failed, {**SHOWN, "input": {"a": 1}}]}
    report = SourceReport()
    found = questions(write_lines(tmp_path / "t.jsonl", [trace]), report, skip_bad_rows=True)
    assert [(q.prompt, list(q.answers)) for q in found] == [("What is 17 * 23?", ["gpt-4o-mini"]), ("Why?", [])]
    assert "row 1, observation 4: input: expected messages" in report.bad.summary


def test_a_score_of_a_trace_is_that_of_its_only_generation(tmp_path):
    scores = [{"name": "correct", "value": 0}]
    trace = {"id": "t1", "input": "x", "scores": scores, "observations": [{"type": "SPAN"}, SHOWN]}
    assert questions(write_lines(tmp_path / "t.jsonl", [trace]))[0].labels == {"gpt-4o-mini": 0.0}


def test_tools_beside_the_input_are_asked_with_it(tmp_path):
    tools = {"get_weather": json.dumps({"description": "Weather", "parameters": '{"type": "object"}'})}
    (found,) = questions(write_lines(tmp_path / "o.jsonl", [{**BLOB, "tool_definitions": tools}]))
    assert found.body["tools"] == [
        {
            "type": "function",
            "function": {"name": "get_weather", "description": "Weather", "parameters": {"type": "object"}},
        }
    ]


def test_a_text_as_input_is_what_the_user_says_even_where_it_begins_as_json_does(tmp_path):
    rows = [{**BLOB, "input": "[1] see above"}, {**BLOB, "input": "Why?"}]
    assert [q.prompt for q in questions(write_lines(tmp_path / "o.jsonl", rows))] == ["[1] see above", "Why?"]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"input": ""}, "has no input"),
        ({"input": "<truncated due to size exceeding limit>"}, "Langfuse's SDK cut it"),
        ({"input": "<fully masked due to failed mask function>"}, "Langfuse masked it"),
        (
            {"input": "see @@@langfuseMedia:type=image/png|id=a|source=bytes@@@"},
            "keeps a file or image of it elsewhere",
        ),
        ({"input": '["secret"]'}, "messages[0]: expected a message"),
        ({"input": [{"role": "human", "content": "secret"}]}, "messages[0].role"),
        ({"scores": [{"name": "a", "value": "secret"}]}, "score 'a': expected a number"),
    ],
)
def test_what_cannot_be_asked_again_is_refused(tmp_path, changed, told):
    with pytest.raises(InvalidInputError) as found:
        questions(write_lines(tmp_path / "o.jsonl", [{**BLOB, **changed}]))
    assert told in str(found.value)
    assert "secret" not in str(found.value)


def test_a_file_of_scores_is_told_as_one(tmp_path):
    score = {"id": "s", "trace_id": "t1", "observation_id": "o1", "name": "correct", "value": 1}
    with pytest.raises(InvalidInputError, match="is a score of Langfuse"):
        questions(write_lines(tmp_path / "s.jsonl", [score]))


@pytest.mark.parametrize("wrong", [3, [3], {"a": 3}, "{", True, None])
@pytest.mark.parametrize(
    "name", ["output", "usage_details", "cost_details", "total_cost", "start_time", "scores", "observations"]
)
def test_a_wrong_type_beside_the_input_ends_in_no_traceback(tmp_path, name, wrong):
    (found,) = questions(write_lines(tmp_path / "o.jsonl", [{**BLOB, name: wrong}, BLOB]), skip_bad_rows=True)
    assert found.prompt == "What is 17 * 23?"
