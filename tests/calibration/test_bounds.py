"""One-sided tests of a bounded mean: valid at the edge of the null, and powerful."""

import numpy as np
import pytest

from ipr_engine.calibration.bounds import (
    TESTS,
    agrapa_log_capital,
    binomial_cdf,
    hoeffding_bentkus_p,
    target,
)
from studies.calibration.power import rejected

ONE = np.ones(1)
SAMPLES = 2000


def limit(risk, samples=SAMPLES):
    return risk + 3 * np.sqrt(risk * (1 - risk) / samples)


@pytest.mark.parametrize("test", sorted(TESTS))
@pytest.mark.parametrize("n", [37, 300])
def test_a_true_null_at_its_edge_is_rejected_at_most_at_the_risk(test, n, rng):
    samples = 300 if test == "hoeffding_bentkus" else SAMPLES
    assert rejected(test, n, 0.0, samples=samples, risk=0.1, random=rng) <= limit(0.1, samples)


DISTRIBUTIONS = {  # all of mean 0
    "two far points": (np.array([-1.0, 0.02]), np.array([0.02, 1.0]) / 1.02),
    "rare gain": (np.array([-0.02, 1.0]), np.array([1.0, 0.02]) / 1.02),
    "coin": (np.array([-1.0, 1.0]), np.array([0.5, 0.5])),
    "mostly nothing": (np.array([-1.0, 0.0, 1.0]), np.array([0.01, 0.98, 0.01])),
}


@pytest.mark.parametrize("name", sorted(DISTRIBUTIONS))
@pytest.mark.parametrize("guess", [1e-6, 0.1, 1.0])
@pytest.mark.parametrize("n", [5, 200])
def test_target_is_valid_whatever_the_distribution_and_the_guessed_second_moment(name, guess, n, rng):
    values, chances = DISTRIBUTIONS[name]
    draws = rng.choice(values, size=(n, SAMPLES), p=chances)
    share = target(draws, floor=ONE, top=ONE, second_moment=guess * ONE, risk=0.1).mean()
    assert share <= limit(0.1)


def test_target_is_more_powerful_than_every_other_test(rng):
    power = {name: rejected(name, 300, 2.0, samples=300, risk=0.1, random=rng) for name in TESTS}
    assert power["target"] > 0.6
    assert power["target"] >= max(power.values())


def test_target_nears_the_power_of_the_normal_test_on_many_draws(rng):
    assert rejected("target", 2000, 1.2816, samples=SAMPLES, risk=0.1, random=rng) > 0.43  # the normal test: 0.5


def test_the_capital_never_turns_negative_on_the_worst_draws():
    draws = -np.ones((50, 3))
    assert not target(draws, floor=ONE, top=ONE, second_moment=1e-9 * ONE, risk=0.1).any()


def test_no_draw_certifies_nothing():
    assert not target(np.zeros((0, 2)), floor=ONE, top=ONE, second_moment=ONE, risk=0.1).any()


def test_scaling_draws_and_floor_changes_nothing(rng):
    draws = rng.choice([-0.5, 0.0, 0.5], size=(200, 500), p=[0.2, 0.5, 0.3])
    small = target(0.01 * draws, floor=0.01 * ONE, top=ONE, second_moment=1e-4 * 0.1 * ONE, risk=0.1)
    np.testing.assert_array_equal(small, target(draws, floor=ONE, top=ONE, second_moment=0.1 * ONE, risk=0.1))


def test_agrapa_holds_over_all_looks(rng):
    draws = rng.choice([-1.0, 1.0], size=(300, SAMPLES))
    log_capital = agrapa_log_capital(draws, floor=ONE, second_moment=ONE)
    assert (log_capital >= np.log(10)).mean() <= limit(0.1)


def test_binomial_cdf_is_the_sum_of_its_masses():
    assert binomial_cdf(1, 3, 0.25) == pytest.approx(0.75**3 + 3 * 0.25 * 0.75**2)
    assert binomial_cdf(3, 3, 0.25) == pytest.approx(1.0)


def test_hoeffding_bentkus_p_falls_with_the_loss_and_is_1_at_the_level():
    assert hoeffding_bentkus_p(0.5, 0.5, 100) == 1.0
    p = [hoeffding_bentkus_p(loss, 0.5, 100) for loss in (0.0, 0.2, 0.3, 0.4)]
    assert p == sorted(p)
    assert p[0] < 1e-20
