"""Public layouts into the two tables, on small generated files of the same layout."""

from __future__ import annotations

import csv
import json
import pickle

import numpy as np
import pytest

from ipr_engine.data import load_outcomes, split_outcomes, write_outcomes
from ipr_engine.data.importers import import_llmrouterbench, import_routellm, import_routerbench, import_wide
from ipr_engine.errors import InvalidInputError


def write_csv(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def write_jsonl(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


# RouterBench

ROUTERBENCH = [
    ["sample_id", "prompt", "eval_name", "gpt-x", "org/y", "gpt-x|model_response", "org/y|model_response",
     "gpt-x|total_cost", "org/y|total_cost", "oracle_model_to_route_to"],
    ["made-math.val.1", "['What is 2+2?']", "made-math", "1.0", "0.0", "['4']", "['5']", "0.002", "0.0001", "gpt-x"],
    ["made-chat.val.2", "['First turn', \"Second's turn\"]", "made-chat", "0.75", "", "['..']", "", "0.004", "", "gpt-x"],
    ["made-chat.val.3", "[not a list", "made-chat", "0.0", "1.0", "['a']", "['b']", "0.003", "0.0002", "org/y"],
]  # fmt: skip


def test_routerbench(tmp_path):
    outcomes = import_routerbench(write_csv(tmp_path / "routerbench_0shot.csv", ROUTERBENCH))
    assert outcomes.models == ("gpt-x", "org/y")
    assert outcomes.prompt_ids == ("made-chat.val.2", "made-chat.val.3", "made-math.val.1")
    assert outcomes.prompts == ("First turn\n\nSecond's turn", "[not a list", "What is 2+2?")
    assert outcomes.datasets == ("made-chat", "made-chat", "made-math")
    np.testing.assert_array_equal(outcomes.quality, [[0.75, np.nan], [0, 1], [1, 0]])
    np.testing.assert_array_equal(outcomes.cost_usd, [[0.004, np.nan], [0.003, 0.0002], [0.002, 0.0001]])


def test_routerbench_parquet_gives_the_same(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="needs extra [train]: pyarrow")
    from pyarrow import parquet

    header, *rows = ROUTERBENCH
    numeric = {3, 4, 7, 8}
    columns = {
        name: [(float(row[i]) if row[i] else None) if i in numeric else row[i] for row in rows]
        for i, name in enumerate(header)
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "r.parquet")
    one, other = (
        import_routerbench(tmp_path / "r.parquet"),
        import_routerbench(write_csv(tmp_path / "r.csv", ROUTERBENCH)),
    )
    assert one.prompts == other.prompts
    np.testing.assert_array_equal(one.quality, other.quality)
    np.testing.assert_array_equal(one.cost_usd, other.cost_usd)


def test_a_pickle_is_refused_unread(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    path = tmp_path / "routerbench_0shot.pkl"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(InvalidInputError, match=r"routerbench_0shot\.pkl: a pickle runs code"):
        import_routerbench(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("row", "column", "value", "message"),
    [
        (2, 3, "1.5", r"b\.csv, row 2, model 'gpt-x', column 'quality': expected a number in \[0, 1\]"),
        (2, 3, "good", r"b\.csv, row 2, model 'gpt-x', column 'quality': expected a number, got 'good'"),
        (1, 8, "-1", r"b\.csv, row 1, model 'org/y', column 'cost_usd': expected a finite number >= 0"),
        (2, 0, "made-math.val.1", r"b\.csv, row 2, column 'prompt_id': expected distinct ids"),
        (0, 3, "gpt-z", "expected column 'gpt-x'"),
        (0, 1, "text", "expected column 'prompt'"),
    ],
)
def test_a_bad_routerbench_cell_is_told(tmp_path, row, column, value, message):
    rows = [list(cells) for cells in ROUTERBENCH]
    rows[row][column] = value
    with pytest.raises(InvalidInputError, match=message):
        import_routerbench(write_csv(tmp_path / "b.csv", rows))


# RouteLLM


@pytest.fixture
def routellm(tmp_path):
    header = ["prompt", "weak-model", "strong-model"]
    write_csv(
        tmp_path / "mmlu/responses/mmlu_topology.csv",
        [header, ["Is it open?", "True", "True"], ["Old one", "False", "True"]],
    )
    write_csv(tmp_path / "mmlu/responses/mmlu_baking.csv", [header, ["How hot?\nA. 1\nB. 2", "False", "True"]])
    write_csv(
        tmp_path / "gsm8k/gsm8k_responses.csv",
        [
            [*header, "weak-model_response", "strong-model_response"],
            ["How many, Anna?", "False", "True", "3, true", "4"],
        ],
    )
    write_jsonl(tmp_path / "mmlu/contaminated_prompts.jsonl", [{"eval_prompt": "Old one"}])
    write_jsonl(
        tmp_path / "mt_bench/question.jsonl",
        [
            {"question_id": 81, "category": "writing", "turns": ["Write a line.", "And another."]},
            {"question_id": 82, "category": "maths", "turns": ["Leaked.", "Too."]},
        ],
    )
    write_jsonl(tmp_path / "mt_bench/contaminated_prompts.jsonl", [{"eval_prompt": "Too."}])
    scores = [("strong-model", 1, 10), ("strong-model", 2, 7), ("weak-model", 1, 1), ("weak-model", 2, -1)]
    write_jsonl(
        tmp_path / "mt_bench/judgements.jsonl",
        [
            {"question_id": number, "model": model, "turn": turn, "score": score, "judge": ["gpt-4", "x"]}
            for number in (81, 82)
            for model, turn, score in scores
        ],
    )
    return tmp_path


def test_routellm(routellm):
    outcomes = import_routellm(routellm)
    assert outcomes.models == ("strong-model", "weak-model")
    by_id = dict(zip(outcomes.prompt_ids, outcomes.quality.tolist(), strict=True))
    assert by_id == {
        "routellm:gsm8k:0": [1, 0],
        "routellm:mmlu:baking:0": [1, 0],
        "routellm:mmlu:topology:0": [1, 1],
        "routellm:mt_bench:81": [pytest.approx(7.5 / 9), 0],
    }
    assert set(outcomes.splits) == {"test"}
    assert outcomes.prompts[-1] == "Write a line."
    assert outcomes.datasets == ("gsm8k", "mmlu", "mmlu", "mt_bench")
    assert np.isnan(outcomes.cost_usd).all()


def test_a_part_of_routellm_is_enough_and_nothing_is_not(routellm):
    import shutil

    for part in ("mmlu", "mt_bench"):
        shutil.rmtree(routellm / part)
    assert len(import_routellm(routellm)) == 1
    shutil.rmtree(routellm / "gsm8k")
    with pytest.raises(InvalidInputError, match="expected mmlu/responses"):
        import_routellm(routellm)


def test_a_bad_judgement_is_told(routellm):
    write_jsonl(routellm / "mt_bench/judgements.jsonl", [{"question_id": 81, "model": "m", "turn": 1, "score": 11}])
    with pytest.raises(InvalidInputError, match=r"judgements\.jsonl, row 1, column 'score': expected 1 to 10"):
        import_routellm(routellm)


# LLMRouterBench


def result(model, scores, *, dataset="made", demo=False, question="question"):
    records = [
        {
            "index": i + 1,
            "origin_query": f"{question} {i}",
            "prompt": f"{question} {i}\nAnswer briefly.",
            "prompt_tokens": 10 + i,
            "completion_tokens": 100 + i,
            "cost": 0.001 * i,
            "score": score,
            "prediction": "p",
            "ground_truth": "t",
            "raw_output": "r",
            "extra_fields": {},
        }
        for i, score in enumerate(scores)
    ]
    return {
        "performance": 0.5, "time_taken": 1.0, "prompt_tokens": 1, "completion_tokens": 1, "cost": 0.1, "counts": len(records),
        "model_name": model, "dataset_name": dataset, "split": "test", "demo": demo, "extra_metrics": {}, "data_fingerprint": "",
        "records": records,
    }  # fmt: skip


def put(folder, content, stamp="20250101_000000"):
    name = f"{content['dataset_name']}-{content['split']}-{content['model_name']}-{stamp}.json"
    path = folder / content["dataset_name"] / content["split"] / content["model_name"] / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_llmrouterbench(tmp_path):
    put(tmp_path, result("a", [0.0, 0.0]), "20250101_000000")
    put(tmp_path, result("a", [1.0, None]), "20250301_120000")  # the latest counts
    put(tmp_path, result("a", [0.0, 0.0], demo=True), "20250401_000000")
    put(tmp_path, result("b", [0.5, 1]))
    outcomes = import_llmrouterbench(tmp_path)
    assert outcomes.models == ("a", "b")
    assert outcomes.prompt_ids == ("made:test:1", "made:test:2")
    assert outcomes.prompts[0] == "question 0\nAnswer briefly."
    assert outcomes.question_keys == ("question0", "question1")
    assert outcomes.splits == ("test", "test")
    np.testing.assert_array_equal(outcomes.quality, [[1, 0.5], [np.nan, 1]])  # a null score is missing, not a zero
    np.testing.assert_array_equal(outcomes.input_tokens, [[10, 10], [11, 11]])
    np.testing.assert_array_equal(outcomes.output_tokens, [[100, 100], [101, 101]])
    np.testing.assert_array_equal(outcomes.cost_usd, [[0, 0], [0.001, 0.001]])


def test_llmrouterbench_files_of_two_versions_are_refused(tmp_path):
    put(tmp_path, result("a", [1.0]))
    put(tmp_path, result("b", [1.0], question="other question"))
    with pytest.raises(InvalidInputError, match=r"made-test-b.*record 1, column 'origin_query'.*made-test-a"):
        import_llmrouterbench(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"model_name": 1, "dataset_name": 2, "split": 3, "records": 4}'])
def test_a_file_that_is_no_result_is_told(tmp_path, content):
    put(tmp_path, result("a", [1.0])).write_text(content)
    with pytest.raises(InvalidInputError, match=r"made-test-a-20250101_000000\.json: expected"):
        import_llmrouterbench(tmp_path)


def test_a_bad_llmrouterbench_record_is_told(tmp_path):
    put(tmp_path, result("a", [1.0, 7.0]))
    with pytest.raises(InvalidInputError, match=r"a-20250101_000000\.json, record 2, model 'a', column 'quality'"):
        import_llmrouterbench(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="found none"):
        import_llmrouterbench(tmp_path / "empty")


# A wide table of one's own


def test_wide_with_bare_columns(tmp_path):
    path = write_csv(
        tmp_path / "mine.csv", [["prompt", "split", "a", "b"], ["p", "train", "1", ""], ["q", "test", "True", "false"]]
    )
    outcomes = import_wide(path)
    assert outcomes.prompt_ids == ("mine:1", "mine:2")
    assert outcomes.splits == ("train", "test")
    np.testing.assert_array_equal(outcomes.quality, [[1, np.nan], [1, 0]])


def test_wide_with_measures_and_keys(tmp_path):
    rows = [
        ["prompt_id", "prompt", "question_key", "note", "a|quality", "a|cost_usd", "a|output_tokens", "b|quality"],
        ["1", "p", "K-1", "free text", "0.25", "0.001", "12", "1"],
    ]
    outcomes = import_wide(write_csv(tmp_path / "mine.csv", rows))
    assert outcomes.models == ("a", "b")
    assert outcomes.question_keys == ("K-1",)
    np.testing.assert_array_equal(outcomes.cost_usd, [[0.001, np.nan]])
    np.testing.assert_array_equal(outcomes.output_tokens, [[12, np.nan]])


def test_wide_keeps_tasks_up_to_a_split(tmp_path):
    rows = [["prompt", "task", "a"], *([f"prompt of its own {'xyz' * i}", ("sql", "")[i % 2], "1"] for i in range(8))]
    outcomes = import_wide(write_csv(tmp_path / "mine.csv", rows))
    assert outcomes.models == ("a",)
    assert outcomes.tasks == ("sql", "") * 4
    again = load_outcomes(write_outcomes(outcomes, tmp_path / "out", format="csv"))
    assert split_outcomes(again, {"train": 0.5, "test": 0.5})[0].tasks == outcomes.tasks
    assert outcomes.take([0, 1]).tasks == ("sql", "")
    assert outcomes.take([1, 3]).tasks == ()  # of rows that say nothing there is no column


def test_wide_models_can_be_named(tmp_path):
    path = write_csv(tmp_path / "mine.csv", [["prompt", "note", "a", "b"], ["p", "text", "1", "0"]])
    assert import_wide(path, models=["b", "a"]).models == ("a", "b")
    with pytest.raises(InvalidInputError, match=r"mine\.csv, row 1, model 'note', column 'quality': expected a number"):
        import_wide(path)
    with pytest.raises(InvalidInputError, match=r"expected column 'c' or 'c\|quality'"):
        import_wide(path, models=["c"])


def test_wide_jsonl_gives_the_same(tmp_path):
    one = import_wide(write_csv(tmp_path / "mine.csv", [["prompt", "a", "b"], ["p", "1", ""], ["q", "0.5", "0"]]))
    other = import_wide(
        write_jsonl(tmp_path / "mine.jsonl", [{"prompt": "p", "a": True}, {"prompt": "q", "a": 0.5, "b": 0}])
    )
    np.testing.assert_array_equal(one.quality, other.quality)
    assert one.prompt_ids == other.prompt_ids


def test_imported_data_can_be_written_and_read(tmp_path, routellm):
    outcomes = import_routellm(routellm)
    again = load_outcomes(write_outcomes(outcomes, tmp_path / "out", format="csv"))
    assert again.prompts == outcomes.prompts
    np.testing.assert_array_equal(again.quality, outcomes.quality)
