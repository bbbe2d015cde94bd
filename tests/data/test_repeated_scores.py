"""A table of single samples: read whatever its format and order, and every wrong cell told with its place."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.data.repeated_scores import SAMPLE_COLUMNS, read_repeated_scores
from ipr_engine.data.table_stream import table_stream
from ipr_engine.errors import InvalidInputError
from tests.support import skips

ROWS = [("q", "b", 1, 0.5), ("p", "a", 0, 1.0), ("p", "b", 0, 0.0), ("q", "b", 0, 0.25), ("p", "a", 2, None)]


def written(path, rows=ROWS):
    with table_stream(path, SAMPLE_COLUMNS) as table:
        table.write({name: list(cells) for name, cells in zip(SAMPLE_COLUMNS, zip(*rows, strict=True), strict=True)})
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_samples_are_read_in_any_format(tmp_path, ending):
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason=skips.TRAIN)
    written(tmp_path / f"samples.{ending}")
    found = read_repeated_scores(tmp_path)
    assert (found.prompt_ids, found.models) == (("p", "q"), ("a", "b"))
    nan = np.nan
    np.testing.assert_array_equal(
        found.scores, [[[1.0, nan, nan], [0.0, nan, nan]], [[nan, nan, nan], [0.25, 0.5, nan]]]
    )
    np.testing.assert_array_equal(found.of(["q", "absent"], ["b"]), [[[0.25, 0.5, nan]]])
    with pytest.raises(InvalidInputError, match="expected samples of 'c', got those of 'a', 'b'"):
        found.of(["q"], ["c"])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (("p", "a", 0, 0.5), "row 6, column 'sample': expected each sample of a prompt and model once"),
        (("p", "a", 1.5, 0.5), "row 6, column 'sample': expected a whole number from 0 to 99, got 1.5"),
        (("p", "a", 100, 0.5), "expected a whole number from 0 to 99, got 100"),
        (("p", "a", None, 0.5), "expected a whole number from 0 to 99, got nothing"),
        (("p", "a", 1, 1.5), "row 6, column 'quality': expected a number in \\[0, 1\\]"),
        ((None, "a", 1, 0.5), "row 6, column 'prompt_id': expected text, it is missing"),
        (("p", None, 1, 0.5), "row 6, column 'model': expected text, it is missing"),
    ],
)
def test_a_wrong_cell_is_told(tmp_path, row, told):
    with pytest.raises(InvalidInputError, match=told):
        read_repeated_scores(written(tmp_path / "samples.jsonl", [*ROWS, row]))


def test_a_folder_without_one_table_of_samples_is_told(tmp_path):
    with pytest.raises(InvalidInputError, match="got none; `ipr collect` writes it"):
        read_repeated_scores(tmp_path)
    for ending in ("csv", "jsonl"):
        written(tmp_path / f"samples.{ending}")
    with pytest.raises(InvalidInputError, match=r"got samples.csv, samples.jsonl"):
        read_repeated_scores(tmp_path)
