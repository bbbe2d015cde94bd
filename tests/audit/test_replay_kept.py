"""Replay on a bundle with other tokenizers, prices or centroids: computed anew where the record tells enough, else kept and told."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.audit.carried_over import KeptFigure
from ipr_engine.audit.record import Record
from ipr_engine.audit.record_fields import canonical, crc32
from ipr_engine.audit.replay import ReplaySummary, replay
from ipr_engine.audit.row_record import outcome_of
from ipr_engine.bundle import Bundle, BundleParts, Price, SupportSpec, with_prices, write_bundle
from ipr_engine.cli.main import main
from ipr_engine.tokens.profiles import shipped_profile
from tests.support import skips
from tests.support.bundles import bundle_parts, make_tensors
from tests.support.two_tier_bundles import join, make_prompts, make_tiers, measured

pytest.importorskip("cryptography", reason=skips.RECORDS)

KEY = bytes(range(32))
TEXT = "Почему небо голубое и почему трава зелёная, если солнце светит жёлтым светом?"
OPEN = {"min_words": 0}
PROFILES = {"plain": (None,) * 3, "own": ("o200k_base", None, "claude_2"), "others": ("bpe", None, "claude_2")}


@pytest.fixture(scope="module")
def engines(tmp_path_factory):
    """Bundles of the same heads; each differs from "plain" in what its name says."""
    root = tmp_path_factory.mktemp("kept")

    def written(name, **parts):
        made = bundle_parts(root / "sources", models=3, dim=16) | parts
        return Engine.load(write_bundle(root / name, BundleParts(**made)))

    plain = bundle_parts(root / "sources", models=3, dim=16)
    candidates, prices = plain["candidates"], plain["prices"]
    made = {}
    for name, profiles in PROFILES.items():
        own = [
            replace(c, tokenizer=None if profile is None else shipped_profile(profile))
            for c, profile in zip(candidates, profiles, strict=True)
        ]
        made[name] = written(name, candidates=own)
    ratios = [replace(c, token_ratio=1.5) for c in made["own"].bundle.candidates]
    made["ratios"] = written("ratios", candidates=ratios)
    cached = {
        name: replace(price, cached_read_usd_per_1m=price.input_usd_per_1m / 10, cache_min_tokens=4)
        for name, price in prices.prices.items()
    }
    made["cached"] = written("cached", prices=replace(prices, prices=cached))
    dearer = {name: replace(price, cached_read_usd_per_1m=price.input_usd_per_1m / 2) for name, price in cached.items()}
    made["cached dearer"] = written("dearer", prices=replace(prices, prices=dearer))
    rng = np.random.default_rng(9)
    other = SupportSpec(
        encoder="static",
        centroids=rng.standard_normal((5, 16)).astype(np.float32),
        distances=np.sort(rng.random(101)).astype(np.float32),
    )
    made["other centroids"] = written("centroids", support=other)
    made["no centroids"] = written("none", support=None)
    return made


def recorded(engine, text=TEXT, *, recorder=OPEN, **options):
    lines = []
    engine.recorder(lines.append, **recorder).route(text, **{"tau": 0.5, **options})
    return lines[0]


def replayed(line, engine, key=None, **terms):
    [one] = replay([line], engine, key=key, **terms)
    return one


def without(line, *names):
    """The line as a build wrote it that did not keep these fields."""
    document = json.loads(line)
    document.pop("crc32")
    text = canonical({name: value for name, value in document.items() if name not in names})
    return f'{text[:-1]},"crc32":"{crc32(text)}"}}\n'.encode()


def bits(outcome, *fields):
    return [np.asarray(getattr(outcome, field)).tobytes() for field in fields]


def as_routed(engine, **options):
    return outcome_of(engine.route_many([TEXT], **{"tau": 0.5, **options}), 0)


def same_decision(one, engine, **options):
    """Whether a replay gives what the engine itself decides of the prompt, to the bit."""
    fields = ("model", "quality", "cost_usd", "tokens_out", "threshold", "gap", "support")
    return bits(one.outcome, *fields) == bits(as_routed(engine, **options), *fields)


# -- what a line holds


def test_a_plain_line_says_only_which_centroids_measured_its_support(engines):
    more = {"own_tokens", "cached_tokens", "tokenizers", "centroids", "bill_given"}
    assert json.loads(recorded(engines["plain"])).keys() & more == {"centroids"}
    assert not json.loads(recorded(engines["no centroids"])).keys() & more
    assert json.loads(recorded(engines["own"])).keys() & more == {"own_tokens", "tokenizers", "centroids"}
    given = json.loads(recorded(engines["own"], billed_tokens=9, cached_tokens=4))
    assert given.keys() & more == more - {"tokenizers"}


@pytest.mark.parametrize("name", ["plain", "own", "cached", "no centroids"])
@pytest.mark.parametrize(
    "options", [{}, {"cached_tokens": [3, 40, 5]}, {"billed_tokens": 77, "extra_usd": 0.001}], ids=str
)
def test_the_bundle_that_decided_gives_no_difference_and_keeps_nothing(engines, name, options):
    for recorder in (OPEN, {"keep_x": True, "key": KEY}):
        line = recorded(engines[name], recorder=recorder, **options)
        assert Record.from_line(line).to_line() == line
        for key in (None, KEY):
            one = replayed(line, engines[name], key=key)
            assert (one.differences, one.refused, one.kept) == ((), None, ())


def test_cached_tokens_of_a_brief_record_are_sealed_as_its_own_tokens_are(engines):
    line = recorded(engines["cached"], "why", recorder={"key": KEY}, cached_tokens=[7, 8, 9])
    assert "cached_tokens" not in json.loads(line)
    one = replayed(line, engines["cached"], key=KEY)
    assert (one.differences, one.refused) == ((), None)
    assert one.record.cached_tokens.tolist() == [7, 8, 9]


# -- cached tokens


@pytest.mark.parametrize("recorder", [OPEN, {"keep_x": True, "key": KEY, **OPEN}], ids=["figures", "embedding"])
def test_cached_tokens_are_billed_at_the_prices_of_the_replay(engines, recorder):
    given = {"cached_tokens": [20, 0, 31], "extra_usd": [0.1, -0.2, 0.0]}
    line = recorded(engines["cached"], recorder=recorder, **given)
    record = Record.from_line(line)
    assert record.cached_tokens.tolist() == [20, 0, 31]
    assert record.extra_usd.tobytes() == np.float32([0.1, -0.2, 0.0]).tobytes()
    one = replayed(line, engines["cached dearer"], key=KEY)
    assert one.kept == ()
    assert same_decision(one, engines["cached dearer"], **given)
    name = engines["cached"].bundle.names[0]
    other = {name: Price(input_usd_per_1m=90, output_usd_per_1m=9, cached_read_usd_per_1m=1, basis="asked for")}
    one = replayed(line, engines["cached"], key=KEY, tau=0.5, prices=other)
    assert same_decision(one, engines["cached"], prices=other, **given)


def test_a_line_that_folded_what_the_cache_saved_replays_as_it_did(engines):
    line = recorded(engines["cached"], extra_usd=[0.1, -0.2, 0.0])
    older = without(line, "centroids")
    assert replayed(older, engines["cached"]).differences == ()
    one = replayed(older, engines["cached dearer"])
    assert one.outcome.cost_usd.tobytes() == as_routed(engines["cached"], extra_usd=[0.1, -0.2, 0.0]).cost_usd.tobytes()


# -- own tokens


def test_tokens_that_another_tokenizer_counted_are_kept_and_told(engines):
    line = recorded(engines["own"])
    one = replayed(line, engines["others"])
    name = engines["own"].bundle.names[0]
    then, now = (engines[which].bundle.candidates[0].tokenizer.key for which in ("own", "others"))
    assert one.kept == (
        KeptFigure(f"own_tokens[{name}]", f"counted by {then}, and this bundle counts by {now}; its text is not here"),
    )
    assert one.differences == ()
    by_heads = replayed(recorded(engines["own"], recorder={"keep_x": True, "key": KEY}), engines["others"], key=KEY)
    assert by_heads.by_heads
    assert by_heads.kept == one.kept


def test_tokens_that_no_tokenizer_counted_are_told_where_one_counts_now(engines):
    one = replayed(recorded(engines["plain"]), engines["own"])
    assert {kept.field for kept in one.kept} == {f"own_tokens[{engines['own'].bundle.names[m]}]" for m in (0, 2)}
    assert "token_ratio" in one.kept[0].why


@pytest.mark.parametrize(("then", "now"), [("own", "others"), ("plain", "own"), ("others", "own")])
def test_tokens_are_counted_anew_where_the_prompt_is_at_hand(engines, then, now):
    for recorder in ({"keep_prompts": True, **OPEN}, {"keep_prompts": True, "keep_x": True, "key": KEY}):
        line = recorded(engines[then], recorder=recorder)
        one = replayed(line, engines[now], key=KEY)
        assert one.kept == ()
        assert same_decision(one, engines[now])


def test_without_a_tokenizer_now_the_bundle_counts_as_ever(engines):
    one = replayed(recorded(engines["own"]), engines["plain"])
    assert one.kept == ()
    assert same_decision(one, engines["plain"])


def test_another_token_ratio_counts_where_no_tokenizer_does(engines):
    one = replayed(recorded(engines["own"]), engines["ratios"])
    assert one.kept == ()
    assert same_decision(one, engines["ratios"])


@pytest.mark.parametrize("now", ["plain", "others", "ratios"])
def test_a_given_bill_is_no_count_of_any_tokenizer(engines, now):
    one = replayed(recorded(engines["own"], billed_tokens=500), engines[now])
    assert one.kept == ()
    assert same_decision(one, engines[now], billed_tokens=500)


def test_a_line_that_does_not_say_who_counted_keeps_its_tokens_and_says_so(engines):
    line = without(recorded(engines["own"]), "tokenizers", "centroids")
    one = replayed(line, engines["own"])
    assert (one.differences, one.kept) == ((), ())
    one = replayed(line, engines["plain"])
    assert [kept.field for kept in one.kept] == ["own_tokens", "support"]
    assert one.outcome.cost_usd.tobytes() == one.record.outcome.cost_usd.tobytes()


# -- support


def test_support_of_other_centroids_is_kept_and_told(engines):
    one = replayed(recorded(engines["plain"]), engines["other centroids"])
    [kept] = one.kept
    assert kept.field == "support"
    assert engines["other centroids"].bundle.support.key in kept.why
    assert one.outcome.support == one.record.outcome.support


def test_support_is_measured_anew_where_the_embedding_is_at_hand(engines):
    line = recorded(engines["plain"], recorder={"keep_x": True, "key": KEY})
    one = replayed(line, engines["other centroids"], key=KEY)
    assert one.kept == ()
    assert same_decision(one, engines["other centroids"])


def test_a_bundle_without_centroids_says_no_support(engines):
    one = replayed(recorded(engines["plain"]), engines["no centroids"])
    assert (one.outcome.support, one.kept) == (None, ())
    assert [difference.field for difference in one.differences] == ["support"]
    one = replayed(recorded(engines["no centroids"]), engines["plain"])
    assert (one.outcome.support, [kept.field for kept in one.kept]) == (None, ["support"])


def test_min_support_is_not_decided_by_support_of_other_centroids(engines):
    terms = {"tau": 0.5, "min_support": 1.0, "unsupported": "cheapest"}
    one = replayed(recorded(engines["plain"]), engines["other centroids"], **terms)
    assert "min_support decides by it; record with keep_x=True and a key" in one.refused
    assert one.refused.endswith(
        "or replay with min_support=0"
    )  # to leave it out would leave the record's, or the bundle's own
    line = recorded(engines["plain"], recorder={"keep_x": True, "key": KEY})
    one = replayed(line, engines["other centroids"], key=KEY, **terms)
    assert one.outcome.cause == "unsupported"
    assert replayed(recorded(engines["plain"], **terms), engines["cached"]).refused is None  # the same centroids


def test_prices_alone_keep_nothing(engines):
    assert replayed(recorded(engines["plain"]), engines["cached"]).kept == ()


# -- what is told


def test_the_summary_and_the_command_line_say_what_was_kept(engines, tmp_path, capsys):
    log = tmp_path / "log.jsonl"
    with engines["own"].recorder(log, min_words=0) as recorder:
        recorder.route_many([TEXT, "a story"], tau=0.5)
    lines, summary = log.read_bytes().splitlines(), ReplaySummary()
    for one in replay(lines, engines["others"]):
        summary.add(one)
    assert summary.to_dict()["kept"] == {"own_tokens": 2}
    assert "kept from the records, since other centroids or tokenizers cannot be asked here: own_tokens in 2" in str(
        summary
    )
    where = str(engines["others"].bundle.path)
    assert main(["replay", str(log), "--bundle", where]) == 0
    assert "line 1: own_tokens[alpha/large] kept: counted by o200k_base:" in capsys.readouterr().out
    assert main(["replay", str(log), "--bundle", where, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["kept"][0]["field"] == "own_tokens[alpha/large]"
    assert told[-1]["summary"]["kept"] == {"own_tokens": 2}
    assert main(["replay", str(log), "--bundle", str(engines["own"].bundle.path), "--json"]) == 0
    [told] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told["summary"]["kept"] == {}


def test_a_second_tier_has_no_support_to_keep(tmp_path):
    pair = measured(join(tmp_path, make_tiers(tmp_path)))
    line = recorded(Engine(pair), "two and two and more", escalate_below=np.inf)
    assert (Record.from_line(line).outcome.support, Record.from_line(line).centroids) == (None, None)
    prices = {n: replace(p, output_usd_per_1m=9 * p.output_usd_per_1m) for n, p in pair.prices.prices.items()}
    other = Engine.load(
        with_prices(pair, replace(pair.prices, prices=prices), root=tmp_path / "dearer", activate=False)
    )
    one = replayed(line, other)
    assert (one.refused, one.kept, one.outcome.support) == (None, (), None)


@pytest.mark.parametrize("trees", [0, 3])
def test_records_of_two_tiers_on_one_encoder_are_decided_again_by_the_heads_that_decided(tmp_path, trees):
    parts = bundle_parts(tmp_path / "first", models=4)
    tensors = make_tensors(models=4, dim=16, trees=trees, seed=5)
    other = replace(parts["heads"][0], id="own", tensors=tensors)
    tiers = [write_bundle(tmp_path / "one", BundleParts(**parts))]
    tiers.append(write_bundle(tmp_path / "two", BundleParts(**parts | {"heads": [other], "support": None})))
    first, second = (Bundle.load(tier) for tier in tiers)
    prompts = make_prompts(40, "one encoder")
    gaps = np.sort([Engine(first).route(prompt, tau=0.3).gap for prompt in prompts])
    engine = Engine(measured(join(tmp_path, (first, second), gap=float(gaps[20]))))
    sealing = {"keep_x": True, "key": KEY, **OPEN}
    lines = [recorded(engine, prompt, recorder=sealing, tau=0.3) for prompt in prompts]
    heads = [Record.from_line(line).heads for line in lines]
    assert set(heads) == {engine.bundle.quality_heads.sha256, engine.bundle.escalation_heads.sha256}
    for line in lines:
        for key in (KEY, None):  # by the heads, and by the record's figures
            one = replayed(line, engine, key)
            assert (one.refused, one.differences, one.kept, one.by_heads) == (None, (), (), key is not None)


def test_a_summary_lists_kept_fields_in_the_order_of_the_records(engines):
    one = replayed(recorded(engines["plain"]), engines["own"])
    fields = [f"made_up_{letter}" for letter in "qwertyuiopasdfgh"]  # a set of them comes in another order
    summary = ReplaySummary()
    summary.add(one._replace(kept=tuple(KeptFigure(field, "why") for field in fields)))
    assert list(summary.kept) == fields
