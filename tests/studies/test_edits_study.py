"""The study of edits on generated outcomes: its page has every arm, every edit, and the words that were searched."""

import json

import pytest

from ipr_engine.cli import main
from ipr_engine.data.prompt_edits import EDITS
from studies import edits
from tests.support import skips
from tests.support.training_data import write_source


def test_the_page_has_edits_and_suffixes_of_every_arm(tmp_path, monkeypatch):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    monkeypatch.setattr(edits, "TRIED", 5)
    tasks = ["prove it at some length so that there is something to cut", "what is the code"]
    write_source(tmp_path / "cascade9", ["large", "middle", "small"], tasks, rows_per_split=130)
    out = tmp_path / "out"
    assert main(["study", "edits", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "10"]) == 0
    figures = json.loads((out / "edits.json").read_text())
    assert set(figures["edits"]["cascade9"]) == set(edits.ALL)
    assert set(figures["edits"]["cascade9"]["forest, copies"]) == {*EDITS, edits.SENTENCE}
    assert figures["edits"]["cascade9"]["caps"]["lower case"]["flipped"]["value"] == 0
    assert set(figures["suffixes"]["cascade9"]) == set(edits.ARMS)
    found = figures["suffixes"]["cascade9"]["forest"]
    assert set(found) == {"raised", "raised_where_supported", "unsupported", "plain", "behind", "before"}
    assert "politeness" in (out / "edits.md").read_text()


def test_a_prompt_of_few_words_is_not_cut():
    assert edits.cut_of("what is it") == "what is it"
    assert edits.cut_of("one " * 30) == "one one one one one"
