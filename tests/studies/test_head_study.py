"""The study of the head view on generated outcomes: its constructed set, and its page."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies.cases import load_case
from studies.instructions import INSTRUCTIONS, OPENINGS, instructed
from tests.support import skips
from tests.support.training_data import write_source

pytest.importorskip("pyarrow", reason=skips.EVAL)
MODELS = ["claude-3-5-sonnet-20241022", "claude-3-5-haiku-20241022"]


def test_only_the_opening_differs_between_the_ways(tmp_path):
    write_source(tmp_path / "cascade9", MODELS, ["prove it", "what is the code"], rows_per_split=30)
    case = load_case(tmp_path, "cascade9")
    first, opened = (instructed(case, opening) for opening in OPENINGS.values())
    assert [f"{OPENINGS['after an opening']}{prompt}" for prompt in first.prompts] == opened.prompts
    assert first.drawn.tobytes() == opened.drawn.tobytes()
    assert first.keys == opened.keys
    assert set(first.instruction) == set(range(len(INSTRUCTIONS)))
    for row, prompt in enumerate(first.prompts):
        assert prompt.startswith(INSTRUCTIONS[first.instruction[row]])
    assert ((first.expected > 0) & (first.expected < 1)).all()
    # One shift for an instruction and a candidate: two odds apart, by the document's recorded outcome.
    logit = np.log(first.expected / (1 - first.expected))
    for k in range(len(INSTRUCTIONS)):
        assert len(np.unique(logit[first.instruction == k, 0].round(9))) <= 2


def test_the_page_has_every_view_of_a_source(tmp_path, monkeypatch):
    for module in ("sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    from studies import head, instructions

    monkeypatch.setattr(instructions, "DOCUMENTS", 20)
    monkeypatch.setattr(head, "ESTIMATORS", ("plain",))
    monkeypatch.setattr(head, "TOKENS", (8,))
    monkeypatch.setattr(head, "SOURCES", ("cascade9",))
    write_source(tmp_path / "cascade9", MODELS, ["prove it", "what is the code"], rows_per_split=60)
    write_source(tmp_path / "wmt24_human", MODELS, ["prove it", "what is the code"], rows_per_split=60)
    out = tmp_path / "out"
    assert main(["study", "head", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "20"]) == 0
    figures = json.loads((out / "head.json").read_text())
    assert set(figures["constructed"]) == {"cascade9, first", "cascade9, after an opening"}
    assert set(figures["wmt24_human"]["plain"]) == {"whole alone", "N = 8"}
    assert "How much of the instruction is seen" in (out / "head.md").read_text()
    assert (out / "head.png").stat().st_size > 10_000
