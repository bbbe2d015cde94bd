"""Levels of options make one policy: aims replace each other, masks add up."""

from __future__ import annotations

import itertools

import pytest

from ipr_engine import Engine, InvalidInputError
from ipr_engine.policy.levels import merged, without_masks
from ipr_engine.policy.masks import MASKS
from ipr_engine.policy.policy_spec import DEFAULTS
from ipr_engine.policy.rules import AIMS


def test_an_aim_replaces_any_other(engine: Engine) -> None:
    candidates = engine.bundle.candidates
    for one, other in itertools.permutations(AIMS, 2):
        assert merged([{one: 1, "slack": 0.1}, {other: 2}], candidates).options == {other: 2, "slack": 0.1}
    assert merged([{"tau": 1}, {"preset": None}], candidates).options == {"tau": 1}


def test_a_later_level_goes_over_an_earlier_one_and_none_says_nothing(engine: Engine) -> None:
    levels = [{"worth": 1.0, "rule": "max"}, {"worth": 2.0, "rule": None}]
    assert merged(levels, engine.bundle.candidates).options == {"worth": 2.0, "rule": "max"}
    assert levels == [{"worth": 1.0, "rule": "max"}, {"worth": 2.0, "rule": None}]


MASKED = [
    {"allowed": ["alpha/large", "beta/mid", "gamma/small"]},
    {"allowed": "GAMMA/small"},
    {"exclude": ["beta/mid"]},
    {"exclude": []},
    {"requires": ["vision"]},
    {"max_latency_ms": 1e6},
]


@pytest.mark.parametrize("one", MASKED)
@pytest.mark.parametrize("other", MASKED)
def test_masks_add_up_and_never_widen(engine: Engine, one, other) -> None:
    both = {*engine.policy(tau=0.2, **one).allowed} & {*engine.policy(tau=0.2, **other).allowed}
    for levels in ([one, other], [other, one]):
        if not both:
            with pytest.raises(InvalidInputError, match="nobody is left who could answer"):
                merged(levels, engine.bundle.candidates)
            continue
        found = merged(levels, engine.bundle.candidates)
        assert {*engine.bundle.names} - found.exclusions.keys() == both
        assert found.options.get("allowed", list(engine.bundle.names)) == [n for n in engine.bundle.names if n in both]


def test_who_is_kept_out_before_stays_out_and_says_why(engine: Engine) -> None:
    found = merged(
        [{"exclude": ["beta/mid"]}, {"allowed": ["alpha/large", "beta/mid", "gamma/small"], "tau": 0.2}],
        engine.bundle.candidates,
        {"alpha/large": "its upstream is away"},
    )
    assert found.options == {"allowed": ["gamma/small"], "tau": 0.2}
    assert found.exclusions["alpha/large"] == "its upstream is away"
    assert found.exclusions["beta/mid"] == "excluded by name"
    assert list(found.exclusions) == [name for name in engine.bundle.names if name != "gamma/small"]


@pytest.mark.parametrize(
    ("levels", "reason"),
    [
        ([{"allowed": ["nobody"]}], "allowed: unknown 'nobody'"),
        (
            [{"allowed": ["beta/mid"]}, {"exclude": ["beta/mid"]}],
            "exclude: nobody is left .*beta/mid: excluded by name",
        ),
        ([{"allowed": ["beta/mid"]}, {"allowed": ["gamma/small"]}], "allowed: nobody is left"),
        ([{"max_latency_ms": -1}], "max_latency_ms: expected"),
    ],
)
def test_a_mask_that_is_wrong_or_leaves_nobody_is_named(engine: Engine, levels, reason) -> None:
    with pytest.raises(InvalidInputError, match=reason):
        merged(levels, engine.bundle.candidates)


def test_what_levels_say_without_masks_is_what_they_say_together(engine: Engine) -> None:
    levels = [{"tau": 0.3, "exclude": ["beta/mid"], "worth": 0.01}, {"tau": None, "exclude": ["alpha/large"]}]
    found = merged(levels, engine.bundle.candidates).options
    assert found.pop("allowed") == ["gamma/small", "delta/tiny"]
    assert without_masks(levels) == found == {"tau": 0.3, "worth": 0.01}
    assert without_masks([*levels, {"quality_share": 0.9}]) == {"worth": 0.01, "quality_share": 0.9}


def test_aims_and_masks_are_options() -> None:
    assert {*AIMS, *MASKS} <= {*DEFAULTS}
