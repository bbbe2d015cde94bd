"""The whole evaluation on generated splits: what must hold between the lines of the table, the report and the plots."""

import json

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation import report
from ipr_engine.evaluation.contenders import (
    MIX_POINTS,
    Choices,
    Contender,
    Mix,
    at_operating_point,
    curve_of_shares,
    halves_of,
)
from ipr_engine.evaluation.evaluation_inputs import Baselines, EvaluationOptions
from ipr_engine.evaluation.summary import summarise
from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.routing import Axis, choose_operating_point, single_curve
from ipr_engine.measures.sweeps import hull_mix, random_mix
from tests.support import skips
from tests.support.evaluation_data import make_outcomes, make_split

NAMES = ("tiny", "small", "medium", "large")


def other():
    choices = np.random.default_rng(0).integers(0, 4, (3, 200))
    return Contender("somebody's", "other router", Choices(choices))


@pytest.fixture(scope="module")
def summary():
    pytest.importorskip("sklearn", reason=skips.EVAL)
    train, test = make_split("summary"), make_split("summary", rows=200)
    return summarise(
        NAMES,
        train,
        test,
        Baselines(grouped_folds(train.groups, 5, 0), others=[other()]),
        options=EvaluationOptions(draws=50),
    )


def line(summary, name):
    return next(c for c in summary.figures["contenders"] if c["name"] == name)


def test_the_known_areas_are_what_they_must_be(summary):
    assert line(summary, "random mix")["area"]["value"] == pytest.approx(0.5)
    assert line(summary, "always cheapest")["area"]["value"] == pytest.approx(0)
    assert line(summary, "best single")["area"]["value"] == pytest.approx(0.5)
    areas = {c["name"]: c["area"]["value"] for c in summary.figures["contenders"]}
    assert areas["oracle"] == max(areas.values())
    assert areas["hindsight hull"] >= areas["hull of singles"] - 1e-9
    assert line(summary, "oracle")["area_oracle"]["value"] <= 1


def test_a_router_that_sees_more_than_half_the_truth_beats_every_baseline(summary):
    for name in ("hull of singles", "random mix", "kNN, worth", "k-means, worth", "ridge, worth"):
        assert line(summary, name)["router_minus_this"]["router, worth"]["low"] > 0


def test_every_baseline_is_there(summary):
    names = {c["name"] for c in summary.figures["contenders"]}
    assert names >= {
        "best single", "always cheapest", "hull of singles", "hindsight hull", "random mix", "kNN, worth",
        "k-means, worth", "ridge, worth", "paper's minmax, mean cost", "paper's max, mean cost",
        "paper's fixed, mean cost", "oracle", "somebody's",
    }  # fmt: skip


def test_report_is_plain_json_and_markdown_with_a_line_for_everyone(summary, tmp_path):
    paths = report.write(summary.figures, [], tmp_path)
    text = paths[0].read_text()
    figures = json.loads(paths[1].read_text())
    assert all(c["name"] in text for c in figures["contenders"])
    assert "nan" not in text.lower()
    assert "- **router, worth**: above: " in text
    assert report.render(figures) == text


def test_the_same_input_gives_the_same_bytes(summary):
    train, test = make_split("summary"), make_split("summary", rows=200)
    again = summarise(
        NAMES,
        train,
        test,
        Baselines(grouped_folds(train.groups, 5, 0), others=[other()]),
        options=EvaluationOptions(draws=50),
    )
    assert report.to_json(again.figures) == report.to_json(summary.figures)


def test_one_question_has_no_halves():
    train, test = make_split("summary"), make_split("summary", rows=2)
    judged = (NAMES, train, test, Baselines(grouped_folds(train.groups, 5, 0)))
    with pytest.raises(
        InvalidInputError, match="outcomes: expected at least 2 different questions in the test split, got 1"
    ):
        summarise(*judged, options=EvaluationOptions(draws=5))


def test_every_plot_is_a_png_of_some_size(summary, tmp_path):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine.evaluation.plots import draw_all

    paths = draw_all(summary, tmp_path, "generated")
    assert [p.stem for p in paths] == ["equal_quality", "quality_cost", "areas", "reliability", "tau"]
    for path in paths:
        assert path.read_bytes()[:4] == b"\x89PNG"
        assert path.stat().st_size > 20_000


def test_curves_are_straight_in_usd_between_their_points_on_a_log_scale_too(summary):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine._extras import need_pyplot
    from ipr_engine.evaluation.quality_cost_plot import quality_cost

    pyplot = need_pyplot()
    figure = quality_cost(pyplot, summary, "generated")
    line = figure.axes[0].get_lines()[0]
    curve = summary.curves[line.get_label().split("  ")[0]]
    cost, quality = 1000 * curve.cost[0], 100 * curve.quality[0]
    middle = [(cost[:-1] + cost[1:]) / 2, (quality[:-1] + quality[1:]) / 2]
    pieces = line.get_xydata().reshape(len(cost) - 1, -1, 2)  # neighbours on both sides of the middle of each piece
    steps = pieces.shape[1]
    np.testing.assert_allclose((pieces[:, steps // 2 - 1] + pieces[:, steps // 2]).T / 2, middle)
    np.testing.assert_allclose(pieces[:, [0, -1], 0], np.stack([cost[:-1], cost[1:]], axis=1))
    pyplot.close(figure)


def test_the_saving_at_equal_quality_is_drawn_as_the_figures_have_it(summary):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine._extras import need_pyplot
    from ipr_engine.evaluation.equal_quality_plot import equal_quality
    from ipr_engine.evaluation.quality_cost_plot import quality_cost

    pyplot = need_pyplot()
    section = summary.figures["equal_quality"]
    lines = {c["name"]: next(line for line in c["shares"] if line["share"] == 0.98) for c in section["contenders"]}
    best = summary.axis.best
    figure = quality_cost(pyplot, summary, "generated")
    assert figure.axes[0].get_title(loc="left").startswith("asked for 98 % of the quality of large")
    arrow = next(text for text in figure.axes[0].texts if text.get_text() == "")
    dear = 1000 * summary.singles.cost[0, best]
    level = lines["router, worth"]["kept"]["value"] * 100 * summary.singles.quality[0, best]
    assert arrow.get_position() == pytest.approx((dear, level))
    assert arrow.xy == pytest.approx((lines["router, worth"]["cost"]["value"] * dear, level))
    pyplot.close(figure)
    figure = equal_quality(pyplot, summary, "generated")
    marks = sorted(line.get_xdata()[0] for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1)
    assert marks == pytest.approx(sorted(100 * line["cost"]["value"] for line in lines.values()))
    pyplot.close(figure)


def test_no_other_router_looks_like_one_of_ours_or_like_another():
    from ipr_engine.evaluation.quality_cost_plot import LINES, OTHER_LINES

    assert not {line["color"] for line in LINES.values()} & {line["color"] for line in OTHER_LINES}
    assert len({(line["color"], line["marker"]) for line in OTHER_LINES}) == len(OTHER_LINES) == 30


def test_plots_shorten_a_long_name_and_keep_both_of_its_ends():
    from ipr_engine.evaluation.plot_style import LONGEST_NAME, short_name

    found = short_name("ipr_engine.evaluation.other_routers:hier_shrink")
    assert (found, len(found)) == ("ipr_engine.evalu…ters:hier_shrink", LONGEST_NAME - 1)
    assert short_name("claude-3-5-sonnet-20241022") == "claude-3-5-sonnet-20241022"


@pytest.mark.parametrize("name", ["quality_cost", "tau"])
def test_legend_and_headline_stand_outside_of_what_is_drawn(summary, name):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine._extras import need_pyplot
    from ipr_engine.evaluation import plots

    pyplot = need_pyplot()
    figure = getattr(plots, name)(pyplot, summary, "generated")
    figure.canvas.draw()
    axes = figure.axes[0]
    frame = axes.bbox.shrunk(0.999, 0.999)
    headlines = [text for text in axes.get_children() if getattr(text, "get_text", str)().startswith("asked for")]
    assert len(headlines) == (name == "quality_cost")
    assert not any(frame.overlaps(text.get_window_extent()) for text in (axes.get_legend(), *headlines))
    pyplot.close(figure)


@pytest.mark.parametrize(
    ("low", "high", "shown"),
    [
        (0.03, 0.4, ["0.05", "0.1", "0.2"]),
        (0.9, 60.0, ["1", "2", "5", "10", "20", "50"]),
        (0.2, 1.4, ["0.2", "0.5", "1"]),
        (0.9, 1.7, ["1", "1.2", "1.4", "1.6"]),
        (0.97, 1.02, ["0.97", "0.98", "0.99", "1", "1.01", "1.02"]),
        (0.0007, 70.0, ["0.001", "0.01", "0.1", "1", "10"]),
        (0.5e-6, 2e6, ["1e-06", "0.0001", "0.01", "1", "100", "10000", "1e+06"]),
    ],
)
def test_a_log_axis_of_costs_has_plain_numbers(low, high, shown):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine._extras import need_pyplot
    from ipr_engine.evaluation.plot_style import log_cost_axis

    pyplot = need_pyplot()
    figure, axes = pyplot.subplots()
    log_cost_axis(axes)
    axes.set_xlim(low, high)
    figure.canvas.draw()
    labels = [label.get_text() for label in axes.get_xticklabels() + axes.get_xticklabels(minor=True)]
    at = [*axes.get_xticks(), *axes.get_xticks(minor=True)]
    assert [label for label, x in zip(labels, at, strict=True) if low <= x <= high] == shown
    pyplot.close(figure)


@pytest.mark.parametrize("models", [1, 2])
def test_one_candidate_is_evaluated_without_areas(models, tmp_path):
    pytest.importorskip("sklearn", reason=skips.EVAL)
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine.evaluation.plots import draw_all

    train, test = make_split("few", models=models, rows=60), make_split("few", models=models, rows=60)
    found = summarise(
        NAMES[:models], train, test, Baselines(grouped_folds(train.groups, 5, 0)), options=EvaluationOptions(draws=20)
    )
    if models == 1:
        assert line(found, "random mix")["area"]["value"] is None
        assert line(found, "router, worth")["operating_points"][0]["saved"]["value"] == pytest.approx(0)
    assert "| - |" in report.render(found.figures) or models == 2
    draw_all(found, tmp_path, "generated")


def test_choosing_on_train_uses_one_setting_and_on_halves_one_a_half(request):
    test, _ = make_outcomes(request.node.name)
    axis, halves = Axis.of(test), halves_of([str(i) for i in range(test.rows)], 0)
    sweep = Choices(np.stack([np.full(test.rows, m) for m in range(test.models)]))
    contender = Contender("singles", "baseline", sweep, sweep)
    assert len(at_operating_point(contender, 0.95, axis, test, test, halves)[1]) == 1
    shares, settings = at_operating_point(contender, 0.95, axis, test, None, halves)
    assert len(settings) == 2
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_a_setting_is_never_chosen_on_the_rows_it_is_read_on():
    """Two halves with opposite outcomes: each half runs what looked best on the other, and is wrong."""
    from ipr_engine.measures.routing import WeightedOutcomes

    half = np.arange(40) < 20
    quality = np.stack([np.where(half, 1.0, 0.0), np.where(half, 0.0, 1.0), np.full(40, 0.4)], axis=1)
    test = WeightedOutcomes.complete(quality, np.tile([0.1, 0.1, 1.0], (40, 1)))
    sweep = Choices(np.stack([np.full(40, 0), np.full(40, 1)]))
    shares, _ = at_operating_point(Contender("x", "router", sweep), 1.0, Axis(0, 2), test, None, half)
    assert curve_of_shares(shares, test, Resamples(40, draws=0)).quality[0, 0] == 0


def test_sparse_outcomes_are_refused_with_the_way_out():
    train, test = make_split("sparse"), make_split("sparse")
    train.outcomes.quality[0, 0] = np.nan
    with pytest.raises(InvalidInputError, match="complete_rows"):
        summarise(NAMES, train, test, Baselines(grouped_folds(train.groups, 5, 0)), options=EvaluationOptions(draws=2))


def test_halves_never_split_a_question():
    groups = [f"q{i // 3}" for i in range(90)]
    half = halves_of(groups, 1)
    assert len({(g, h) for g, h in zip(groups, half, strict=True)}) == 30
    assert 0.4 < half.mean() < 0.6


def test_shares_of_a_mix_give_the_mean_of_singles(request):
    outcomes, _ = make_outcomes(request.node.name)
    resamples = Resamples(outcomes.rows, draws=3)
    mix = Mix(np.array([[0.25, 0.25, 0.5, 0.0]]))
    shares = mix.shares_at(0, np.ones(outcomes.rows, bool), outcomes.models)
    by_rows, by_means = curve_of_shares(shares, outcomes, resamples), mix.curve(outcomes, resamples)
    np.testing.assert_allclose(by_rows.quality, by_means.quality)
    np.testing.assert_allclose(by_rows.cost, by_means.cost)


def test_lines_pass_through_every_vertex(request):
    outcomes, _ = make_outcomes(request.node.name)
    singles = single_curve(outcomes, Resamples(outcomes.rows, draws=0))
    vertices = np.eye(4)[[0, 2, 3]]
    cost = singles.cost[0]
    assert cost[0] < cost[2] < cost[3]
    mix = Mix.lines(vertices, cost, points=5)
    curve = mix.curve(outcomes, Resamples(outcomes.rows, draws=0))
    at = [np.flatnonzero((mix.shares == vertex).all(axis=1)).item() for vertex in vertices]
    np.testing.assert_allclose(curve.quality[0, at], singles.quality[0, [0, 2, 3]])
    assert set(np.linspace(cost[0], cost[3], 5).round(9)) <= set(curve.cost[0].round(9))


def test_a_hull_is_never_dearer_than_a_coin_where_both_are_chosen(request):
    outcomes, _ = make_outcomes(request.node.name)
    once = Resamples(outcomes.rows, draws=0)
    for models in ([0, 3], [0, 1, 2, 3]):
        some = outcomes.columns(models)
        axis, singles = Axis.of(some), single_curve(some, once)
        hull = Mix.lines(hull_mix(some), singles.cost[0])
        coin = Mix(random_mix(axis, len(models), MIX_POINTS))
        for share in np.linspace(0.9, 1, 201):
            kept = [
                (curve := mix.curve(some, once)).cost[0, choose_operating_point(curve, axis, singles, share).index]
                for mix in (hull, coin)
            ]
            assert kept[0] <= kept[1] * (1 + 1e-12)
            if len(models) == 2:  # the hull is the coin
                np.testing.assert_allclose(*kept)
