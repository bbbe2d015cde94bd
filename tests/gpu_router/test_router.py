"""Engine(device="cuda"): text to decision in one recording. Emulated where there is no GPU: the same steps on the CPU.

Encoder and decision differ from the CPU's in the last bits alone: `QUALITY` bounds what that does to a quality here, and a
choice may differ only where the CPU's gap is below what two of them can do.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine import _profiling as profiling
from ipr_engine.bundle import Bundle, BundleParts, Price, PriceTier, with_prices, write_bundle
from ipr_engine.bundle.two_tiers import two_tiers
from ipr_engine.decide.contract import STATUS
from ipr_engine.errors import InvalidInputError, RowError
from ipr_engine.gpu_router.route_rows import RouteRows
from ipr_engine.gpu_router.router import GpuRouter
from ipr_engine.request.route_request import RouteRequest
from tests.support import decide_implementations  # before anything that imports triton
from tests.support.bundles import bundle_parts
from tests.support.gpu_engines import DEVICE, POLICIES, PROMPTS, cpu_engine, gpu_engine, make_bundle, random_prompts
from tests.support.path_rows import make_rows, with_rows

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter

# emulated: float32 throughout, sums in another order. On a GPU: float16 states of two layers, heads of weights below 2; twice
# what the eager tier in float16 on a CPU shows beside float32, over 300 prompts.
QUALITY = 4e-3 if decide_implementations.ON_DEVICE else 2e-5


def assert_same(got, want):
    """Two Decisions of one policy, the first by the GPU path: the same up to QUALITY, flips only where the gap is small."""
    np.testing.assert_allclose(got.qualities, want.qualities, atol=QUALITY)
    np.testing.assert_allclose(got.tokens_out, want.tokens_out, rtol=20 * QUALITY)
    np.testing.assert_allclose(got.costs_usd, want.costs_usd, rtol=20 * QUALITY, atol=1e-12)
    np.testing.assert_array_equal(got.status, want.status)
    np.testing.assert_array_equal(got.billed_tokens, want.billed_tokens)
    np.testing.assert_array_equal(got.truncated, want.truncated)
    sure = ~(np.nan_to_num(want.gap) < 4 * QUALITY) & (want.status == 0)
    np.testing.assert_array_equal(got.index[sure], want.index[sure])
    np.testing.assert_array_equal(got.cause[sure], want.cause[sure])
    np.testing.assert_allclose(got.threshold[sure], want.threshold[sure], atol=2 * QUALITY)
    ordered = sure & ~near_tie(want)
    np.testing.assert_allclose(got.gap[ordered], want.gap[ordered], rtol=1e-2, atol=4 * QUALITY)
    assert sure.mean() > 0.5 or not len(sure)


def near_tie(want):
    """Rows in which another candidate's objective may be on the other side of the choice's on the GPU: gap jumps there."""
    worth, costs = want.policy.worth, want.costs_usd
    chosen = np.maximum(want.index, 0)[:, None]
    objective = costs - worth * want.qualities
    near = 8 * QUALITY * np.maximum(costs, np.take_along_axis(costs, chosen, axis=1)) + 2 * worth * QUALITY
    return (np.abs(objective - np.take_along_axis(objective, chosen, axis=1)) < near).sum(axis=1) > 1


@pytest.mark.parametrize("terms", POLICIES, ids=str)
def test_decisions_equal_the_cpus_where_the_gap_exceeds_the_error(engine, cpu, rng, terms):
    prompts = [*PROMPTS, *random_prompts(rng, 4)]
    assert_same(engine.route_many(prompts, **terms), cpu.route_many(prompts, **terms))


def test_rule_path_is_a_row_of_the_policies_like_any_other(folder, cpu, rng):
    here, bundle = gpu_engine(folder, batches=(1,)), with_rows(cpu.bundle, make_rows(cpu, 60))
    here.swap(bundle)
    there = cpu_engine(folder)
    there.swap(bundle)
    policy = there.policy(tau=0.3)
    assert policy.rule == "path"
    assert here.policy(tau=0.3) == policy
    prompts = random_prompts(rng, 3)
    assert_same(here.route_many(prompts, policy), there.route_many(prompts, policy))


def test_one_prompt_gives_one_decision_and_chat_is_billed_whole(engine, cpu):
    got, want = (one.route("what is the story", tau=0.3) for one in (engine, cpu))
    assert (got.model, got.cause, got.billed_tokens) == (want.model, want.cause, want.billed_tokens)
    assert got.to_dict().keys() == want.to_dict().keys()
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "why"}]
    assert engine.route(chat, tau=0.3).billed_tokens == cpu.route(chat, tau=0.3).billed_tokens
    assert engine.explain("why", tau=0.3).decision.model == cpu.route("why", tau=0.3).model


def test_given_tokens_bills_and_extra_costs_reach_the_device(engine, cpu, rng):
    prompts = random_prompts(rng, 5)
    given = {
        "billed_tokens": [10, 400, 3, 70, 9],
        "tokens_out": rng.integers(1, 900, (5, 5)),
        "extra_usd": rng.normal(0, 1e-3, (5, 5)),
    }
    assert_same(engine.route_many(prompts, tau=0.3, **given), cpu.route_many(prompts, tau=0.3, **given))
    assert_same(engine.route_many(prompts, tau=0.3, tokens_out=250), cpu.route_many(prompts, tau=0.3, tokens_out=250))
    told = {"tokens_in": [{cpu.bundle.names[1]: 900}, None, dict.fromkeys(cpu.bundle.names, 70.5), {}, None]}
    got, want = (one.route_many(prompts, tau=0.3, **told) for one in (engine, cpu))
    assert_same(got, want)
    np.testing.assert_array_equal(got.own_tokens, want.own_tokens)
    assert got.moved == want.moved == (("tokens_in",), (), ("tokens_in",), (), ())
    bad = engine.route_many([prompts[0], "", prompts[2]], tau=0.3, tokens_in=[None, None, {cpu.bundle.names[0]: 7}],
                            on_error="status")  # fmt: skip
    assert bad.own_tokens[2, 0] == 7
    assert_same(
        engine.route_many(prompts, tau=0.3), cpu.route_many(prompts, tau=0.3)
    )  # nothing of the last request is left


def test_tiers_caches_and_several_answers_are_billed_as_on_the_cpu(engine, cpu, rng):
    tier = PriceTier(above_tokens=30, input_usd_per_1m=40.0, output_usd_per_1m=80.0)
    price = Price(input_usd_per_1m=2.0, output_usd_per_1m=8.0, basis="t", tiers=(tier,), cached_read_usd_per_1m=0.5)
    terms = {"tau": 0.3, "rule": "minmax", "prices": {cpu.bundle.names[m]: price for m in (0, 2, 3)}}
    prompts = [{"prompt": text, "n": n} for text, n in zip(random_prompts(rng, 5), (1, 3, 1, 2, 1), strict=True)]
    given = {"billed_tokens": [10, 400, 30, 31, 9], "cached_tokens": [5, 0, 300, 20, 1]}
    want = cpu.route_many(prompts, **terms, **given)
    assert_same(engine.route_many(prompts, **terms, **given), want)
    assert want.costs_usd[1, 0] > 10 * want.costs_usd[2, 0]


def test_a_prompt_over_a_context_window_excludes_that_candidate(engine, cpu):
    bills = [5, 9000, 10**6]
    policy = engine.policy(tau=0.2)
    got, want = (one.route_many(["why"] * 3, tau=0.2, billed_tokens=bills, on_error="status") for one in (engine, cpu))
    assert_same(got, want)
    limited = [c.name for c in engine.bundle.candidates if c.context_window is not None]
    only = engine.policy(tau=0.2, allowed=limited[:1])
    with pytest.raises(RowError, match="row 1: none_allowed"):
        engine.route_many(["why"] * 2, only, billed_tokens=[5, 10**7])
    statuses = engine.route_many(["why"] * 2, only, billed_tokens=[5, 10**7], on_error="status").status
    assert [STATUS[s] for s in statuses] == ["ok", "none_allowed"]
    assert policy.allowed == tuple(c.name for c in engine.bundle.candidates)


def test_what_a_request_asks_for_keeps_out_the_same_candidates(engine, cpu):
    user = {"role": "user", "content": "what is the story"}
    requests = [
        "why",
        {"messages": [user], "max_tokens": 9000},
        {"messages": [user], "max_tokens": 3, "tools": [{"name": "add"}]},
        [user, {"role": "assistant", "content": [{"type": "tool_use", "name": "f", "input": {}}]}, user],
        ["a list is no prompt"],
    ]
    got, want = (one.route_many(requests[:4], tau=0.4) for one in (engine, cpu))
    assert_same(got, want)
    assert [row.excluded.keys() for row in got] == [row.excluded.keys() for row in want]
    assert got[2].excluded
    assert got.tokens_out[2].max() <= 3
    kept = engine.route_many([*requests, ""], tau=0.4, on_error="status")
    assert [row.status for row in kept] == ["ok"] * 4 + ["invalid_input"] * 2
    for row, alone in zip(kept[:4], got, strict=True):
        assert row.qualities.tobytes() == alone.qualities.tobytes()
        assert (row.model, row.excluded) == (alone.model, alone.excluded)
    image = [{"role": "user", "content": [{"type": "image_url"}]}]
    assert engine.route(image, tau=0.4, billed_tokens=9).model == cpu.route(image, tau=0.4, billed_tokens=9).model


@pytest.mark.parametrize("given", [np.nan, np.inf, 1e5])
def test_given_output_that_is_not_finite_or_fits_nobody_ends_as_on_the_cpu(engine, cpu, given):
    own = np.full((2, 5), 10.0, np.float32)
    own[1] = given
    got, want = (one.route_many(["why", "how"], tau=0.4, tokens_out=own, on_error="status") for one in (engine, cpu))
    assert [row.status for row in got] == [row.status for row in want]
    assert [row.excluded.keys() for row in got] == [row.excluded.keys() for row in want]


@pytest.fixture(scope="module")
def supported(root, export):
    """Both engines of a bundle that tells support."""
    folder = make_bundle(root, export, name="support", support=True)
    return gpu_engine(folder, batches=(4,)), cpu_engine(folder)


@pytest.mark.parametrize("to", ["cheapest", "alpha/large", "gamma/small"])
def test_prompts_of_little_support_go_where_the_policy_says_as_on_the_cpu(supported, to):
    user = {"role": "user", "content": "what is the story"}
    requests = [
        "why",
        "how to code",
        {"messages": [user], "max_tokens": 9000},
        {"messages": [user], "tools": [{"name": "f"}]},
    ]
    terms = {"tau": 0.3, "min_support": 1.0, "unsupported": to}
    bills = [5, 12000, 7, 9]
    got, want = (one.route_many(requests, billed_tokens=bills, **terms) for one in supported)
    assert {row.cause for row in want} == {"unsupported"}
    assert any(np.isinf(row.gap) for row in want)
    for ours, theirs in zip(got, want, strict=True):
        assert (ours.cause, ours.excluded.keys()) == (theirs.cause, theirs.excluded.keys())
        if np.isinf(theirs.gap) or theirs.gap > 4 * QUALITY:
            assert (ours.model, np.isinf(ours.gap)) == (theirs.model, np.isinf(theirs.gap))


def test_support_is_the_one_the_cpu_computes_of_the_same_embedding(supported):
    got, want = (one.route_many(PROMPTS, tau=0.3) for one in supported)
    assert want.support is not None
    np.testing.assert_allclose(got.support, want.support, atol=1e-4 if DEVICE == "emulated" else 2e-2)


def test_kept_embeddings_are_decided_on_the_cpu(engine, cpu):
    encoded = engine.encode(PROMPTS)
    got = engine.decide(encoded, tau=0.3)
    np.testing.assert_array_equal(got.qualities, cpu.decide(encoded, tau=0.3).qualities)


@pytest.mark.parametrize("pooling", ["fused", "apart"])
def test_pooling_in_the_kernel_and_before_it_agree(engine, cpu, pooling):
    plan = engine.loaded.gpu
    router = GpuRouter(plan.stream, plan.heads, pooling=pooling)
    assert router.fused == (pooling == "fused")
    policy = engine.policy(tau=0.3)
    ids, billed, _ = plan.stream.read(PROMPTS)
    result, x = router.route(plan.heads, policy, RouteRows(ids=ids, billed=billed))
    want = cpu.route_many(PROMPTS, tau=0.3)
    np.testing.assert_allclose(x, cpu.encode(PROMPTS).x, atol=QUALITY)
    np.testing.assert_allclose(result.quality, want.qualities, atol=QUALITY)


def test_more_policies_than_rows_are_served_each_with_its_own(root, export, cpu, monkeypatch):
    monkeypatch.setattr("ipr_engine.gpu_router.router.POLICY_ROWS", 3)
    folder = make_bundle(root, export, name="rows")
    engine, cpu = gpu_engine(folder, batches=(1,)), cpu_engine(folder)
    policies = [engine.policy(tau=tau, worth=0.001) for tau in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for at in (0, 1, 2, 0, 3, 0, 1, 4, 2):
        got, want = engine.route("why", policies[at]), cpu.route("why", tau=policies[at].tau, worth=0.001)
        assert got.threshold == pytest.approx(want.threshold, abs=2 * QUALITY)


def test_a_policy_that_is_not_packed_takes_nobodys_row(root, export, monkeypatch):
    monkeypatch.setattr("ipr_engine.gpu_router.router.POLICY_ROWS", 2)
    engine = gpu_engine(make_bundle(root, export, name="packed"), batches=(1,))
    heads, policies = engine.loaded.gpu.heads, [engine.policy(tau=tau) for tau in (0.0, 1.0, 0.5)]

    def interrupted(**_):
        raise KeyboardInterrupt

    want = [engine.route("why", policy).threshold for policy in policies[:2]]
    with monkeypatch.context() as patch:
        patch.setattr(heads.plan, "pack_policy", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.route("why", policies[2])
    engine.route("why", policies[2])
    assert [engine.route("why", policy).threshold for policy in policies[:2]] == want
    assert [engine.route("why", policy).threshold for policy in policies[:2]] == want


def interrupt(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("at", ["packed", "written"])
def test_a_policy_that_was_interrupted_takes_no_row_of_another(root, export, monkeypatch, at):
    monkeypatch.setattr("ipr_engine.gpu_router.router.POLICY_ROWS", 3)
    engine = gpu_engine(make_bundle(root, export, name="rows"), batches=(1,))
    heads, live = engine.loaded.gpu.heads, engine.loaded.gpu.router.live
    policies = [engine.policy(tau=0.4, worth=worth) for worth in (0, 0.001, 0.01, 0.1, 1)]
    for policy in policies[:3]:
        engine.route("why", policy)
    with monkeypatch.context() as patch:
        if at == "packed":
            patch.setattr(type(heads.plan), "pack_policy", interrupt)
        else:
            patch.setattr(heads.plan, "policies", type("Rows", (), {"__getitem__": interrupt})())
        with pytest.raises(KeyboardInterrupt):
            heads.row_of(policies[3], live)
    for policy in (*policies[3:], *policies):
        engine.route("why", policy)
        rows = [row for row in map(heads.row_at_hand, policies) if row is not None]
        assert len(set(rows)) == len(rows) <= 3


def test_heads_whose_loading_was_interrupted_are_loaded_again(root, export, folder, monkeypatch):
    engine = gpu_engine(folder, batches=(1,))
    policy = engine.policy(tau=0.3)
    want = engine.route("why", policy)
    old, router = engine.loaded, engine.loaded.gpu.router
    engine.swap(make_bundle(root, export, name="half", models=5, hidden=8, rank=2, seed=11))
    assert engine.loaded.gpu.router is router
    heads = engine.loaded.gpu.heads

    class Interrupted:
        def __getattr__(self, name):
            return interrupt() if name == "vectors" else getattr(plan, name)

    plan = heads.plan
    with monkeypatch.context() as patch:
        patch.setattr(heads, "plan", Interrupted())
        with pytest.raises(KeyboardInterrupt):
            engine.route("why", tau=0.3)
    again = old.route(RouteRequest("why", old.resolve(policy)))[0]
    np.testing.assert_array_equal(again.qualities, want.qualities)


def test_new_prices_and_exclusions_are_a_policy_and_need_no_recording(engine, cpu):
    terms = {"tau": 0.6, "prices": {engine.bundle.names[0]: (0.01, 0.01)}, "exclude": [engine.bundle.names[1]]}
    recorded = engine.loaded.gpu.router
    assert_same(engine.route_many(PROMPTS, **terms), cpu.route_many(PROMPTS, **terms))
    assert engine.loaded.gpu.router is recorded


def test_a_swap_to_heads_of_the_same_form_records_nothing_and_the_old_ones_still_answer(root, export, folder):
    engine = gpu_engine(folder, batches=(1,))
    other = make_bundle(root, export, name="two", models=5, hidden=8, rank=2, seed=9)
    old, router = engine.loaded, engine.loaded.gpu.router
    policy = engine.policy(tau=0.3)
    before = engine.route("why", policy)
    engine.swap(other)
    assert engine.loaded.gpu.router is router
    after = engine.route("why", policy)
    assert after.bundle_hash == other.name != before.bundle_hash
    np.testing.assert_allclose(after.qualities, cpu_engine(other).route("why", tau=0.3).qualities, atol=QUALITY)
    again = old.route(RouteRequest("why", old.resolve(policy)))[0]  # a call that began before the swap
    np.testing.assert_array_equal(again.qualities, before.qualities)
    np.testing.assert_array_equal(engine.route("why", policy).qualities, after.qualities)


def test_a_swap_to_another_form_records_anew(root, export, folder):
    engine = gpu_engine(folder, batches=(1,))
    router = engine.loaded.gpu.router
    wider = make_bundle(root, export, name="wide", models=5, hidden=24)
    engine.swap(wider)
    assert engine.loaded.gpu.router is not router
    assert_same(engine.route_many(PROMPTS, tau=0.3), cpu_engine(wider).route_many(PROMPTS, tau=0.3))


def test_new_prices_in_a_bundle_take_effect(tmp_path, folder):
    engine = gpu_engine(folder, batches=(1,))
    prices = {
        name: Price(input_usd_per_1m=1.0, output_usd_per_1m=2.0, fixed_usd=0.0, basis="made up")
        for name in engine.bundle.names
    }
    bundle = Bundle.load(folder)
    cheap = with_prices(bundle, replace(bundle.prices, date="2027-01-01", prices=prices), root=tmp_path)
    engine.swap(cheap)
    np.testing.assert_allclose(
        engine.route("why", tau=0.3).costs_usd, cpu_engine(cheap).route("why", tau=0.3).costs_usd, rtol=20 * QUALITY
    )


def test_threads_get_their_own_answers_while_bundles_are_swapped(root, export, folder):
    engine = gpu_engine(folder, batches=(1,))
    other = make_bundle(root, export, name="three", models=5, hidden=8, rank=2, seed=4)
    want = {f.name: cpu_engine(f).route("why", tau=0.3).qualities for f in (folder, other)}
    wrong, stop = [], threading.Event()

    def ask():
        while not stop.is_set():
            decision = engine.route("why", tau=0.3)
            if np.abs(decision.qualities - want[decision.bundle_hash]).max() > QUALITY:
                wrong.append(decision.bundle_hash)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for to in (other, folder, other, folder):
        engine.swap(to)
        engine.route("why", tau=0.3)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_no_gpu_serves_is_refused_at_load(folder):
    with pytest.raises(InvalidInputError, match=r"device: the heads read a table .* expected 'cpu'"):
        Engine.load(device=DEVICE)
    with pytest.raises(InvalidInputError, match="fallback: expected None, or 'cpu' beside a device of CUDA"):
        Engine.load(folder, fallback="cpu")
    with pytest.raises(InvalidInputError, match="fallback"):
        gpu_engine(folder, fallback="gpu")


def test_a_bundle_of_two_tiers_runs_its_transformer_on_the_device_and_decides_on_the_cpu(tmp_path, export):
    table = bundle_parts(tmp_path / "table", models=3, support=False)
    first = Bundle.load(write_bundle(tmp_path / "first", BundleParts(**table)))
    second = Bundle.load(make_bundle(tmp_path, export))
    folder = two_tiers(first, second, gap=0.5, root=tmp_path / "joined", provenance={})
    engine, cpu = gpu_engine(folder, batches=(4,)), cpu_engine(folder)
    assert engine.loaded.gpu is None
    assert "torch" in repr(engine)
    got, want = (one.route_many(PROMPTS, tau=0.3, escalate_below=np.inf) for one in (engine, cpu))
    assert_same(got, want)


def test_bad_input_is_refused_before_the_device_is_asked(engine, tmp_path, export):
    with pytest.raises(InvalidInputError, match=r"prompts\[1\]: expected text"):
        engine.route_many(["why", ""], tau=0.3)
    with pytest.raises(InvalidInputError, match="tokens_out: expected values >= 0"):
        engine.route("why", tau=0.3, tokens_out=-1)
    silent = gpu_engine(make_bundle(tmp_path, export, tokens=False), batches=(1,))
    with pytest.raises(InvalidInputError, match=r"tokens_out: .* predict no tokens"):
        silent.route("why", tau=0.3)
    assert silent.route("why", tau=0.3, tokens_out=100).status == "ok"


def test_repr_says_where_the_decision_is_made(engine):
    assert "route=Triton" in repr(engine)
    assert "buckets to 4 x 48" in repr(engine)


def test_ranges_have_the_names_of_the_benchmarks_columns(engine, monkeypatch):
    seen = []

    class Told:
        @staticmethod
        @contextmanager
        def range(name):
            seen.append(name)
            yield

    monkeypatch.setattr(profiling, "_nvtx", Told)
    engine.route("why", tau=0.3)
    inside = ["encode", "decide"] if DEVICE == "emulated" else []  # those of a graph were marked at its capture
    assert seen == ["tokenize", "copy", *inside]
    assert set(profiling.NAMES) == {"tokenize", "copy", "encode", "decide"}
