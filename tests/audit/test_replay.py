"""Records and replay: a record holds a decision to the bit, and deciding it again tells every difference and no other."""

import contextlib
import dataclasses
import json
import threading
import zlib

import numpy as np
import pytest

from ipr_engine import Bundle, Engine, InvalidInputError, Price, RowError
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import Difference, ReplaySummary, replay
from ipr_engine.bundle import PriceList, with_prices
from ipr_engine.decide.contract import available_isas
from ipr_engine.errors import EncoderMismatchError, RecordError
from ipr_engine.prompts import Needs
from tests.support import skips
from tests.support.bundles import make_bundle, make_candidates, make_prices, make_siblings

pytest.importorskip("cryptography", reason=skips.RECORDS)

PROMPTS = ["what is the sum of two and two", "Explain quicksort, please!", "write a story " * 400, "你好", "a"]
CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why"}]
TERMS = [
    {"tau": 0.0},
    {"tau": 1},
    {"tau": 0.1, "worth": 0.1 + 0.2, "rule": "max", "slack": np.float32(0.1)},
    {"tau": 1 / 3, "rule": "fixed", "allowed": ["alpha/large", "beta/mid"]},
    {"tau": 0.4, "family": {"alpha", "gamma"}, "exclude": ["gamma/small"]},
    {"tau": 0.4, "requires": "tools", "max_latency_ms": 300.5, "exclude": []},
    {"tau": 0.5, "prices": {"beta/mid": (0.1, 7)}},
    {"tau": 0.5, "prices": {"BETA/mid": Price(input_usd_per_1m=1, output_usd_per_1m=1 / 3, basis="x")}},
    {"tau": 0.5, "prices": {"beta/mid": {"input_usd_per_1m": 1, "output_usd_per_1m": 2}}},
    {
        "tau": 0.5,
        "prices": {"beta/mid": Price(input_usd_per_1m=np.float32(0.1), output_usd_per_1m=np.int64(2), basis="x")},
    },
    {"tau": 0.5, "prices": make_prices(make_candidates(5), scale=np.float32(3.7))},
]
KEY = bytes(range(32))
WHOLE = {"keep_x": True, "key": KEY}  # a recorder whose records the heads decide again


@pytest.fixture(scope="module")
def log(engine, tmp_path_factory):
    """A log of every kind of call: lines of bytes."""
    file = tmp_path_factory.mktemp("log") / "log.jsonl"
    x = np.random.default_rng(5).standard_normal((6, 16)).astype(np.float32)
    x[1, 3], x[2, 0], x[3] = np.nan, np.inf, 0.0
    x[4] *= np.float32(1e30)
    with engine.recorder(file, **WHOLE) as recorder:
        for terms in TERMS:
            recorder.route_many(PROMPTS, on_error="status", **terms)
        policy = engine.policy(tau=0.3)
        recorder.route(CHAT, policy, id="chat")
        recorder.route(PROMPTS[0], policy, id=7, billed_tokens=12345)
        recorder.route_many(
            PROMPTS[:2], policy, id=["a", 8], tokens_out=[1, 2, 3, 4, 5], extra_usd=-np.eye(5)[:2] / 1000
        )
        recorder.route_many(PROMPTS[:1], policy, tokens_out=np.inf, on_error="status")
        recorder.decide(x, policy, billed_tokens=[0, 1, 2, 3, 4, 2**53], on_error="status")
        recorder.decide(engine.encode(PROMPTS), policy)
    return file.read_bytes().splitlines(keepends=True)


def summarise(lines, engine):
    summary = ReplaySummary()
    for replayed in replay(lines, engine, key=KEY):
        summary.add(replayed)
    return summary


def opened(line):
    return Record.from_line(line).opened(OwnerKey(KEY))


def bare(record):
    """The record as a line of schema 2, which holds the embedding in clear."""
    return dataclasses.replace(
        record, schema_version=2, sealed=None, brief=False, needs=record.needs or Needs({}, None)
    )


def same_bytes(a, b):
    names = ("index", "qualities", "costs_usd", "tokens_out", "threshold", "gap", "support", "status", "cause")
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in names)


# -- what a record holds


def test_recording_gives_the_decisions_of_routing(engine):
    recorder = engine.recorder([].append)
    policy = engine.policy(tau=0.3)
    one, plain = recorder.route(PROMPTS[0], policy), engine.route(PROMPTS[0], policy)
    assert one.to_dict() == plain.to_dict()
    assert recorder.route(CHAT, tau=0.2).to_dict() == engine.route(CHAT, tau=0.2).to_dict()
    assert same_bytes(recorder.route_many(PROMPTS, policy), engine.route_many(PROMPTS, policy))
    assert same_bytes(recorder.decide(engine.encode(PROMPTS), policy), engine.decide(engine.encode(PROMPTS), policy))


def test_a_record_holds_all_that_the_decision_was_made_of(engine):
    lines = []
    extra = np.linspace(-1, 1, 5)
    d = engine.recorder(lines.append, **WHOLE).route(
        PROMPTS[0], tau=0.3, id="r1", tokens_out=9, extra_usd=extra, rule="max"
    )
    record, bundle = opened(b"".join(lines)), engine.bundle
    assert record.x.tobytes() == engine.encode(PROMPTS[0]).x.tobytes()
    assert (record.billed_tokens, record.truncated, record.id) == (d.billed_tokens, d.truncated, "r1")
    assert record.tokens_out.tolist() == [9] * 5
    assert record.extra_usd.tobytes() == extra.astype(np.float32).tobytes()
    assert dict(record.terms) == {"tau": 0.3, "rule": "max"}
    assert (record.bundle, record.encoder, record.isa) == (bundle.hash, engine.encoder.identity, engine.plan.isa)
    manifest = json.loads((bundle.path / "bundle.json").read_bytes())
    assert record.heads == manifest["heads"][0]["weights"]["sha256"]
    assert record.prices == manifest["prices"]["sha256"]
    assert record.candidates == bundle.names
    made = record.outcome
    assert (made.model, made.index, made.status, made.cause) == (d.model, d.index, d.status, d.cause)
    assert made.quality.tobytes() == d.qualities.tobytes()
    assert made.cost_usd.tobytes() == d.costs_usd.tobytes()
    assert (made.threshold, made.gap, made.support) == (d.threshold, d.gap, d.support)


def test_a_line_read_and_written_again_is_the_same_line(log):
    assert len(log) > 60
    for line in log:
        assert Record.from_line(line).to_line() == line
        assert opened(line).to_line() == line


def test_numbers_that_are_not_finite_are_kept_as_bits_and_every_line_is_strict_json(log):
    def refuse(name):
        raise AssertionError(name)

    for line in log:
        json.loads(line, parse_constant=refuse)
    records = [opened(line) for line in log]
    assert any(np.isnan(record.x).any() for record in records)
    assert any(np.isinf(record.x).any() for record in records)
    assert any(record.tokens_out is not None and np.isinf(record.tokens_out).all() for record in records)
    statuses = {record.outcome.status for record in records}
    assert {"ok", "nonfinite_quality", "nonfinite_cost"} <= statuses
    assert any(np.isnan(record.outcome.threshold) for record in records)


def test_no_prompt_is_kept_unless_asked_for(engine):
    lines, kept = [], []
    engine.recorder(lines.append).route_many([PROMPTS[0], CHAT], tau=0.1)
    engine.recorder(kept.append, keep_prompts=True).route_many([PROMPTS[0], CHAT], tau=0.1)
    assert b"sum of two" not in lines[0]
    assert b"brief" not in lines[0]
    assert [Record.from_line(line).prompt for line in kept[0].splitlines()] == [PROMPTS[0], CHAT]


def test_id_and_prompt_may_be_cut_from_a_log(engine):
    lines = []
    engine.recorder(lines.append, keep_prompts=True, min_words=0).route(PROMPTS[0], tau=0.1, id="secret")
    document = json.loads(lines[0])
    del document["id"], document["prompt"]
    assert summarise([json.dumps(document).encode()], engine).equal == 1


def test_rows_that_fail_are_recorded_before_the_error_is_raised(engine):
    lines = []
    with pytest.raises(RowError):
        engine.recorder(lines.append).route_many([PROMPTS[0], PROMPTS[2]], tau=0.1, allowed=["alpha/large"])
    records = [Record.from_line(line) for line in lines[0].splitlines()]
    assert [record.outcome.status for record in records] == ["ok", "none_allowed"]


def test_an_empty_batch_writes_nothing(engine):
    lines = []
    assert len(engine.recorder(lines.append).route_many([], tau=0.1)) == 0
    assert not lines


# -- replay


@pytest.mark.parametrize("name", ["scalar", "avx2", "avx512"])
def test_the_same_bundle_gives_no_difference_on_any_instruction_set(path, log, name):
    if name not in available_isas():
        pytest.skip(f"machine lacks {name}")
    summary = summarise(log, Engine.load(path, isa=name))
    assert (summary.records, summary.equal, summary.refused) == (len(log), len(log), 0)
    assert summary.cost_usd == summary.cost_usd_now


def test_other_prices_show_which_choices_change_and_nothing_else(engine, tmp_path):
    file = tmp_path / "log.jsonl"
    with engine.recorder(file, min_words=0) as recorder:
        before = recorder.route_many(PROMPTS, tau=0.7)
    rows = {
        name: Price(input_usd_per_1m=1 + n, output_usd_per_1m=1, basis="x")
        for n, name in enumerate(engine.bundle.names)
    }
    other = Engine.load(with_prices(engine.bundle, PriceList(date="2026-11-24", prices=rows), root=tmp_path / "other"))
    after = other.route_many(PROMPTS, tau=0.7)
    expected = [(a, b) for a, b in zip(before.models, after.models, strict=True) if a != b]
    assert expected
    replays = list(replay(file.read_bytes().splitlines(), other))
    found = [d for one in replays for d in one.differences]
    assert [(d.recorded, d.now) for d in found if d.field == "model"] == expected
    assert {d.field.partition("[")[0] for d in found} <= {"model", "index", "cause", "gap", "cost_usd"}
    costs = {(one.line, d.field): d.now for one in replays for d in one.differences if d.field.startswith("cost_usd")}
    for (line, name), now in costs.items():
        assert now == after.costs_usd[line - 1, engine.bundle.names.index(name[len("cost_usd[") : -1])]
    summary = summarise(file.read_bytes().splitlines(), other)
    assert sum(summary.moves.values()) == len(expected)
    assert summary.cost_usd == pytest.approx(before.cost_usd.sum(dtype=np.float64))
    assert summary.cost_usd_now == pytest.approx(after.cost_usd.sum(dtype=np.float64))


def test_one_bit_of_one_number_is_a_difference(engine, log):
    record = bare(opened(log[0]))
    quality = record.outcome.quality.copy()
    quality.view(np.uint32)[3] ^= 1
    changed = dataclasses.replace(record, outcome=dataclasses.replace(record.outcome, quality=quality))
    [replayed] = replay([changed.to_line()], engine)
    assert replayed.differences == (
        Difference(f"quality[{record.candidates[3]}]", quality[3], record.outcome.quality[3]),
    )


def test_every_field_of_an_outcome_is_compared(engine, log):
    record = bare(opened(log[0]))
    up = {
        name: np.nextafter(getattr(record.outcome, name), np.float32(9))
        for name in ("quality", "cost_usd", "tokens_out", "threshold", "gap", "support")
    }
    index = (record.outcome.index + 1) % 5
    other = dict(model=record.candidates[index], index=index, status="none_allowed", cause="failed", **up)
    assert set(other) == {field.name for field in dataclasses.fields(record.outcome)}
    for name, value in other.items():
        if name == "index":
            continue  # a record whose model is not candidates[index] is none
        also = {"index": index} if name == "model" else {}
        changed = dataclasses.replace(record, outcome=dataclasses.replace(record.outcome, **{name: value}, **also))
        [replayed] = replay([changed.to_line()], engine)
        assert {d.field.partition("[")[0] for d in replayed.differences} == {name, *also}


def test_nan_equals_itself_and_zero_is_not_minus_zero(engine):
    lines = []
    x = np.full((1, 16), np.nan, np.float32)
    engine.recorder(lines.append, min_words=0).decide(x, tau=0.1, billed_tokens=1, on_error="status")
    [replayed] = replay(lines, engine)
    assert replayed.differences == ()
    assert str(Difference("gap", np.float32(0.0), np.float32(-0.0))) == "gap: 0.0 -> -0.0"
    nans = np.array([0x7FC00000, 0x7FC00001], np.uint32).view(np.float32)
    assert str(Difference("gap", *nans)) == "gap: nan (7fc00000) -> nan (7fc00001)"
    told = Difference("gap", np.float32("nan"), np.float32("-inf")).to_dict()
    assert told == {
        "field": "gap",
        "recorded": "nan",
        "recorded_bits": "7fc00000",
        "now": "-inf",
        "now_bits": "ff800000",
    }
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_candidates_are_compared_by_name_where_their_order_is_another(tmp_path):
    paths, lines = make_siblings(tmp_path, 2), []
    one, other = (Engine.load(path) for path in paths)
    extra = np.arange(5) / 100
    one.recorder(lines.append, **WHOLE).route(PROMPTS[0], tau=0.5, extra_usd=extra, tokens_out=extra + 7)
    [replayed] = replay(lines, other, key=KEY)
    assert replayed.differences[0] == Difference("candidates", one.bundle.names, other.bundle.names)
    order = [one.bundle.names.index(name) for name in other.bundle.names]
    now = other.route(PROMPTS[0], tau=0.5, extra_usd=extra[order], tokens_out=(extra + 7)[order])
    assert replayed.outcome.cost_usd.tobytes() == now.costs_usd.tobytes()
    assert not any(d.field.startswith("tokens_out") for d in replayed.differences)  # they were given


def test_a_bundle_with_another_set_of_candidates_is_compared_where_they_meet(engine, tmp_path):
    lines = []
    recorder = engine.recorder(lines.append, **WHOLE)
    recorder.route(PROMPTS[0], tau=0.5, tokens_out=5)
    recorder.route(PROMPTS[0], tau=0.5, allowed=["epsilon/nano"])
    fewer = Engine.load(make_bundle(tmp_path / "fewer", models=4, dim=16))
    first, second = replay(lines, fewer, key=KEY)
    assert first.differences[0].field == "candidates"
    assert not any("epsilon" in d.field for d in first.differences)
    assert "terms: allowed: unknown 'epsilon/nano'" in second.refused
    more = Engine.load(make_bundle(tmp_path / "more", models=6, dim=16))
    first, second = replay(lines, more, key=KEY)
    assert "tokens_out: the record gives none for model/005" in first.refused
    assert second.outcome.model == "epsilon/nano"


def test_a_record_of_another_encoder_is_refused(log, tmp_path):
    other = Engine.load(make_bundle(tmp_path, models=5, dim=16, seed=3))
    for replayed in replay(log[:3], other, key=KEY):
        assert "x: embedded by encoder" in replayed.refused
        assert replayed.record is not None
        assert replayed.outcome is None
    assert summarise(log, other).refused == len(log)


def test_records_written_while_bundles_swap_replay_each_on_its_own_bundle(tmp_path):
    engines = {path.name: Engine.load(path) for path in make_siblings(tmp_path, 3)}
    bundles = [one.bundle for one in engines.values()]
    live, file = Engine(bundles[0]), tmp_path / "log.jsonl"
    policy = live.policy(tau=0.4, exclude=["alpha/large"])
    with live.recorder(file, min_words=0) as recorder:

        def work(thread):
            for turn in range(12):
                recorder.route(PROMPTS[turn % 5], policy, id=f"{thread}-{turn}")
                recorder.route_many(PROMPTS[:2], tau=0.2)

        threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
        for thread in threads:
            thread.start()
        turn = 0
        while any(thread.is_alive() for thread in threads):
            live.swap(bundles[turn % 3])
            turn += 1
        for thread in threads:
            thread.join()
        for bundle in bundles:  # however few swaps the threads lived through
            live.swap(bundle)
            recorder.route(PROMPTS[0], policy, id=bundle.hash)
    lines = file.read_bytes().splitlines()
    assert len(lines) == 8 * 12 * 3 + 3
    records = [Record.from_line(line) for line in lines]
    assert len({record.id for record in records}) == 8 * 12 + 1 + 3  # the lists have none
    for name, one in engines.items():
        own = [line for line, record in zip(lines, records, strict=True) if record.bundle == name]
        assert summarise(own, one).equal == len(own)
    assert len({record.bundle for record in records}) > 1


# -- damage


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


# -- bad input of a recorder


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
