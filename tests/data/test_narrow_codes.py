"""Codes of a Parquet table are as narrow as the file has them: what is made of them does not overflow."""

import numpy as np
import pytest

from ipr_engine.data import load_outcomes
from ipr_engine.data.table_files import read_table
from tests.support import skips

arrow = pytest.importorskip("pyarrow", reason=skips.TRAIN)


def test_ids_of_many_row_groups_have_one_code_each(tmp_path):
    from pyarrow import parquet

    names = [f"q{i % 7}" for i in range(50)]
    parquet.write_table(arrow.table({"model": names}), tmp_path / "t.parquet", row_group_size=9)
    codes, texts = read_table(tmp_path / "t.parquet").coded("model")
    assert [texts[code] for code in codes] == names
    assert len(texts) == 7


def test_a_large_table_of_many_row_groups_loads_as_a_small_one(tmp_path):
    from pyarrow import parquet

    rows = 3000
    ids = [f"p{i:05d}" for i in np.random.default_rng(0).permutation(rows)]
    parquet.write_table(
        arrow.table({"prompt_id": ids, "prompt": ids}), tmp_path / "prompts.parquet", row_group_size=100
    )
    pairs = [(i, m) for i in ids for m in ("a", "b")]
    columns = {"prompt_id": [i for i, _ in pairs], "model": [m for _, m in pairs]}
    columns["quality"] = [int(i[1:]) / rows if m == "a" else 1.0 for i, m in pairs]
    parquet.write_table(arrow.table(columns), tmp_path / "outcomes.parquet", row_group_size=333)
    loaded = load_outcomes(tmp_path)
    assert loaded.prompt_ids == tuple(sorted(ids))
    np.testing.assert_array_equal(loaded.quality[:, 0], np.arange(rows) / rows)
    assert (loaded.quality[:, 1] == 1).all()
