"""Tables of prompts: JSONL, CSV and Parquet mean the same; columns, labels and what is wrong with them."""

from __future__ import annotations

import csv
import gzip
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine.collection.sources import PromptSource, SourceReport, prompt_sources, read_questions
from ipr_engine.documents.typed_document import read_typed
from ipr_engine.errors import InvalidInputError
from tests.support import skips
from tests.support.prompt_files import questions, said, write_lines

ROWS = [
    {
        "prompt_id": "p1",
        "prompt": "What is 17 * 23?",
        "reference": "391",
        "grader": "right",
        "dataset": "sums",
        "split": "train",
    },
    {
        "prompt_id": "p2",
        "prompt": "Größter Fluß, 长江?",
        "system": "Be brief.",
        "question_key": "k2",
        "a|label": "0.25",
    },
    {
        "prompt_id": "p3",
        "messages": '[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}, '
        '{"role": "user", "content": "and now?"}]',
        "b|label": "true",
    },
]


def write_csv(path, rows):
    names = list(dict.fromkeys(name for row in rows for name in row))
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_row_becomes_a_question_with_all_its_columns(tmp_path):
    first, second, third = questions(write_lines(tmp_path / "p.jsonl", ROWS))
    assert (first.prompt_id, first.prompt, first.reference, first.grader) == ("p1", "What is 17 * 23?", "391", "right")
    assert (first.dataset, first.split, first.labels) == ("sums", "train", {})
    assert said(second) == [("system", "Be brief."), ("user", "Größter Fluß, 长江?")]
    assert (second.prompt, second.question_key, second.labels) == ("Größter Fluß, 长江?", "k2", {"a": 0.25})
    assert [role for role, _ in said(third)] == ["user", "assistant", "user"]
    assert (third.prompt, third.labels) == ("Hi\n\nand now?", {"b": 1.0})


def test_csv_parquet_and_json_mean_what_json_lines_mean(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason=skips.TRAIN)
    arrow = pytest.importorskip("pyarrow", reason=skips.TRAIN)
    expected = questions(write_lines(tmp_path / "p.jsonl", ROWS))
    names = list(dict.fromkeys(name for row in ROWS for name in row))
    pq.write_table(arrow.table({name: [row.get(name) for row in ROWS] for name in names}), tmp_path / "p.parquet")
    write_csv(tmp_path / "p.csv", ROWS)
    (tmp_path / "p.json").write_text(json.dumps(ROWS, indent=2))
    (tmp_path / "p.csv.gz").write_bytes(gzip.compress((tmp_path / "p.csv").read_bytes()))
    for name in ("p.parquet", "p.csv", "p.json", "p.csv.gz"):
        assert questions(tmp_path / name) == expected, name


def test_lists_and_objects_of_parquet_are_messages(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet", reason=skips.TRAIN)
    arrow = pytest.importorskip("pyarrow", reason=skips.TRAIN)
    messages = [[{"role": "user", "content": f"question {row}"}] for row in range(600)]
    pq.write_table(arrow.table({"messages": messages, "reference": [["a", "b"]] * 600}), tmp_path / "p.parquet")
    found = questions(tmp_path / "p.parquet")
    assert len(found) == 600
    assert (found[599].prompt, found[599].reference) == ("question 599", ["a", "b"])


def test_an_id_is_made_of_the_body_where_none_is_given(tmp_path):
    plain, again, other = (
        questions(write_lines(tmp_path / f"{number}.jsonl", rows))[0]
        for number, rows in enumerate(
            [[{"prompt": "a"}], [{"messages": [{"content": "a", "role": "user"}]}], [{"prompt": "a", "system": "b"}]]
        )
    )
    assert plain.prompt_id == again.prompt_id != other.prompt_id
    assert len(plain.prompt_id) == 32


def test_columns_of_other_names_are_taken_by_name(tmp_path):
    file = write_lines(tmp_path / "p.jsonl", [{"question": "Why?", "expected": "so", "gpt score": 4}])
    (found,) = questions(
        file, columns={"prompt": "question", "reference": "expected", "gpt|label": "gpt score"}, scale=(1.0, 5.0)
    )
    assert (found.prompt, found.reference, found.labels) == ("Why?", "so", {"gpt": 0.75})


def test_columns_that_are_not_read_are_told(tmp_path):
    report = SourceReport()
    questions(write_lines(tmp_path / "p.jsonl", [{"prompt": "Why?", "refrence": "so"}] * 3), report)
    assert report.lines == ["columns that are not read: 'refrence'"]


def test_dataset_and_split_of_the_source_stand_where_a_row_has_none(tmp_path):
    file = write_lines(tmp_path / "p.jsonl", [{"prompt": "a"}, {"prompt": "b", "split": "test"}])
    assert [(q.dataset, q.split) for q in questions(file, dataset="mine", split="train")] == [
        ("mine", "train"),
        ("mine", "test"),
    ]


def test_a_plan_states_sources_as_a_path_one_object_or_a_list(tmp_path):
    write_lines(tmp_path / "p.jsonl", [{"prompt": "a"}])
    made, mistakes = read_typed(
        PromptSource,
        {"path": "p.jsonl", "layout": "table", "columns": {"prompt": "q"}, "scale": [1, 5], "skip_bad_rows": True},
    )
    assert not mistakes
    assert made == PromptSource(
        path="p.jsonl", layout="table", columns={"prompt": "q"}, scale=(1, 5), skip_bad_rows=True
    )
    for prompts in ("p.jsonl", PromptSource(path="p.jsonl"), [PromptSource(path="p.jsonl")], ["p.jsonl"]):
        assert [one.path for one in prompt_sources(prompts, tmp_path)] == [str(tmp_path / "p.jsonl")]
        assert [q.prompt for q in read_questions(prompts, folder=tmp_path)] == ["a"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        ({"path": "p", "layout": "xml"}, "layout: expected one of auto, table"),
        ({"path": "p", "scale": [5, 1]}, "scale: expected the lowest and the highest"),
        ({"path": ""}, "path: expected a path"),
        ({"layout": "table"}, "path: is missing"),
    ],
)
def test_a_source_that_is_stated_wrongly_is_told_by_its_field(document, told):
    made, mistakes = read_typed(PromptSource, document)
    assert made is None
    assert told in mistakes[0].text


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": 1.5}, "column 'prompt': expected text, got float"),
        ({"prompt": "a", "messages": []}, "got both"),
        ({"reference": "a"}, "got neither"),
        ({"messages": "a b"}, "expected a list of messages"),
        ({"messages": "[{"}, "expected JSON in column 'messages'"),
        ({"messages": []}, "expected a list of messages"),
        ({"messages": [3]}, "messages[0]: expected a message"),
        ({"messages": [{"role": ["user"], "content": "x"}]}, "messages[0].role: expected one of system"),
        (
            {"messages": [{"role": "user", "content": [{"type": {}, "text": "x"}]}]},
            "content[0].type: expected one of text",
        ),
        ({"messages": [{"role": "user", "content": {"a": 1}}]}, "request['messages'][0]['content']"),
        ({"messages": [{"role": "user", "content": "  "}]}, "asks nothing"),
        ({"prompt": ""}, "expected at least one user message with text"),
        ({"prompt": "secret", "a|label": 1.5}, "column 'a|label': expected a number from 0 to 1, got 1.5"),
        (
            {"prompt": "secret", "a|label": "very good indeed"},
            "column 'a|label': expected a number from 0 to 1, got a text of 16",
        ),
        ({"prompt": "a", "a|label": "secret"}, "expected a number from 0 to 1, got a text of 6"),
        ({"messages": "secret"}, "expected a list of messages, got str"),
        ({"prompt": ["secret"]}, "expected text, got list"),
        ({"messages": [{"role": "user", "content": ["secret"]}]}, "messages[0].content[0]: expected a part"),
        ({"prompt": "secret", "a|label": [1]}, "column 'a|label': expected a number"),
        ({"prompt": "secret", "tools": [{"type": "web_search"}]}, "tools[0]: expected a function"),
        ({"prompt": "secret", "tools": 3}, "tools: expected a list"),
        ({"prompt": "secret", "split": ["a"]}, "column 'split': expected text"),
        ('{"prompt": "secret", "reference": NaN}', "NaN is no number of JSON"),
        ('{"prompt": "secret", "reference": 1e999}', "column 'reference': expected what JSON can hold"),
        ('{"prompt": "secret", "response_format": {"a": 1e999}}', "holds what JSON cannot"),
        ('{"prompt": "secret", "a|label": 1e999}', "column 'a|label': expected a number from 0 to 1, got inf"),
        ('{"prompt": "secret", "prompt_id": "\\ud800"}', "prompt_id: expected Unicode text"),
        ('{"prompt": "secret \\ud800"}', "holds a lone surrogate"),
        ('{"prompt": "secret", "\\ud800|label": 1}', "model: expected Unicode text"),
        ('{"prompt": "secret', "expected a JSON object: Unterminated string"),
        ('["secret"]', "expected a JSON object, got"),
        ("[" * 100_000, "nested too deeply"),
        ('{"prompt": "secret", "tools": ' + "[" * 5000 + "]" * 5000 + "}", "nested too deeply"),
        ('{"prompt": ' + "9" * 5000 + "}", "too many digits"),
        (b'{"prompt": "secret \xff"}', "is not UTF-8"),
    ],
)
def test_a_bad_row_is_told_by_file_row_and_reason_and_no_text(tmp_path, row, told):
    file = write_lines(tmp_path / "p.jsonl", [{"prompt": "good"}, row])
    with pytest.raises(InvalidInputError) as found:
        questions(file)
    text = str(found.value)
    assert f"{file}, row 2: " in text
    assert told in text
    assert "secret" not in text
    assert found.value.__cause__ is None
    assert found.value.__context__ is None
    report = SourceReport()
    assert [q.prompt for q in questions(file, report, skip_bad_rows=True)] == ["good"]
    assert len(report.bad) == 1


def test_ten_bad_rows_are_told_and_the_others_counted(tmp_path):
    file = write_lines(tmp_path / "p.jsonl", [{"prompt": "good"}, *([{"prompt": 1.5}] * 30)])
    with pytest.raises(InvalidInputError) as found:
        questions(file)
    lines = str(found.value).splitlines()
    assert lines[0] == "30 bad rows:"
    assert len(lines) == 12
    assert "and 20 more" in lines[-1]
    assert "skip_bad_rows" in lines[-1]


def test_a_csv_that_ends_in_a_quote_or_has_rows_of_other_lengths_is_told(tmp_path):
    (tmp_path / "p.csv").write_text('prompt,split\na,train\nb\n"secret')
    with pytest.raises(InvalidInputError) as found:
        questions(tmp_path / "p.csv")
    assert "row 2: expected 2 cells as in the header, got 1" in str(found.value)
    assert "is not CSV" in str(found.value)
    assert "secret" not in str(found.value)


def test_a_cell_may_be_longer_than_a_csv_cell_mostly_is(tmp_path):
    before = csv.field_size_limit()
    write_csv(tmp_path / "p.csv", [{"prompt": "word " * 100_000, "reference": "r"}])
    assert len(questions(tmp_path / "p.csv")[0].prompt) == 500_000
    assert csv.field_size_limit() == before


@pytest.mark.parametrize("data", [b"", b"\n\n", b"[]", b"{}"])
@pytest.mark.parametrize("ending", ["jsonl", "json", "csv"])
def test_a_file_without_prompts_is_told(tmp_path, data, ending):
    (tmp_path / f"p.{ending}").write_bytes(data)
    with pytest.raises(InvalidInputError) as found:
        questions(tmp_path / f"p.{ending}")
    assert "p." + ending in str(found.value)


def test_a_damaged_archive_is_told(tmp_path):
    whole = gzip.compress(random.Random(1).randbytes(2000).hex().encode() * 2)
    (tmp_path / "p.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match="cannot be read: the file is damaged or cut"):
        questions(tmp_path / "p.jsonl.gz")
    (tmp_path / "q.jsonl.gz").write_bytes(b"no archive")
    with pytest.raises(InvalidInputError, match="damaged or cut"):
        questions(tmp_path / "q.jsonl.gz")
    (tmp_path / "q.parquet").write_bytes(b"no table")
    pytest.importorskip("pyarrow", reason=skips.TRAIN)
    with pytest.raises(InvalidInputError, match="no readable Parquet"):
        questions(tmp_path / "q.parquet", layout="table")


@pytest.mark.parametrize("end", ["", ",", ', {"prompt": "secret', ", 3]"])
def test_a_list_that_does_not_end_is_told(tmp_path, end):
    (tmp_path / "p.json").write_text('[{"prompt": "a"}' + end)
    with pytest.raises(InvalidInputError) as found:
        questions(tmp_path / "p.json")
    assert "p.json, row 2: " in str(found.value)
    assert "secret" not in str(found.value)


def test_a_list_is_read_object_by_object_whatever_their_size(tmp_path):
    rows = [
        {"prompt": f"{number} " + "long " * (40_000 if number % 7 == 0 else 3), "system": "[,]{"}
        for number in range(30)
    ]
    (tmp_path / "p.json").write_text(json.dumps(rows, indent=1))
    assert [q.prompt for q in questions(tmp_path / "p.json")] == [row["prompt"] for row in rows]
    (tmp_path / "p.json").write_text("\n".join(json.dumps(row, indent=1) for row in rows))
    assert len(questions(tmp_path / "p.json")) == 30


@pytest.mark.parametrize("name", ["p.txt", "none.jsonl", "folder"])
def test_a_path_that_holds_no_prompts_is_told(tmp_path, name):
    (tmp_path / "p.txt").write_text("a")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InvalidInputError, match=name):
        questions(tmp_path / name)


def test_a_layout_that_is_not_recognised_tells_what_was_found_and_what_is_known(tmp_path):
    file = write_lines(tmp_path / "p.jsonl", [{"question": "a", "a whole prompt as a key, nobody knows why": 1}])
    with pytest.raises(InvalidInputError) as found:
        questions(file)
    text = str(found.value)
    assert "'question'" in text
    assert "whole prompt" not in text
    assert "table, litellm, langfuse, opentelemetry, openai-batch, ipr-records" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": {"prmpt": "a"}}, "'prmpt' is no column of ours"),
        ({"columns": {"prompt": "a", "reference": "a"}}, "one name of ours for each column"),
        ({"key": "owner.key"}, "key: has no effect on"),
        ({"score": "quality"}, "score: has no effect on"),
    ],
)
def test_an_option_that_has_no_effect_is_told(tmp_path, options, told):
    file = write_lines(tmp_path / "p.jsonl", [{"prompt": "a"}])
    with pytest.raises(InvalidInputError, match=told):
        questions(file, **options)


CELLS = st.one_of(
    st.none(),
    st.text(max_size=20),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.lists(
        st.dictionaries(st.sampled_from(["role", "content", "type", "text"]), st.text(max_size=5), max_size=3),
        max_size=3,
    ),
    st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=2),
)
NAMES = st.sampled_from(
    [
        "prompt",
        "messages",
        "system",
        "tools",
        "reference",
        "prompt_id",
        "split",
        "a|label",
        "|label",
        "response_format",
        "other",
    ]
)


@settings(deadline=None)
@given(rows=st.lists(st.dictionaries(NAMES, CELLS, max_size=5), max_size=6))
def test_any_table_is_read_or_refused(tmp_path_factory, rows):
    file = write_lines(tmp_path_factory.mktemp("t") / "p.jsonl", [{"prompt": "good"}, *rows])
    report = SourceReport()
    found = questions(file, report, layout="table", skip_bad_rows=True)
    assert report.rows + len(report.bad) == len(rows) + 1
    assert len({q.prompt_id for q in found}) == len(found) == report.questions
    for question in found:
        json.dumps(question.body, allow_nan=False).encode()
        assert all(0 <= label <= 1 for label in question.labels.values())


@settings(deadline=None)
@given(prompts=st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8, unique=True))
def test_prompts_come_through_csv_and_json_as_they_are(tmp_path_factory, prompts):
    folder = tmp_path_factory.mktemp("t")
    rows = [{"prompt": prompt, "split": "train"} for prompt in prompts]
    expected = [q.prompt for q in questions(write_lines(folder / "p.jsonl", rows))]
    assert expected == prompts
    if not any("\0" in prompt for prompt in prompts):
        assert [q.prompt for q in questions(write_csv(folder / "p.csv", rows))] == prompts
