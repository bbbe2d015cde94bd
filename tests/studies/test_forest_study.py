"""The study of the forest on generated outcomes: its page; edits of prompts; Holm's adjustment."""

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from studies import forest
from studies.prompt_edits import EDITS, SAME_WORDS
from tests.support import skips
from tests.support.training_data import write_source

PROMPT = 'Please calculate 2 + 2 for the "Sum".\n\nA) Three\nB) Four\n1. It\'s easy\n2. It is not\n\nWhich is correct?'


def test_every_edit_changes_a_prompt_and_asks_the_same():
    assert len(EDITS) == 9
    for name, edit in EDITS.items():
        assert edit(PROMPT) != PROMPT, name
        assert edit("") is not None
    assert EDITS["white space collapsed"](PROMPT).count("\n") == 0
    assert "(A) Three" in EDITS["numbering style"](PROMPT)
    assert "1) It" in EDITS["numbering style"](PROMPT)
    assert "“Sum”" in EDITS["curly quotes"](PROMPT)
    assert "Please work out 2 + 2" in EDITS["paraphrased instructions"](PROMPT)
    assert EDITS["full width"]("a 1") == "ａ １"


def test_no_word_is_replaced_by_one_that_is_replaced():
    for word in SAME_WORDS.values():
        assert not set(word.split()) & set(SAME_WORDS), word


def test_holm_adjusts_in_order_and_never_lowers_a_p():
    from studies.equal_cost import holm, two_sided

    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert two_sided(np.array([1.0, *[1.0] * 99])) == pytest.approx(0.02)
    assert two_sided(np.array([0.0, *[-1.0, 1.0] * 50])) == 1.0


def test_the_page_has_areas_costs_and_edits_of_a_source(tmp_path):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    models, tasks = ["large", "middle", "small"], ["prove it", "what is the code"]
    write_source(tmp_path / "cascade9", models, tasks, rows_per_split=130)
    out = tmp_path / "out"
    assert main(["study", "forest", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "20"]) == 0
    figures = json.loads((out / "forest.json").read_text())
    assert set(figures["area"]["cascade9"]) == {"caps", "forest", forest.BLIND, "k-means"}
    assert set(figures["cost"]["cascade9"]["forest"]) == {"0.99", "0.98", "0.95"}
    assert set(figures["edits"]["cascade9"]["forest"]) == set(EDITS)
    assert "pooled" in (out / "forest.md").read_text()
    assert (out / "forest.png").stat().st_size > 10_000
