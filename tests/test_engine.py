"""The engine: one call from a prompt to a decision, on a generated bundle."""

import dataclasses
import pickle
import threading

import numpy as np
import pytest

from ipr_engine import _C, Bundle, Decision, Decisions, Engine, InvalidInputError, IprError, Price, RowError
from ipr_engine.decide import reference
from ipr_engine.decide.contract import Heads
from ipr_engine.errors import BackendUnavailableError, EncoderMismatchError
from tests.support.bundles import make_bundle

PROMPTS = [
    "what is the sum of two and two",
    "write a short poem about the sea",
    "Explain quicksort, please!",
    "?",
    "naïve café 你好 мир",
    "a b c d e f g h i j k l m n o p " * 50,
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), models=5, dim=16)


@pytest.fixture(scope="module")
def engine(root):
    return Engine.load(root)


def same_bytes(a, b):
    return all(
        getattr(a, name).tobytes() == getattr(b, name).tobytes()
        for name in ("index", "qualities", "costs_usd", "tokens_out", "threshold", "gap", "status", "cause")
    )


def test_one_prompt_gives_a_decision_and_a_list_gives_decisions(engine):
    assert isinstance(engine.route(PROMPTS[0], tau=0.1), Decision)
    routed = engine.route_many(PROMPTS, tau=0.1)
    assert isinstance(routed, Decisions)
    assert len(routed) == len(PROMPTS)
    assert routed.models == [d.model for d in routed]
    assert routed.to_dicts()[0] == routed[0].to_dict()


def test_an_empty_batch_gives_no_decisions(engine):
    assert len(engine.route_many([], tau=0.1)) == 0


@pytest.mark.parametrize("row", range(len(PROMPTS)))
def test_a_row_of_a_batch_equals_that_prompt_alone(engine, row):
    alone, batch = engine.route(PROMPTS[row], tau=0.2), engine.route_many(PROMPTS, tau=0.2)[row]
    assert alone.qualities.tobytes() == batch.qualities.tobytes()
    assert alone.costs_usd.tobytes() == batch.costs_usd.tobytes()
    assert (alone.model, alone.cause, alone.support, alone.billed_tokens, alone.truncated) == (
        batch.model,
        batch.cause,
        batch.support,
        batch.billed_tokens,
        batch.truncated,
    )


def test_routing_equals_encoding_then_deciding(engine):
    policy = engine.policy(tau=0.3)
    assert same_bytes(engine.route_many(PROMPTS, policy), engine.decide(engine.encode(PROMPTS), policy))


def test_the_decision_equals_the_reference(engine):
    policy = engine.policy(tau=0.3, worth=0.001)
    encoded, routed = engine.encode(PROMPTS), engine.route_many(PROMPTS, policy)
    spec = engine.bundle.quality_heads
    heads = Heads(**spec.tensors, activation=spec.activation, tie_rank=engine.bundle.tie_rank)
    prices = [policy.prices.prices[name] for name in engine.bundle.names]
    ratios = np.array([candidate.token_ratio for candidate in engine.bundle.candidates])
    terms = {
        **dataclasses.asdict(policy.coefficients),
        "worth": policy.worth,
        "in_rate": np.array([price.input_usd_per_1m for price in prices]) * ratios / 1e6,
        "out_rate": np.array([price.output_usd_per_1m for price in prices]) / 1e6,
        "fixed_usd": np.array([price.fixed_usd for price in prices]),
        "allowed": np.ones(len(prices), np.bool_),
    }
    expected = reference.decide(heads, terms, encoded.x, encoded.billed_tokens)
    np.testing.assert_allclose(routed.qualities, expected.quality, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(routed.costs_usd, expected.cost_usd, rtol=1e-5)
    certain = [row for row, answer in enumerate(expected.rows) if answer.gap > 1e-4]
    assert len(certain) >= len(PROMPTS) // 2
    for row in certain:
        assert (routed[row].index, routed[row].cause) == (expected.rows[row].index, expected.rows[row].cause)


@pytest.mark.parametrize("isa", ["scalar", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_bytes(root, engine, isa):
    try:
        forced = Engine.load(root, isa=isa)
    except BackendUnavailableError:
        pytest.skip(f"machine lacks {isa}")
    assert same_bytes(forced.route_many(PROMPTS, tau=0.2), engine.route_many(PROMPTS, tau=0.2))
    assert isa in repr(forced)


def test_tau_zero_takes_the_best_and_tau_one_the_cheapest(engine):
    best, cheapest = engine.route_many(PROMPTS, tau=0.0), engine.route_many(PROMPTS, tau=1.0)
    assert (best.quality == best.qualities.max(axis=1)).all()
    assert (cheapest.cost_usd == cheapest.costs_usd.min(axis=1)).all()


def test_the_frontier_is_where_the_choice_changes(engine):
    for rule in ("minmax", "max", "fixed"):
        for prompt in PROMPTS[:3]:
            steps = engine.route(prompt, tau=0.5, rule=rule).frontier
            assert steps[0].tau == 0.0
            for before, step in zip(steps, steps[1:], strict=False):
                just_below = float(np.nextafter(np.float32(step.tau), np.float32(0)))
                assert engine.route(prompt, tau=step.tau, rule=rule).model == step.model
                assert engine.route(prompt, tau=just_below, rule=rule).model == before.model


@pytest.mark.parametrize(
    "terms", [{"tau": 0.0}, {"tau": 0.3}, {"tau": 0.6, "worth": 0.0001}, {"tau": 0.2, "rule": "max"}]
)
def test_ranked_names_who_is_chosen_when_those_before_are_away(engine, terms):
    for prompt in PROMPTS[:3]:
        ranked = engine.route(prompt, **terms).ranked
        assert sorted(ranked) == sorted(engine.bundle.names)
        for away in range(len(ranked)):
            assert engine.route(prompt, **terms, exclude=list(ranked[:away])).model == ranked[away]


def test_feasible_names_who_reaches_the_threshold_by_objective(engine):
    decision = engine.route(PROMPTS[0], tau=0.8, worth=0.0001)
    at = [engine.bundle.names.index(name) for name in decision.feasible]
    assert decision.feasible[0] == decision.model
    assert set(at) == set(np.flatnonzero(decision.qualities >= np.float32(decision.threshold)))
    objective = decision.costs_usd - np.float32(0.0001) * decision.qualities
    assert (np.diff(objective[at]) >= 0).all()


def test_masks_keep_candidates_out_and_say_why(engine):
    names = engine.bundle.names
    family = engine.bundle.candidates[0].family
    policy = engine.policy(tau=1.0, family=family)
    assert set(policy.exclusions.values()) <= {f"family is {c.family}" for c in engine.bundle.candidates}
    decision = engine.route(PROMPTS[0], policy)
    assert engine.bundle.candidates[decision.index].family == family
    only = engine.route(PROMPTS[0], tau=0.0, allowed=[names[-1]])
    assert (only.model, only.cause) == (names[-1], "only_allowed")


def test_a_prompt_longer_than_a_context_window_excludes_the_candidate(tmp_path):
    engine = Engine.load(make_bundle(tmp_path, models=3, dim=16, context_windows=[8, None, 100000]))
    short, long = (engine.route(text, tau=0.0, tokens_out=2) for text in ("a b c", "a b c d e f g h i j"))
    assert short.allowed.tolist() == [True, True, True]
    assert long.allowed.tolist() == [False, True, True]
    assert "context window of 8" in long.candidates[0].excluded_because
    prompts = ["a b c", "a b c d e f g h i j"]
    with pytest.raises(RowError, match="row 1: none_allowed"):
        engine.route_many(prompts, tau=0.0, allowed=[engine.bundle.names[0]], tokens_out=2)
    kept = engine.route_many(prompts, tau=0.0, allowed=[engine.bundle.names[0]], tokens_out=2, on_error="status")
    assert kept.models == [engine.bundle.names[0], None]
    assert kept[1].status == "none_allowed"
    assert kept[1].ranked == ()
    assert kept[1].frontier == ()


def test_prices_can_be_replaced_for_one_policy(engine):
    cheapest = engine.route(PROMPTS[0], tau=1.0).model
    dear = engine.policy(tau=1.0, prices={cheapest: (1000.0, 1000.0)})
    assert engine.route(PROMPTS[0], dear).model != cheapest
    assert engine.route(PROMPTS[0], tau=1.0).model == cheapest


def test_chat_messages_bill_every_text_and_encode_the_users(engine):
    text = "what is the sum of two and two"
    chat = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    plain, decision = engine.route(text, tau=0.1), engine.route(chat, tau=0.1)
    assert decision.qualities.tobytes() == plain.qualities.tobytes()
    assert decision.billed_tokens == plain.billed_tokens + engine.encoder.count_tokens("be brief")
    assert (decision.costs_usd >= plain.costs_usd).all()


def test_tokens_out_and_extra_costs_enter_the_cost(engine):
    base = engine.route_many(PROMPTS[:2], tau=0.1, tokens_out=100)
    twice = engine.route_many(PROMPTS[:2], tau=0.1, tokens_out=200)
    assert (twice.costs_usd >= base.costs_usd).all()
    assert (twice.tokens_out == 200).all()
    extra = np.zeros((2, len(engine.bundle.names)), np.float32)
    extra[:, 0] = 5.0
    assert (engine.route_many(PROMPTS[:2], tau=0.1, tokens_out=100, extra_usd=extra).costs_usd[:, 0] >= 5.0).all()


def test_explain_shows_everyone(engine):
    explanation = engine.explain(PROMPTS[0], tau=0.4, allowed=engine.bundle.names[:3])
    states = {view.name: explanation.state(view) for view in explanation.candidates}
    assert list(states.values()).count("chosen") == 1
    assert states[engine.bundle.names[4]] == "not in allowed"
    assert all(name in str(explanation) for name in engine.bundle.names)
    assert explanation.to_dict()["decision"]["model"] == explanation.decision.model


def test_support_is_a_share_and_falls_away_from_the_fitting_data(engine):
    centroid = engine.bundle.support.centroids[0]
    inside, outside = engine.decide(np.stack([centroid, centroid + 100]), tau=0.1, billed_tokens=5)
    assert inside.support > 0.99
    assert outside.support == 0.0


def test_concurrent_calls_give_the_same_bytes(engine):
    expected = engine.route_many(PROMPTS, tau=0.2)
    wrong = []

    def work():
        for _ in range(200):
            if not same_bytes(engine.route_many(PROMPTS, tau=0.2), expected):
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_repr_tells_what_was_chosen(engine):
    assert "5 candidates" in repr(engine)
    assert "widest here" in repr(engine)
    assert "tau=0.1" in repr(engine.policy(tau=0.1))


def test_a_prompt_of_unknown_tokens_has_no_support(engine):
    assert engine.route("你好", tau=0.1).support == 0.0
    assert engine.decide(engine.encode(["你好"]), tau=0.1)[0].support == 0.0


def test_a_word_too_long_for_the_vocabulary_is_billed_by_its_bytes(engine):
    blob = "a" * 4000
    for decision in (
        engine.route(blob, tau=0.1),
        engine.route_many([blob, blob], tau=0.1)[1],
        engine.decide(engine.encode([blob]), tau=0.1)[0],
    ):
        assert decision.billed_tokens == 500
    system = [{"role": "system", "content": blob}, {"role": "user", "content": "a b"}]
    assert engine.route(system, tau=0.1).billed_tokens == 502


def test_names_are_found_whatever_their_case(engine):
    candidate = engine.bundle.candidates[1]
    assert engine.route("a", tau=0.1, allowed=[candidate.name.upper()]).model == candidate.name
    assert engine.policy(tau=0.1, family=candidate.family.upper()).allowed == (candidate.name,)


def test_policies_of_equal_terms_are_equal_and_hash_alike(engine):
    one, same, other = (engine.policy(tau=tau, allowed=engine.bundle.names[:2]) for tau in (0.1, 0.1, 0.2))
    assert one == same
    assert len({one, same, other}) == 2


def test_a_price_may_be_given_as_in_the_price_file(engine):
    name = engine.bundle.names[0]
    forms = [
        (1.0, 2.0),
        {"input_usd_per_1m": 1.0, "output_usd_per_1m": 2.0},
        Price(input_usd_per_1m=1, output_usd_per_1m=2, basis=""),
    ]
    costs = {engine.route("a b", tau=0.1, prices={name: form}).costs_usd.tobytes() for form in forms}
    assert len(costs) == 1


def test_encoded_rows_can_be_taken_apart(engine):
    encoded = engine.encode(PROMPTS)
    assert len(encoded) == len(PROMPTS)
    assert engine.decide(encoded[2:4], tau=0.1).models == engine.route_many(PROMPTS[2:4], tau=0.1).models


def test_explaining_a_decision_takes_no_other_terms(engine):
    decision = engine.route("why", tau=0.1)
    with pytest.raises(InvalidInputError, match="explained under the policy it was made with"):
        engine.explain(decision, tau=0.2)


def test_a_row_error_can_be_pickled():
    error = pickle.loads(pickle.dumps(RowError([1, 4], ["none_allowed", "nonfinite_cost"])))
    assert (error.rows, error.reasons) == ((1, 4), ("none_allowed", "nonfinite_cost"))


def test_an_engine_takes_a_bundle_not_a_path(root):
    with pytest.raises(InvalidInputError, match=r"bundle: expected a Bundle, got str; Engine.load\(path\)"):
        Engine(str(root))


def test_embeddings_of_the_wrong_width_or_without_a_bill_are_refused(engine):
    with pytest.raises(InvalidInputError, match="x: expected"):
        engine.decide(np.zeros((2, 17), np.float32), tau=0.1, billed_tokens=[1, 2])
    with pytest.raises(InvalidInputError, match="billed_tokens: needed"):
        engine.decide(np.zeros((2, 16), np.float32), tau=0.1)
    with pytest.raises(InvalidInputError, match="billed_tokens"):
        engine.decide(np.zeros((2, 16), np.float32), tau=0.1, billed_tokens=[1, 2, 3])


def test_a_row_that_is_not_finite_fails_alone(engine):
    x = engine.encode(PROMPTS[:3]).x.copy()
    x[1, 0] = np.nan
    with pytest.raises(RowError, match="row 1: nonfinite_quality") as caught:
        engine.decide(x, tau=0.1, billed_tokens=[5, 5, 5])
    assert caught.value.rows == (1,)
    kept = engine.decide(x, tau=0.1, billed_tokens=[5, 5, 5], on_error="status")
    assert [d.status for d in kept] == ["ok", "nonfinite_quality", "ok"]
    assert np.isnan(kept.quality[1])
    assert kept[1].to_dict()["quality"] is None


def test_an_encoder_that_changed_after_verification_is_refused(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path, models=3, dim=16))
    table = bundle.encoders[0].files["table"]
    table.chmod(0o644)
    table.write_bytes(table.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(EncoderMismatchError, match="changed after the bundle was verified"):
        Engine(bundle)


def test_support_measured_on_another_encoder_is_refused(tmp_path):
    bundle = Bundle.load(make_bundle(tmp_path, models=3, dim=16))
    support = dataclasses.replace(bundle.support, encoder="another")
    with pytest.raises(EncoderMismatchError, match="support: measured on encoder 'another'"):
        Engine(dataclasses.replace(bundle, support=support))


def test_prices_in_another_currency_are_refused(engine):
    prices = dataclasses.replace(engine.bundle.prices, currency="EUR")
    with pytest.raises(InvalidInputError, match="prices: expected a list in USD, got 'EUR'"):
        engine.policy(tau=0.1, prices=prices)


def test_a_count_beyond_exact_floats_is_refused(engine):
    with pytest.raises(InvalidInputError, match="billed_tokens"):
        engine.route("a", tau=0.1, billed_tokens=2**63)


def test_a_router_without_an_encoder_refuses_text(engine):
    router = _C.Router(engine.plan, None, [1.0] * 5, [1.0] * 5, [1.0] * 5)
    with pytest.raises(InvalidInputError, match="encoder: this router has none"):
        router.route_one("a", engine.policy(tau=0.1).compiled)


def test_ten_megabytes_are_routed(engine):
    decision = engine.route("all work and no play " * 500_000, tau=0.1)
    assert decision.truncated
    assert decision.billed_tokens >= 2_500_000


def test_every_error_is_an_ipr_error():
    assert issubclass(InvalidInputError, IprError)
    assert issubclass(RowError, IprError)
