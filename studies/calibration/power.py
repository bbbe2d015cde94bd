"""`python -m studies.calibration.power` compares the tests of bounds.py at equal validity.

Draws look like what is certified: x = routed - 0.8 best - 0.2 cheapest of three right-or-wrong answers, most of them equal. The
distribution is tilted until its mean is 0 (a true null, its edge) or some standard errors above.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from ipr_engine.calibration.bounds import TESTS

Array = npt.NDArray[np.float64]

# x takes no other values: each of routed, best and cheapest is 0 or 1.
VALUES = np.array([-1.0, -0.8, -0.2, 0.0, 0.2, 0.8, 1.0])
CHANCES = np.array([0.02, 0.06, 0.05, 0.60, 0.20, 0.03, 0.04])
SIZES, STANDARD_ERRORS = (300, 1000, 3000), (0.0, 1.3, 2.0, 3.0)


def tilted(mean: float) -> Array:
    """Return the chances of VALUES, exponentially tilted to this mean."""
    low, high = -30.0, 30.0
    for _ in range(100):
        middle = (low + high) / 2
        chances = CHANCES * np.exp(middle * VALUES)
        chances /= chances.sum()
        low, high = (middle, high) if chances @ VALUES < mean else (low, middle)
    return np.asarray(chances)


def rejected(
    test: str, n: int, standard_errors: float, *, samples: int, risk: float, random: np.random.Generator
) -> float:
    """Return the share of samples of n draws, of a mean so many standard errors above 0, in which the null is rejected."""
    spread = float(np.sqrt(tilted(0.0) @ VALUES**2))
    chances = tilted(standard_errors * spread / np.sqrt(n))
    draws = random.choice(VALUES, size=(n, samples), p=chances)
    one = np.ones(1)
    return float(TESTS[test](draws, floor=one, top=one, second_moment=one * spread**2, risk=risk).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--risk", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print(f"{arguments.samples} samples, risk {arguments.risk:g}, seed {arguments.seed}, numpy {np.__version__}\n")
    print("| n | mean, standard errors above 0 | " + " | ".join(TESTS) + " |")
    print("|" + " --- |" * (2 + len(TESTS)))
    for n in SIZES:
        for errors in STANDARD_ERRORS:
            random = np.random.default_rng((arguments.seed, n, int(10 * errors)))
            shares = [
                rejected(test, n, errors, samples=arguments.samples, risk=arguments.risk, random=random)
                for test in TESTS
            ]
            print(f"| {n} | {errors:g} | " + " | ".join(f"{share:.3f}" for share in shares) + " |")


if __name__ == "__main__":
    main()
