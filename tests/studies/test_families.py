from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from studies import families
from studies.trials import Prediction
from tests.support.skips import EVAL, TORCH
from tests.support.study_sources import make_study, write_study_source

LLAMAS = ("llama3.2-1b", "llama3.2-3b", "llama3.1-70b", "llama3.1-405b")
OTHERS = ("gpt-4o", "qwen2.5-72b-instruct")
ROWS = {("train", "a"): 60, ("train", "b"): 60, ("test", "a"): 40, ("test", "b"): 40}


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("claude-instant-v1", "Claude"),
        ("chatgpt-4o-latest-24-09-07", "GPT"),
        ("gemini-1.5-pro-preview-0514", "Gemini"),
        ("google/gemma-2-9b-it", "Gemma"),
        ("meta/code-llama-instruct-34b-chat", "Llama"),
        ("Meta-Llama-3.1-405B-Instruct", "Llama"),
        ("open-mixtral-8x22b", "Mistral"),
        ("mathstral-7B", "Mistral"),
        ("Qwen/QwQ-32B-Preview", "Qwen"),
        ("NousResearch_Hermes-2-Pro-Llama-3-70B", None),
        ("alpindale/WizardLM-2-8x22B", None),
    ],
)
def test_a_family_is_what_the_vendor_calls_its_own(model: str, family: str | None) -> None:
    assert families.family_of(model) == family


for package, reason in (("pyarrow", EVAL), ("sklearn", EVAL), ("matplotlib", EVAL), ("torch", TORCH)):
    pytest.importorskip(package, reason=reason)


def test_a_family_needs_three_candidates() -> None:
    assert families.families_of((*LLAMAS, *OTHERS)) == {"Llama": list(LLAMAS)}


def test_restricting_keeps_what_was_believed_of_the_rest(rng: np.random.Generator) -> None:
    tables = [rng.random((5, 4)) for _ in range(4)]
    kept = families.restricted(Prediction(*tables), [3, 1])
    np.testing.assert_array_equal(kept.quality, tables[0][:, [3, 1]])
    np.testing.assert_array_equal(kept.train_cost, tables[3][:, [3, 1]])


def test_page_compares_every_family_on_its_own_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "ESTIMATORS", ("plain", "advantage_shared"))
    write_study_source(tmp_path / "in" / "cascade9", (*LLAMAS, *OTHERS), ROWS)
    paths = families.run(make_study(tmp_path / "in", tmp_path / "out"))
    assert [path.name for path in paths] == ["families.md", "families.json", "families.png"]
    assert all(path.stat().st_size for path in paths)
    figures = json.loads(paths[1].read_text())["cascade9, Llama"]
    assert set(figures) == {"plain", "advantage_shared"}
    assert figures["plain"]["unified - own"]["value"] == pytest.approx(0, abs=1e-9)  # each candidate by itself
    assert "GPT" not in paths[0].read_text()
