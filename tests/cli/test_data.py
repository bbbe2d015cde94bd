"""ipr data: clean stdout, notices on stderr, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.cli import data as command
from ipr_engine.cli import main
from ipr_engine.data import EmbeddingCache, load_outcomes, write_outcomes
from ipr_engine.data.importers import IMPORTERS
from ipr_engine.data.table_files import FORMATS
from ipr_engine.encoders.static import StaticEncoder
from tests.support.bundles import make_encoder
from tests.support.outcome_data import make_outcomes


@pytest.fixture
def folder(tmp_path):
    return write_outcomes(make_outcomes(rows=60, sparse=0.1), tmp_path / "made", format="csv")


def test_check_sums_up_every_candidate(folder, capsys):
    assert main(["data", "check", str(folder)]) == 0
    captured = capsys.readouterr()
    assert "60 prompts (test 15, train 45), 3 models" in captured.out
    assert all(f"model {letter}" in captured.out for letter in "abc")
    assert captured.err == ""


def test_check_json_is_one_object_a_source(folder, tmp_path, capsys):
    write_outcomes(make_outcomes(rows=8), tmp_path / "other", format="jsonl")
    assert main(["data", "check", str(tmp_path), "--json", "--split", "train"]) == 0
    facts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [fact["source"] for fact in facts] == ["made", "other"]
    assert facts[1]["splits"] == {"train": 6}
    assert facts[1]["models"][0]["coverage"] == 1.0


def test_check_tells_notices_on_stderr(tmp_path, capsys):
    made = make_outcomes(models=1)
    write_outcomes(replace(made, cost_usd=np.full_like(made.quality, np.nan)), tmp_path / "lone", format="csv")
    assert main(["data", "check", str(tmp_path / "lone")]) == 0
    captured = capsys.readouterr()
    assert "one candidate only" in captured.err
    assert "cost_usd is missing everywhere" in captured.err
    assert "one candidate" not in captured.out


def test_an_error_names_the_cell_and_gives_exit_code_1(folder, capsys):
    text = (folder / "outcomes.csv").read_text().splitlines()
    text[4] = text[4].rsplit(",", 4)[0] + ",7,1,1,1"
    (folder / "outcomes.csv").write_text("\n".join(text) + "\n")
    assert main(["data", "check", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "outcomes.csv, row 4, column 'quality': expected a number in [0, 1]" in captured.err


def test_import_writes_tables_that_load(tmp_path, capsys):
    (tmp_path / "mine.csv").write_text("prompt,a,b\nWhy?,1,0\nHow?,0,1\n")
    arguments = ["data", "import", "wide", str(tmp_path / "mine.csv"), str(tmp_path / "out"), "--format", "jsonl"]
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prompts"] == 2
    assert load_outcomes(tmp_path / "out").models == ("a", "b")
    assert main(arguments) == 1
    assert "holds prompts.jsonl" in capsys.readouterr().err
    assert main([*arguments[:4], str(tmp_path / "one"), "--model", "b", "--format", "csv"]) == 0
    assert load_outcomes(tmp_path / "one").models == ("b",)


def test_split_gives_every_prompt_a_new_split(folder, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["data", "split", str(folder), str(out), "--format", "csv", "--shares", "train=0.5,val=0.25,test=0.25"]
    assert main([*arguments, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["splits"] == {"train": 30, "val": 15, "test": 15}
    before, after = load_outcomes(folder), load_outcomes(out)
    assert after.prompt_ids == before.prompt_ids
    np.testing.assert_array_equal(after.quality, before.quality)
    assert after.splits.count("val") == 15


def test_split_without_the_questions_of_another_source(folder, tmp_path, capsys):
    arguments = ["data", "split", str(folder), str(tmp_path / "out"), "--format", "csv", "--json"]
    assert main([*arguments, "--without", f"{folder}:test"]) == 0
    assert json.loads(capsys.readouterr().out)["dropped_questions_of_others"] == 15
    arguments[3] = str(tmp_path / "other")
    assert main([*arguments, "--without", str(folder)]) == 1
    assert "nothing is left to split" in capsys.readouterr().err


@pytest.mark.parametrize("shares", ["train", "train=x", "train=0.5,train=0.5", "=1", "train=0.5"])
def test_bad_shares_are_told(folder, tmp_path, capsys, shares):
    assert main(["data", "split", str(folder), str(tmp_path / "out"), "--shares", shares]) == 1
    assert "shares: expected" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_embed_fills_the_cache_that_the_library_reads(folder, tmp_path, capsys):
    table = make_encoder(tmp_path / "table")
    arguments = ["data", "embed", str(folder), "--encoder", str(table), "--cache", str(tmp_path / "cache")]
    assert main([*arguments, "--split", "train", "--max-tokens", "9", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    encoder = StaticEncoder.from_folder(table, max_tokens=9)
    assert (facts["prompts"], facts["truncated"], facts["encoder"]) == (45, 45, encoder.identity)
    prompts = load_outcomes(folder, split="train").prompts
    shards = list((tmp_path / "cache").rglob("*.safetensors"))
    np.testing.assert_array_equal(
        EmbeddingCache(tmp_path / "cache").embed(encoder, prompts).x, encoder.encode(prompts).x
    )
    assert list((tmp_path / "cache").rglob("*.safetensors")) == shards
    assert main(arguments) == 0
    assert "made: 60 prompts, static 16-d" in capsys.readouterr().out


def test_embed_names_a_folder_without_encoder_or_data(folder, tmp_path, capsys):
    cache = ["--cache", str(tmp_path / "cache")]
    assert main(["data", "embed", str(folder), "--encoder", str(tmp_path / "none"), *cache]) == 1
    assert "none: no such folder" in capsys.readouterr().err
    assert (
        main(["data", "embed", str(tmp_path), "--encoder", str(make_encoder(tmp_path / "e")), *cache, "--split", "x"])
        == 1
    )
    assert "split" in capsys.readouterr().err


@pytest.mark.parametrize("action", ["check", "import", "split", "embed", "noise"])
def test_help_says_what_each_action_does(action, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["data", action, "--help"])
    assert stop.value.code == 0
    assert len(capsys.readouterr().out) > 200


def test_the_choices_are_those_of_the_library():
    assert set(IMPORTERS) == set(command.SOURCES)
    assert command.FORMATS == FORMATS
