"""Bills in each candidate's own tokens: the same on every way through the engine, in cost, context windows and records."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.audit.replay import replay
from ipr_engine.bundle import Bundle, BundleParts, PriceTier, write_bundle
from ipr_engine.bundle.context_windows import SurelyFits
from ipr_engine.bundle.edit import without_candidate
from ipr_engine.cli.main import main
from ipr_engine.errors import BundleFormatError
from ipr_engine.evaluation.embedded import embed_for
from ipr_engine.policy.price_table import expected_cost
from ipr_engine.serving import BatchingEngine
from ipr_engine.tokens.profiles import shipped_profile
from tests.support.bundles import make_bundle
from tests.support.tokenized_bundles import PROFILES, RUSSIAN, tokenized, tokenized_parts

TEXTS = ["what is the story", RUSSIAN, "explain " * 40, "空はなぜ青いのか", '{"a": [1, 22, 333]}', "x" * 300]
REQUEST = {
    "messages": [{"role": "system", "content": RUSSIAN}, {"role": "user", "content": "what is it"}],
    "max_tokens": 50,
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    return Engine(tokenized(tmp_path_factory.mktemp("own")))


def estimated(bundle, text, billed):
    """(models,) by definition: the profile's estimate, else the bundle's count times token_ratio."""
    return [
        billed * c.token_ratio if c.tokenizer is None else float(c.tokenizer.tokens([text])[0])
        for c in bundle.candidates
    ]


def tokens_in(decision):
    return [view.tokens_in for view in decision.candidates]


@pytest.mark.parametrize("text", TEXTS)
def test_every_candidate_is_billed_its_own_tokens(engine, text):
    decision = engine.route(text, tau=0.5)
    own = estimated(engine.bundle, text, decision.billed_tokens)
    np.testing.assert_allclose(tokens_in(decision), own, rtol=1e-6)
    assert decision.tokens_in == pytest.approx(own[decision.index])
    for m, (name, view) in enumerate(zip(engine.bundle.names, decision.candidates, strict=True)):
        price = engine.bundle.prices.prices[name]
        cost = price.fixed_usd + (price.input_usd_per_1m * own[m] + price.output_usd_per_1m * view.tokens_out) / 1e6
        assert view.cost_usd == pytest.approx(cost, rel=1e-5)


def test_explain_shows_each_candidates_input_tokens_and_who_counted_them(engine):
    explanation = engine.explain(RUSSIAN, tau=0.5)
    lines, views = str(explanation).splitlines(), {view.name: view for view in explanation.candidates}
    at = lines[1].index("      in ") + 2  # six wide
    for line in lines[2:7]:
        assert float(line[at : at + 6]) == round(views[line.split()[0]].tokens_in)
    (told,) = (line for line in lines if line.startswith("in: input tokens by "))
    assert all(name in told for name in PROFILES if name is not None)
    told = {view["name"]: view for view in explanation.to_dict()["candidates"]}
    for candidate, name in zip(engine.bundle.candidates, PROFILES, strict=True):
        assert told[candidate.name]["tokenizer"] == name
        assert told[candidate.name]["tokens_in"] == views[candidate.name].tokens_in


def test_explain_names_no_tokenizer_where_none_counted(tmp_path):
    told = Engine.load(make_bundle(tmp_path)).explain("what is it", tau=0.5)
    assert {view["tokenizer"] for view in told.to_dict()["candidates"]} == {None}
    assert "input tokens by" not in str(told)


def test_info_shows_what_counts_each_candidates_tokens(engine, capsys):
    assert main(["info", "--bundle", str(engine.bundle.path)]) == 0
    text = capsys.readouterr().out
    assert main(["info", "--bundle", str(engine.bundle.path), "--json"]) == 0
    told = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["candidates"]}
    for candidate, name in zip(engine.bundle.candidates, PROFILES, strict=True):
        (line,) = (line for line in text.splitlines() if line.startswith(f"{candidate.name} "))
        assert (name or f"encoder x {candidate.token_ratio:.3g}") in line
        entry = told[candidate.name]
        assert entry["token_ratio"] == candidate.token_ratio
        assert entry["tokenizer"] == (None if name is None else {"name": name, "source": shipped_profile(name).source})


def test_every_way_to_a_decision_gives_the_same_bits(engine):
    together, kept = engine.route_many(TEXTS, tau=0.5), engine.decide(engine.encode(TEXTS), tau=0.5)
    for row, text in enumerate(TEXTS):
        alone, request = engine.route(text, tau=0.5), engine.route([{"role": "user", "content": text}], tau=0.5)
        for other in (together[row], kept[row], request):
            assert tokens_in(other) == tokens_in(alone)
            assert other.costs_usd.tobytes() == alone.costs_usd.tobytes()
            assert other.model == alone.model


def test_all_texts_of_a_request_are_billed(engine):
    one, whole = engine.route("what is it", tau=0.5), engine.route(REQUEST, tau=0.5)
    assert whole.billed_tokens > one.billed_tokens
    assert all(more > less for more, less in zip(tokens_in(whole), tokens_in(one), strict=True))


def test_a_given_bill_is_of_the_bundles_tokenizer(engine):
    decision = engine.route(RUSSIAN, tau=0.5, billed_tokens=1000)
    assert tokens_in(decision) == pytest.approx([1000 * c.token_ratio for c in engine.bundle.candidates])
    kept = engine.decide(engine.encode([RUSSIAN]), tau=0.5, billed_tokens=1000)[0]
    assert tokens_in(kept) == tokens_in(decision)


def test_bare_embeddings_are_billed_by_ratio(engine):
    kept = engine.decide(engine.encode(["what is it"]).x, tau=0.5, billed_tokens=[70])[0]
    assert tokens_in(kept) == pytest.approx([70 * c.token_ratio for c in engine.bundle.candidates])


def test_each_context_window_is_held_against_its_candidates_own_count(tmp_path):
    counted = int(shipped_profile("o200k_base").tokens([RUSSIAN])[0])
    engine = Engine(
        tokenized(tmp_path, ("o200k_base", "claude_2", None), context_windows=[counted + 2, counted + 2, 10**6])
    )
    decision = engine.route(RUSSIAN, tau=1.0, tokens_out=1)
    assert decision.billed_tokens != counted
    first, second, third = decision.candidates
    assert first.excluded_because is None
    assert f"prompt of about {second.tokens_in:.0f}" in second.excluded_because
    assert third.excluded_because is None
    assert engine.bundle.names[1] not in decision.ranked


def test_one_bad_prompt_leaves_the_others_their_bills(engine):
    made = engine.route_many(["what is it", "", RUSSIAN], tau=0.5, on_error="status")
    assert tokens_in(made[0]) == tokens_in(engine.route("what is it", tau=0.5))
    assert tokens_in(made[2]) == tokens_in(engine.route(RUSSIAN, tau=0.5))
    assert np.isnan(made[1].tokens_in)


def test_a_bundle_without_tokenizers_decides_as_before_to_the_bit(tmp_path):
    plain = Engine.load(make_bundle(tmp_path, models=5, dim=16))
    assert plain.encode(TEXTS).terms is not None
    for text in TEXTS:
        decision, kept = plain.route(text, tau=0.5), plain.decide(plain.encode([text]), tau=0.5)[0]
        assert decision.costs_usd.tobytes() == kept.costs_usd.tobytes()
        assert tokens_in(decision) == [decision.billed_tokens * c.token_ratio for c in plain.bundle.candidates]
    manifest = json.loads((plain.bundle.path / "bundle.json").read_text())
    assert manifest["schema_version"] < 6
    assert not any("tokenizer" in candidate for candidate in manifest["candidates"])


def test_embeddings_outlive_a_swap_to_a_bundle_with_tokenizers(tmp_path):
    parts = tokenized_parts(tmp_path)
    named = write_bundle(tmp_path / "named", BundleParts(**parts))
    parts["candidates"] = [replace(candidate, tokenizer=None) for candidate in parts["candidates"]]
    engine = Engine.load(write_bundle(tmp_path / "plain", BundleParts(**parts)))
    encoded = engine.encode([RUSSIAN])
    engine.swap(named)
    assert tokens_in(engine.decide(encoded, tau=0.5)[0]) == tokens_in(engine.route(RUSSIAN, tau=0.5))


def test_a_tokenizer_survives_the_bundle_and_its_edits(engine, tmp_path):
    bundle = engine.bundle
    assert [None if c.tokenizer is None else c.tokenizer.name for c in bundle.candidates] == list(PROFILES)
    assert bundle.candidates[0].tokenizer == shipped_profile("o200k_base")
    assert '"schema_version": 6' in (bundle.path / "bundle.json").read_text()
    left = Bundle.load(without_candidate(bundle, bundle.names[1], root=tmp_path / "edited"))
    assert [c.tokenizer for c in left.candidates] == [c.tokenizer for c in bundle.candidates if c.name in left.names]


def test_a_damaged_profile_in_a_bundle_is_named(tmp_path):
    bundle = tokenized(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in bundle.path.rglob("*"):
        if path.is_file():
            target = copy / path.relative_to(bundle.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes().replace(b'"cyrillic_words"', b'"cyrilic_words"'))
    with pytest.raises(BundleFormatError, match="cyrilic_words"):
        Bundle.load(copy)


def test_a_record_holds_what_was_billed_and_replays_to_the_bit(engine, tmp_path):
    path = tmp_path / "decisions.jsonl"
    with engine.recorder(path, min_words=0) as recorder:
        recorder.route_many([*TEXTS, REQUEST], tau=0.5)
    again = list(replay(path.read_bytes().splitlines(), engine))
    assert len(again) == len(TEXTS) + 1
    assert [(one.refused, one.differences) for one in again] == [(None, ())] * len(again)
    assert all(one.record.own_tokens is not None for one in again)


def test_embedded_prompts_are_decided_as_the_engine_routes_them(engine):
    kept, routed = embed_for(engine, TEXTS).decide(tau=0.5), engine.route_many(TEXTS, tau=0.5)
    assert kept.costs_usd.tobytes() == routed.costs_usd.tobytes()
    assert kept.models == routed.models


def test_cached_tokens_are_of_the_candidates_own_count(engine):
    held = {
        name: replace(
            price, cached_read_usd_per_1m=price.input_usd_per_1m / 10,
            tiers=(PriceTier(above_tokens=30, input_usd_per_1m=40.0, output_usd_per_1m=50.0, cached_read_usd_per_1m=2.0),),
        )
        for name, price in engine.bundle.prices.prices.items()
    }  # fmt: skip
    for text in TEXTS:
        for cached in (7, 10**6):
            row = engine.route_many([text], tau=0.5, prices=held, cached_tokens=cached, tokens_out=100)
            own = row.own_tokens.astype(np.float64)
            wanted = expected_cost(
                list(held.values()), own, np.full((1, 5), 100.0), cached_tokens=np.minimum(cached, own)
            )
            np.testing.assert_allclose(row.costs_usd, wanted, rtol=1e-5)
            assert (row.costs_usd > 0).all()
            with BatchingEngine(engine) as serving:
                served = serving.route(text, tau=0.5, prices=held, cached_tokens=cached, tokens_out=100)
            assert served.costs_usd.tobytes() == row.costs_usd.tobytes()


def test_a_request_of_exactly_the_tiers_edge_is_not_above_it(engine):
    for text in TEXTS:
        own = dict(zip(engine.bundle.names, tokens_in(engine.route(text, tau=0.5)), strict=True))
        prices = {
            name: replace(
                price, tiers=(PriceTier(above_tokens=round(own[name]), input_usd_per_1m=900.0, output_usd_per_1m=900.0),)
            )
            for name, price in engine.bundle.prices.prices.items()
            if own[name] == round(own[name])
        }  # fmt: skip
        flat, tiered = engine.route(text, tau=0.5), engine.route(text, tau=0.5, prices=prices)
        assert tiered.costs_usd.tobytes() == flat.costs_usd.tobytes()


def test_a_record_replays_beside_a_new_candidate_by_its_embedding(engine, tmp_path):
    lines, key = [], OwnerKey(bytes(range(32)))
    engine.recorder(lines.append, keep_x=True, key=key, min_words=0).route(RUSSIAN, tau=0.5)
    less = Engine(Bundle.load(without_candidate(engine.bundle, engine.bundle.names[1], root=tmp_path)))
    fewer = []
    less.recorder(fewer.append, keep_x=True, key=key, min_words=0).route(RUSSIAN, tau=0.5)
    for made, on in ((lines, less), (fewer, engine)):
        (replayed,) = replay(made, on, key=key)
        assert replayed.refused is None


def test_own_tokens_of_a_brief_record_are_sealed(engine):
    key, lines = OwnerKey(bytes(range(32))), []
    engine.recorder(lines.append, key=key).route("why", tau=0.5)
    assert "own_tokens" not in json.loads(lines[0])
    (replayed,) = replay(lines, engine, key=key)
    assert (replayed.refused, replayed.differences) == (None, ())


@pytest.mark.parametrize("window", [7, 40, 300, 5000])
def test_a_prompt_that_is_said_to_fit_surely_fits_every_window(tmp_path, window):
    """What a decision says without looking at every candidate is what it says when it does."""
    parts = tokenized_parts(tmp_path, context_windows=[window, None, 2 * window, window + 1, 10**6])
    engine = Engine(Bundle.load(write_bundle(tmp_path / "bundles", BundleParts(**parts))))
    policy = engine.policy(tau=0.3)
    looking = replace(policy, surely_fits=SurelyFits(-np.inf, -np.inf))
    prompts = ["what " * n for n in (1, 2, 3, 5, 6, 7, 8, 9, 20, 30, 60, 250, 400, 900, 1500)]
    skipped = 0
    for prompt in [*prompts, RUSSIAN, REQUEST]:
        ours, wanted = (engine.route_many([prompt], p, on_error="status")[0] for p in (policy, looking))
        assert (ours.excluded, ours.ranked, ours.allowed.tolist(), ours.calibration_reason) == (
            wanted.excluded,
            wanted.ranked,
            wanted.allowed.tolist(),
            wanted.calibration_reason,
        )
        skipped += not ours.may_keep_out
    assert window < 5000 or skipped > 5
