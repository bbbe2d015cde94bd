"""The study of guards on generated outcomes: its page has every arm and guard; a guarded choice costs no more than a plain one."""

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies import guard
from studies.forest import Believed
from tests.support import skips
from tests.support.training_data import write_source


def test_the_page_has_every_arm_under_every_guard(tmp_path, monkeypatch):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    monkeypatch.setattr(guard, "TRIED", 3)
    monkeypatch.setattr(guard, "LONGER", 26)
    tasks = ["prove it at some length so that there is something to cut", "what is the code"]
    write_source(tmp_path / "cascade9", ["large", "middle", "small"], tasks, rows_per_split=130)
    out = tmp_path / "out"
    assert main(["study", "guard", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "10"]) == 0
    figures = json.loads((out / "guard.json").read_text())
    assert set(figures["searched"]["cascade9"]) == set(figures["areas"]["cascade9"]) == set(guard.ARMS)
    for guards in figures["searched"]["cascade9"].values():
        assert set(guards) == set(guard.GUARDS)
        assert all(set(found) == {"behind", "before", "longer"} for found in guards.values())
    assert (out / "guard.png").stat().st_size > 0
    assert "both ends" in (out / "guard.md").read_text()


def test_the_choice_of_the_reading_that_costs_least_by_the_whole_stands():
    quality = np.array([[0.1, 0.9], [0.1, 0.9], [0.9, 0.9]])
    cost = np.array([[1.0, 2.0]] * 3)
    less = Believed(np.array([[0.1, 0.9], [0.9, 0.9], [0.1, 0.9]]), cost * 7)
    chosen = guard.guarded([Believed(quality, cost), less], np.array([0.0, 100.0]))
    assert chosen.tolist() == [[0, 0, 0], [1, 0, 0]]


def test_a_prompt_keeps_its_words_where_no_more_than_an_end_are_there():
    short, longer = "one " * 25, " ".join(map(str, range(26)))
    assert guard.cut_of(short) == guard.without_first(short) == short
    assert (guard.cut_of(longer), guard.without_first(longer)) == ("0", "25")


def test_no_suffix_of_no_words():
    from ipr_engine.errors import InvalidInputError
    from ipr_engine.evaluation.searched_suffix import searched_suffix

    with pytest.raises(InvalidInputError, match="length: expected at least 1"):
        searched_suffix(["a"], ["one"], lambda texts: np.zeros(len(texts)), length=0)
    assert len(searched_suffix(["a"], ["one"], lambda texts: np.zeros(len(texts)), length=3).split()) == 3
