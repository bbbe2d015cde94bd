"""Prompts that our own records keep: in clear, sealed, or not at all."""

from __future__ import annotations

import pytest

from ipr_engine import Engine
from ipr_engine.audit import OwnerKey
from ipr_engine.collection.sources import SourceReport
from ipr_engine.errors import InvalidInputError, KeyMismatchError
from tests.support import skips
from tests.support.prompt_files import questions, said

ASKED = [
    "Which river is the longest one on the whole of the earth?",
    [{"role": "user", "content": "And which is second?"}],
]


def record(path, **options):
    with Engine.load().recorder(path, **options) as recorder:
        for number, prompt in enumerate(ASKED):
            recorder.route(prompt, tau=0.2, id=f"r{number}")
    return path


def test_records_that_keep_their_prompts_become_questions(tmp_path):
    first, second = questions(record(tmp_path / "log.jsonl", keep_prompts=True))
    assert said(first) == [("user", ASKED[0])]
    assert second.prompt == "And which is second?"
    assert first.answers == {}  # a record tells who was chosen, not what was answered


def test_sealed_records_need_the_owners_key(tmp_path):
    pytest.importorskip("cryptography", reason=skips.RECORDS)
    OwnerKey.create(tmp_path / "owner.key")
    OwnerKey.create(tmp_path / "other.key")
    file = record(tmp_path / "log.jsonl", keep_prompts=True, key=tmp_path / "owner.key")
    assert [q.prompt for q in questions(file, key=str(tmp_path / "owner.key"))] == [ASKED[0], "And which is second?"]
    with pytest.raises(InvalidInputError, match=r"records that are sealed: give the owner's key .* \(2 times\)"):
        questions(file)
    with pytest.raises(KeyMismatchError):
        questions(file, key=str(tmp_path / "other.key"))


def test_records_without_a_prompt_are_told_once_and_counted(tmp_path):
    kept, plain = record(tmp_path / "kept.jsonl", keep_prompts=True), record(tmp_path / "plain.jsonl")
    with pytest.raises(InvalidInputError, match=r"written without keep_prompts \(2 times\)"):
        questions(plain)
    report = SourceReport()
    both = tmp_path / "both.jsonl"
    both.write_bytes(kept.read_bytes() + plain.read_bytes())
    assert len(questions(both, report)) == 2
    assert report.lines == ["records without a prompt: they were written without keep_prompts (2 times)"]


def test_a_damaged_record_is_told_by_its_row(tmp_path):
    file = record(tmp_path / "log.jsonl", keep_prompts=True)
    first, second = file.read_bytes().splitlines()
    file.write_bytes(first + b"\n" + second.replace(b'"truncated":false', b'"truncated":true') + b"\n")
    with pytest.raises(InvalidInputError, match="row 2: crc32"):
        questions(file)
