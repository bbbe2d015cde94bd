"""Reading outcome data: three formats, one result; every fault is told with file, row, column and reason."""

from __future__ import annotations

import csv
import doctest
import importlib
import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.data import MEASURES, load_outcomes, question_key, write_outcomes
from ipr_engine.data.table_files import write_table
from ipr_engine.errors import InvalidInputError
from tests.support.outcome_data import assert_same, make_outcomes

FORMATS = ["csv", "jsonl", "parquet"]

PROMPTS = {"prompt_id": ["a", "b", "c"], "prompt": ["one", "two", "three"], "split": ["train", "train", "test"]}
OUTCOMES = {
    "prompt_id": ["a", "a", "b", "c"],
    "model": ["x", "y", "x", "y"],
    "quality": [1.0, 0.5, 0.0, 1.0],
    "cost_usd": [0.1, 0.2, None, 0.4],
}


@pytest.fixture(params=FORMATS)
def form(request):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="needs extra [train]: pyarrow")
    return request.param


def write(folder, form, prompts=PROMPTS, outcomes=OUTCOMES):
    write_table(folder / f"prompts.{form}", prompts)
    write_table(folder / f"outcomes.{form}", outcomes)
    return folder


def changed(table, column, row, value):
    return {**table, column: [value if i == row else cell for i, cell in enumerate(table[column])]}


@pytest.mark.parametrize("sparse", [0.0, 0.4])
def test_what_was_written_is_what_is_read(tmp_path, form, request, sparse):
    made = make_outcomes(request.node.name, sparse=sparse)
    assert_same(load_outcomes(write_outcomes(made, tmp_path, format=form)), made)


def test_awkward_text_survives(tmp_path, form):
    texts = ('say "hi",\r\nthen\rleave\n', "  ", "日本語 \u2028 text", "x" * 200_000)
    made = replace(make_outcomes(rows=4), prompts=texts)
    assert load_outcomes(write_outcomes(made, tmp_path, format=form)).prompts == texts


def test_a_missing_outcome_is_nan_and_not_covered(tmp_path, form):
    outcomes = load_outcomes(write(tmp_path, form))
    assert outcomes.models == ("x", "y")
    np.testing.assert_array_equal(outcomes.quality, [[1, 0.5], [0, np.nan], [np.nan, 1]])
    np.testing.assert_array_equal(outcomes.covered, [[True, True], [True, False], [False, True]])
    np.testing.assert_array_equal(outcomes.cost_usd, [[0.1, 0.2], [np.nan, np.nan], [np.nan, 0.4]])
    assert np.isnan(outcomes.input_tokens).all()
    assert outcomes.coverage() == {"x": 2 / 3, "y": 2 / 3}
    assert outcomes.coverage(("quality", "cost_usd")) == {"x": 1 / 3, "y": 2 / 3}


def test_complete_keeps_the_rows_that_all_have(tmp_path, form):
    outcomes = load_outcomes(write(tmp_path, form))
    whole = outcomes.complete()
    assert (whole.prompt_ids, whole.dropped) == (("a",), 2)
    assert outcomes.complete(["x"]).prompt_ids == ("a", "b")
    assert outcomes.complete(["x"], measures=("quality", "cost_usd")).prompt_ids == ("a",)
    with pytest.raises(InvalidInputError, match="found none"):
        outcomes.complete(measures=MEASURES)


def test_columns_follow_the_order_asked_for(tmp_path, form, request):
    folder = write_outcomes(make_outcomes(request.node.name), tmp_path, format=form)
    one = load_outcomes(folder, models=["model c", "model a"])
    both = load_outcomes(folder)
    assert one.models == ("model c", "model a")
    np.testing.assert_array_equal(one.quality, both.quality[:, [2, 0]])


def test_rows_do_not_depend_on_the_order_in_the_file(tmp_path, form):
    (tmp_path / "other").mkdir()
    straight = load_outcomes(write(tmp_path, form))
    turned = [{name: cells[::-1] for name, cells in table.items()} for table in (PROMPTS, OUTCOMES)]
    backwards = load_outcomes(write(tmp_path / "other", form, *turned))
    assert_same(straight, backwards)
    assert straight.prompt_ids_sha256 == backwards.prompt_ids_sha256


def test_a_split_is_selected(tmp_path, form):
    folder = write(tmp_path, form)
    assert load_outcomes(folder, split="test").prompt_ids == ("c",)
    assert load_outcomes(folder, split="train").models == ("x", "y")  # the same columns in every split
    with pytest.raises(InvalidInputError, match=r"split: expected one of .*'test', 'train'.*got 'dev'"):
        load_outcomes(folder, split="dev")


def test_a_split_asked_of_a_source_without_any_is_an_error_that_says_how_to_make_some(tmp_path, form):
    folder = write(tmp_path, form, {name: values for name, values in PROMPTS.items() if name != "split"})
    with pytest.raises(InvalidInputError, match=r"states no splits, got 'train'; make some with `ipr data split`"):
        load_outcomes(folder, split="train")


def test_the_two_files_may_be_named_and_of_two_formats(tmp_path):
    write_table(tmp_path / "p.jsonl", PROMPTS)
    write_table(tmp_path / "o.csv", OUTCOMES)
    assert len(load_outcomes((tmp_path / "p.jsonl", tmp_path / "o.csv"))) == 3


def test_absent_optional_columns_are_made(tmp_path, form):
    prompts = {name: PROMPTS[name] for name in ("prompt_id", "prompt")}
    outcomes = load_outcomes(write(tmp_path, form, prompts))
    assert set(outcomes.splits) == set(outcomes.datasets) == {""}
    assert outcomes.question_keys == ("one", "two", "three")


def test_whole_numbers_are_ids_too(tmp_path):
    prompts, outcomes = {**PROMPTS, "prompt_id": [3, 1, 2]}, {**OUTCOMES, "prompt_id": [1, 2, 3, 1]}
    assert load_outcomes(write(tmp_path, "jsonl", prompts, outcomes)).prompt_ids == ("1", "2", "3")


def test_question_key_is_120_letters_and_digits():
    assert question_key("  Ünter-2, \n? " * 60) == ("ünter2" * 60)[:120]


BAD_CELLS = [
    ("prompts", "prompt_id", 2, "a", "row 3, column 'prompt_id': expected distinct ids, 'a' stands in prompts.*, row 1 too"),
    ("prompts", "prompt_id", 1, None, "row 2, column 'prompt_id': expected text, it is missing"),
    ("prompts", "prompt", 1, None, "row 2, column 'prompt': expected text, it is missing"),
    ("outcomes", "prompt_id", 3, "z", "row 4, column 'prompt_id': expected an id of prompts.*, got 'z'"),
    ("outcomes", "model", 1, "x", "row 2, column 'model': expected each prompt and model once, 'a' and 'x' stand in outcomes.*, row 1 too"),
    ("outcomes", "model", 1, None, "row 2, column 'model': expected text, it is missing"),
    ("outcomes", "quality", 2, 1.5, r"row 3, column 'quality': expected a number in \[0, 1\].*got 1.5"),
    ("outcomes", "quality", 2, -0.1, r"row 3, column 'quality': expected a number in \[0, 1\].*got -0.1"),
    ("outcomes", "cost_usd", 1, -2.0, "row 2, column 'cost_usd': expected a finite number >= 0.*got -2"),
]  # fmt: skip


@pytest.mark.parametrize(("table", "column", "row", "value", "message"), BAD_CELLS)
def test_a_bad_cell_is_told_with_file_row_column_and_reason(tmp_path, form, table, column, row, value, message):
    tables = {"prompts": PROMPTS, "outcomes": OUTCOMES}
    tables[table] = changed(tables[table], column, row, value)
    with pytest.raises(InvalidInputError, match=rf"{table}\.{form}, {message}"):
        load_outcomes(write(tmp_path, form, **tables))


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("column", ["quality", "cost_usd"])
def test_a_written_nan_or_infinity_is_refused(tmp_path, form, column, value):
    folder = write(tmp_path, "csv" if form == "jsonl" else form, outcomes=changed(OUTCOMES, column, 1, value))
    if form == "jsonl":  # our writer writes no NaN; others do
        (folder / "outcomes.csv").unlink()
        lines = [
            f'{{"prompt_id": "a", "model": "{m}", "quality": 0, "{column}": {json.dumps(v)}}}'
            for m, v in (("x", 0), ("y", value))
        ]
        (folder / "outcomes.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InvalidInputError, match=rf"row 2, column '{column}'.*got (nan|inf)"):
        load_outcomes(folder)


@pytest.mark.parametrize("column", ["prompt_id", "model", "quality"])
def test_a_missing_column_is_named(tmp_path, form, column):
    with pytest.raises(InvalidInputError, match=rf"outcomes\.{form}: expected column '{column}'"):
        load_outcomes(write(tmp_path, form, outcomes={n: c for n, c in OUTCOMES.items() if n != column}))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prompt_id,model,quality\na,x,good\n", "row 1, column 'quality': expected a number, got 'good'"),
        ("prompt_id,model,quality\na,x,1\nb,x\n", "row 2: expected 3 cells as in the header, got 2"),
        ("prompt_id,model,quality,model\n", "expected distinct columns, 'model' occurs twice"),
        ('prompt_id,model,quality\na,"x,1\n', "not CSV"),
        ("prompt_id,model,quality\n", "expected outcomes, the table is empty"),
        ("", "expected a header line, the file is empty"),
    ],
)
def test_a_bad_csv_is_told(tmp_path, text, message):
    write(tmp_path, "csv")
    (tmp_path / "outcomes.csv").write_text(text)
    with pytest.raises(InvalidInputError, match=rf"outcomes\.csv.*{message}"):
        load_outcomes(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "row 2: expected a JSON object"),
        ("[1]", "row 2: expected a JSON object"),
        ('{"prompt_id": "b", "model": "x", "quality": "0.5x"}', "row 2, column 'quality': expected a number"),
        ('{"prompt_id": "b", "model": "x", "quality": true}', "row 2, column 'quality': expected a number"),
        ('{"prompt_id": ["b"], "model": "x", "quality": 1}', "row 2, column 'prompt_id': expected text"),
    ],
)
def test_a_bad_jsonl_line_is_told(tmp_path, line, message):
    write_table(tmp_path / "prompts.jsonl", PROMPTS)
    (tmp_path / "outcomes.jsonl").write_text('{"prompt_id": "a", "model": "x", "quality": 1}\n\n' + line + "\n")
    with pytest.raises(InvalidInputError, match=rf"outcomes\.jsonl, {message}"):
        load_outcomes(tmp_path)


def test_damaged_files_are_told(tmp_path, form):
    write(tmp_path, form)
    file = tmp_path / f"prompts.{form}"
    file.write_bytes(b"\xff\xfe" + file.read_bytes()[2:-3])
    with pytest.raises(InvalidInputError, match=rf"prompts\.{form}"):
        load_outcomes(tmp_path)


def test_a_lone_surrogate_is_refused(tmp_path):
    write(tmp_path, "jsonl")
    (tmp_path / "prompts.jsonl").write_text(json.dumps({"prompt_id": "a", "prompt": "\ud800"}) + "\n")
    with pytest.raises(InvalidInputError, match=r"prompts\.jsonl, row 1, column 'prompt'.*surrogate"):
        load_outcomes(tmp_path)


def test_a_folder_without_or_with_two_tables_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match="found none"):
        load_outcomes(tmp_path)
    write(write(tmp_path, "csv"), "jsonl")
    with pytest.raises(InvalidInputError, match=r"found prompts\.csv and prompts\.jsonl"):
        load_outcomes(tmp_path)
    with pytest.raises(InvalidInputError, match="expected a folder"):
        load_outcomes(tmp_path / "nowhere")


def test_writing_never_overwrites(tmp_path):
    write_outcomes(make_outcomes(), tmp_path, format="csv")
    with pytest.raises(InvalidInputError, match=r"holds prompts\.csv"):
        write_outcomes(make_outcomes(), tmp_path, format="jsonl")


def test_reading_leaves_the_csv_module_as_it_was(tmp_path):
    before = csv.field_size_limit()
    load_outcomes(write(tmp_path, "csv"))
    assert csv.field_size_limit() == before


def test_unknown_models_are_refused(tmp_path):
    folder = write(tmp_path, "csv")
    for models in (["z"], ["x", "x"], []):
        with pytest.raises(InvalidInputError, match="models: expected distinct candidates"):
            load_outcomes(folder, models=models)


def test_notices_name_what_makes_learning_hard():
    made = make_outcomes(rows=20, models=2)
    assert made.notices == ()
    quality = made.quality.copy()
    quality[:, 0] = 1.0
    odd = replace(
        made, quality=quality, cost_usd=np.full_like(quality, 0.5), input_tokens=np.full_like(quality, np.nan)
    )
    assert odd.notices == (
        "quality of 'model a' is constant: 1 on all its 20 prompts",
        "input_tokens is missing everywhere",
        "cost_usd is constant: 0.5 everywhere",
    )
    assert made.select(["model a"]).notices == ("one candidate only ('model a'): there is nothing to choose between",)
    quality[3] = np.nan
    assert "1 of 20 prompts have no quality of any candidate" in replace(made, quality=quality).notices


@pytest.mark.parametrize("module", ["outcome_files", "outcomes"])
def test_the_examples_run(tmp_path, module):
    made = make_outcomes(rows=3, models=2)
    write_outcomes(replace(made, models=("a", "b"), splits=("train", "test", "train")), tmp_path, format="csv")
    results = doctest.testmod(importlib.import_module(f"ipr_engine.data.{module}"), extraglobs={"folder": tmp_path})
    assert results.attempted > 0
    assert results.failed == 0
