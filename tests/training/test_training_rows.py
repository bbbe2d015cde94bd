"""Sources mixed for training: candidates matched by name, what is not judged left open, leaks dropped and told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ipr_engine.bundle.candidates_file import CandidatesFile, read_candidates
from ipr_engine.data import write_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.training_inputs import FEWEST_JUDGED, read_training_rows
from tests.support.outcome_data import make_outcomes


def asked(folder: Path, **sources: object) -> CandidatesFile:
    """Candidates named by keyword, each with its `source`."""
    entries = [
        {"name": name, "source": source, "family": "f", "provider": "p", "input_usd_per_1m": 1, "output_usd_per_1m": 2}
        for name, source in sources.items()
    ]
    path = folder / "candidates.json"
    path.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return read_candidates(path)


def test_rows_of_every_source_stand_below_each_other(tmp_path):
    home, other = make_outcomes("home", rows=60), make_outcomes("other", rows=80, models=2)
    write_outcomes(home, tmp_path / "home", format="csv")
    write_outcomes(other, tmp_path / "other", format="csv")
    told: list[str] = []
    candidates = asked(tmp_path, big={"home": "model c", "other": "model a"}, small="model b", lone={"home": "model a"})
    rows = read_training_rows([tmp_path / "home", tmp_path / "other"], candidates, split="train", progress=told.append)
    ours = np.array([split == "train" for split in home.splits])
    theirs = np.array([split == "train" for split in other.splits])
    assert rows.names == ("home", "other")
    assert (rows.source == np.repeat([0, 1], [ours.sum(), theirs.sum()])).all()
    np.testing.assert_array_equal(rows.quality[rows.source == 0], home.quality[ours][:, [2, 1, 0]])
    np.testing.assert_array_equal(rows.quality[rows.source == 1][:, :2], other.quality[theirs])
    assert np.isnan(rows.quality[rows.source == 1][:, 2]).all()  # not judged there: left open, not filled
    assert "105 prompts of home, other" in told[0]


def test_a_question_held_out_in_any_source_is_not_learned_from(tmp_path):
    home, other = make_outcomes("home", rows=60), make_outcomes("other", rows=60)
    held_out = [i for i, split in enumerate(home.splits) if split == "test"][:2]
    own = [i for i, split in enumerate(other.splits) if split == "train"][:2]
    keys = list(other.question_keys)
    for mine, theirs in zip(held_out, own, strict=True):
        keys[theirs] = home.question_keys[mine]
    write_outcomes(home, tmp_path / "home", format="csv")
    write_outcomes(replace(other, question_keys=tuple(keys)), tmp_path / "other", format="csv")
    rows = read_training_rows(
        [tmp_path / "home", tmp_path / "other"], asked(tmp_path, a="model a", b="model b"), split="train"
    )
    assert rows.leaked == 2
    assert not {home.question_keys[i] for i in held_out} & set(rows.keys)


def test_a_prompt_that_nobody_judged_is_left_out_and_counted(tmp_path):
    made = make_outcomes("bare", rows=60)
    quality = made.quality.copy()
    quality[[3, 5], :] = np.nan
    write_outcomes(replace(made, quality=quality), tmp_path / "home", format="csv")
    rows = read_training_rows([tmp_path / "home"], asked(tmp_path, a="model a", b="model b"), split=None)
    assert (len(rows), rows.dropped) == (58, 2)


@pytest.mark.parametrize("measure", ["quality", "output_tokens"])
def test_a_candidate_with_too_few_outcomes_is_named(tmp_path, measure):
    made = make_outcomes("few", rows=60)
    table = getattr(made, measure).copy()
    table[FEWEST_JUDGED - 1 :, 1] = np.nan
    write_outcomes(replace(made, **{measure: table}), tmp_path / "home", format="csv")
    with pytest.raises(InvalidInputError, match=f"'b' has {measure} on {FEWEST_JUDGED - 1} prompts of home"):
        read_training_rows([tmp_path / "home"], asked(tmp_path, a="model a", b="model b"), split=None)


def test_one_folder_twice_is_refused(tmp_path):
    write_outcomes(make_outcomes("twice"), tmp_path / "home", format="csv")
    with pytest.raises(InvalidInputError, match="distinct names"):
        read_training_rows([tmp_path / "home"] * 2, asked(tmp_path, a="model a"), split=None)


def test_a_source_that_is_no_name_is_refused(tmp_path):
    with pytest.raises(InvalidInputError, match=r"candidates\[0\].source: expected its name"):
        asked(tmp_path, a=["model a"])


def test_a_source_without_output_tokens_is_told_what_to_record_and_not_to_leave_a_candidate_out(tmp_path):
    home = make_outcomes("home", rows=60)
    write_outcomes(
        replace(home, output_tokens=np.full_like(home.output_tokens, np.nan)), tmp_path / "home", format="csv"
    )
    candidates = asked(tmp_path, big="model a", small="model b")
    with pytest.raises(
        InvalidInputError, match="outcomes: no candidate has output_tokens in home: record how many"
    ) as told:
        read_training_rows([tmp_path / "home"], candidates, split=None)
    assert "leave it out" not in str(told.value)
