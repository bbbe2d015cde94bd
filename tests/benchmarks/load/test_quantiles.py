"""Intervals of quantiles: they cover what they should, also for dependent samples, or they are not given."""

import math

import numpy as np
import pytest

from benchmarks.load.quantiles import binomial_ranks, design_effect, quantile, quantiles, samples_needed


@pytest.mark.parametrize("n", [6, 30, 150])
@pytest.mark.parametrize("level", [0.5, 0.9])
def test_ranks_are_the_narrowest_that_the_binomial_distribution_allows(n, level):
    def at_most(count):
        return sum(math.comb(n, k) * level**k * (1 - level) ** (n - k) for k in range(count + 1))

    ranks = binomial_ranks(n, level, 0.95)
    if ranks is None:
        assert n < samples_needed(level)
        return
    low, high = ranks
    assert at_most(low - 1) <= 0.025 < at_most(low)
    assert at_most(high - 2) < 0.975 <= at_most(high - 1)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_intervals_of_independent_samples_cover_the_true_quantile(level, rng):
    truth = -math.log(1 - level) * 1e6
    covered = 0
    for _ in range(400):
        found = quantile(rng.exponential(1e6, 2000).astype(np.int64), level)
        covered += found.low <= truth <= found.high
    assert covered / 400 > 0.92


def test_intervals_of_dependent_samples_are_wider_and_still_cover(rng):
    def sample():  # every 50 in a row share what disturbs them
        shared = np.repeat(rng.exponential(1e6, 100), 50)
        return (shared * rng.uniform(0.9, 1.1, 5000)).astype(np.int64)

    truth = np.quantile(np.concatenate([sample() for _ in range(300)]), 0.9)
    covered = naive = 0
    for _ in range(200):
        values = sample()
        found = quantile(values, 0.9)
        covered += found.low <= truth <= found.high
        low, high = binomial_ranks(5000, 0.9, 0.95)
        naive += np.sort(values)[low - 1] <= truth <= np.sort(values)[high - 1]
    assert naive / 200 < 0.5
    assert covered / 200 > 0.88


def test_independent_samples_have_a_design_effect_near_one(rng):
    effects = [design_effect(rng.exponential(1e6, 4000), 1e6 * math.log(10), 0.9) for _ in range(50)]
    assert 1.0 <= np.mean(effects) < 1.3


def test_a_sample_too_small_for_an_interval_gives_no_number_but_what_it_needs(rng):
    values = rng.integers(1, 1000, 500)
    found = {q.name: q for q in quantiles(values)}
    assert found["p99"].value is not None
    assert found["p99.9"].value is None
    assert found["p99.9"].needed == samples_needed(0.999) == 3688
    assert found["p99.9"].to_dict() == {"us": None, "samples": 500, "needs_samples": 3688}
    assert quantile(np.array([], np.int64), 0.5).value is None


def test_the_estimate_lies_in_its_interval_and_levels_are_named(rng):
    values = rng.integers(1, 10**6, 20_000)
    for found in quantiles(values):
        assert found.low <= found.value <= found.high
    assert [q.name for q in quantiles(values)] == ["p50", "p90", "p99", "p99.9"]
