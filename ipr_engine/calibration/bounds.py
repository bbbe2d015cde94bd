"""This file has one-sided tests of a bounded mean: is E[x] > 0, for independent draws x of one distribution on [-floor, top]?

The null is E[x] <= 0; every test rejects a true null with chance <= risk, at any sample size, whatever the distribution. They differ
in power (`python -m studies.calibration.power` compares them at equal validity):

    target               betting with a target (below); what `calibrate` uses
    plugin               betting with predictable plug-in bets for a fixed n: Waudby-Smith & Ramdas, JRSS-B 86 (2024), sec. 3.3
    agrapa               betting with approximate growth-rate-adaptive bets: the same, sec. B.3
    hoeffding_bentkus    p-value of Bates et al., J. ACM 68 (2021), prop. 2, as used by Learn then Test (Angelopoulos et al. 2021),
                         after rescaling to a loss in [0, 1]
    empirical_bernstein  Maurer & Pontil, COLT 2009, theorem 4

**Betting.** A gambler of capital 1 stakes a share on every draw: capital *= 1 + bet * x, where the bet >= 0 is chosen before x is seen and
1 + bet * x stays positive. If E[x] <= 0 the capital is a non-negative supermartingale, so it ever reaches 1 / risk with chance <= risk
(Ville 1939). Any way to choose bets is valid; a good one is powerful.

**target** bets for what is wanted: 1 / risk after n draws, nothing else. In the limit of many small draws the best such gamble is a digital
option, whose price is the chance p = risk * capital that it pays; holding it means to stake phi(z) / (p * sigma * sqrt(draws left)) with
z = Phi^-1(p), sigma^2 the second moment of x. The stake is computed anew from the capital at hand before every draw, so hedging
errors do not add up: the idea of re-targeting is Voracek & Orabona's STaR-Bets (NeurIPS 2025, arXiv 2505.22422). Where plug-in bets
need a mean of sqrt(2 log(1/risk)) standard errors, this one comes near the normal quantile: 2.1 and 1.3 at risk 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import NormalDist
from types import MappingProxyType
from typing import Protocol

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

CAP = 0.95  # of the largest stake that cannot ruin: 1 + bet * x >= 0.05
OVERSHOOT = 0.05  # the option bought pays 5 % more than needed, so that a small hedging error does not miss the target
BISECTIONS = 12  # of a lower bound in [0, 1]: to 0.00025
PRIOR_DRAWS = 20.0  # how many draws the variance known beforehand counts for


class Draws(Protocol):
    """`Draws` are n draws of many hypotheses at once: draws[t] is an array of the hypotheses' shape, the same for every t."""

    def __len__(self) -> int: ...
    def __getitem__(self, t: int, /) -> Array: ...


class Test(Protocol):
    """A `Test` tests E[x] <= 0."""

    def __call__(self, draws: Draws, *, floor: Array, top: Array, second_moment: Array, risk: float) -> Flags:
        """Tell whether E[x] <= 0 is rejected, in the hypotheses' shape.

        Args:
            draws: (n, ...) values in [-floor, top].
            floor, top: > 0, broadcast against draws[t].
            second_moment: a guess of E[x^2] from other data; it steers bets and cannot hurt validity.
            risk: in (0, 1), the chance to reject a true null.
        """
        ...


def _mills_table() -> tuple[Array, Array]:
    """Tabulate p -> phi(Phi^-1(p)) / p on a grid that is dense near 0."""
    p = np.concatenate([np.geomspace(1e-9, 1e-3, 60), np.linspace(1e-3, 1.0, 600)[1:-1]])
    normal = NormalDist()
    z = [normal.inv_cdf(float(value)) for value in p]
    stake = np.array([normal.pdf(value) for value in z]) / p
    return np.append(p, 1.0), np.append(stake, 0.0)


_CHANCE, _STAKE = _mills_table()  # read by np.interp before every draw


def target(draws: Draws, *, floor: Array, top: Array, second_moment: Array, risk: float) -> Flags:
    """Re-hedge, before every draw, a digital option that pays when the capital reaches 1 / risk; the module explains it."""
    n = len(draws)
    goal = 1.0 / risk
    limit = CAP / floor
    capital = np.ones(np.broadcast_shapes(np.shape(draws[0]), np.shape(floor))) if n else np.ones(np.shape(floor))
    squares = np.broadcast_to(PRIOR_DRAWS * np.maximum(second_moment, 1e-12), capital.shape).copy()
    for t in range(n):
        x = draws[t]
        # sigma * sqrt(draws left), sigma^2 the second moment of the draws before and of PRIOR_DRAWS guessed ones.
        scale = np.sqrt(squares * ((n - t) / (PRIOR_DRAWS + t)))
        bet = np.minimum(np.interp(capital * (risk / (1.0 + OVERSHOOT)), _CHANCE, _STAKE) / scale, limit)
        # At the goal the gamble stops: nothing is staked any more.
        capital = np.where(capital >= goal, capital, capital * (1.0 + bet * x))
        squares += x * x
    return capital >= goal


def plugin(draws: Draws, *, floor: Array, top: Array, second_moment: Array, risk: float) -> Flags:
    """Bet sqrt(2 log(1/risk) / (n variance)), the variance that of the draws before."""
    n = len(draws)
    fixed = math.sqrt(2 * math.log(1 / risk) / n)
    return _gamble(draws, floor, second_moment, lambda mean, var: fixed / np.sqrt(var)) >= -math.log(risk)


def agrapa(draws: Draws, *, floor: Array, top: Array, second_moment: Array, risk: float) -> Flags:
    """Bet mean / (variance + mean^2) of the draws before."""
    return agrapa_log_capital(draws, floor=floor, second_moment=second_moment) >= -math.log(risk)


def agrapa_log_capital(draws: Draws, *, floor: Array, second_moment: Array) -> Array:
    """Return the largest log capital so far: exp(-it) is a p-value of "E[x] <= 0" that holds however often one looks."""
    return _gamble(draws, floor, second_moment, lambda mean, var: np.maximum(mean, 0.0) / (var + mean * mean))


def _gamble(draws: Draws, floor: Array, second_moment: Array, choose: Callable[[Array, Array], Array]) -> Array:
    """Return the largest log capital, with bets chosen from the mean and variance of the draws before."""
    shape = np.broadcast_shapes(np.shape(draws[0]), np.shape(floor))
    log_capital, largest = np.zeros(shape), np.zeros(shape)
    total = np.zeros(shape)
    squares = np.broadcast_to(PRIOR_DRAWS * np.maximum(second_moment, 1e-12), shape).copy()
    for t in range(len(draws)):
        x = draws[t]
        # From the draws before x alone: a bet that has seen its draw is no bet.
        mean = total / (PRIOR_DRAWS + t)
        variance = np.maximum(squares / (PRIOR_DRAWS + t) - mean * mean, 1e-12)
        log_capital += np.log1p(np.minimum(choose(mean, variance), CAP / floor) * x)
        largest = np.maximum(largest, log_capital)
        total += x
        squares += x * x
    return largest


def hoeffding_bentkus(draws: Draws, *, floor: Array, top: Array, second_moment: Array, risk: float) -> Flags:
    """Compare the p-value of the mean loss with the risk."""
    n = len(draws)
    mean = sum((draws[t] for t in range(n)), np.zeros(np.shape(floor))) / n
    # Rescaled to a loss in [0, 1], of which E[x] <= 0 says E[loss] >= level.
    level = np.broadcast_to(top / (top + floor), np.shape(mean))  # the loss (top - x) / (top + floor) at E[x] = 0
    loss = np.clip((top - mean) / (top + floor), 0.0, 1.0)
    p = [hoeffding_bentkus_p(float(a), float(b), n) for a, b in zip(np.ravel(loss), np.ravel(level), strict=True)]
    return np.reshape(np.array(p) <= risk, np.shape(mean))


def hoeffding_bentkus_p(loss: float, level: float, n: int) -> float:
    """Return the p-value of "E[loss] >= level" for losses in [0, 1] of mean `loss` over n draws."""
    if loss >= level:
        return 1.0
    divergence = loss * math.log(loss / level) if loss > 0 else 0.0
    divergence += (1 - loss) * math.log((1 - loss) / (1 - level))
    return min(1.0, math.exp(-n * divergence), math.e * binomial_cdf(math.ceil(n * loss - 1e-9), n, level))


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Return P(Binomial(n, p) <= k)."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, n + 1)))])
    i = np.arange(min(k, n) + 1)
    log_mass = log_factorial[n] - log_factorial[i] - log_factorial[n - i] + i * math.log(p) + (n - i) * math.log1p(-p)
    return min(1.0, float(np.exp(log_mass).sum()))


def empirical_bernstein(draws: Draws, *, floor: Array, top: Array, second_moment: Array, risk: float) -> Flags:
    """Compare the mean with the empirical Bernstein bound."""
    n = len(draws)
    total = sum((draws[t] for t in range(n)), np.zeros(np.shape(floor)))
    squares = sum((draws[t] ** 2 for t in range(n)), np.zeros(np.shape(floor)))
    mean = total / n
    variance = np.maximum(squares - n * mean * mean, 0.0) / max(n - 1, 1)
    log = math.log(2 / risk)
    return np.asarray(mean > np.sqrt(2 * variance * log / n) + 7 * (floor + top) * log / (3 * max(n - 1, 1)))


TESTS: Mapping[str, Test] = MappingProxyType(
    {
        "target": target,
        "plugin": plugin,
        "agrapa": agrapa,
        "hoeffding_bentkus": hoeffding_bentkus,
        "empirical_bernstein": empirical_bernstein,
    }
)


def lower_bounds(routed: Array, test: Test, *, risk: float) -> Array:
    """Return lower confidence bounds of mean quality, (points,), each at 1 - risk for its point alone, by inverting the test."""
    low, high = np.zeros(routed.shape[1]), np.ones(routed.shape[1])
    # At `low` the test says that the mean is above it, at `high` it does not: the bound returned is the valid end.
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        moved = routed - middle
        above = test(moved, floor=middle, top=1 - middle, second_moment=np.square(moved).mean(axis=0), risk=risk)
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return low
