"""Swapping bundles: what a call sees is one bundle, policies follow, old memory goes, what does not fit is refused."""

import gc
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from ipr_engine import Bundle, Engine, InvalidInputError, Price
from ipr_engine.bundle import PriceList, with_prices
from ipr_engine.errors import BundleHashError, EncoderMismatchError
from tests.support.bundles import make_bundle, make_candidates, make_prices, make_siblings
from tests.support.decisions import bits

PROMPTS = ["what is the sum of two and two", "Explain quicksort, please!", "write a story", "a b c"]
CHAT = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why"}]
THREADS = 8


@pytest.fixture(scope="module")
def siblings(tmp_path_factory):
    return [Bundle.load(path) for path in make_siblings(tmp_path_factory.mktemp("siblings"), 4)]


def test_a_swapped_engine_decides_as_one_made_of_that_bundle(siblings):
    engine = Engine(siblings[0])
    for bundle in siblings[1:]:
        assert engine.swap(bundle) is bundle
        assert (engine.bundle, engine.plan.models) == (bundle, len(bundle.names))
        for prompt in [*PROMPTS, CHAT]:
            assert bits(engine.route(prompt, tau=0.3)) == bits(Engine(bundle).route(prompt, tau=0.3))


def test_a_path_or_a_root_is_loaded_and_the_same_hash_changes_nothing(siblings):
    engine = Engine(siblings[1])
    root = siblings[0].path.parent
    assert engine.swap(root).hash == siblings[0].hash  # what CURRENT names
    assert engine.swap(str(siblings[2].path)).hash == siblings[2].hash
    loaded = engine.loaded
    assert engine.swap(siblings[2].path) is loaded.bundle
    assert engine.loaded is loaded


def test_the_instruction_set_asked_for_stays(siblings):
    engine = Engine(siblings[0], isa="scalar")
    engine.swap(siblings[1])
    assert (engine.plan.isa, engine.encoder.isa) == ("scalar", "scalar")


def test_an_encoder_of_the_same_identity_is_kept_and_another_is_loaded(siblings, tmp_path):
    engine = Engine(siblings[0])
    encoder = engine.encoder
    engine.swap(siblings[1])
    assert engine.encoder is encoder
    engine.swap(make_bundle(tmp_path, models=5, seed=1), allow_other_encoder=True)
    assert engine.encoder is not encoder


class Swapping(dict):
    """A chat message that swaps the engine's bundle when its role is read: in the middle of a call."""

    def __init__(self, engine, bundle):
        super().__init__(role="user", content="why")
        self.swap = lambda: engine.swap(bundle)

    def get(self, key, default=None):
        if key == "role":
            self.swap()
        return super().get(key, default)


def test_a_call_in_flight_finishes_on_the_bundle_it_began_with(siblings):
    engine = Engine(siblings[0])
    policy = engine.policy(tau=0.2)
    decision = engine.route([Swapping(engine, siblings[1])], policy)
    assert engine.bundle is siblings[1]
    assert bits(decision) == bits(Engine(siblings[0]).route([{"role": "user", "content": "why"}], tau=0.2))
    assert engine.route("why", policy).bundle_hash == siblings[1].hash


def test_a_decision_stays_whole_after_a_swap(siblings):
    engine = Engine(siblings[0])
    decision = engine.route(PROMPTS[0], tau=0.4)
    before = (bits(decision), decision.ranked, decision.frontier, str(engine.explain(decision)))
    engine.swap(siblings[1])
    assert (bits(decision), decision.ranked, decision.frontier, str(engine.explain(decision))) == before


# -- policies


TERMS = [
    {"tau": 0.3},
    {"tau": 0.2, "rule": "max", "slack": 0.1},
    {"tau": 0.5, "rule": "fixed", "worth": 0.001},
    {"tau": 0.1, "allowed": ["alpha/large", "delta/tiny"], "exclude": "delta/tiny"},
    {"tau": 0.1, "family": {"beta", "gamma"}, "prices": {"beta/mid": (np.float32(1.5), 2)}},
    {"tau": 0.1, "requires": "tools", "prices": {"Beta/Mid": {"input_usd_per_1m": 1, "output_usd_per_1m": 2.0}}},
    {
        "tau": 0.9,
        "max_latency_ms": 300,
        "prices": {"alpha/large": Price(input_usd_per_1m=1, output_usd_per_1m=0, basis="")},
    },
    {"tau": 0.9, "prices": make_prices(make_candidates(5), scale=3)},
]


@pytest.mark.parametrize("terms", TERMS, ids=range(len(TERMS)))
def test_a_policy_held_across_a_swap_means_its_terms_on_the_bundle_that_serves(siblings, terms):
    engine = Engine(siblings[0])
    policy = engine.policy(**terms)
    for bundle in (siblings[1], siblings[2], siblings[0]):
        engine.swap(bundle)
        assert engine.route(PROMPTS[0], policy).policy == Engine(bundle).policy(**terms)
        assert bits(engine.route(PROMPTS[0], policy)) == bits(engine.route(PROMPTS[0], engine.policy(**terms)))
        decided = engine.decide(engine.encode(PROMPTS), policy)
        assert bits(decided[1]) == bits(engine.route_many(PROMPTS, policy)[1])


def test_a_policy_is_compiled_once_a_bundle(siblings):
    engine = Engine(siblings[0])
    policy = engine.policy(tau=0.3)
    engine.swap(siblings[1])
    assert engine.route("a", policy).policy is engine.route("b", policy).policy


def test_a_policy_keeps_no_list_of_the_callers(siblings):
    engine = Engine(siblings[0])
    names, prices = ["alpha/large", "beta/mid"], {"alpha/large": (1.0, 1.0)}
    policy = engine.policy(tau=0.3, allowed=names, prices=prices)
    names.clear()
    prices["alpha/large"] = (9.0, 9.0)
    engine.swap(siblings[1])
    live = engine.route("a", policy).policy
    assert sorted(live.allowed) == ["alpha/large", "beta/mid"]
    assert live.prices.prices["alpha/large"].input_usd_per_1m == 1.0


def test_exclusions_and_prices_of_a_candidate_that_is_gone_say_nothing(siblings, tmp_path):
    engine = Engine(siblings[0])
    one = {"epsilon/nano": Price(input_usd_per_1m=1, output_usd_per_1m=1, basis="")}
    policies = [
        engine.policy(tau=0.3, exclude=["epsilon/nano", "alpha/large"]),
        engine.policy(tau=0.3, exclude="epsilon/nano"),
        engine.policy(tau=0.3, prices={"epsilon/nano": (1, 2), "alpha/large": (3, 4)}),
        engine.policy(tau=0.3, prices=PriceList(date="2026-01-01", prices=one)),
    ]
    fewer = Engine.load(make_bundle(tmp_path, models=4))
    engine.swap(fewer.bundle, allow_fewer_candidates=True)
    expected = [
        fewer.policy(tau=0.3, exclude=["alpha/large"]),
        fewer.policy(tau=0.3),
        fewer.policy(tau=0.3, prices={"alpha/large": (3, 4)}),
        fewer.policy(tau=0.3),
    ]
    assert [engine.route("a", policy).policy for policy in policies] == expected


@pytest.mark.parametrize("terms", [{"allowed": ["alpha/large", "epsilon/nano"]}, {"family": "epsilon"}])
def test_a_policy_whose_candidate_is_gone_is_refused_by_name(siblings, tmp_path, terms):
    engine = Engine(siblings[0])
    policy = engine.policy(tau=0.3, **terms)
    engine.swap(make_bundle(tmp_path, models=4), allow_fewer_candidates=True)
    message = r"policy: made for bundle \w+, and its terms do not fit bundle \w+.*unknown 'epsilon.*make it anew"
    for call in (lambda: engine.route("a", policy), lambda: engine.decide(engine.encode(["a"]), policy)):
        with pytest.raises(InvalidInputError, match=message):
            call()
    engine.swap(siblings[0])
    assert engine.route("a", policy).status == "ok"


# -- what is refused


def test_another_encoder_is_refused_unless_allowed(siblings, tmp_path):
    engine = Engine(siblings[0])
    other = Bundle.load(make_bundle(tmp_path, models=5, seed=1))
    kept = engine.encode(PROMPTS)
    with pytest.raises(EncoderMismatchError, match=r"bundle: .* reads encoder .*allow_other_encoder=True"):
        engine.swap(other)
    assert engine.bundle is siblings[0]
    engine.swap(other, allow_other_encoder=True)
    assert engine.route(PROMPTS[0], tau=0.1).bundle_hash == other.hash
    with pytest.raises(EncoderMismatchError, match=r"x: embedded by encoder .*; encode the prompts again"):
        engine.decide(kept, tau=0.1)
    with pytest.raises(EncoderMismatchError, match="x: embedded by encoder"):
        engine.decide(kept[1:], tau=0.1, billed_tokens=7)


def test_fewer_candidates_are_refused_unless_allowed(siblings, tmp_path):
    engine = Engine(siblings[0])
    fewer = Bundle.load(make_bundle(tmp_path, models=3))
    with pytest.raises(
        InvalidInputError, match=r"bundle: .* lacks delta/tiny, epsilon/nano .*allow_fewer_candidates=True"
    ):
        engine.swap(fewer)
    assert engine.bundle is siblings[0]
    assert engine.swap(fewer, allow_fewer_candidates=True) is fewer
    engine.swap(siblings[0])  # more of them need no leave


def test_heads_that_predict_no_tokens_are_refused_unless_allowed(siblings, tmp_path):
    engine = Engine(siblings[0])
    bare = make_bundle(tmp_path, models=5, tokens=False)
    with pytest.raises(InvalidInputError, match=r"bundle: the heads of .* predict no tokens.*allow_fewer_outputs=True"):
        engine.swap(bare)
    assert engine.route("why", tau=0.1).bundle_hash == siblings[0].hash
    engine.swap(bare, allow_fewer_outputs=True)
    assert engine.route("why", tau=0.1, tokens_out=9).bundle_hash == bare.name


def test_a_damaged_bundle_changes_nothing(siblings, tmp_path):
    engine = Engine(siblings[0])
    path = make_bundle(tmp_path, models=5)
    weights = path / "heads" / "static.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(BundleHashError):
        engine.swap(path)
    assert engine.bundle is siblings[0]
    with pytest.raises(InvalidInputError, match="path: expected a str"):
        engine.swap(None)


# -- memory


def test_old_memory_is_freed_with_the_last_call_and_the_last_decision(siblings):
    gc.disable()  # by reference counts alone, at once
    try:
        engine = Engine.load(siblings[0].path)
        policy = engine.policy(tau=0.2)
        old = [weakref.ref(part) for part in (engine.loaded, engine.plan, engine.bundle)]
        decision = engine.route("why", policy)
        engine.swap(siblings[1])
        assert [ref() is None for ref in old] == [True, True, False]  # the decision still tells of its bundle
        assert engine.route("why", policy).status == "ok"  # a policy alone keeps nothing
        del decision
        assert [ref() is None for ref in old] == [True, True, True]
    finally:
        gc.enable()


def resident_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


@pytest.mark.parametrize("swaps", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_eight_threads_route_while_bundles_swap_hundreds_of_times(tmp_path, swaps):
    """No exception, no torn decision, nothing dropped, memory flat."""
    bundles = [Bundle.load(path) for path in make_siblings(tmp_path, 6, dim=64, hidden=32, rank=2)]
    engine = Engine(bundles[0])
    policy, terms = engine.policy(tau=0.3, exclude=["beta/mid"]), {"tau": 0.6, "rule": "max"}
    kept = engine.encode(PROMPTS)
    calls = [
        lambda on: [on.route(prompt, policy) for prompt in PROMPTS],
        lambda on: [on.route(prompt, **terms) for prompt in PROMPTS],
        lambda on: list(on.route_many(PROMPTS, policy)),
        lambda on: [on.route(CHAT, policy)],
        lambda on: list(on.decide(kept, policy)),
    ]
    references = [Engine(bundle) for bundle in bundles]
    expected = {one.bundle.hash: [[bits(d) for d in call(one)] for call in calls] for one in references}
    asked, answered, hashes, wrong = [0] * THREADS, [0] * THREADS, [set() for _ in range(THREADS)], []
    done = threading.Event()

    def work(thread):
        turn = thread
        while not done.is_set():
            turn = (turn + 1) % len(calls)
            asked[thread] += 1
            try:
                decisions = calls[turn](engine)
                for row, decision in enumerate(decisions):
                    if bits(decision) != expected[decision.bundle_hash][turn][row]:
                        wrong.append(bits(decision))
                    hashes[thread].add(decision.bundle_hash)
                answered[thread] += len(decisions) == len(expected[bundles[0].hash][turn])
            except Exception as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(2e-5)  # so that threads change in the middle of calls, hundreds of times a bundle
    generations = []
    try:
        for thread in threads:
            thread.start()
        for swap in range(swaps):
            generations.append(weakref.ref(engine.loaded))
            engine.swap(bundles[(swap + 1) % len(bundles)])
            begun = sum(answered) + THREADS  # at most so many calls are of bundles before; the next one is of this
            while swap % 7 == 0 and sum(answered) <= begun and not wrong:
                time.sleep(0)
            if swap == swaps // 5:
                before = resident_mb()
        grown = resident_mb() - before
    finally:
        done.set()
        sys.setswitchinterval(interval)
        for thread in threads:
            thread.join()
    assert not wrong
    assert answered == asked
    assert sum(answered) >= swaps
    assert set.union(*hashes) == {bundle.hash for bundle in bundles}
    assert not any(ref() for ref in generations)
    assert grown < 8, f"{grown:.1f} MB more after {swaps} swaps"


def test_threads_may_swap_at_the_same_time(siblings):
    engine, errors = Engine(siblings[0]), []

    def work(thread):
        try:
            for turn in range(50):
                engine.swap(siblings[(thread + turn) % len(siblings)])
                engine.route("why", tau=0.1)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert bits(engine.route("why", tau=0.1)) == bits(Engine(engine.bundle).route("why", tau=0.1))


def test_new_prices_are_one_swap_away(siblings, tmp_path):
    engine = Engine(siblings[0])
    cheap = engine.route("why", tau=1.0).model
    prices = {name: Price(input_usd_per_1m=1, output_usd_per_1m=1, basis="test") for name in engine.bundle.names}
    prices[cheap] = Price(input_usd_per_1m=500, output_usd_per_1m=500, basis="test")
    engine.swap(with_prices(engine.bundle, PriceList(date="2026-11-24", prices=prices), root=tmp_path))
    assert engine.route("why", tau=1.0).model != cheap
