"""Records by schema: earlier ones replay to the bit, new ones hold neither embedding nor prompt and replay under any policy."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine import Engine, InvalidInputError
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import OF_FORM, canonical, crc32
from ipr_engine.audit.replay import replay
from ipr_engine.audit.row_record import distinct_words
from ipr_engine.bundle import BundleParts, with_prices, write_bundle
from ipr_engine.errors import KeyMismatchError, RecordError
from ipr_engine.policy.policy_spec import ABOUT, DEFAULTS
from tests.support import skips
from tests.support.bundles import bundle_parts, make_bundle, make_candidates
from tests.support.replay_logs import KEY, OTHER

pytest.importorskip("cryptography", reason=skips.RECORDS)

EARLIER = Path(__file__).parent / "records" / "schema_1_2.jsonl"  # written by release 0.1.0 on the bundle of `path`
PROMPT = "explain to the python student why this code is slow and how to write a better story"


def recorded(engine, prompt=PROMPT, *, tau=0.3, recorder=None, id=None, **options):
    lines = []
    made = engine.recorder(lines.append, **(recorder or {}))
    made.route_many([prompt], tau=tau, id=[id], on_error="status", **options)
    return lines[0]


def outcome_bits(outcome):
    return {
        field.name: getattr(outcome, field.name).tobytes()
        if isinstance(getattr(outcome, field.name), (np.ndarray, np.float32))
        else getattr(outcome, field.name)
        for field in dataclasses.fields(outcome)
    }


# -- earlier schemas


def test_records_of_earlier_schemas_replay_to_the_bit(path, isa):
    lines = EARLIER.read_bytes().splitlines(keepends=True)
    replays = list(replay(lines, Engine.load(path, isa=isa)))
    assert len(replays) == 17
    assert {json.loads(line)["schema_version"] for line in lines} == {1, 2}
    assert [(one.differences, one.refused, one.by_heads) for one in replays] == [((), None, True)] * 17


def test_a_line_of_an_earlier_schema_is_written_again_as_it_was():
    for line in EARLIER.read_bytes().splitlines(keepends=True):
        assert Record.from_line(line).to_line() == line


def test_a_record_that_names_no_rule_means_minmax_whatever_a_bare_tau_means_now(engine, monkeypatch):
    line = EARLIER.read_bytes().splitlines()[0]
    assert "rule" not in Record.from_line(line).terms
    asked = []
    compiled = type(engine.loaded.policies).compile
    monkeypatch.setattr(
        type(engine.loaded.policies), "compile", lambda self, terms: asked.append(terms) or compiled(self, terms)
    )
    list(replay([line], Engine(engine.bundle)))
    assert asked[0]["rule"] == "minmax"


# -- what a record holds


def test_by_default_a_record_has_neither_embedding_nor_prompt(engine):
    document = json.loads(recorded(engine))
    assert document["schema_version"] == 3
    assert "x" not in document
    assert "prompt" not in document
    assert document["sealed"] is None
    policy = engine.policy(tau=0.3)
    assert document["policy"] == {
        "rule": "minmax", "tau": 0.3, "slack": 0.0, "worth": 0.0, "alpha_hi": 0.7, "alpha_lo": 0.3, "offset": 0.0,
        "allowed": list(policy.allowed),
    }  # fmt: skip


def test_a_prompt_of_few_words_has_no_figure_in_clear(engine):
    for prompt in ("why", "why why why why why why why why why", "write python code"):
        document = json.loads(recorded(engine, prompt))
        made = document["decision"]
        assert {name for name, value in made.items() if value is not None} == {"model", "index", "status", "cause"}
        [replayed] = replay([json.dumps(document).encode()], engine)
        assert "so few words" in replayed.refused
    sealed = recorded(engine, "why", recorder={"key": KEY})
    [replayed] = replay([sealed], engine, key=KEY)
    assert (replayed.differences, replayed.refused, replayed.by_heads) == ((), None, False)
    assert json.loads(recorded(engine, "why", recorder={"min_words": 0}))["decision"]["quality"] is not None


def test_words_are_counted_once_whatever_their_case_and_without_blanks_too():
    assert distinct_words("Why, why WHY?") == 1
    assert distinct_words("为什么天空是蓝色的") == 9
    assert distinct_words("") == 0


def test_under_a_key_prompt_and_embedding_are_sealed(engine):
    keep = {"keep_x": True, "keep_prompts": True, "key": KEY}
    line = recorded(engine, recorder=keep, id="one")
    assert b"student" not in line
    record = Record.from_line(line)
    assert (record.x, record.prompt, record.id) == (None, None, "one")
    opened = record.opened(OwnerKey(KEY))
    assert opened.x.tobytes() == engine.encode(PROMPT).x.tobytes()
    assert opened.prompt == PROMPT
    assert opened.to_line() == line
    assert recorded(engine, recorder=keep) != recorded(engine, recorder=keep)  # a nonce each


def test_an_embedding_without_a_key_is_refused(engine):
    with pytest.raises(InvalidInputError, match=r"keep_x: .* under an owner's key alone; give one as key"):
        engine.recorder([].append, keep_x=True)
    record = Record.from_line(recorded(engine))
    with pytest.raises(InvalidInputError, match="keep_x"):
        dataclasses.replace(record, x=np.zeros(16, np.float32)).to_line()


# -- replay without an embedding


def test_figures_and_heads_come_to_the_same(engine):
    for options in ({}, {"tokens_out": [900, 2, 3, 4, 5]}, {"extra_usd": np.linspace(-1, 1, 5)}, {"worth": 0.01}):
        line = recorded(engine, recorder={"keep_x": True, "key": KEY}, **options)
        [by_figures], [by_heads] = replay([line], engine), replay([line], engine, key=KEY)
        assert (by_figures.by_heads, by_heads.by_heads) == (False, True)
        assert by_figures.differences == by_heads.differences == ()
        assert outcome_bits(by_figures.outcome) == outcome_bits(by_heads.outcome)


unit = st.floats(0, 1, width=32)
price = st.tuples(st.floats(0, 100, width=32), st.floats(0, 100, width=32))
policies = st.fixed_dictionaries(
    {"tau": unit, "rule": st.sampled_from(["minmax", "max", "fixed"])},
    optional={
        "worth": st.one_of(st.just(0.0), st.floats(2**-23, 10)),
        "exclude": st.sets(st.sampled_from([c.name for c in make_candidates(5)]), max_size=4).map(sorted),
        "prices": st.dictionaries(st.sampled_from([c.name for c in make_candidates(5)]), price, max_size=5),
    },
)


@settings(deadline=None, max_examples=200)
@given(terms=policies, seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.0, 0.01, 1.0, 40.0, 1e30]))
def test_a_record_replays_under_any_tau_rule_mask_worth_and_price_as_its_embedding_decides(engine, terms, seed, scale):
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((1, 16)) * scale).astype(np.float32)
    if seed % 50 == 0:
        x[0, seed % 16] = np.nan
    billed = int(rng.integers(8, 2000))
    options = {} if seed % 3 else {"tokens_out": rng.integers(1, 2000, 5)}
    lines = []
    recorder = engine.recorder(lines.append)
    recorder.decide(x, tau=0.25, billed_tokens=billed, on_error="status", **options)
    [replayed] = replay(lines, engine, **terms)
    assert replayed.refused is None
    now = engine.decide(x, **terms, billed_tokens=billed, on_error="status", **options)
    lines.clear()
    recorder.decide(x, **terms, billed_tokens=billed, on_error="status", **options)
    expected = Record.from_line(lines[0]).outcome
    assert outcome_bits(replayed.outcome) == outcome_bits(expected)
    assert replayed.outcome.model == now.models[0]


def test_other_prices_of_the_bundle_are_replayed_without_an_embedding(engine, tmp_path):
    prices = dataclasses.replace(engine.bundle.prices, prices=dict(reversed(engine.bundle.prices.prices.items())))
    rows = dict(zip(engine.bundle.names, reversed(engine.bundle.prices.prices.values()), strict=True))
    other = Engine.load(
        with_prices(engine.bundle, dataclasses.replace(prices, prices=rows), root=tmp_path, activate=False)
    )
    [replayed] = replay([recorded(engine)], other)
    assert replayed.outcome.cost_usd.tobytes() == other.route(PROMPT, tau=0.3).costs_usd.tobytes()
    assert any(d.field == "cost_usd[alpha/large]" for d in replayed.differences)


def test_only_an_embedding_tells_what_other_heads_decide(engine, tmp_path):
    other = Engine.load(make_bundle(tmp_path, models=5, dim=16, hidden=4))
    [replayed] = replay([recorded(engine)], other)
    assert (
        "only its embedding tells: record with keep_x=True and a key (ipr route --record-x --key FILE)"
        in replayed.refused
    )
    [replayed] = replay([recorded(engine, recorder={"keep_x": True, "key": KEY})], other)
    assert f"give the key of id {OwnerKey(KEY).id}" in replayed.refused


def test_what_the_policy_came_to_holds_on_its_bundle_and_is_resolved_anew_on_another(engine, tmp_path):
    record = Record.from_line(recorded(engine))
    then = dataclasses.replace(record.policy, worth=0.5)
    line = dataclasses.replace(record, policy=then).to_line()
    [here] = replay([line], engine)
    expected = engine.route(PROMPT, tau=0.3, worth=0.5)
    assert here.outcome.model == expected.model
    assert here.outcome.gap == np.float32(expected.gap)
    other = Engine.load(with_prices(engine.bundle, engine.bundle.prices, root=tmp_path, created="2026-12-01"))
    [there] = replay([line], other)
    assert there.differences == ()


def test_tokens_cut_at_a_limit_that_has_risen_are_told(tmp_path):
    engines = []
    for most in (3, 4000):
        parts = bundle_parts(tmp_path / "sources", models=3, dim=16)
        parts["candidates"] = [dataclasses.replace(c, max_output_tokens=most) for c in parts["candidates"]]
        engines.append(Engine.load(write_bundle(tmp_path / str(most), BundleParts(**parts), activate=False)))
    low, high = engines
    [replayed] = replay([recorded(low)], high)
    assert "were cut at 3, its most then, and it may give more now" in replayed.refused
    [replayed] = replay([recorded(high)], low)
    assert set(replayed.outcome.tokens_out.tolist()) == {3.0}


# -- sealed under a key


def test_another_key_is_named_by_its_id(engine):
    line = recorded(engine, recorder={"keep_x": True, "key": KEY})
    with pytest.raises(KeyMismatchError, match=f"under the key of id {OwnerKey(KEY).id}, got that of id"):
        Record.from_line(line).opened(OwnerKey(OTHER))
    [replayed] = replay([line], engine, key=OTHER)
    assert replayed.refused.startswith("key: the record was sealed under the key of id")


def test_what_is_sealed_and_what_it_was_sealed_with_cannot_be_changed(engine):
    key = OwnerKey(KEY)
    record = Record.from_line(recorded(engine, recorder={"keep_x": True, "key": key}))
    data = bytearray(record.sealed.data)
    data[5] ^= 1
    for changed in (
        dataclasses.replace(record, sealed=dataclasses.replace(record.sealed, data=bytes(data))),
        dataclasses.replace(record, sealed=dataclasses.replace(record.sealed, nonce=b"")),
        dataclasses.replace(record, billed_tokens=record.billed_tokens + 1),
    ):
        read = Record.from_line(changed.to_line())
        with pytest.raises(RecordError, match=r"sealed: .* it was changed"):
            read.opened(key)
        [replayed] = replay([changed.to_line()], engine, key=key)
        assert "it was changed" in replayed.refused


@pytest.mark.parametrize("arguments", [{"keep_x": 1}, {"min_words": -1}, {"min_words": True}, {"min_words": 2.0}])
def test_other_bad_arguments_of_a_recorder_are_named(engine, arguments):
    with pytest.raises(InvalidInputError, match=next(iter(arguments))):
        engine.recorder([].append, **arguments)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("policy", "tau"), 10**400),
        (("terms", "prices"), {"date": None, "prices": {"alpha/large": 5}}),
        (("terms", "prices"), {"date": None, "prices": {"alpha/large": {"tiers": 5}}}),
    ],
    ids=["a number beyond floats", "a price of a number", "tiers of a number"],
)
def test_a_record_of_what_no_recorder_writes_is_refused_and_the_others_are_replayed(engine, where, value):
    line = recorded(engine)
    document = json.loads(line)
    document.pop("crc32")
    document.pop("id", None)
    document[where[0]][where[1]] = value
    text = canonical(document)
    changed = f'{text[:-1]},"crc32":"{crc32(text)}"}}\n'.encode()
    first, second = replay([changed, line], engine)
    assert first.refused
    assert (second.refused, second.differences) == (None, ())


@pytest.mark.parametrize("where", ["needs", "candidates", "billed_tokens", "policy", "decision", "schema_version"])
def test_the_error_of_a_damaged_record_does_not_repeat_what_it_holds(engine, where):
    document = json.loads(recorded(engine))
    document.pop("crc32")
    for value in ("a secret", ["a secret", 1], {"a secret": 1}):
        assert_refused_without_a_secret(engine, {**document, where: value})


def assert_refused_without_a_secret(engine, document):
    text = canonical(document)
    (replayed,) = replay([f'{text[:-1]},"crc32":"{crc32(text)}"}}\n'.encode()], engine)
    assert replayed.refused, document
    assert "secret" not in replayed.refused


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_the_error_of_a_damaged_term_does_not_repeat_what_it_holds(engine, name):
    document = json.loads(recorded(engine))
    document.pop("crc32")
    document["bundle"] = "0" * 64  # else what the policy came to holds, whatever its terms
    nested = {"date": None, "prices": {"alpha/large": {"a secret": 1}}}
    based = {"alpha/large": {"ttft_s": 1, "basis": ["a secret"]}}
    for value in ("a secret", ["a secret"], {"a secret": 1}, {"a secret": {"ttft_s": 1}}, nested, based):
        terms = {"tau": 0.3, name: value}
        if name == "unsupported":
            terms["min_support"] = 0.1
        if name == "performance":
            terms["cost_weights"] = {"ttft_s": 1.0}
        assert_refused_without_a_secret(engine, {**document, "terms": terms})


def test_other_errors_of_a_damaged_record_do_not_repeat_what_it_holds_either(engine):
    document = json.loads(recorded(engine))
    given = document.pop("crc32")
    (replayed,) = replay([json.dumps({**document, "crc32": "a secret"}).encode()], engine)
    assert "damaged or edited" in replayed.refused
    assert "secret" not in replayed.refused
    assert given not in replayed.refused
    sealed = json.loads(recorded(engine, recorder={"keep_x": True, "key": KEY}))
    sealed.pop("crc32")
    for changed in (
        {**document, "terms": {"tau": 0.1, "a secret": 1}},
        {**document, "policy": {**document["policy"], "rule": "a secret"}},
        {**document, "heads": "a secret"},
        {**document, "isa": "a secret"},
        {**sealed, "sealed": {**sealed["sealed"], "key": "a secret"}},
        {**document, "tokenizers": ["a secret"] * 5},
        {**document, "centroids": "a secret"},
        {**document, "bill_given": "a secret"},
        {**document, "cached_tokens": "a secret"},
        {**document, "tokens_in_given": ["a secret"]},
        {**document, "tokens_in_given": [0]},  # of no own tokens
        {**document, "own_tokens": document["decision"]["quality"], "tokens_in_given": [len(document["candidates"])]},
    ):
        assert_refused_without_a_secret(engine, changed)


def test_every_term_of_a_policy_has_a_form_in_records():
    assert ABOUT.keys() == DEFAULTS.keys()
    assert {option.form for option in ABOUT.values()} == OF_FORM.keys()


def test_a_bad_id_is_refused_before_anything_is_decided(default_engine, tmp_path, monkeypatch):
    decided = []
    monkeypatch.setattr(type(default_engine.loaded), "walk", lambda self, *given, **options: decided.append(given))
    with default_engine.recorder(tmp_path / "log") as recorder:
        with pytest.raises(InvalidInputError, match=r"id: expected a string or a whole number, got float 1.5"):
            recorder.route("why", tau=0.2, id=1.5)
        with pytest.raises(InvalidInputError, match=r"id: expected one a row, 2 in all, got 1 of them"):
            recorder.route_many(["why", "how"], tau=0.2, id=[1])
    assert decided == []
