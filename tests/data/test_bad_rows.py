"""Bad rows are told all at once, can be left out and counted, and never end in a bare exception; columns under other names."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from ipr_engine.data import load_outcomes
from ipr_engine.data.importers import import_llmrouterbench, import_routellm, import_routerbench, import_wide
from ipr_engine.data.tables import SHOWN, BadRows
from ipr_engine.errors import InvalidInputError

ROWS = [
    {"prompt_id": f"p{i:02d}", "prompt": f"prompt {i}", "a|quality": 1, "a|output_tokens": 10, "b|quality": 0.5}
    for i in range(30)
]


def write(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def spoilt(tmp_path):
    """30 rows, five of them bad in ways of their own."""
    rows = [dict(row) for row in ROWS]
    rows[2]["a|quality"] = 1.5
    rows[4]["prompt"] = "lone \ud83d"
    rows[6]["prompt_id"] = "p05"
    rows[8]["a|output_tokens"] = "many"
    rows[10]["b|quality"] = [1]
    return rows


def test_an_import_tells_every_bad_row_at_once(tmp_path, spoilt):
    file = write(tmp_path / "mine.jsonl", [*spoilt, "{broken", "3"])
    with pytest.raises(InvalidInputError) as found:
        import_wide(file)
    told = str(found.value).splitlines()
    assert told[0] == "7 bad rows:"
    for part in (
        "row 3, model 'a', column 'quality': expected a number in [0, 1], or nothing where it is missing, got 1.5",
        "row 5, column 'prompt': expected Unicode text, it holds a lone surrogate",
        "row 7, column 'prompt_id': expected distinct ids, 'p05' stands in mine.jsonl, row 6 too",
        "row 9, model 'a', column 'output_tokens': expected a number, got 'many'",
        "row 11, model 'b', column 'quality': expected a number, got [1]",
        "row 31: expected a JSON object",
        "row 32: expected a JSON object, got 3",
    ):
        assert any(part in line for line in told), part
    assert "--skip-bad-rows" in told[-1]
    assert "lone" not in str(found.value).replace("lone surrogate", "")


def test_the_list_is_bounded_and_the_rest_is_counted(tmp_path):
    rows = [{**row, "a|quality": 7} for row in ROWS]
    with pytest.raises(InvalidInputError, match=f"^30 bad rows:(\n.*){{{SHOWN}}}\n  and {30 - SHOWN} more"):
        import_wide(write(tmp_path / "mine.jsonl", rows))


def test_bad_rows_are_left_out_and_counted_when_asked(tmp_path, spoilt):
    bad = BadRows(skip=True)
    made = import_wide(write(tmp_path / "mine.jsonl", [*spoilt, "{broken"]), bad=bad)
    assert len(bad) == 6
    assert len(made) == 25
    assert set(made.prompt_ids) == {f"p{i:02d}" for i in range(30) if i not in (2, 4, 6, 8, 10)}
    assert made.covered.all()


def test_a_ragged_csv_row_is_one_of_them_and_numbers_stay_those_of_the_file(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("prompt,m\nfirst,1\nsecond\nthird,2\nfourth,0\n")
    with pytest.raises(
        InvalidInputError, match=r"(?s)2 bad rows:.*row 2: expected 2 cells.*row 3, model 'm', column 'quality'"
    ):
        import_wide(file)
    bad = BadRows(skip=True)
    assert import_wide(file, bad=bad).prompts == ("first", "fourth")
    assert len(bad) == 2


def test_nothing_left_is_an_error_that_says_why(tmp_path):
    file = write(tmp_path / "mine.jsonl", [{"prompt": "a", "m": 2}, {"prompt": "b", "m": -1}])
    with pytest.raises(InvalidInputError, match=r"every row is bad: 2 bad rows:"):
        import_wide(file, bad=BadRows(skip=True))


def test_loading_tells_every_bad_cell_at_once(tmp_path):
    write(tmp_path / "prompts.jsonl", [{"prompt_id": "a", "prompt": "x"}, {"prompt_id": "b", "prompt": None}])
    outcomes = [("a", "m", 2), ("b", "m", 1), ("c", "m", 1), ("a", "n", "good"), ("a", "n", 1)]
    write(
        tmp_path / "outcomes.jsonl",
        [{"prompt_id": i, "model": m, "quality": q} for i, m, q in outcomes],
    )
    with pytest.raises(InvalidInputError) as found:
        load_outcomes(tmp_path)
    told = str(found.value)
    assert told.startswith("5 bad rows:")
    for part in (
        "prompts.jsonl, row 2",
        "outcomes.jsonl, row 1",
        "row 3, column 'prompt_id'",
        "row 4",
        "row 5, column 'model'",
    ):
        assert part in told


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("1" + "0" * 400, "expected a number, got one beyond float64"),
        ("1" + "0" * 5000, "expected a JSON object, got Exceeds the limit"),
        ("1e999", "expected a finite number >= 0, or nothing where it is missing, got inf"),
        ("NaN", "expected a finite number >= 0, or nothing where it is missing, got nan"),
        ("-Infinity", "expected a finite number >= 0, or nothing where it is missing, got -inf"),
        ("true", "expected a number, got True"),
        ('{"a": 1}', "expected a number, got {'a': 1}"),
        ('"a whole prompt"', "expected a number, got a text of 14 characters"),
        ('["a whole prompt", 2, 3]', "expected a number, got a list of 3"),
    ],
)
def test_numbers_that_are_none_are_told_by_their_place(tmp_path, value, message):
    file = tmp_path / "mine.jsonl"
    file.write_text(f'{{"prompt": "a", "m": 1, "m|cost_usd": {value}}}\n')
    with pytest.raises(InvalidInputError) as found:
        import_wide(file, models=["m"])
    assert message in str(found.value)
    assert "mine.jsonl, row 1" in str(found.value)


@pytest.mark.parametrize("column", ["prompt_id", "prompt", "split", "dataset", "question_key"])
def test_a_lone_surrogate_is_refused_wherever_text_is_read(tmp_path, column):
    row = {"prompt_id": "p", "prompt": "x", "m": 1} | {column: "\udc00 tail"}
    with pytest.raises(InvalidInputError, match=f"row 1, column '{column}': expected Unicode text"):
        import_wide(write(tmp_path / "mine.jsonl", [row]))


def test_a_lone_surrogate_in_a_models_name_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"expected Unicode column names, 'm\\ud83d\|quality' holds"):
        import_wide(write(tmp_path / "mine.jsonl", [{"prompt": "x", "m\ud83d|quality": 1}]))
    write(tmp_path / "prompts.jsonl", [{"prompt_id": "a", "prompt": "x"}])
    write(tmp_path / "outcomes.jsonl", [{"prompt_id": "a", "model": "m\ud83d", "quality": 1}])
    with pytest.raises(InvalidInputError, match=r"outcomes\.jsonl, row 1, column 'model': expected Unicode text"):
        load_outcomes(tmp_path)


@pytest.mark.parametrize("kind", ["date", "bytes", "text that is no UTF-8"])
def test_parquet_cells_of_other_types_are_told(tmp_path, kind):
    import datetime

    pyarrow = pytest.importorskip("pyarrow", reason="needs extra [train]: pyarrow")
    from pyarrow import parquet

    if kind == "text that is no UTF-8":
        raw = pyarrow.array([b"\xff\xfe"]).cast(pyarrow.binary())
        names = pyarrow.StringArray.from_buffers(1, raw.buffers()[1], raw.buffers()[2])
        table = pyarrow.table({"prompt": names, "m": [1.0]})
        message = "m.parquet, column 'prompt': expected UTF-8"
    else:
        cell = datetime.date(2026, 1, 1) if kind == "date" else b"1"
        table = pyarrow.table({"prompt": ["x"], "m": [1.0], "m|cost_usd": [cell]})
        message = "m.parquet, row 1, model 'm', column 'cost_usd': expected a number, got"
    parquet.write_table(table, tmp_path / "m.parquet")
    if kind == "bytes":
        return  # b"1" is a number to Python as text is: nothing to refuse
    with pytest.raises(InvalidInputError) as found:
        import_wide(tmp_path / "m.parquet", models=["m"])
    assert message in str(found.value)


# Columns under other names


def test_columns_are_taken_under_their_own_names(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("question,gpt_score,gpt_tokens,claude\nWhat?,1,20,0.5\nWhy?,0,30,1\n")
    columns = {
        "prompt": "question",
        "gpt|quality": "gpt_score",
        "gpt|output_tokens": "gpt_tokens",
        "claude|quality": "claude",
    }
    made = import_wide(file, columns=columns)
    assert made.models == ("claude", "gpt")
    assert made.prompts == ("What?", "Why?")
    np.testing.assert_array_equal(made.quality, [[0.5, 1], [1, 0]])
    np.testing.assert_array_equal(made.output_tokens[:, 1], [20, 30])


def test_parquet_columns_are_taken_under_their_own_names(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs extra [train]: pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"question": ["What?"], "m": [1.0]}), tmp_path / "mine.parquet")
    assert import_wide(tmp_path / "mine.parquet", columns={"prompt": "question"}).prompts == ("What?",)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"prompt": "nothing"}, "no column 'nothing' to take for 'prompt'; it has 'question', 'other', 'm'"),
        ({"m": "question"}, "a column 'm' already; leave out m=question"),
        ({"prompt": "question", "split": "question"}, "one new name for each column"),
    ],
)
def test_names_that_cannot_be_taken_are_refused(tmp_path, columns, message):
    file = tmp_path / "mine.csv"
    file.write_text("question,other,m\nWhat?,x,1\n")
    with pytest.raises(InvalidInputError) as found:
        import_wide(file, columns=columns)
    assert message in str(found.value)


def test_routerbench_maps_columns_and_skips_rows_too(tmp_path):
    file = tmp_path / "r.csv"
    file.write_text("id,prompt,eval_name,m,m|total_cost\n1,a,x,1,0.1\n2,b,x,9,0.1\n3,c,x,0,0.1\n")
    bad = BadRows(skip=True)
    made = import_routerbench(file, columns={"sample_id": "id"}, bad=bad)
    assert made.prompt_ids == ("1", "3")
    assert "r.csv, row 2, model 'm'" in bad.summary


def test_a_bad_record_of_llmrouterbench_takes_no_other_models_with_it(tmp_path):
    for model, score in (("a", 7), ("b", 1)):
        records = [
            {"index": 1, "origin_query": "Q", "prompt": "Q", "score": score},
            {"index": 2, "prompt": "R", "score": 1},
        ]
        (tmp_path / f"{model}.json").write_text(
            json.dumps({"model_name": model, "dataset_name": "d", "split": "test", "records": [*records, "no record"]})
        )
    with pytest.raises(InvalidInputError, match=r"^3 bad rows:"):
        import_llmrouterbench(tmp_path)
    bad = BadRows(skip=True)
    made = import_llmrouterbench(tmp_path, bad=bad)
    assert len(bad) == 3
    np.testing.assert_array_equal(made.quality, [[np.nan, 1], [1, 1]])


def test_bad_judgements_of_routellm_are_left_out(tmp_path):
    folder = tmp_path / "mt_bench"
    folder.mkdir()
    write(folder / "question.jsonl", [{"question_id": 1, "turns": ["Hi", "Ho"]}, {"question_id": 2, "turns": "Hi"}])
    judged = [{"question_id": 1, "model": "m", "score": score} for score in (10, 11)]
    write(folder / "judgements.jsonl", judged)
    with pytest.raises(InvalidInputError, match=r"(?s)^2 bad rows:.*'turns'.*'score'"):
        import_routellm(tmp_path)
    bad = BadRows(skip=True)
    assert import_routellm(tmp_path, bad=bad).quality.tolist() == [[1.0]]
    assert len(bad) == 2


def test_the_command_line_skips_counts_and_maps(tmp_path, capsys):
    file = write(tmp_path / "mine.jsonl", [{"question": f"q {i}", "m": 1 if i else 5} for i in range(5)])
    asked = ["data", "import", "wide", str(file), "--format", "jsonl", "--column", "prompt=question"]
    assert main([*asked[:4], str(tmp_path / "a"), *asked[4:]]) == 1
    assert "row 1, model 'm', column 'quality'" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert main([*asked[:4], str(tmp_path / "a"), *asked[4:], "--skip-bad-rows", "--json"]) == 0
    out, error = capsys.readouterr()
    assert json.loads(out)["skipped_rows"] == 1
    assert "ipr data: left out: mine.jsonl, row 1" in error
    assert len(load_outcomes(tmp_path / "a")) == 4
    assert main([*asked[:4], str(tmp_path / "b"), *asked[4:], "--skip-bad-rows"]) == 0
    assert "bad rows left out: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["wide", "FILE", "OUT", "--column", "prompt"], "--column: expected NAME=THEIRS"),
        (["wide", "FILE", "OUT", "--column", "a=b", "--column", "a=c"], "--column: expected NAME=THEIRS"),
        (["routellm", "FILE", "OUT", "--column", "a=b"], "--column: routellm has files of its own form"),
        (["wide", "FILE", "FILE"], "expected a folder to write to"),
        (["wide", "FILE", "FILE/below"], "is no folder"),
    ],
)
def test_what_cannot_be_is_told_before_the_table_is_read(tmp_path, capsys, more, message):
    file = tmp_path / "mine.jsonl"
    file.write_text("{this is never read")
    words = [word.replace("FILE", str(file)).replace("OUT", str(tmp_path / "out")) for word in more]
    assert main(["data", "import", *words]) == 1
    assert message in capsys.readouterr().err


def test_a_wide_table_without_prompts_is_told_how_to_name_their_column(tmp_path):
    file = tmp_path / "mine.csv"
    file.write_text("question,a\nWhy?,1\n", encoding="utf-8")
    with pytest.raises(
        InvalidInputError, match=r"expected column 'prompt', got 'question', 'a'; .*--column prompt=THEIRS"
    ):
        import_wide(file)
