"""OpenAI's batch files: requests alone, with their answers, in one folder or two files."""

from __future__ import annotations

import gzip
import json

import pytest

from ipr_engine.collection.sources import PromptSource, SourceReport, read_questions
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import questions, said, write_lines


def asked(number, **body):
    messages = [{"role": "user", "content": f"question {number}"}]
    body = {"model": "gpt-4o-mini", "messages": messages, "max_tokens": 9, **body}
    return {"custom_id": f"q{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def answered(number, status=200, text="yes", error=None):
    message = {"role": "assistant", "content": text}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
    response = {
        "status_code": status,
        "request_id": "req_1",
        "body": body if status == 200 else {"error": {"message": "no"}},
    }
    return {"id": "batch_req_1", "custom_id": f"q{number}", "response": None if error else response, "error": error}


def of(request):
    return {"custom_id": request["custom_id"]}


REQUESTS = [asked(1), asked(2), asked(3), asked(4)]
ANSWERS = [answered(3), answered(1, text="no"), answered(2, status=400), answered(4, error={"code": "batch_expired"})]


def test_requests_alone_are_questions(tmp_path):
    found = questions(write_lines(tmp_path / "in.jsonl", REQUESTS))
    assert [q.prompt for q in found] == [f"question {n}" for n in (1, 2, 3, 4)]
    assert len({q.prompt_id for q in found}) == 4
    assert found[0].body == {"messages": [{"role": "user", "content": "question 1"}]}


@pytest.mark.parametrize("one_source", [True, False])
def test_answers_go_with_their_requests_whatever_their_order(tmp_path, one_source):
    write_lines(tmp_path / "a_in.jsonl", REQUESTS)
    write_lines(tmp_path / "b_out.jsonl", ANSWERS)
    sources = [PromptSource(path=str(tmp_path))]
    if not one_source:
        sources = [PromptSource(path=str(tmp_path / name)) for name in ("a_in.jsonl", "b_out.jsonl")]
    report = SourceReport()
    found = list(read_questions(sources, report=report))
    assert [[answer.text for answer in q.answers.values()] for q in found] == [["no"], [], ["yes"], []]
    answer = found[2].answers["gpt-4o-mini"]  # under the name that was asked
    assert (answer.input_tokens, answer.output_tokens, answer.finish_reason) == (3, 1, "stop")
    assert report.lines == [
        "requests of a batch without a text as their answer, of which the request alone is taken (2 times)"
    ]


def test_calls_of_one_prompt_in_one_batch_are_one_question_with_both_answers(tmp_path):
    asking = [{**asked(n, model=model), "custom_id": f"{model}-{n}"} for n in (1, 2) for model in ("small", "big")]
    write_lines(tmp_path / "in.jsonl", asking)
    write_lines(tmp_path / "out.jsonl", [{**answered(1, text=line["custom_id"]), **of(line)} for line in asking])
    texts = [{model: answer.text for model, answer in q.answers.items()} for q in questions(tmp_path)]
    assert texts == [{"small": "small-1", "big": "big-1"}, {"small": "small-2", "big": "big-2"}]


def test_batches_that_number_alike_are_told_apart(tmp_path):
    for name, first in (("may", 1), ("june", 3)):
        (tmp_path / name).mkdir()
        asking = [{**asked(first + n), "custom_id": f"request-{n}"} for n in (0, 1)]
        write_lines(tmp_path / name / "in.jsonl", asking)
        write_lines(
            tmp_path / name / "out.jsonl", [{**answered(1, text=f"{name} {n}"), **of(asking[n])} for n in (0, 1)]
        )
    found = list(read_questions([PromptSource(path=str(tmp_path / name)) for name in ("may", "june")]))
    said_to = {q.prompt: q.answers["gpt-4o-mini"].text for q in found}
    assert said_to == {"question 1": "may 0", "question 2": "may 1", "question 3": "june 0", "question 4": "june 1"}


def test_a_batch_s_prompt_has_the_id_that_it_has_in_a_table(tmp_path):
    batch = questions(write_lines(tmp_path / "in.jsonl", [asked(1)]))
    table = questions(write_lines(tmp_path / "table.jsonl", [{"prompt": "question 1"}]))
    assert batch[0].prompt_id == table[0].prompt_id


def test_batches_of_several_models_are_merged_by_body(tmp_path):
    for name in ("small", "big"):
        (tmp_path / name).mkdir()
        write_lines(tmp_path / name / "in.jsonl", [asked(1, model=name), asked(2, model=name)])
        write_lines(tmp_path / name / "out.jsonl", [answered(1, text=f"{name} 1"), answered(2, text=f"{name} 2")])
    found = list(read_questions([PromptSource(path=str(tmp_path / name)) for name in ("small", "big")]))
    texts = [{model: answer.text for model, answer in q.answers.items()} for q in found]
    assert texts == [{"small": "small 1", "big": "big 1"}, {"small": "small 2", "big": "big 2"}]


def test_answers_that_cannot_be_read_or_that_nobody_asked_for_are_told(tmp_path):
    write_lines(tmp_path / "a_in.jsonl", REQUESTS[:1])
    write_lines(tmp_path / "b_out.jsonl", [ANSWERS[1], '{"custom_id": "q2", "resp', answered(9)])
    report = SourceReport()
    assert len(questions(tmp_path, report)) == 1
    assert report.lines == [
        "answers of a batch to requests that are not there",
        "lines among the answers of a batch that are no answer",
    ]


def test_requests_to_responses_become_chats(tmp_path):
    body = {"model": "gpt-4o", "instructions": "Be brief.", "input": "Why?"}
    file = write_lines(tmp_path / "in.jsonl", [{"custom_id": "q1", "url": "/v1/responses", "body": body}])
    assert said(questions(file)[0]) == [("system", "Be brief."), ("user", "Why?")]


def test_answers_without_their_requests_are_refused(tmp_path):
    file = write_lines(tmp_path / "out.jsonl", ANSWERS)
    with pytest.raises(InvalidInputError, match="answers of a batch without what was asked"):
        questions(file)


def test_packed_answers_are_refused_and_packed_requests_read(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(json.dumps(REQUESTS[0]).encode()))
    assert len(questions(tmp_path / "a.jsonl.gz")) == 1
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(json.dumps(ANSWERS[0]).encode()))
    with pytest.raises(InvalidInputError, match=r"give a plain \.jsonl"):
        questions(tmp_path)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**asked(1), "custom_id": 3}, "custom_id: expected a text"),
        ({**asked(1), "body": "secret"}, "body: expected a request, got str"),
        ({**asked(1), "url": "/v1/embeddings"}, "url: expected one that ends in"),
        ({**asked(1), "url": ["secret secret"]}, "url: expected one that ends in"),
        (asked(1), "'q1' is there twice"),
        ({"custom_id": "q9", "body": {"prompt": "secret"}}, "prompt: names a prompt"),
        ('{"custom_id": "q9", "bod', "expected a JSON object"),
    ],
)
def test_a_bad_request_is_told(tmp_path, row, told):
    file = write_lines(tmp_path / "in.jsonl", [asked(1), row])
    with pytest.raises(InvalidInputError) as found:
        questions(file)
    assert f"{file}, row 2" in str(found.value)
    assert told in str(found.value)
    assert "secret" not in str(found.value)
