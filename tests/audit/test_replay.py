"""Records and replay: a record holds a decision to the bit, and deciding it again tells every difference and no other."""

import dataclasses
import json
import threading

import numpy as np
import pytest

from ipr_engine import Engine, Price, RowError
from ipr_engine.audit.record import Record
from ipr_engine.audit.replay import Difference, replay
from ipr_engine.bundle import PriceList, with_prices
from ipr_engine.decide.contract import available_isas
from tests.support import skips
from tests.support.bundles import make_bundle, make_siblings
from tests.support.replay_logs import CHAT, KEY, PROMPTS, WHOLE, bare, opened, summarise

pytest.importorskip("cryptography", reason=skips.RECORDS)


def same_bytes(a, b):
    names = ("index", "qualities", "costs_usd", "tokens_out", "threshold", "gap", "support", "status", "cause")
    return all(getattr(a, name).tobytes() == getattr(b, name).tobytes() for name in names)


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
    hashes = (one.bundle.hash[:12] for one in (engine, fewer))
    assert second.refused.endswith(
        "of bundle {}, and this is {}: give the one that you mean, with --bundle".format(*hashes)
    )
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
