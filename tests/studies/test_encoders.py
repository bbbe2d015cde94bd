"""The study of encoders on generated outcomes: its page, what its table is learned from, errors told."""

import dataclasses
import json

import pytest

from ipr_engine.cli import main
from studies import encoders
from tests.support import skips
from tests.support.outcome_data import make_outcomes
from tests.support.training_data import write_source
from tests.support.transformer_folders import make_sentence_transformer

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    for module in ("pyarrow", "sklearn", "matplotlib", "torch"):
        pytest.importorskip(module, reason=skips.EVAL)
    work = tmp_path_factory.mktemp("studies")
    for name in ("cascade9", "routerbench_sub"):
        write_source(work / name, ["large", "middle", "small"], PROMPTS)
    make_sentence_transformer(work / "mini", max_position_embeddings=300)
    return work


def run(folder, out, *more):
    return main(["study", "encoders", "--outcomes", str(folder), "--out", str(out), "--draws", "20", *more])


def test_a_page_has_every_view_of_every_source_and_no_prompt(folder, tmp_path):
    cache = ["--transformer", str(folder / "mini"), "--cache", str(tmp_path / "cache")]
    assert run(folder, tmp_path, "--source", "cascade9", *cache) == 0
    figures = json.loads((tmp_path / "encoders.json").read_text())["cascade9"]
    assert set(figures) == set(encoders.ESTIMATORS)
    assert all(set(views) == {*encoders.VIEWS, *encoders.LEARNED} for views in figures.values())
    assert (tmp_path / "encoders.png").stat().st_size > 10_000
    text = (tmp_path / "encoders.md").read_text()
    assert "![" in text
    assert not any(prompt in text for prompt in PROMPTS)
    assert str(folder) not in text


def test_a_missing_transformer_is_told(folder, tmp_path, capsys):
    assert run(folder, tmp_path, "--source", "cascade9") != 0
    assert "pass --transformer" in capsys.readouterr().err


def test_the_learned_table_sees_no_question_of_its_own_source():
    home, other = make_outcomes("home"), make_outcomes("other")
    other = dataclasses.replace(other, question_keys=home.question_keys[:20] + other.question_keys[20:])
    rows = encoders.others_training_rows(other, home)
    assert set(rows.splits) == {"train"}
    assert len(rows) == sum(split == "train" for split in other.splits[20:])
    assert not set(rows.question_keys) & set(home.question_keys)
