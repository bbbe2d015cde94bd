"""Routers of others: each finds what a world made for it has, and the coin lies on the straight line of its two candidates."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.evaluation import other_routers
from ipr_engine.evaluation.contenders import Choices, Contender, Mix, Shares, curve_of_shares
from ipr_engine.evaluation.one_setting import one_setting_lines, quality_at, render_one_setting
from ipr_engine.evaluation.router_interface import FittingData
from ipr_engine.evaluation.router_runs import TrainingFolds, contender_of
from ipr_engine.measures.resampling import Resamples, difference, estimate
from ipr_engine.measures.routing import Axis, Curve, WeightedOutcomes, bounded_arqgc, single_curve
from ipr_engine.measures.sweeps import random_mix, worth_grid
from tests.support import skips
from tests.support.evaluation_data import make_outcomes

for module in ("sklearn", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.EVAL)

FITTED = [other_routers.hier_shrink, other_routers.irt, other_routers.irt_threshold, other_routers.extra_trees]


def data(x, outcomes, rows):
    """Make what a router is fitted on of some rows of a world; a prompt is its number, which embeds as its row of x."""
    return FittingData(
        candidates=tuple(f"m{column}" for column in range(outcomes.models)),
        prices=(),
        prompts=tuple(map(str, rows)),
        quality=outcomes.quality[rows],
        cost_usd=outcomes.cost[rows],
        embed=lambda prompts: x[[int(prompt) for prompt in prompts]],
    )


def run(fit, x, outcomes):
    """Fit on the first half of the rows, judge on the second: the contender, the outcomes of the second half, and what was fitted on."""
    half = outcomes.rows // 2
    train = data(x, outcomes, np.arange(half))
    found = contender_of("made", fit, train, [str(row) for row in range(half, outcomes.rows)])
    return found, WeightedOutcomes.complete(outcomes.quality[half:], outcomes.cost[half:]), train


def area(found, test, axis, draws=0):
    resamples = Resamples(test.rows, draws=draws)
    return bounded_arqgc(found.test.curve(test, resamples), axis, single_curve(test, resamples))


def world(seed, rows=800):
    """Two far groups of prompts: the cheap candidate is right on one, the dear one on both."""
    rng = np.random.default_rng(seed)
    easy = rng.random(rows) < 0.5
    x = rng.standard_normal((rows, 5)) * 0.1 + np.where(easy, 1.0, -1.0)[:, None] * np.array([1.0, 0, 0, 0, 0])
    quality = np.stack([easy.astype(float), np.ones(rows)], axis=1)
    return x, WeightedOutcomes.complete(quality, np.tile([0.001, 0.01], (rows, 1)))


@pytest.mark.parametrize("fit", FITTED)
def test_each_finds_which_prompts_need_the_dear_candidate(fit):
    found, test, train = run(fit, *world(1))
    # Half the prompts at full quality gain all: 0.75.
    assert area(found, test, Axis.of(train.outcomes))[0] > 0.7


@pytest.mark.parametrize("fit", [*FITTED, other_routers.coin])
@pytest.mark.parametrize("case", ["one candidate", "constant columns", "equal costs", "zero embeddings", "few rows"])
def test_degenerate_outcomes_give_choices_not_errors(fit, case, rng):
    rows, models = 12 if case == "few rows" else 60, 1 if case == "one candidate" else 3
    quality = np.full((rows, models), 0.5) if case == "constant columns" else rng.random((rows, models))
    cost = np.full((rows, models), 0.01) if case == "equal costs" else rng.random((rows, models))
    x = np.zeros((rows, 4)) if case == "zero embeddings" else rng.standard_normal((rows, 4))
    found, test, _ = run(fit, x, WeightedOutcomes.complete(quality, cost))
    assert np.isfinite(found.test.curve(test, Resamples(test.rows, draws=0)).quality).all()


@pytest.mark.parametrize("fit", [*FITTED, other_routers.coin])
def test_every_fit_has_the_same_settings_whatever_its_part_of_the_training_prompts(fit):
    """Costs far beyond the usual ones on one prompt alone: a grid made anew for each fold would be another one."""
    x, outcomes = world(5, rows=200)
    cost = outcomes.cost.copy()
    cost[3] = [1.0, 300.0]
    outcomes = WeightedOutcomes.complete(outcomes.quality, cost)
    train = replace(data(x, outcomes, np.arange(100)), worths=worth_grid(cost[:100]))
    assert len(worth_grid(cost[:100])) > len(worth_grid(np.delete(cost[:100], 3, axis=0)))
    held = TrainingFolds(train.prompts, np.arange(100) % 5)
    found = contender_of("made", fit, train, [str(row) for row in range(100, 200)], held)
    assert found.validation.points == found.test.points
    assert found.validation.rows == 100


@pytest.mark.parametrize("fit", [other_routers.irt, other_routers.coin])
def test_without_test_prompts_each_fold_is_judged_by_a_fit_that_has_not_seen_it(fit):
    x, outcomes = world(7, rows=200)
    train, seen = data(x, outcomes, np.arange(200)), []
    folds = np.random.default_rng(0).integers(0, 5, 200)

    def spied(part):
        seen.append(set(part.prompts))
        return fit(part)

    held = TrainingFolds(train.prompts, folds)
    found = contender_of("made", spied, train, None, held)
    assert [whole - part for whole, part in zip([set(train.prompts)] * 5, seen, strict=True)] == [
        {str(row) for row in np.flatnonzero(folds == fold)} for fold in range(5)
    ]
    assert found.validation is None
    chance = ", by chance: mean of 8 seeds" if fit is other_routers.coin else ""
    assert found.setting == f"fitted on the other folds{chance}"
    # Rows stand where they did: half the prompts at full quality gain all, a coin gains nothing.
    assert (area(found, outcomes, Axis.of(outcomes))[0] > 0.7) == (fit is other_routers.irt)


def test_the_coin_lies_on_the_straight_line_of_its_two_candidates_within_its_interval(request):
    outcomes, x = make_outcomes(request.node.name, rows=1200)
    found, test, train = run(other_routers.coin, x, outcomes)
    axis, resamples = Axis.of(train.outcomes), Resamples(test.rows, draws=200)
    tossed = area(found, test, axis, draws=200)
    straight = Mix(random_mix(axis, test.models, 11)).curve(test, resamples)
    apart = difference(tossed, bounded_arqgc(straight, axis, single_curve(test, resamples)))
    assert apart.low < 0 < apart.high
    assert estimate(tossed).low < 0.5 < estimate(tossed).high
    # It is really tossed: shares of eight seeds, not one choice for everybody.
    assert len(np.unique(found.test.chances(test.models)[5])) > 5


def test_a_curve_of_shares_is_the_mean_of_what_they_may_choose(request):
    outcomes, _ = make_outcomes(request.node.name, rows=40)
    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(outcomes.models), (3, 40))
    resamples = Resamples(40, draws=4)
    curve = Shares(shares).curve(outcomes, resamples)
    np.testing.assert_allclose(curve.quality[0], (shares * outcomes.quality).sum(axis=2).mean(axis=1))
    np.testing.assert_allclose(curve.cost[:, [1]], curve_of_shares(shares[1], outcomes, resamples).cost)
    some = rng.random(40) < 0.5
    np.testing.assert_array_equal(Shares(shares).subset(some).shares_at(2, some[some], 4), shares[2, some])


def test_levels_of_hier_shrink_are_shrunk_to_the_one_above(monkeypatch):
    """Two far groups are two clusters at both levels: each estimate is the formula by hand."""
    x, outcomes = world(3, rows=200)
    easy = outcomes.quality[:, 0] == 1
    seen = []
    monkeypatch.setattr(other_routers, "by_worth", lambda train, predict: seen.append(predict))
    other_routers.hier_shrink(data(x, outcomes, np.arange(200)), clusters=(2, 2))
    quality, cost = seen[0]([str(row) for row in range(200)])
    n, mean = easy.sum(), outcomes.quality[:, 0].mean()
    coarse = (n + 24 * mean) / (n + 24)
    np.testing.assert_allclose(quality[easy, 0], (n + 24 * coarse) / (n + 24))
    np.testing.assert_allclose(cost, [0.001, 0.01])


def test_tiers_go_from_the_cheapest_to_the_best_hull_vertex(request):
    outcomes, _ = make_outcomes(request.node.name, models=6)
    columns = other_routers.tier_columns(outcomes)
    axis = Axis.of(outcomes)
    assert (columns[0], columns[-1]) == (axis.cheapest, axis.best)
    assert (np.diff(outcomes.cost.mean(axis=0)[columns]) >= 0).all()


def test_a_router_of_one_setting_is_held_against_the_mix_of_the_settings_beside_it():
    """Our settings cost 1 and 3 in the sample, 2 and 4 in the draw; the other one costs 2: halfway, at the first one."""
    ours = Curve(np.array([[1.0, 3.0], [2.0, 4.0]]), np.array([[0.4, 0.8], [0.5, 0.9]]))
    alone = Curve(np.array([[2.0], [2.0]]), np.array([[0.5], [0.5]]))
    contenders = [Contender("router, worth", "router", Choices(np.zeros((2, 1), int)))]
    contenders += [Contender(name, "other router", Choices(np.zeros((1, 1), int))) for name in ("alone", "swept")]
    (found,) = one_setting_lines(contenders, {"router, worth": ours, "alone": alone, "swept": ours})
    assert (found["name"], found["quality"]["value"]) == ("alone", 0.5)
    assert found["router_minus_this"]["router, worth"]["value"] == pytest.approx(0.1)
    np.testing.assert_allclose(quality_at(ours, np.array([2.0, 2.0])), [0.6, 0.5])
    np.testing.assert_allclose(quality_at(ours, np.array([9.0, 1.9])), [0.8, np.nan])
    assert "| alone | " in render_one_setting([found])
