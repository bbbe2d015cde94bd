"""The study of what of a conversation is encoded, on generated outcomes: its views, and its page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies import conversations, instructions
from studies.cases import load_case
from studies.crossed import folds_of
from studies.instructions import INSTRUCTIONS
from tests.support import skips
from tests.support.training_data import write_source

pytest.importorskip("pyarrow", reason=skips.EVAL)
MODELS, TASKS = ["claude-3-5-sonnet-20241022", "claude-3-5-haiku-20241022"], ["prove it", "what is the code"]


def test_what_is_encoded_of_turns():
    turns = ("one " * 20, "two", "three")
    seen = {name: text(turns) for name, text in conversations.TEXTS.items()}
    assert seen["all joined"] == "one " * 20 + "\n\ntwo\n\nthree"
    assert seen["last turn alone"] == "three"
    assert seen["last, earlier cut"] == " ".join(["one"] * 16) + "\n\ntwo\n\nthree"
    assert seen["newest first"] == "three\n\ntwo\n\n" + "one " * 20


@pytest.mark.parametrize("same", [True, False])
def test_earlier_turns_are_of_the_last_ones_fold(tmp_path, same):
    write_source(tmp_path / "cascade9", MODELS, TASKS, rows_per_split=60)
    talks = conversations._built(load_case(tmp_path, "cascade9"), same=same)  # noqa: SLF001  what the page cannot show
    fold = dict(zip(talks.single, folds_of(talks.keys), strict=True))
    assert {len(turns) for turns in talks.turns} == {2, 3, 4, 5}
    for single, turns in zip(talks.single, talks.turns, strict=True):
        assert turns[-1] == single
        assert {fold[turn] for turn in turns} == {fold[single]}


def test_a_document_stands_in_the_turn_before_its_instruction(tmp_path):
    write_source(tmp_path / "cascade9", MODELS, TASKS, rows_per_split=60)
    talks = conversations._reinstructed(load_case(tmp_path, "cascade9"))  # noqa: SLF001
    for single, (before, last) in zip(talks.single, talks.turns, strict=True):
        assert last in INSTRUCTIONS
        assert single.startswith(last)
        assert before.endswith(single.removeprefix(last))
        assert not before.startswith(last)


def test_the_page_has_every_view_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.setattr(instructions, "DOCUMENTS", 20)
    monkeypatch.setattr(conversations, "ESTIMATOR", "plain")
    monkeypatch.setattr(conversations, "SOURCES", ("cascade9",))
    write_source(tmp_path / "cascade9", MODELS, TASKS, rows_per_split=60)
    out = tmp_path / "out"
    assert main(["study", "conversations", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "20"]) == 0
    figures = json.loads((out / "conversations.json").read_text())["conversations"]
    assert len(figures) == 6
    assert (out / "conversations.png").stat().st_size > 0
    assert "](conversations.png)" in (out / "conversations.md").read_text()
    for kind, of in figures.items():
        assert len(of["squared_error"]) == 7
        assert len(of["area"]) == (0 if "another instruction" in kind else 7)
        assert np.isfinite([at["value"] for at in of["squared_error"].values()]).all()
