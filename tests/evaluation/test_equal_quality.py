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
from ipr_engine.measures.resampling import Resamples, resamples_of
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
                "router_cost_minus_this": figure(*(cost * (part - 1) for part in (ratio, low, high))),
                "router_kept_minus_this": figure(sum(difference) / 2, *difference),
            }
            for share in SHARES
        ]

    own = [{"share": share, "cost": cost, "kept": kept} for share in SHARES]
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
    # Both missed it, and nothing is shown of who kept more: that is no equal quality either.
    assert said(kept=short, hull_kept=short)[1] == (
        f"{MIX} 51 % [46, 56] and keeps 96.0 % [95.0, 97.0] of the quality; this router costs 0.82 [0.75, 0.91] times that, but not at "
        "equal quality."
    )
    assert said(hull=(0.3, 1.4, 1.2, 1.6), kept=short, hull_kept=short)[1].endswith("but not at equal quality.")


def test_no_saving_no_knowledge_and_no_reading_of_prompts_are_said():
    assert "this router is not shown to save anything: it kept" in said(cost=figure(0.9, 0.7, 1.0))[0]
    assert said(seen=None)[0].endswith(
        "measured on 4,048 prompts (whether it was fitted on some of them is not known)."
    )
    blind = said(constant={"a": "flat", "b": "flat"})
    assert blind[1].startswith(
        "No head of this router is shown to read the prompt: beyond prices and lengths, chance may decide."
    )
    assert blind[2].endswith("so this router saves a further 18.0 % [9.0, 25.0].")
    dear = said(hull=(0.3, 1.4, 1.2, 1.6), constant={"a": "flat", "b": "flat"})
    assert dear[2].endswith("times that, so this router saves nothing here.")


def test_where_nothing_can_be_said_that_is_said_and_nothing_else():
    assert said(reason="3 different questions are too few") == [
        "No statement about cost at equal quality can be made: 3 different questions are too few."
    ]
    undefined = {"value": 0.4, "low": None, "high": None, "defined": 0.0}
    assert said(cost=undefined) == [
        "No statement about cost at equal quality can be made: its interval is not defined on these prompts."
    ]


@pytest.mark.parametrize("part", ["router_cost_minus_this", "router_kept_minus_this"])
@pytest.mark.parametrize("undefined", [{"low": None}, {"low": -0.3, "high": -0.1, "defined": 0.9}])
def test_an_interval_that_is_not_of_every_draw_tells_nothing(part, undefined):
    line = {
        "share": 0.98,
        "kept": figure(0.98),
        "router_cost_minus_this": figure(-0.2, -0.3, -0.1),
        "router_kept_minus_this": figure(0.0, -0.01, 0.01),
    }
    assert told(line, line) == "cheaper"
    assert told(line, line | {part: undefined}) == "not told apart"
    partly = {"value": 0.42, "low": 0.38, "high": 0.47, "defined": 0.99}
    assert said(cost=partly)[0].endswith("its interval is not defined on these prompts.")


def free_and_big(seed, free, *, noise=1.0, rows=300):
    """Figures of a candidate that costs `free`, nothing or next to it, beside one a little better that costs a cent."""
    rng = seeded("free", seed)
    right = (rng.random((rows, 2)) < (0.70, 0.71)).astype(float)
    cost = np.tile([free, 1e-2], (rows, 1))
    outcomes, predicted = WeightedOutcomes.complete(right, cost), 0.5 * right + noise * rng.random(right.shape) / 2
    sweep = worth_sweep(predicted, cost, worth_grid(cost))
    groups = [f"question {i}" for i in range(rows)]
    made = Split(outcomes, predicted, groups, predicted, cost, {"worth": sweep})
    axis, hull = Axis(0, 1), Mix.lines(hull_mix(outcomes), cost.mean(axis=0))
    table = [
        Contender(BY_WORTH, "router", Choices(sweep)),
        Contender(HULL, "baseline", hull, hull),
        Contender(COIN, "baseline", Mix(random_mix(axis, 2, MIX_POINTS))),
    ]
    halves = halves_of(groups, 0)
    return equal_quality_figures(table, ["local", "big"], axis, None, made, halves, Resamples(rows, draws=100))


def test_a_candidate_that_costs_nothing_is_said_to_and_its_verdict_is_that_of_one_next_to_nothing():
    partly, verdicts = 0, set()
    for seed in range(12):
        free, cheap = free_and_big(seed, 0.0), free_and_big(seed, 1e-12)
        for index, share in enumerate(SHARES):
            (own, *others), (own_cheap, *others_cheap) = (
                [c["shares"][index] for c in one["contenders"]] for one in (free, cheap)
            )
            assert own["share"] == share
            for line, line_cheap in zip(others, others_cheap, strict=True):
                verdicts.add(told(own, line))
                assert told(own, line) == told(own_cheap, line_cheap)
                ratio = line["router_cost_over_this"]
                partly += ratio["low"] is not None and ratio["defined"] < 1
        if free["reason"] is None:
            figures = {"equal_quality": free, "constant": {}, "candidates": [1, 2]}
            assert all("nan" not in line and "inf" not in line for line in quotable(figures))
        render_equal_quality(free, "other half")
    assert partly > 5
    assert len(verdicts) > 1


def test_a_difference_of_costs_is_said_where_a_ratio_has_no_interval():
    partly = {"value": None, "low": 0.1, "high": 0.9, "defined": 0.4}

    def told_of(low, high):
        line = {
            "share": 0.98,
            "cost": figure(0.05, 0.0, 0.2),
            "kept": KEEPS,
            "router_cost_over_this": partly,
            "router_cost_minus_this": figure((low + high) / 2, low, high),
            "router_kept_minus_this": figure(0.0, -0.01, 0.01),
        }
        own = {"share": 0.98, "cost": figure(0.05, 0.0, 0.1), "kept": KEEPS}
        contenders = [{"name": n, "shares": [one]} for n, one in ((BY_WORTH, own), (HULL, line))]
        section = {"reason": None, "best": "big", "cheapest": "local", "prompts": 300, "router": BY_WORTH}
        figures = {"equal_quality": section | {"contenders": contenders}, "constant": {}, "candidates": [1, 2]}
        return quotable(figures)[1].removeprefix(MIX).removeprefix(" 5.0 % [0.0, 20.0]")

    assert told_of(-0.04, -0.02) == ", so looking at the prompt saves a further 3.0 % [2.0, 4.0] of what big costs."
    assert told_of(0.02, 0.04) == (
        "; this router costs more by 3.0 % [2.0, 4.0] of what big costs, so looking at the prompt saves nothing here."
    )
    assert told_of(-0.04, 0.02) == (
        "; this router costs less by 1.0 % [-2.0, 4.0] of what big costs: the two are not told apart, and no further saving is shown."
    )


def test_copies_of_a_question_are_drawn_together(split):
    """Each prompt three times: what is known is that of a third of the rows, with as wide an interval."""
    thrice = np.repeat(np.arange(split.outcomes.rows), 3)
    copies = replace(
        split,
        outcomes=split.outcomes.subset(thrice),
        groups=[split.groups[i] for i in thrice],
        sweeps={"worth": split.sweeps["worth"][:, thrice]},
    )

    halves = halves_of(split.groups, 0)

    def widths(of, halves):
        resamples = resamples_of(of.groups, draws=300)
        found = equal_quality_figures(table_of(of), MODELS, AXIS, None, of, halves, resamples)
        own, hull = shares_of(found, BY_WORTH)[1], shares_of(found, HULL)[1]
        return np.array([e["high"] - e["low"] for e in (own["cost"], own["kept"], hull["router_cost_over_this"])])

    np.testing.assert_allclose(widths(copies, halves[thrice]), widths(split, halves), rtol=0.25)
    # Those that are left of a split are drawn by question, too.
    seen = np.arange(len(thrice)) < 300
    left = np.flatnonzero(~seen[::3])
    kept = replace(
        split,
        outcomes=split.outcomes.subset(left),
        groups=[split.groups[i] for i in left],
        sweeps={"worth": split.sweeps["worth"][:, left]},
    )
    unseen = replace(copies, seen=seen)
    np.testing.assert_allclose(widths(unseen, halves[thrice]), widths(kept, halves[left]), rtol=0.25)
