"""Cost at equal quality: settings chosen on other prompts, in every resample, and sentences that say no more than the figures."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.evaluation.contenders import (
    MIX_POINTS,
    Choices,
    Contender,
    Mix,
    at_operating_point,
    curve_of_shares,
    halves_of,
)
from ipr_engine.evaluation.equal_quality import (
    BY_WORTH,
    COIN,
    FEWEST_QUESTIONS,
    HULL,
    PATH,
    SHARES,
    equal_quality_figures,
)
from ipr_engine.evaluation.equal_quality_text import quotable, render_equal_quality, told
from ipr_engine.evaluation.evaluation_inputs import Split
from ipr_engine.measures.resampling import Resamples
from ipr_engine.measures.routing import Axis, WeightedOutcomes
from ipr_engine.measures.sweeps import hull_mix, random_mix, worth_grid, worth_sweep
from tests.support.seeds import seeded

MODELS = ("tiny", "small", "medium", "large")
PRICES = 1e-3 * np.geomspace(1, 20, 4)
WEIGHTS = seeded("equal quality").standard_normal((6, 4))
LEVELS = np.linspace(0.0, 1.8, 4)


def drawn(*seed, rows=400):
    """Outcomes of a known world, and the chance of each, which the router predicts."""
    rng = seeded("drawn", *seed)
    chance = 1 / (1 + np.exp(-(rng.standard_normal((rows, 6)) @ WEIGHTS + LEVELS)))
    quality = (rng.random(chance.shape) < chance).astype(float)
    return WeightedOutcomes.complete(quality, PRICES * rng.uniform(0.7, 1.3, chance.shape)), chance


LARGE, _ = drawn("large", rows=20_000)
AXIS = Axis.of(LARGE)


def split_of(outcomes, chance, **more):
    rows = outcomes.rows
    sweep = worth_sweep(chance, np.tile(PRICES, (rows, 1)), worth_grid(LARGE.cost))
    groups = [f"question {i}" for i in range(rows)]
    return Split(
        outcomes=outcomes,
        x=chance,
        groups=groups,
        predicted=chance,
        predicted_cost=chance,
        sweeps={"worth": sweep},
        **more,
    )


def table_of(split, train=None):
    by_worth = Contender(BY_WORTH, "router", Choices(split.sweeps["worth"]), train and Choices(train.sweeps["worth"]))
    hull, coin = Mix.lines(hull_mix(LARGE), LARGE.cost.mean(axis=0)), Mix(random_mix(AXIS, 4, MIX_POINTS))
    return [by_worth, Contender(HULL, "baseline", hull, hull), Contender(COIN, "baseline", coin, coin)]


def figures_of(split, *, draws=50, seed=0, train=None):
    rows = split.outcomes.rows
    return equal_quality_figures(
        table_of(split, train),
        MODELS,
        AXIS,
        train,
        split,
        halves_of(split.groups, seed),
        Resamples(rows, draws=draws, seed=seed),
    )


def shares_of(figures, name):
    return next(c for c in figures["contenders"] if c["name"] == name)["shares"]


@pytest.fixture(scope="module")
def split():
    return split_of(*drawn("split"))


@pytest.mark.parametrize("on_train", [False, True])
def test_the_value_is_that_of_the_operating_point_and_the_interval_holds_the_choice_too(split, on_train):
    train = split_of(*drawn("train")) if on_train else None
    halves, resamples = halves_of(split.groups, 0), Resamples(split.outcomes.rows, draws=50)
    found = figures_of(split, train=train)
    for contender in table_of(split, train):
        for i, share in enumerate(SHARES):
            chosen, _ = at_operating_point(contender, share, AXIS, split.outcomes, train and train.outcomes, halves)
            fixed = curve_of_shares(chosen, split.outcomes, resamples)
            whole = split.outcomes.cost[:, AXIS.best].mean(), split.outcomes.quality[:, AXIS.best].mean()
            line = shares_of(found, contender.name)[i]
            assert line["cost"]["value"] == pytest.approx(fixed.cost[0, 0] / whole[0])
            assert line["kept"]["value"] == pytest.approx(fixed.quality[0, 0] / whole[1])
            if contender.name == BY_WORTH:
                assert line["cost"]["high"] - line["cost"]["low"] > np.ptp(fixed.cost[1:, 0]) / whole[0] / 2


def test_ratios_are_paired_and_the_router_is_not_held_against_itself(split):
    found = figures_of(split)
    assert [c["name"] for c in found["contenders"]] == [BY_WORTH, HULL, COIN]
    own, hull = shares_of(found, BY_WORTH)[1], shares_of(found, HULL)[1]
    assert own["router_cost_over_this"] is None
    assert hull["router_cost_over_this"]["value"] == pytest.approx(own["cost"]["value"] / hull["cost"]["value"])
    assert hull["router_kept_minus_this"]["value"] == pytest.approx(own["kept"]["value"] - hull["kept"]["value"])


def test_no_prompt_helps_to_choose_the_setting_that_it_is_read_at():
    """Two halves with opposite outcomes: each half runs what looked best on the other, and is wrong, in every resample."""
    rows = 2 * FEWEST_QUESTIONS
    half = np.arange(rows) < rows // 2
    quality = np.stack(
        [np.where(half, 1.0, 0.0), np.where(half, 0.0, 1.0), np.full(rows, 0.3), np.full(rows, 0.4)], axis=1
    )
    outcomes = WeightedOutcomes.complete(quality, np.tile([0.1, 0.1, 0.01, 1.0], (rows, 1)))
    both = Choices(np.stack([np.full(rows, 0), np.full(rows, 1)]))
    split = Split(outcomes, quality, [str(i) for i in range(rows)], quality, quality, {"worth": both.choices})
    found = equal_quality_figures(
        [Contender(BY_WORTH, "router", both)], MODELS, Axis(2, 3), None, split, half, Resamples(rows, draws=20)
    )
    for line in shares_of(found, BY_WORTH):
        assert (line["kept"]["value"], line["kept"]["high"]) == (0, 0)


def test_prompts_that_the_router_was_fitted_on_are_left_out(split):
    seen = np.arange(split.outcomes.rows) < 150
    found = figures_of(replace(split, seen=seen))
    assert found["prompts"] == split.outcomes.rows - 150
    kept = ~seen
    alone = replace(
        split,
        outcomes=split.outcomes.subset(kept),
        groups=[key for key, counts in zip(split.groups, kept, strict=True) if counts],
        sweeps={"worth": split.sweeps["worth"][:, kept]},
    )
    halves = halves_of(split.groups, 0)[kept]
    again = equal_quality_figures(
        table_of(alone), MODELS, AXIS, None, alone, halves, Resamples(int(kept.sum()), draws=50, seed=0)
    )
    assert again == found
    none_left = figures_of(replace(split, seen=np.ones_like(seen)))
    assert none_left["contenders"] == []
    assert (
        "400 test prompts are among those that the router was fitted on; 0 different questions that are left"
        in render_equal_quality(none_left, "train split")
    )


def test_what_the_path_chose_is_read_as_it_is(split):
    choices = {share: np.full(split.outcomes.rows, 2) for share in SHARES}
    found = figures_of(replace(split, path_choices=choices))
    assert [c["name"] for c in found["contenders"]][:2] == [BY_WORTH, PATH]
    expected = split.outcomes.cost[:, 2].mean() / split.outcomes.cost[:, AXIS.best].mean()
    assert [line["cost"]["value"] for line in shares_of(found, PATH)] == pytest.approx([expected] * 3)


def test_few_questions_and_a_degenerate_axis_say_so(split):
    few = split_of(*drawn("few", rows=FEWEST_QUESTIONS - 1))
    assert (
        figures_of(few)["reason"] == f"{FEWEST_QUESTIONS - 1} different questions are too few, at least 100 are needed"
    )
    copies = replace(split, groups=[f"question {i % 20}" for i in range(split.outcomes.rows)])
    assert figures_of(copies)["reason"].startswith("20 different questions")
    flat = WeightedOutcomes.complete(np.full((400, 4), 0.5), split.outcomes.cost)
    assert "there is nothing to gain" in figures_of(replace(split, outcomes=flat))["reason"]


def test_intervals_hold_the_mean_of_many_samples():
    """Of 40 samples: the choice is made anew in each resample, so that intervals are rather too wide than too narrow."""
    cells = []
    for i in range(40):
        found = figures_of(split_of(*drawn("coverage", i, rows=300)), draws=100, seed=i)
        assert found["reason"] is None
        own, hull = shares_of(found, BY_WORTH), shares_of(found, HULL)
        lines = [own[1]["cost"], own[1]["kept"], hull[1]["cost"], hull[1]["router_cost_over_this"]]
        cells.append([[line["value"], line["low"], line["high"]] for line in lines])
    values, low, high = np.array(cells).transpose(2, 0, 1)
    mean = values.mean(axis=0)
    assert (((low <= mean) & (mean <= high)).mean(axis=0) >= 0.9).all()


def figure(value, low=None, high=None):
    return {
        "value": value,
        "low": value if low is None else low,
        "high": value if high is None else high,
        "defined": 1.0,
    }


COSTS, KEEPS = figure(0.42, 0.38, 0.47), figure(0.98, 0.97, 0.99)


def said(
    *, cost=COSTS, kept=KEEPS, hull=(0.51, 0.82, 0.75, 0.91), difference=(-0.01, 0.01),
    coin=(0.9, 0.47, 0.4, 0.5), hull_kept=KEEPS, reason=None, seen=0, constant=()
):  # fmt: skip
    """Quote made figures; hull and coin: cost, ratio of the router's, its interval."""

    def beside(cost, ratio, low, high, own_kept):
        return [
            {
                "share": share,
                "cost": figure(cost, cost - 0.05, cost + 0.05),
                "kept": own_kept,
                "router_cost_over_this": figure(ratio, low, high),
                "router_kept_minus_this": figure(sum(difference) / 2, *difference),
            }
            for share in SHARES
        ]

    own = [
        {"share": share, "cost": cost, "kept": kept, "router_cost_over_this": None, "router_kept_minus_this": None}
        for share in SHARES
    ]
    section = {
        "reason": reason, "best": "gpt-4o", "cheapest": "flash", "prompts": 4048, "router": BY_WORTH,
        "contenders": [
            {"name": BY_WORTH, "kind": "router", "shares": own},
            {"name": HULL, "kind": "baseline", "shares": beside(*hull, hull_kept)},
            {"name": COIN, "kind": "baseline", "shares": beside(*coin, hull_kept)},
        ],
    }  # fmt: skip
    seen = {"prompts": seen, "reason": None}
    return quotable({"equal_quality": section, "seen": seen, "constant": dict(constant), "candidates": [1, 2]})


FIRST = (
    "Asked for 98 % of the quality of gpt-4o, this router kept 98.0 % [97.0, 99.0] and costs 42 % [38, 47] of always using gpt-4o, "
    "measured on 4,048 prompts it was not fitted on."
)
MIX = "A mix of single models chosen without looking at prompts costs"


def test_a_router_that_is_told_apart_is_said_to_save():
    assert said() == [FIRST, f"{MIX} 51 % [46, 56], so looking at the prompt saves a further 18.0 % [9.0, 25.0]."]


def test_a_router_that_is_not_told_apart_from_hull_and_coin_is_said_not_to_be():
    first, of_hull, of_coin = said(hull=(0.44, 0.95, 0.8, 1.1), coin=(0.45, 0.93, 0.8, 1.02))
    assert first == FIRST
    apart = "the two are not told apart, and no further saving is shown."
    assert of_hull == f"{MIX} 44 % [39, 49]; this router costs 0.95 [0.80, 1.10] times that: {apart}"
    assert of_coin.startswith("A coin between gpt-4o and flash costs 45 % [40, 50]; this router costs 0.93")
    assert of_coin.endswith(apart)


def test_a_mix_that_is_cheaper_is_said_to_be():
    assert said(hull=(0.3, 1.4, 1.2, 1.6))[1] == (
        f"{MIX} 30 % [25, 35]; this router costs 1.40 [1.20, 1.60] times that, so looking at the prompt saves nothing here."
    )


@pytest.mark.parametrize(
    ("hull", "difference", "ending"),
    [
        ((0.51, 0.82, 0.75, 0.91), (-0.03, -0.01), "times that, but not at equal quality."),
        ((0.3, 1.4, 1.2, 1.6), (0.01, 0.03), "times that, but not at equal quality."),
        ((0.44, 0.95, 0.8, 1.1), (-0.03, -0.01), "more than this router, which costs 0.95 [0.80, 1.10] times that: no saving is shown."),
        ((0.44, 0.95, 0.8, 1.1), (0.01, 0.03), "less than this router, which costs 0.95 [0.80, 1.10] times that: no saving is shown."),
    ],
)  # fmt: skip
def test_costs_at_other_qualities_are_not_compared(hull, difference, ending):
    assert said(hull=hull, difference=difference)[1].endswith(ending)


def test_who_missed_the_share_is_not_at_equal_quality_with_who_kept_it():
    short = figure(0.96, 0.95, 0.97)
    assert said(kept=short)[0].startswith(
        "Asked for 98 % of the quality of gpt-4o, this router fell short: it kept 96.0 % [95.0, 97.0], and costs 42 % [38, 47] of"
    )
    assert said(kept=short)[1].endswith("but not at equal quality.")
    assert said(kept=short, hull_kept=short)[1].endswith("so looking at the prompt saves a further 18.0 % [9.0, 25.0].")


def test_no_saving_no_knowledge_and_no_reading_of_prompts_are_said():
    assert "this router is not shown to save anything: it kept" in said(cost=figure(0.9, 0.7, 1.0))[0]
    assert said(seen=None)[0].endswith(
        "measured on 4,048 prompts (whether it was fitted on some of them is not known)."
    )
    blind = said(constant={"a": "flat", "b": "flat"})
    assert blind[1].startswith("No head of this router reads the prompt")
    assert blind[2].endswith("so this router saves a further 18.0 % [9.0, 25.0].")


def test_where_nothing_can_be_said_that_is_said_and_nothing_else():
    assert said(reason="3 different questions are too few") == [
        "No statement about cost at equal quality can be made: 3 different questions are too few."
    ]
    undefined = {"value": 0.4, "low": None, "high": None, "defined": 0.0}
    assert said(cost=undefined) == [
        "No statement about cost at equal quality can be made: its interval is not defined on these prompts."
    ]


def test_a_ratio_without_an_interval_tells_nothing():
    line = {
        "share": 0.98,
        "kept": figure(0.98),
        "router_cost_over_this": {"low": None},
        "router_kept_minus_this": {"low": None},
    }
    assert told(line, line) == "not told apart"
