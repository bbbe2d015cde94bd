"""A candidate more or less: what the others predict and decide keeps its bits."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, Candidate, Price, with_prices
from ipr_engine.bundle.candidate_entry import read_new_prices
from ipr_engine.bundle.edit import NewCandidate, Refit, with_candidate, without_candidate
from ipr_engine.bundle.head_rows import row_of
from ipr_engine.bundle.origin import price_dates, price_days
from ipr_engine.bundle.reliability import RELIABILITY
from ipr_engine.errors import BundleFormatError, BundleValueError, InvalidInputError
from tests.support.bundles import bundle_parts, make_bundle, make_candidates, make_tensors
from tests.support.seeds import seeded

FORMS = {
    "linear": {"hidden": 0},
    "trunk": {"hidden": 7, "activation": "relu"},
    "trunk and adapters": {"hidden": 5, "rank": 3, "activation": "gelu"},
    "forest": {"trees": 6},
    "no tokens": {"hidden": 0, "tokens": False},
}
NEW = Candidate(name="beta/new", family="beta", provider="test", token_ratio=1.5)
PRICE = Price(input_usd_per_1m=1.0, output_usd_per_1m=3.0, basis="made up")


def new_rows(bundle: Bundle, seed: object = 0) -> dict[str, np.ndarray]:
    rng = seeded("new row", seed)
    return {
        name: (np.abs(rng.standard_normal(part.shape)) + 0.1).astype(np.float32)
        for name, part in row_of(bundle.quality_heads.tensors, 0).items()
    }


def add(folder, **arguments):
    bundle = Bundle.load(folder)
    new = NewCandidate(candidate=NEW, price=PRICE, rows=new_rows(bundle), note={"prompts": 3})
    return with_candidate(bundle, new, **arguments)


def decided(engine: Engine, names, **terms):
    x = seeded("prompts", engine.encoder.dim).standard_normal((40, engine.encoder.dim)).astype(np.float32)
    tokens = {} if engine.bundle.quality_heads.outputs == ("quality", "tokens") else {"tokens_out": 90.0}
    decisions = engine.decide(x, engine.policy(allowed=list(names), **terms), billed_tokens=25, **tokens)
    columns = [engine.bundle.names.index(name) for name in names]
    return decisions.qualities[:, columns], decisions.costs_usd[:, columns], decisions.models, decisions.gap


@pytest.mark.parametrize("isa", ["scalar", "auto"])
@pytest.mark.parametrize("form", FORMS)
def test_old_candidates_keep_their_bits_and_their_decisions_when_one_is_added(tmp_path, form, isa):
    folder = make_bundle(tmp_path, models=4, dim=19, **FORMS[form])
    before, after = (Engine.load(path, isa=isa) for path in (folder, add(folder)))
    assert after.bundle.names == (*before.bundle.names, "beta/new")
    for terms in ({"tau": 0.0}, {"tau": 0.3}, {"tau": 0.3, "worth": 0.01}, {"tau": 0.5, "rule": "fixed"}):
        for old, new in zip(
            decided(before, before.bundle.names, **terms), decided(after, before.bundle.names, **terms), strict=True
        ):
            np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


@pytest.mark.parametrize("form", FORMS)
def test_old_candidates_keep_their_bits_and_their_decisions_when_one_is_removed(tmp_path, form):
    folder = make_bundle(tmp_path, models=4, dim=19, **FORMS[form])
    before, after = Engine.load(folder), Engine.load(without_candidate(Bundle.load(folder), "beta/mid"))
    left = [name for name in before.bundle.names if name != "beta/mid"]
    assert list(after.bundle.names) == left
    for old, new in zip(decided(before, left, tau=0.3), decided(after, left, tau=0.3), strict=True):
        np.testing.assert_array_equal(np.asarray(old), np.asarray(new))


def test_ties_between_old_candidates_fall_as_before(tmp_path):
    tensors = {name: np.repeat(t[:1], 3, axis=0) for name, t in make_tensors(models=3, dim=16).items()}
    parts = bundle_parts(tmp_path / "sources", models=3)
    candidates = [replace(c, token_ratio=1.0) for c in parts["candidates"]]
    price = parts["prices"].prices["gamma/small"]
    prices = replace(parts["prices"], prices={c.name: price for c in candidates})
    heads = [replace(parts["heads"][0], tensors=tensors)]
    folder = make_bundle(tmp_path, models=3, overrides={"candidates": candidates, "prices": prices, "heads": heads})
    first = replace(NEW, name="aaa/first")
    bundle = Bundle.load(folder)
    after = Engine.load(
        with_candidate(bundle, NewCandidate(candidate=first, price=PRICE, rows=new_rows(bundle), note={}))
    )
    before = Engine.load(folder)
    assert decided(before, bundle.names, tau=0.2)[2] == decided(after, bundle.names, tau=0.2)[2] == ["alpha/large"] * 40


def test_the_rest_of_the_bundle_stays_and_files_are_shared(tmp_path):
    folder = make_bundle(tmp_path, models=3)
    old, new = Bundle.load(folder), Bundle.load(add(folder, created="2026-12-01"))
    assert new.path.parent == old.path.parent
    assert new.encoders[0].files["table"].stat().st_ino == old.encoders[0].files["table"].stat().st_ino
    assert (new.name, new.created, new.encoders[0].identity) == (old.name, "2026-12-01", old.encoders[0].identity)
    assert new.quality_heads.rule_constants == old.quality_heads.rule_constants
    assert new.quality_heads.fitted_on == old.quality_heads.fitted_on
    assert new.prices.prices["beta/new"] == PRICE
    assert new.provenance["added"] == {"beta/new": {"prompts": 3}}
    assert new.provenance["recipe"] == old.provenance["recipe"]


def test_adding_and_removing_again_leaves_the_weights_as_they_were(tmp_path):
    folder = make_bundle(tmp_path, models=3, hidden=4, rank=2)
    back = Bundle.load(without_candidate(Bundle.load(add(folder)), "beta/new"))
    old = Bundle.load(folder)
    assert (folder / "heads/static.safetensors").read_bytes() == (back.path / "heads/static.safetensors").read_bytes()
    assert back.provenance == {**old.provenance, "removed": ["beta/new"]}


def test_heads_of_some_candidates_never_take_over_the_decision(tmp_path):
    parts = bundle_parts(tmp_path / "sources", models=3)
    names = [c.name for c in parts["candidates"]]
    partial = replace(
        parts["heads"][0], id="partial", candidates=names[:2], tensors=make_tensors(models=2, dim=16, seed=9)
    )
    alone = replace(partial, id="alone", candidates=names[2:], tensors=make_tensors(models=1, dim=16, seed=8))
    folder = make_bundle(tmp_path, models=3, overrides={"heads": [partial, alone, *parts["heads"]]})
    bundle = Bundle.load(folder)
    assert bundle.quality_heads.id == "static"
    smaller = Bundle.load(without_candidate(bundle, names[2]))
    assert smaller.quality_heads.id == "static"
    assert [heads.id for heads in smaller.heads] == ["static", "partial"]
    larger = Bundle.load(add(folder))
    assert larger.quality_heads.id == "static"
    assert [set(heads.candidates) for heads in larger.heads[1:]] == [set(names[:2]), set(names[2:])]


def test_a_family_without_members_is_no_family_any_more(tmp_path):
    folder = without_candidate(Bundle.load(make_bundle(tmp_path, models=3)), "gamma/small")
    with pytest.raises(InvalidInputError, match="family: unknown 'gamma'; known: alpha, beta"):
        Engine.load(folder).policy(tau=0.1, family="gamma")


def test_the_last_candidate_stays(tmp_path):
    with pytest.raises(InvalidInputError, match="'alpha/large' is the last one"):
        without_candidate(Bundle.load(make_bundle(tmp_path, models=1)), "alpha/large")


def test_unknown_and_taken_names_are_refused(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path, models=2))
    with pytest.raises(InvalidInputError, match="unknown 'nobody'; known: alpha/large, beta/mid"):
        without_candidate(bundle, "nobody")
    with pytest.raises(InvalidInputError, match="'beta/mid' is in the bundle already"):
        with_candidate(
            bundle, NewCandidate(candidate=make_candidates(2)[1], price=PRICE, rows=new_rows(bundle), note={})
        )


def test_rows_must_be_those_the_heads_need(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path, models=2))
    rows = new_rows(bundle)
    for wrong in (
        {key: row for key, row in rows.items() if key != "bias"},
        {**rows, "out": rows["skip"]},
        {**rows, "skip": rows["skip"][1:]},
    ):
        with pytest.raises(InvalidInputError, match="rows: expected one row for each of"):
            with_candidate(bundle, NewCandidate(candidate=NEW, price=PRICE, rows=wrong, note={}))
    with pytest.raises(BundleValueError, match="skip"):
        with_candidate(
            bundle,
            NewCandidate(candidate=NEW, price=PRICE, rows={**rows, "skip": rows["skip"] * np.float32("nan")}, note={}),
        )
    assert Bundle.load(bundle.path.parent).hash == bundle.hash  # CURRENT still names the old one


def test_an_extra_file_can_be_replaced_and_the_others_stay(tmp_path):
    extra = {RELIABILITY: b"{}", "CARD.md": b"hello"}
    folder = make_bundle(tmp_path, models=2, overrides={"extra_files": extra})
    new = Bundle.load(add(folder, refit=Refit(extra_files={RELIABILITY: b"[]"})))
    assert {name: path.read_bytes() for name, path in new.extra_files.items()} == extra | {RELIABILITY: b"[]"}


def price_file(path, **prices):
    entry = {"output_usd_per_1m": 2.0, "fixed_usd": 0.0, "basis": "list"}
    rows = {name.replace("_", "/"): {"input_usd_per_1m": value, **entry} for name, value in prices.items()}
    path.write_text(json.dumps({"currency": "USD", "date": "2026-12-24", "prices": rows}))
    return path


def test_new_prices_leave_the_others_and_the_qualities(tmp_path):
    folder = make_bundle(tmp_path, models=3)
    bundle = Bundle.load(folder)
    given = read_new_prices(price_file(tmp_path / "prices.json", beta_mid=77.0), bundle)
    assert list(given.prices) == ["beta/mid"]
    new = Bundle.load(with_prices(bundle, replace(given, prices={**bundle.prices.prices, **given.prices})))
    assert new.prices.prices["beta/mid"].input_usd_per_1m == 77.0
    assert new.prices.prices["alpha/large"] == bundle.prices.prices["alpha/large"]
    assert new.prices.date == "2026-12-24"
    np.testing.assert_array_equal(
        decided(Engine.load(folder), bundle.names, tau=0.1)[0], decided(Engine.load(new.path), bundle.names, tau=0.1)[0]
    )


def test_the_day_of_new_prices_does_not_speak_of_those_that_are_kept(tmp_path):
    first = Bundle.load(make_bundle(tmp_path, models=3))
    old, (one, two, three) = first.prices.date, first.names
    assert price_days(first) == old

    def later(bundle, day, *kept):
        return Bundle.load(with_prices(bundle, replace(bundle.prices, date=day), kept=kept))

    second = later(first, "2026-12-24", two, three)
    assert price_dates(second) == {one: "2026-12-24", two: old, three: old}
    assert price_days(second) == f"2026-12-24 (1 of 3), {old} (2 of 3)"
    third = later(second, "2026-12-25", one, three)
    assert price_dates(third) == {one: "2026-12-24", two: "2026-12-25", three: old}
    without = Bundle.load(without_candidate(third, three))
    assert without.provenance["price_dates"] == {one: "2026-12-24"}
    assert price_dates(Bundle.load(add(without.path)))[NEW.name] == "2026-12-25"
    whole = later(third, "2026-12-26")
    assert price_days(whole) == "2026-12-26"
    plain = with_prices(first, replace(first.prices, date="2026-12-26"))
    assert whole.path == plain  # nothing is left of it
    with pytest.raises(InvalidInputError, match="kept: unknown candidate nobody; known: alpha/large"):
        later(first, "2026-12-24", "nobody")


def test_a_new_price_needs_no_more_than_its_two_rates(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path, models=3))
    file = tmp_path / "new.json"
    rates = {"input_usd_per_1m": 1.5, "output_usd_per_1m": 6.0}
    file.write_text(json.dumps({"currency": "USD", "date": "2026-12-24", "prices": {"beta/mid": rates}}))
    price = read_new_prices(file, bundle).prices["beta/mid"]
    assert (price.input_usd_per_1m, price.output_usd_per_1m, price.fixed_usd) == (1.5, 6.0, 0.0)
    assert price.basis == "given in new.json"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"nobody": 1.0}, BundleFormatError, "nobody"),
        ({"beta_mid": -1.0}, BundleValueError, "number >= 0"),
        ({"beta_mid": "free"}, BundleFormatError, "a number"),
        ({}, BundleFormatError, "at least one candidate's price"),
    ],
)
def test_bad_new_prices_are_named(tmp_path, change, error, message):
    bundle = Bundle.load(make_bundle(tmp_path, models=3))
    with pytest.raises(error, match=message):
        read_new_prices(price_file(tmp_path / "prices.json", **change), bundle)


def test_a_lone_surrogate_in_a_price_file_is_named_by_its_place(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path / "b"))
    prices = {"beta/mid": {"input_usd_per_1m": 1, "output_usd_per_1m": 2, "basis": "\ud83d"}}
    file = tmp_path / "prices.json"
    file.write_text(json.dumps({"currency": "USD", "date": "2026-11-24", "prices": prices}))
    with pytest.raises(BundleFormatError, match=r"beta/mid\.basis: expected Unicode text, got '.ud83d'"):
        read_new_prices(file, bundle)
