"""What is written of a record: a line that the disk cut, and an answer of a fallback, which no recorder of another kind writes."""

import json
import os
import resource
from dataclasses import replace

import pytest

from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import canonical, crc32
from ipr_engine.audit.record_writer import RecordWriter
from ipr_engine.audit.replay import replay
from ipr_engine.errors import RecordError

PROMPT = "explain to the python student why this code is slow and how to write a better story"


@pytest.fixture
def limited(tmp_path):
    """A log, and a function that lets files grow by so many bytes from what it holds: then the disk is full, but for real."""
    before, path = resource.getrlimit(resource.RLIMIT_FSIZE), tmp_path / "log.jsonl"

    def limit(more):
        size = os.path.getsize(path)
        resource.setrlimit(resource.RLIMIT_FSIZE, (before[1] if more is None else size + more, before[1]))

    yield path, limit
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_line_that_a_full_disk_cut_takes_no_other_line_with_it(engine, limited):
    path, limit = limited
    with engine.recorder(path) as recorder:
        recorder.route(PROMPT, tau=0.2, id="first")
        for name, more in (("cut", 100), ("cut again", 1), ("nothing", 0)):
            limit(more)
            with pytest.raises(RecordError, match="cannot write to"):
                recorder.route(PROMPT, tau=0.2, id=name)
        limit(None)
        recorder.route(PROMPT, tau=0.2, id="next")
        recorder.route(PROMPT, tau=0.2, id="last")
    replays = list(replay(path.read_bytes().splitlines(keepends=True), engine))
    assert [one.record.id for one in replays if one.refused is None] == ["first", "next", "last"]
    assert all(one.record is None for one in replays if one.refused is not None)


def test_a_writer_may_be_closed_twice_and_writes_no_more(tmp_path):
    writer = RecordWriter(tmp_path / "log")
    writer.write(b"{}\n")
    writer.close()
    writer.close()
    with pytest.raises(RecordError, match="is closed; make a new recorder"):
        writer.write(b"{}\n")
    assert (tmp_path / "log").read_bytes() == b"{}\n"


def test_a_file_that_is_renamed_is_followed_by_a_new_one(tmp_path):
    path, kept = tmp_path / "log", tmp_path / "log.1"
    first, second = RecordWriter(path), RecordWriter(path)  # as two processes would
    first.write(b"1\n")
    second.write(b"2\n")
    path.rename(kept)
    first.write(b"3\n")
    second.write(b"4\n")
    assert (kept.read_bytes(), path.read_bytes()) == (b"1\n2\n", b"3\n4\n")


def test_a_file_that_is_removed_is_made_again_wherever_the_process_works_meanwhile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    writer = RecordWriter("log")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    writer.write(b"1\n")
    (tmp_path / "log").unlink()
    writer.write(b"2\n")
    assert (tmp_path / "log").read_bytes() == b"2\n"
    assert not (tmp_path / "elsewhere" / "log").exists()


def test_a_new_file_that_ends_within_a_line_keeps_that_line_apart(tmp_path):
    path = tmp_path / "log"
    writer = RecordWriter(path)
    (tmp_path / "other").write_bytes(b"torn")
    (tmp_path / "other").replace(path)
    writer.write(b"1\n")
    writer.write(b"2\n")
    assert path.read_bytes() == b"torn\n1\n2\n"


def test_a_path_that_cannot_be_opened_again_is_an_error_for_each_line_until_it_can(tmp_path):
    path = tmp_path / "log"
    writer = RecordWriter(path)
    path.unlink()
    path.mkdir()
    first, second = writer.write_each([b"1\n", b"2\n"])
    assert str(first) == str(second) == f"to: cannot append to {path}: Is a directory"
    assert first is not second
    path.rmdir()
    writer.write(b"3\n")
    assert path.read_bytes() == b"3\n"


def test_no_file_stays_open_that_is_written_no_more(tmp_path):
    path = tmp_path / "log"
    writer = RecordWriter(path)
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        path.rename(tmp_path / f"log.{number}")
        writer.write(b"{}\n")
    assert len(os.listdir("/proc/self/fd")) == before
    writer.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def changed(line, **fields):
    document = json.loads(line)
    document.pop("crc32")
    document |= fields
    return json.dumps(document | {"crc32": crc32(canonical(document))})


def test_a_degraded_line_is_read_as_it_was_written_and_no_other_form_of_it(engine):
    lines = []
    engine.recorder(lines.append).route(PROMPT, tau=0.2)
    record = Record.from_line(lines[0])
    static = replace(record, degraded="static").to_line()
    assert Record.from_line(static).degraded == "static"
    assert Record.from_line(static).to_line() == static
    assert b"degraded" not in lines[0]
    [replayed] = replay([static], engine)
    assert (replayed.differences, replayed.refused) == ((), None)
    late = {**json.loads(lines[0])["decision"], "cause": "deadline"}
    nothing = {**late, **dict.fromkeys(("quality", "cost_usd", "tokens_out", "threshold", "gap", "support"))}
    for wrong in (
        {"degraded": None},
        {"degraded": "somebody"},
        {"degraded": "candidate"},  # with figures
        {"decision": late},  # nobody was late
        {"decision": nothing},
        {"decision": nothing, "degraded": "static"},
        {"decision": {**nothing, "cause": "only_allowed"}, "degraded": "candidate"},
    ):
        with pytest.raises(RecordError, match="expected the fields of schema_version 3"):
            Record.from_line(changed(lines[0], **wrong))
    read = Record.from_line(changed(lines[0], decision=nothing, degraded="candidate"))
    assert (read.degraded, read.outcome.cause, read.brief, read.withheld) == ("candidate", "deadline", False, True)


def test_the_tier_of_a_line_is_read_as_it_was_written_and_no_other_form_of_it(engine):
    lines = []
    engine.recorder(lines.append).route(PROMPT, tau=0.2)
    assert b"encoder_tier" not in lines[0]  # there is one way to read a table
    for tier in ("onnx", "onnx+openvino"):
        line = replace(Record.from_line(lines[0]), encoder_tier=tier).to_line()
        assert Record.from_line(line).encoder_tier == tier
        assert Record.from_line(line).to_line() == line
        [replayed] = replay([line], engine)
        assert (replayed.differences, replayed.refused) == ((), None)
    for wrong in (None, "", 1, "onnx+", "an onnx", "x" * 17):
        with pytest.raises(RecordError, match="encoder_tier"):
            Record.from_line(changed(lines[0], encoder_tier=wrong))
