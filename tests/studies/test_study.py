"""What a study cannot read: an error that names the argument and exit code 1, no traceback and no empty page."""

from __future__ import annotations

from pathlib import Path

import pytest

from ipr_engine.cli.main import main
from ipr_engine.cli.study import STUDIES
from tests.support.skips import EVAL, TORCH
from tests.support.study_sources import write_study_source

for package, reason in (("pyarrow", EVAL), ("sklearn", EVAL), ("matplotlib", EVAL), ("torch", TORCH)):
    pytest.importorskip(package, reason=reason)

ASKS_FIRST = "int8"  # for an export, before it looks for outcomes


def run(name: str, outcomes: Path, out: Path, *more: str) -> int:
    return main(["study", name, "--outcomes", str(outcomes), "--out", str(out), "--draws", "5", *more])


@pytest.mark.parametrize("name", sorted(STUDIES.keys() - {ASKS_FIRST}))
def test_a_folder_without_any_of_its_sources_is_named(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, tmp_path / "nothing", tmp_path / "out") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"ipr study: {'source' if name == 'default_sources' else 'outcomes'}: expected")
    assert str(tmp_path / "nothing") in told
    assert not list((tmp_path / "out").glob("*.md"))


@pytest.mark.parametrize("name", sorted(STUDIES.keys() - {ASKS_FIRST}))
def test_a_source_that_it_does_not_know_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(name, tmp_path, tmp_path / "out", "--source", "no_such_source") == 1
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("ipr study: source: ")
    assert "no_such_source" in told


@pytest.mark.parametrize("name", ["claude", "published", "transfer"])
def test_a_source_of_other_studies_is_refused_by_one_that_reads_its_own_alone(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(name, tmp_path, tmp_path / "out", "--source", "openllm19") == 1
    assert "alone, got openllm19" in capsys.readouterr().err


def test_families_needs_a_family_of_three(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study_source(tmp_path / "openllm19", ("a/one", "b/two"), {("train", "t"): 30, ("test", "t"): 20})
    assert run("families", tmp_path, tmp_path / "out", "--source", "openllm19") == 1
    assert "source: expected one with 3 candidates or more of one family, got openllm19" in capsys.readouterr().err


def test_transfer_needs_two_sources_that_share_candidates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_study_source(tmp_path / "cascade9", ("a/one", "b/two"), {("train", "t"): 30, ("test", "t"): 20})
    assert run("transfer", tmp_path, tmp_path / "out") == 1
    assert "outcomes: expected a folder that holds two sources, cascade9 and zeroeval" in capsys.readouterr().err
