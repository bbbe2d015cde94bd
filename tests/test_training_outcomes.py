from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from training_data import write_source

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.outcomes import read_outcomes

pytest.importorskip("pyarrow", reason="needs extra [train]: reading parquet")

MODELS = ["b", "a", "c"]


def edit(path: Path, change) -> None:
    import pyarrow
    from pyarrow import parquet

    rows = parquet.read_table(path).to_pylist()
    parquet.write_table(pyarrow.Table.from_pylist(change(rows)), path)


@pytest.fixture
def source(tmp_path):
    return write_source(tmp_path / "made", MODELS, ["one", "two", "three"], rows_per_split=20)


def test_columns_follow_the_order_asked_for(source):
    one = read_outcomes(source, ["b", "c"], split="train")
    other = read_outcomes(source, ["c", "b"], split="train")
    np.testing.assert_array_equal(one.quality, other.quality[:, ::-1])
    np.testing.assert_array_equal(one.cost_usd, other.cost_usd[:, ::-1])
    assert len(one.prompts) == 20


def test_rows_do_not_depend_on_the_order_in_the_file(source):
    before = read_outcomes(source, MODELS, split="test")
    edit(source / "prompts.parquet", lambda rows: rows[::-1])
    edit(source / "outcomes.parquet", lambda rows: rows[::-1])
    after = read_outcomes(source, MODELS, split="test")
    assert before.prompt_ids == after.prompt_ids
    assert before.prompt_ids_sha256 == after.prompt_ids_sha256
    np.testing.assert_array_equal(before.output_tokens, after.output_tokens)


def test_an_incomplete_row_is_dropped_and_told(source):
    edit(source / "outcomes.parquet", lambda rows: rows[1:])  # made:00000 loses model b
    edit(
        source / "outcomes.parquet", lambda rows: [{**r, "cost_usd": None} if i == 4 else r for i, r in enumerate(rows)]
    )
    outcomes = read_outcomes(source, MODELS, split="train")
    assert outcomes.dropped == 2
    assert len(outcomes.prompts) == len(outcomes.quality) == 18
    assert outcomes.coverage == {"b": 0.95, "a": 1.0, "c": 0.95}
    assert read_outcomes(source, ["a"], split="train").dropped == 0


@pytest.mark.parametrize("broken", ["model", "split", "twice", "range", "column", "file"])
def test_an_unusable_source_is_refused(source, broken):
    models, split = MODELS, "train"
    if broken == "model":
        models = ["a", "z"]
    if broken == "split":
        split = "dev"
    if broken == "twice":
        edit(source / "outcomes.parquet", lambda rows: [*rows, rows[0]])
    if broken == "range":
        edit(source / "outcomes.parquet", lambda rows: [{**rows[0], "quality": 1.5}, *rows[1:]])
    if broken == "column":
        edit(source / "prompts.parquet", lambda rows: [{k: v for k, v in r.items() if k != "dataset"} for r in rows])
    if broken == "file":
        (source / "prompts.parquet").unlink()
    with pytest.raises(InvalidInputError):
        read_outcomes(source, models, split=split)
