"""Routing figures against hand-computed and brute-force examples, and what must not change them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation import prediction_lines as pair
from ipr_engine.measures import routing as r
from ipr_engine.measures.resampling import Resamples
from ipr_engine.measures.sweeps import choose, hull_mix, oracle_sweep, random_mix, rule_sweep, worth_sweep
from tests.support.evaluation_data import make_outcomes

NAN = float("nan")


def points(cost, quality):
    return r.Curve(np.array([cost], float), np.array([quality], float))


SINGLES = points([1.0, 5.0], [0.4, 0.8])
AXIS = r.Axis(cheapest=0, best=1)


def area(cost, quality, **options):
    return r.bounded_arqgc(points(cost, quality), AXIS, SINGLES, **options)[0]


def test_area_by_hand():
    assert area([1, 5], [0.4, 0.8]) == pytest.approx(0.5)
    assert area([1], [0.8]) == pytest.approx(1)
    assert area([1], [0.4]) == pytest.approx(0)
    # from (0, 0) to (0.5, 1): 0.25, then level at 1: 0.5
    assert area([3], [0.8]) == pytest.approx(0.75)
    assert area([3], [1.2]) == pytest.approx(0.5 * 0.5 * 2 + 0.5 * 2)


def test_cost_outside_the_axis_is_cut_off_and_quality_is_not():
    assert area([-3, 5], [0.4, 0.8]) == pytest.approx(np.trapezoid([0.5, 1], [0, 1]))
    assert area([1, 9], [0.4, 0.8]) == pytest.approx(0.25)
    assert area([9], [0.9]) == pytest.approx(1.25 / 4)


def test_a_step_back_counts_back_and_no_upper_envelope_is_taken():
    assert area([2, 4, 3, 5], [0.6, 0.6, 0.6, 0.6]) == pytest.approx(area([2, 5], [0.6, 0.6]))
    assert area([2, 3, 5], [0.8, 0.4, 0.8]) < area([2, 5], [0.8, 0.8])


def test_the_oracle_normalisation_only_rescales_the_height():
    top = np.array([1.2])
    assert area([2, 3], [0.5, 0.7], top=top) == pytest.approx(area([2, 3], [0.5, 0.7]) * 0.4 / 0.8)


def test_repeating_a_point_changes_nothing():
    assert area([2, 2, 3, 3], [0.5, 0.5, 0.7, 0.7]) == pytest.approx(area([2, 3], [0.5, 0.7]))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_area_equals_a_fine_sum_for_a_rising_curve(seed):
    rng = np.random.default_rng(seed)
    cost, quality = np.sort(rng.uniform(0.5, 6, 7)), rng.random(7)
    full_cost, full_quality = np.append(1.0, cost), np.append(0.4, quality)
    order = slice(1 if cost[0] < 1 else 0, None)  # a first point left of the axis hides the corner
    grid = np.linspace(1, 5, 400_001)
    level = (np.interp(grid, full_cost[order], full_quality[order]) - 0.4) / 0.4
    assert area(cost, quality) == pytest.approx(level.mean(), abs=2e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100), st.floats(0.1, 1), st.floats(-0.5, 0.5))
def test_area_does_not_change_with_units_of_cost_and_an_affine_map_of_quality(seed, price, scale, shift):
    rng = np.random.default_rng(seed)
    cost, quality = rng.uniform(0, 6, 6), rng.random(6)
    moved = r.bounded_arqgc(
        points(price * cost, scale * quality + shift),
        AXIS,
        points(price * SINGLES.cost[0], scale * SINGLES.quality[0] + shift),
    )
    assert moved[0] == pytest.approx(area(cost, quality), abs=1e-9)


@pytest.mark.parametrize(
    ("cost", "quality", "axis"),
    [
        ([1.0], [0.5], r.Axis(0, 0)),
        ([1.0, 1.0], [0.4, 0.8], r.Axis(0, 1)),
        ([1.0, 5.0], [0.5, 0.5], r.Axis(0, 1)),
        ([5.0, 1.0], [0.4, 0.8], r.Axis(0, 1)),
    ],
    ids=["one candidate", "equal costs", "equal qualities", "the best is cheaper on test"],
)
def test_an_axis_without_length_or_height_has_no_area(cost, quality, axis):
    assert np.isnan(r.bounded_arqgc(points(cost, quality), axis, points(cost, quality))[0])


def test_a_random_mix_has_area_one_half_in_every_draw(request):
    outcomes, _ = make_outcomes(request.node.name)
    singles = r.single_curve(outcomes, Resamples(outcomes.rows, draws=50))
    axis = r.Axis.of(outcomes)
    curve = r.mixture_curve(random_mix(axis, outcomes.models), singles)
    figures = r.bounded_arqgc(curve, axis, singles)
    np.testing.assert_allclose(figures[np.isfinite(figures)], 0.5)
    assert np.isfinite(figures[0])


def test_choosing_at_random_has_area_near_one_half(request, rng):
    outcomes, _ = make_outcomes(request.node.name, rows=4000)
    axis = r.Axis.of(outcomes)
    once = Resamples(outcomes.rows, draws=200)
    luck = rng.random(outcomes.rows)
    sweep = np.where(luck < np.linspace(0, 1, 21)[:, None], axis.best, axis.cheapest)
    figures = r.bounded_arqgc(r.sweep_curve(sweep, outcomes, once), axis, r.single_curve(outcomes, once))
    low, high = np.percentile(figures[1:], [0.5, 99.5])
    assert low < 0.5 < high


@pytest.mark.parametrize("models", [2, 3, 6])
def test_nobody_is_above_the_oracle_at_any_cost(request, rng, models):
    outcomes, _ = make_outcomes(request.node.name, rows=120, models=models)
    once = Resamples(outcomes.rows, draws=0)
    oracle = r.sweep_curve(oracle_sweep(outcomes, points=10_000), outcomes, once)
    cost, quality = oracle.cost[0], oracle.quality[0]
    assert (np.diff(cost) >= 0).all()
    assert (np.diff(quality) >= 0).all()
    others = [
        rng.integers(0, models, (50, outcomes.rows)),
        worth_sweep(rng.random(outcomes.quality.shape), outcomes.cost),
        rule_sweep(outcomes.quality, outcomes.cost, "minmax"),
    ]
    for choices in others:
        curve = r.sweep_curve(choices, outcomes, once)
        assert (curve.cost[0] >= cost[0] - 1e-12).all()
        assert (curve.quality[0] <= np.interp(curve.cost[0], cost, quality) + 1e-9).all()
    assert quality[-1] == pytest.approx(r.oracle_quality(outcomes, once)[0])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_the_hull_is_above_every_single_and_concave(seed, models):
    rng = np.random.default_rng(seed)
    cost, quality = np.round(rng.random(models), 1), np.round(rng.random(models), 1)  # ties are likely
    on = r.hull(cost, quality)
    assert (np.diff(cost[on]) > 0).all()
    assert (np.diff(quality[on]) > 0).all()
    right = cost >= cost[on[0]]
    assert (quality[right] <= np.interp(cost[right], cost[on], quality[on]) + 1e-12).all()
    if len(on) > 2:
        slopes = np.diff(quality[on]) / np.diff(cost[on])
        assert (np.diff(slopes) < 1e-9).all()


def test_the_hindsight_hull_is_at_least_the_hull_of_training_vertices(request):
    train, _ = make_outcomes(request.node.name, "train", rows=40)
    test, _ = make_outcomes(request.node.name, "train", rows=400)
    once = Resamples(test.rows, draws=0)
    singles, axis = r.single_curve(test, once), r.Axis.of(test)
    hindsight = r.bounded_arqgc(r.mixture_curve(hull_mix(test), singles), axis, singles)
    assert hindsight >= r.bounded_arqgc(r.mixture_curve(hull_mix(train), singles), axis, singles) - 1e-12


def test_axis_ends_come_from_the_outcomes_given_with_ties_to_the_better_and_the_cheaper():
    quality = np.array([[0.2, 0.4, 0.9, 0.9]] * 3)
    cost = np.array([[1.0, 1.0, 4.0, 3.0]] * 3)
    assert r.Axis.of(r.WeightedOutcomes.complete(quality, cost)) == r.Axis(cheapest=1, best=3)


def test_an_operating_point_is_the_cheapest_that_keeps_the_share_on_validation():
    curve = points([1.0, 2.0, 1.5, 4.0], [0.4, 0.79, 0.795, 0.9])
    assert r.choose_operating_point(curve, AXIS, SINGLES, 0.98).index == 2
    assert r.choose_operating_point(curve, AXIS, SINGLES, 1.0).index == 3
    assert r.choose_operating_point(points([1.0], [0.1]), AXIS, SINGLES, 0.95).index is None


def test_an_operating_point_is_read_on_the_other_split_and_none_saves_nothing():
    curve = points([1.0, 2.5], [0.5, 0.7])
    saved, kept = r.read_operating_point(r.ChosenSetting(0.95, 1), curve, AXIS, SINGLES)
    assert (saved[0], kept[0]) == (pytest.approx(0.5), pytest.approx(0.7 / 0.8))
    saved, kept = r.read_operating_point(r.ChosenSetting(0.95, None), curve, AXIS, SINGLES)
    assert (saved[0], kept[0]) == (0, 1)


def test_apgr_and_cpt_by_hand():
    once = Resamples(4, draws=0)
    weak, strong = np.array([0.0, 0, 1, 1]), np.array([1.0, 1, 1, 1])
    sent, quality = pair.pair_curve(np.array([4.0, 3, 2, 1]), weak, strong, once)
    np.testing.assert_allclose(sent[0], [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(quality[0], [0.5, 0.75, 1, 1, 1])
    assert pair.apgr(sent, quality)[0] == pytest.approx(0.75)
    assert pair.cpt(sent, quality, 0.5)[0] == pytest.approx(0.25)
    assert pair.cpt(sent, quality, 0.8)[0] == pytest.approx(0.4)


def test_a_constant_score_has_apgr_one_half_and_a_rising_map_changes_nothing(rng):
    resamples = Resamples(60, draws=20)
    weak, strong = rng.integers(0, 2, 60).astype(float), np.ones(60)
    np.testing.assert_allclose(pair.apgr(*pair.pair_curve(np.zeros(60), weak, strong, resamples)), 0.5)
    score = rng.integers(0, 9, 60).astype(float)
    np.testing.assert_allclose(
        pair.apgr(*pair.pair_curve(score, weak, strong, resamples)),
        pair.apgr(*pair.pair_curve(np.exp(score), weak, strong, resamples)),
    )


def test_a_pair_without_a_gap_has_no_apgr():
    curve = pair.pair_curve(np.arange(3.0), np.ones(3), np.ones(3), Resamples(3, draws=0))
    assert np.isnan(pair.apgr(*curve)[0])
    assert np.isnan(pair.cpt(*curve, 0.5)[0])


def test_aiq_is_the_mean_height_of_the_non_decreasing_hull():
    # hull of the points: (1, 0.4), (3, 0.8); the dip and the dear point add nothing
    assert r.aiq(points([1, 2, 3, 4], [0.4, 0.5, 0.8, 0.6]), SINGLES)[0] == pytest.approx((0.6 * 2 + 0.8 * 2) / 4)
    assert np.isnan(r.aiq(points([1.0], [0.4]), points([1.0], [0.4]))[0])


def test_arena_score_by_hand():
    c = (math.log2(200) - math.log2(2)) / (math.log2(200) - math.log2(0.0044))
    assert r.arena_score(np.array([0.7]), np.array([0.002]))[0] == pytest.approx(1.1 * 0.7 * c / (0.1 * 0.7 + c))
    assert r.arena_score(np.array([1.0]), np.array([0.0044e-3]))[0] == pytest.approx(1)
    assert np.isnan(r.arena_score(np.array([0.7]), np.array([0.0]))[0])


def test_inverse_coverage_of_complete_rows_changes_nothing(request):
    outcomes, _ = make_outcomes(request.node.name)
    sparse = r.WeightedOutcomes.inverse_coverage(outcomes.quality, outcomes.cost)
    np.testing.assert_array_equal(sparse.weight, 1)


def test_inverse_coverage_recovers_the_mean_of_strata_seen_unequally(rng):
    rows = 20_000
    hard = rng.random(rows) < 0.5
    quality = np.stack([np.where(hard, 0.2, 0.8), np.full(rows, 0.5)], axis=1)
    sparse = quality.copy()
    sparse[hard & (rng.random(rows) < 0.9), 0] = NAN
    cost = np.ones_like(quality)
    outcomes = r.WeightedOutcomes.inverse_coverage(sparse, cost, strata=hard.tolist())
    curve = r.sweep_curve(np.zeros((1, rows), int), outcomes, Resamples(rows, draws=0))
    assert np.nanmean(sparse[:, 0]) > 0.7
    assert curve.quality[0, 0] == pytest.approx(0.2 * hard.mean() + 0.8 * (1 - hard.mean()))


def test_choices_of_every_rule_equal_the_reference(request):
    from ipr_engine.decide.reference import choose as reference
    from ipr_engine.policy.rules import RULES, compile_rule

    outcomes, _ = make_outcomes(request.node.name, rows=60)
    rng = np.random.default_rng(0)
    logit = rng.standard_normal(outcomes.quality.shape)
    quality = 1 / (1 + np.exp(-logit))
    from ipr_engine.bundle import RuleConstants

    constants = RuleConstants(hi=0.7, lo=0.2)
    everyone, ranks = np.ones(4, bool), np.arange(4)
    for rule in RULES:
        for tau, worth in ((0.0, 0.0), (0.3, 0.0), (0.3, 0.01), (1.0, 0.02)):
            c = compile_rule(rule, tau, constants=constants)
            expected = [
                reference(row, cost, everyone, ranks, c.alpha_hi, c.alpha_lo, c.offset, worth).index
                for row, cost in zip(logit, outcomes.cost, strict=True)
            ]
            got = choose(quality, outcomes.cost, tau=tau, rule=rule, worth=worth, constants=constants)
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: r.WeightedOutcomes.complete(np.array([[NAN]]), np.array([[1.0]])), "1 incomplete row"),
        (
            lambda: r.WeightedOutcomes.complete(np.array([[1.5]]), np.array([[1.0]])),
            r"quality: expected values in \[0, 1\]",
        ),
        (lambda: r.WeightedOutcomes.complete(np.array([[0.5]]), np.array([[-1.0]])), "cost: expected finite"),
        (lambda: r.WeightedOutcomes.complete(np.zeros((0, 2)), np.zeros((0, 2))), "equal"),
        (
            lambda: r.WeightedOutcomes.inverse_coverage(np.array([[NAN], [1.0]]), np.ones((2, 1)), ["a", "b"]),
            "stratum 'a'",
        ),
        (lambda: r.mixture_curve(np.array([[0.7, 0.7]]), SINGLES), "shares"),
        (
            lambda: r.sweep_curve(np.array([[2]]), r.WeightedOutcomes.complete(*[np.ones((1, 2))] * 2), Resamples(1)),
            "choices",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(InvalidInputError, match=message):
        call()


def test_complete_rows_are_those_without_a_gap():
    assert r.complete_rows(np.array([[1.0, NAN], [0.0, 1.0]]), np.array([[1.0, 1.0], [2.0, 2.0]])).tolist() == [
        False,
        True,
    ]


def test_the_cost_of_a_quality_is_read_between_the_points_that_reach_it():
    curve = r.Curve(np.array([[1.0, 3.0, 7.0, 6.0]]), np.array([[0.2, 0.6, 1.0, 0.9]]))
    for wanted, cost in ((0.2, 1.0), (0.4, 2.0), (0.6, 3.0), (0.8, 5.0), (0.95, 6.5), (0.1, 1.0)):
        assert r.cost_at(curve, np.array([wanted]), np.array([20.0]))[0] == pytest.approx(cost)
    assert r.cost_at(curve, np.array([1.1]), np.array([20.0]))[0] == 20.0
    assert r.cost_at(curve, np.array([1.0]), np.array([4.0]))[0] == 4.0  # always asking that one is cheaper
    level = r.Curve(np.array([[2.0]]), np.array([[0.5]]))
    assert r.cost_at(level, np.array([0.5]), np.array([9.0]))[0] == 2.0
