"""Damaged logs and bad input of a recorder: what is wrong is told by its place, and the other records are replayed."""

import contextlib
import dataclasses
import json
import zlib

import pytest

from ipr_engine import Bundle, Engine, InvalidInputError
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import replay
from ipr_engine.errors import EncoderMismatchError, RecordError
from tests.support import skips
from tests.support.bundles import make_bundle
from tests.support.replay_logs import KEY, bare, opened, summarise

pytest.importorskip("cryptography", reason=skips.RECORDS)


def test_any_byte_that_changes_is_found(engine):
    lines = []
    engine.recorder(lines.append, min_words=0).route("a", tau=0.25)
    line, whole = bytearray(lines[0].rstrip(b"\n")), Record.from_line(lines[0]).to_line()
    for position in range(len(line)):
        for flip in (1, 0x80):
            line[position] ^= flip
            with contextlib.suppress(RecordError):  # else the same record: a blank, or JSON's two ways to write a thing
                assert Record.from_line(bytes(line)).to_line() == whole
            line[position] ^= flip


def edited(line, **changes):
    """A line with some fields changed and a checksum that holds: not damage, but no record of ours."""
    document = {**json.loads(line), **changes}
    del document["crc32"]
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return json.dumps({**document, "crc32": f"{zlib.crc32(text.encode()):08x}"}).encode()


def test_a_damaged_line_is_told_with_its_number_and_the_others_are_replayed(engine, log):
    lines = [
        log[0],
        log[1][: len(log[1]) // 2],  # cut
        b"\n",
        b"not json\n",
        b"\xff\xfe\x00\n",
        b'{"prompt": "another kind of log"}\n',
        b"[]",
        log[2].replace(b'"truncated":true', b'"truncated":false'),
        log[3].replace(b'"schema_version":3', b'"schema_version":4'),
        b"[" * 100_000,
        log[4],
    ]
    replays = list(replay(lines, engine, key=KEY))
    assert [one.line for one in replays if one.refused is None] == [1, 11]
    assert [one.line for one in replays if one.refused is not None] == [2, 4, 5, 6, 7, 8, 9, 10]
    reasons = {one.line: one.refused for one in replays}
    assert "one JSON object" in reasons[2]
    assert "decision record" in reasons[6]
    assert "damaged or edited" in reasons[8]
    assert "expected schema_version 1 or 2 or 3, got 4" in reasons[9]


@pytest.mark.parametrize(
    "changes",
    [
        {"x": "AAAAAA=="},
        {"needs": {}},
        {"policy": None},
        {"policy": {}},
        {"max_output_tokens": [1]},
        {"nonfinite": [9]},
        {"sealed": "AAAA"},
        {"sealed": {"key": "a", "nonce": "not base64!", "data": ""}},
        {"tokens_out": "AAAAAA=="},
        {"billed_tokens": -1},
        {"billed_tokens": 1.5},
        {"billed_tokens": 2**60},
        {"truncated": 0},
        {"terms": []},
        {"terms": {"tau": 0.1, "prices": {"a": [1, 2]}}},
        {"terms": {"tau": 0.1, "prices": {"date": 1, "prices": {}}}},
        {"candidates": ["one"]},
        {"candidates": [1, 2, 3, 4, 5]},
        {"bundle": None},
        {"decision": {}},
        {"more": 1},
    ],
    ids=str,
)
def test_fields_that_no_recorder_writes_are_refused(log, changes):
    with pytest.raises(RecordError, match="expected the fields of schema_version 3"):
        Record.from_line(edited(log[0], **changes))


@pytest.mark.parametrize("terms", [{}, {"tau": 5}, {"tau": 0.1, "later": 1}, {"tau": 0.1, "allowed": 3}])
def test_terms_that_do_not_compile_are_refused_and_not_raised(engine, log, terms):
    [replayed] = replay([edited(log[0], terms=terms, bundle="0" * 64)], engine)
    assert "terms" in replayed.refused


def test_an_embedding_of_another_width_is_refused(engine, log):
    record = bare(opened(log[0]))
    [replayed] = replay([dataclasses.replace(record, x=record.x[:7]).to_line()], engine)
    assert replayed.refused == "x: expected 16 numbers, got 7"


def test_a_line_that_a_crash_cut_costs_no_other_record(engine, tmp_path):
    file = tmp_path / "log.jsonl"
    with engine.recorder(file, min_words=0) as recorder:
        recorder.route("a", tau=0.1)
    with open(file, "ab") as cut:
        cut.write(file.read_bytes()[:100])
    with engine.recorder(file, min_words=0) as recorder:
        recorder.route("b", tau=0.1)
    summary = summarise(file.read_bytes().splitlines(), engine)
    assert (summary.records, summary.equal, summary.refused) == (3, 2, 1)


def test_what_cannot_be_written_is_an_error_of_ours(engine, tmp_path):
    with pytest.raises(RecordError, match="to: cannot append to"):
        engine.recorder(tmp_path / "nowhere" / "log.jsonl")
    with pytest.raises(RecordError, match="to: cannot write to /dev/full: No space left"):
        engine.recorder("/dev/full").route("a", tau=0.1)
    recorder = engine.recorder(tmp_path / "log.jsonl")
    recorder.close()
    recorder.close()
    with pytest.raises(RecordError, match="is closed"):
        recorder.route("a", tau=0.1)


@pytest.mark.parametrize(
    ("prompts", "id", "message"),
    [
        ("a", 1.5, "id: expected a string or a whole number, got float"),
        ("a", True, "id: expected a string or a whole number, got bool"),
        ("a", ["x"], "id: expected a string or a whole number, got list"),
        (["a", "b"], "x", "id: expected one a row, 2 in all, got 'x'"),
        (["a", "b"], ["x"], "id: expected one a row, 2 in all, got 1 of them"),
    ],
)
def test_bad_ids_are_named_and_nothing_is_written(engine, prompts, id, message):
    lines = []
    recorder = engine.recorder(lines.append)
    with pytest.raises(InvalidInputError, match=message):
        (recorder.route_many if isinstance(prompts, list) else recorder.route)(prompts, tau=0.1, id=id)
    assert not lines


def test_other_bad_input_of_a_recorder_is_named(engine, tmp_path):
    with pytest.raises(InvalidInputError, match="keep_prompts"):
        engine.recorder([].append, keep_prompts="yes")
    with pytest.raises(InvalidInputError, match="to: expected a str"):
        engine.recorder(3)
    recorder = engine.recorder([].append, keep_prompts=True)
    with pytest.raises(InvalidInputError, match="tau: missing"):
        recorder.route("a")
    lines = []
    with pytest.raises(InvalidInputError, match="on_error"):
        engine.recorder(lines.append).route_many(["a"], tau=0.1, on_error="ignore")
    assert not lines
    odd = [{"role": "user", "content": "a", "sent": {1, 2}}]
    with pytest.raises(InvalidInputError, match="prompt: expected what JSON can hold"):
        recorder.route(odd, tau=0.1)
    other = Engine.load(make_bundle(tmp_path, models=5, dim=16, seed=3))
    with pytest.raises(EncoderMismatchError):
        recorder.decide(other.encode(["a"]), tau=0.1)


def test_a_bundle_is_named_by_the_files_it_was_loaded_from(path):
    bundle = Bundle.load(path)
    assert len(bundle.prices_sha256) == len(bundle.quality_heads.sha256) == 64
