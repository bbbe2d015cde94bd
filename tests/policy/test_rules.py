"""(rule, tau) to coefficients."""

import itertools
import math

import numpy as np
import pytest

from ipr_engine.bundle import RuleConstants
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.rules import RULES, compile_rule

CONSTANTS = RuleConstants(hi=0.9, lo=0.3)


def threshold(rule, tau, hi, lo, slack=0.0):
    c = compile_rule(rule, tau, slack=slack, constants=CONSTANTS)
    return min(c.alpha_hi * hi + c.alpha_lo * lo + c.offset, hi)


@pytest.mark.parametrize("rule", ["minmax", "max"])
def test_tau_zero_asks_for_the_best(rule):
    assert threshold(rule, 0.0, 0.8, 0.2) == 0.8


@pytest.mark.parametrize("rule", sorted(RULES))
def test_tau_one_admits_everyone(rule):
    assert threshold(rule, 1.0, 0.95, 0.3) <= 0.3


@pytest.mark.parametrize("rule", sorted(RULES))
def test_the_threshold_never_rises_with_tau(rule):
    levels = [threshold(rule, tau, 0.8, 0.2) for tau in np.linspace(0, 1, 101)]
    assert all(b <= a + 1e-15 for a, b in itertools.pairwise(levels))


def test_the_rules_are_those_of_the_design():
    assert threshold("minmax", 0.25, 0.8, 0.4) == pytest.approx(0.7)
    assert threshold("max", 0.25, 0.8, 0.4) == pytest.approx(0.6)
    assert threshold("max", 0.25, 0.8, 0.4, slack=0.05) == pytest.approx(0.55)
    assert threshold("fixed", 0.5, 0.8, 0.4) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "best", "tau": 0.1}, r"rule: expected one of 'minmax', 'max', 'fixed', 'calibrated', got 'best'"),
        ({"rule": "minmax", "tau": 1.7}, r"tau: expected a value in \[0, 1\], got 1.7"),
        ({"rule": "minmax", "tau": -0.0001}, r"tau: expected a value in \[0, 1\]"),
        ({"rule": "minmax", "tau": math.nan}, r"tau: expected a finite number, got nan"),
        ({"rule": "minmax", "tau": "0.1"}, r"tau: expected a number, got str '0.1'"),
        ({"rule": "minmax", "tau": True}, r"tau: expected a number, got bool True"),
        ({"rule": "minmax", "tau": 0.1, "slack": 0.1}, r"slack: only rule 'max' has one"),
        ({"rule": "max", "tau": 0.1, "slack": 1.1}, r"slack: expected a value in \[0, 1\]"),
        ({"rule": "fixed", "tau": 0.1, "constants": None}, r"rule: 'fixed' needs rule_constants"),
    ],
)
def test_bad_terms_are_named(arguments, message):
    arguments = {"constants": CONSTANTS, **arguments}
    with pytest.raises(InvalidInputError, match=message):
        compile_rule(arguments.pop("rule"), arguments.pop("tau"), **arguments)
