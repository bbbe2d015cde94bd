"""The study of chosen prompts: shares of what a refit gains, and rows that are those of `add-model`."""

from __future__ import annotations

import numpy as np
import pytest

from studies import chosen_prompts
from studies.chosen_prompts import CHOSEN, METHODS, OWN, PRODUCT, RANDOM, LeftOut, Shares
from studies.study import Study
from tests.support.study_sources import write_study_source

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")


def left_out(without, added):
    """A candidate that adds so much to the area in each of two draws, whatever the prompts."""
    areas = {method: np.full((2, 3), without) + np.array(added)[:, None] for method in METHODS}
    brier = {method: np.array([0.2, 0.2]) for method in METHODS}
    return LeftOut(np.full(3, without), areas, brier, {RANDOM: 0, CHOSEN: 0})


def shares(*candidates):
    count = len(candidates)
    return Shares(
        "made", tuple("abc"[:count]), 9, list(candidates), np.full(3, 0.9), np.full(count, 0.1), np.full(count, 0.3)
    )


def test_shares_are_of_sums_over_candidates(monkeypatch):
    monkeypatch.setattr(chosen_prompts, "DRAWS", 2)
    found = shares(left_out(0.5, [0.2, 0.4]), left_out(0.9, [0.0, 0.0]), left_out(0.95, [-0.1, -0.1]))
    # a refit adds 0.4 + 0 - 0.05; added back they add 0.1 in one draw and 0.3 in the other
    assert found.share((RANDOM, OWN))[0] == pytest.approx(0.2 / 0.35)
    np.testing.assert_allclose(found.brier_gain((RANDOM, OWN)), 0.5)


def test_where_a_refit_gains_nothing_a_share_is_undefined(monkeypatch):
    monkeypatch.setattr(chosen_prompts, "DRAWS", 2)
    assert np.isnan(shares(left_out(0.95, [0.1, 0.1])).share((RANDOM, OWN))).all()


def test_each_candidate_is_added_back_by_each_way(tmp_path, monkeypatch):
    for name, value in (("DRAWS", 2), ("ANSWERS", 40), ("RESAMPLES", 5)):
        monkeypatch.setattr(chosen_prompts, name, value)
    rows = {(split, task): count for split, count in (("train", 150), ("test", 40)) for task in ("x", "y")}
    write_study_source(tmp_path / "cascade9", ["a", "b", "c"], rows)
    study = Study(tmp_path, tmp_path / "out", ("cascade9",), None, None, 0, "", lambda message: None)
    [(case, train_x, test_x)] = chosen_prompts.seen_cases(study)
    parts = [chosen_prompts.measured_part((case, train_x, test_x, m)) for m in (None, 0, 1, 2)]
    found = chosen_prompts.joined_parts(case, parts)
    figures = chosen_prompts.shares_facts(found)
    assert figures["models"] == ["a", "b", "c"]
    for method in METHODS:
        assert found.left_out[0].areas[method].shape == (2, 6)
        assert len(figures[", ".join(method)]["areas"]) == 3
    for one in found.left_out:
        for prompts, kept in one.kept_own.items():
            same = (one.areas[prompts, OWN] == one.areas[prompts, PRODUCT]).all(axis=1)
            assert same.sum() >= kept
