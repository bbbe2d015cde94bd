"""The same prompt twice is one question; what contradicts another row is told by both places; memory does not grow with the file."""

from __future__ import annotations

import json
import tracemalloc

import pytest

from ipr_engine.collection.sources import PromptSource, SourceReport, read_questions
from ipr_engine.errors import InvalidInputError
from tests.support.prompt_files import questions, write_lines


def logged(text, model, answer, **more):
    response = {"choices": [{"message": {"role": "assistant", "content": answer}, "finish_reason": "stop"}]}
    messages = [{"role": "user", "content": text}]
    return {
        "call_type": "acompletion",
        "response_cost": 0.1,
        "model": model,
        "messages": messages,
        "response": response,
        **more,
    }


def test_rows_of_one_prompt_are_one_question_with_all_answers_and_labels(tmp_path):
    table = [
        {"prompt": "a", "x|label": 1, "prompt_id": "p1", "reference": "r"},
        {"prompt": "b"},
        {"prompt": "a", "y|label": 0},
    ]
    logs = [logged("a", "x", "ax"), logged("b", "x", "bx"), logged("a", "y", "ay"), logged("a", "x", "again")]
    sources = [
        PromptSource(path=str(write_lines(tmp_path / "t.jsonl", table))),
        PromptSource(path=str(write_lines(tmp_path / "l.jsonl", logs)), dataset="logs"),
    ]
    report = SourceReport()
    found = {q.prompt: q for q in read_questions(sources, report=report)}
    assert (report.questions, report.rows) == (2, 7)
    a, b = found["a"], found["b"]
    assert (a.prompt_id, a.reference, a.dataset, a.labels) == ("p1", "r", "logs", {"x": 1.0, "y": 0.0})
    assert {model: answer.text for model, answer in a.answers.items()} == {
        "x": "ax",
        "y": "ay",
    }  # the first answer stays
    assert {model: answer.text for model, answer in b.answers.items()} == {"x": "bx"}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [{"prompt": "a", "m|label": 1}, {"prompt": "a", "m|label": 0.5}],
            "label of 'm': another one is given for the same prompt in",
        ),
        (
            [{"prompt": "a", "prompt_id": "p"}, {"prompt": "b", "prompt_id": "p"}],
            "prompt_id: 'p' is that of another prompt, in",
        ),
        (
            [{"prompt": "a", "prompt_id": "p"}, {"prompt": "a", "prompt_id": "q"}],
            "prompt_id: another one is stated for the same prompt in",
        ),
        (
            [{"prompt": "a", "split": "train"}, {"prompt": "a", "split": "test"}],
            "split: another one is stated for the same prompt in",
        ),
        (
            [{"prompt": "a", "reference": "1"}, {"prompt": "a", "reference": "2"}],
            "reference: another one is stated for the same prompt in",
        ),
    ],
)
def test_what_contradicts_another_row_is_told_by_both_places(tmp_path, rows, told):
    file = write_lines(tmp_path / "p.jsonl", [{"prompt": "other"}, *rows])
    with pytest.raises(InvalidInputError) as found:
        questions(file)
    assert str(found.value).startswith(f"{file}, row 3: {told} {file}, row 2;")
    report = SourceReport()
    kept = questions(file, report, skip_bad_rows=True)
    assert [q.prompt for q in kept] == ["other", "a"]
    assert (report.questions, report.rows, len(report.bad)) == (2, 2, 1)


def test_only_the_source_that_says_so_leaves_bad_rows_out(tmp_path):
    for name in "ab":
        write_lines(tmp_path / f"{name}.jsonl", [{"prompt": name}, {"prompt": 1.5}])
    sources = [PromptSource(path=str(tmp_path / f"{name}.jsonl"), skip_bad_rows=name == "a") for name in "ab"]
    with pytest.raises(InvalidInputError) as found:
        read_questions(sources)
    assert "b.jsonl, row 2" in str(found.value)
    assert "a.jsonl" not in str(found.value)


def test_nothing_is_yielded_before_every_row_was_checked(tmp_path):
    file = write_lines(tmp_path / "p.jsonl", [{"prompt": "good"}, {"prompt": 1.5}])
    with pytest.raises(InvalidInputError):
        read_questions(file)  # not one question is asked for


@pytest.mark.parametrize("cut", ["", '{"prompt": "half'])
def test_logs_that_grow_meanwhile_are_read_as_far_as_they_were(tmp_path, cut):
    for name in "ab":
        write_lines(tmp_path / f"{name}.jsonl", [{"prompt": f"{name} 1"}, {"prompt": f"{name} 2"}])
        with open(tmp_path / f"{name}.jsonl", "a") as file:
            file.write(cut)
    found = read_questions(PromptSource(path=str(tmp_path), skip_bad_rows=True))
    for name in "ab":
        with open(tmp_path / f"{name}.jsonl", "a") as file:
            file.write(' of it"}\n{"prompt": "c"}\n' if cut else '{"prompt": "c"}\n')
    assert [q.prompt for q in found] == ["a 1", "a 2", "b 1", "b 2"]


def test_a_file_that_is_replaced_meanwhile_is_told(tmp_path):
    file = write_lines(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b"}])
    found = read_questions(file)
    write_lines(file, [{"prompt": "a"}, {"prompt": "secret"}])
    with pytest.raises(InvalidInputError, match="row 2: the file was changed while it was read"):
        list(found)


def test_a_question_shows_no_prompt(tmp_path):
    (found,) = questions(write_lines(tmp_path / "p.jsonl", [{"prompt": "secret", "prompt_id": "p1"}]))
    assert repr(found) == "Question('p1')"


def test_memory_is_a_hash_a_prompt_and_not_the_prompts(tmp_path):
    count, size = 1000, 8000
    file = tmp_path / "p.jsonl"
    with open(file, "w") as out:
        for number in range(count):
            out.write(json.dumps({"prompt": f"{number} " + "x" * size, "reference": "y" * size}) + "\n")
    list(read_questions(write_lines(tmp_path / "warm.jsonl", [{"prompt": "a"}])))
    tracemalloc.start()
    assert sum(1 for _ in read_questions(file)) == count
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * 1000 < count * size / 2
