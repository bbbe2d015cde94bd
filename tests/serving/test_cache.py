"""The decision cache: exact, bounded, of one bundle, without prompt text."""

import gc
import pickle

import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.prompts import ParsedRequest, parse_request
from ipr_engine.serving import BatchingEngine
from ipr_engine.serving.decision_cache import DecisionCache
from tests.support.decisions import bits
from tests.support.serving_encoders import CHAT, queued_engine


def looked_up(serving):
    counts = serving.counters().cache
    return counts.hits, counts.misses


@pytest.mark.parametrize("queued", [False, True])
def test_the_same_prompt_under_an_equal_policy_is_decided_once(bundles, queued):
    engine, encoder = queued_engine(bundles[0])
    with BatchingEngine(engine if queued else Engine(bundles[0]), cache_entries=10) as serving:
        encoder.batches.clear()
        first = serving.route("why", tau=0.3)
        assert serving.route("why", tau=0.3) is first
        assert serving.route("why", serving.policy(tau=0.3)) is first  # another policy of equal terms
        assert serving.route([{"role": "user", "content": "why"}], tau=0.3) is first  # the same texts
        assert bits(first) == bits(Engine(bundles[0]).route("why", tau=0.3))
        assert looked_up(serving) == (3, 1)
        assert serving.counters().cache.hit_rate == 0.75
        assert encoder.batches == ([["why"]] if queued else [])
        assert serving.counters().decided == 4


def test_anything_else_that_can_change_a_decision_is_another_entry(bundles):
    with BatchingEngine(Engine(bundles[0]), cache_entries=99) as serving:
        asked = [
            ("why", {"tau": 0.3}),
            ("why ", {"tau": 0.3}),
            ("why", {"tau": 0.4}),
            ("why", {"tau": 0.3, "worth": 0.01}),
            ("why", {"tau": 0.3, "prices": {"beta/mid": (0.0, 0.0)}}),
            ("why", {"tau": 0.3, "exclude": ["beta/mid"]}),
            (CHAT, {"tau": 0.3}),
            ([CHAT[1]], {"tau": 0.3}),
        ]
        for _ in range(2):
            for prompt, terms in asked:
                assert bits(serving.route(prompt, **terms)) == bits(serving.engine.route(prompt, **terms))
        assert looked_up(serving) == (len(asked), len(asked))


def test_a_task_and_what_a_request_needs_cannot_run_into_each_other(bundles):
    cache, policy = DecisionCache(1), Engine(bundles[0]).policy(tau=0.3)
    asks = parse_request({"messages": CHAT, "max_tokens": 7})
    plain = parse_request({"messages": CHAT})
    assert plain.needs is None
    needs = f"{sorted(asks.features.items())} {asks.max_output_tokens} {asks.answers} {asks.images}"
    assert cache.key(asks, policy, "a") != cache.key(plain, policy, f"a{needs}")


def test_requests_with_tokens_bills_or_costs_of_their_own_stay_out(bundles):
    with BatchingEngine(Engine(bundles[0]), cache_entries=10) as serving:
        for extra in ({"tokens_out": 3.0}, {"billed_tokens": 9}, {"extra_usd": [0.1] * 5}):
            serving.route("why", tau=0.3, **extra)
        assert looked_up(serving) == (0, 0)


def test_failures_are_not_kept(bundles):
    with BatchingEngine(Engine(bundles[0]), cache_entries=10, limits={"inline_chars": 10**6}) as serving:
        long = "why " * 20_000
        terms = {"tau": 0.1, "allowed": ["alpha/large"], "on_error": "status"}
        assert [serving.route_many([long], **terms)[0].status for _ in range(2)] == ["none_allowed"] * 2
        for bad in ("", "a lone \ud800 surrogate"):
            with pytest.raises(InvalidInputError):
                serving.route(bad, tau=0.1)
        assert serving.counters().cache.entries == 0


def test_the_least_recently_used_leaves_first(bundles):
    with BatchingEngine(Engine(bundles[0]), cache_entries=2) as serving:
        for prompt in ("why", "how", "why", "what", "why", "how"):  # "how" left for "what"
            serving.route(prompt, tau=0.3)
        counts = serving.counters().cache
        assert (counts.hits, counts.misses, counts.evictions, counts.entries, counts.limit) == (2, 4, 2, 2, 2)


def test_a_swap_leaves_nothing_of_the_bundle_before(bundles):
    engine = Engine(bundles[0])
    with BatchingEngine(engine, cache_entries=10) as serving:
        held = serving.policy(tau=0.3)
        kept = [serving.route("why", held), serving.route("how", held)]
        engine.swap(bundles[1])
        answer = serving.route("why", held)
        assert bits(answer) == bits(Engine(bundles[1]).route("why", tau=0.3))
        assert serving.counters().cache.entries == 1
        engine.swap(bundles[0])
        assert bits(serving.route("why", held)) == bits(kept[0])
        assert looked_up(serving) == (0, 4)


def test_a_decision_of_the_bundle_before_that_comes_late_is_not_kept(bundles):
    cache = DecisionCache(10)
    old, new = Engine(bundles[0]), Engine(bundles[1])
    decision = old.route("why", tau=0.3)
    key = cache.key(ParsedRequest("why"), decision.policy)
    assert cache.get(key, old.bundle.hash) is None
    assert cache.get(b"another", new.bundle.hash) is None
    cache.put(key, decision)
    assert cache.counts().entries == 0


def test_no_prompt_is_in_the_cache_and_its_keys_differ_between_processes(bundles):
    policy = Engine(bundles[0]).policy(tau=0.3)
    caches = [DecisionCache(3), DecisionCache(3)]
    keys = [cache.key(ParsedRequest("explain the secret"), policy) for cache in caches]
    assert [len(key) for key in keys] == [16, 16]
    assert keys[0] != keys[1]
    assert keys[0] == caches[0].key(ParsedRequest("explain the secret"), policy)
    assert ParsedRequest("a", ("b",)) != ParsedRequest("a\n\nb")
    assert caches[0].key(ParsedRequest("a", ("b",)), policy) != caches[0].key(ParsedRequest("ab"), policy)
    with BatchingEngine(Engine(bundles[0]), cache_entries=10) as serving:
        serving.route("explain the secret", tau=0.3)
        assert b"secret" not in pickle.dumps(list(serving.service.cache.entries))
        gc.collect()
        seen = [type(held).__name__ for held in gc.get_referents(*serving.service.cache.entries.values())]
        assert "str" not in seen


@pytest.mark.parametrize("entries", [-1, 1.5, True, "many"])
def test_a_size_that_is_none_is_refused(bundles, entries):
    with pytest.raises(InvalidInputError, match="cache_entries"):
        BatchingEngine(Engine(bundles[0]), cache_entries=entries)


def test_without_being_asked_for_there_is_no_cache(bundles):
    with BatchingEngine(Engine(bundles[0])) as serving:
        serving.route("why", tau=0.3)
        assert serving.service.cache is None
        assert serving.counters().cache.limit == 0


def test_a_decision_tells_the_reasons_of_the_policy_it_was_asked_under(bundles):
    with BatchingEngine(Engine(bundles[0]), cache_entries=9) as serving:
        others = [name for name in bundles[0].names if name != "beta/mid"]
        for terms in ({"exclude": ["beta/mid"]}, {"allowed": others}):
            kept = [serving.route("why", tau=0.3, **terms) for _ in range(2)]
            assert kept[0] is kept[1]
            assert kept[0].excluded == serving.engine.route("why", tau=0.3, **terms).excluded
