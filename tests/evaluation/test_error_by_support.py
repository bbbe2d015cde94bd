"""Error against support: what each figure is on small tables, bins of equal count, and what must hold for any."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.error_by_support import FIGURES, Judged, bins_of, prompt_errors, support_figures
from ipr_engine.evaluation.evaluation_inputs import Baselines, EvaluationOptions
from tests.support import skips
from tests.support.seeds import seeded


def make_judged(*seed, rows=203, models=3, error_by_distance=0.0):
    """0/1 outcomes, predictions that miss by 0.2, and by more the farther a prompt is."""
    rng = seeded("judged", rows, models, *seed)
    support = rng.random(rows)
    quality = (rng.random((rows, models)) < 0.5).astype(float)
    miss = 0.2 + error_by_distance * (1 - support)
    return Judged(
        "made", support, np.abs(quality - miss[:, None]), quality, np.linspace(0.4, 0.6, models), keys_of(rows)
    )


def keys_of(rows):
    return [f"question {i}" for i in range(rows)]


def test_each_figure_of_a_prompt_is_its_definition():
    judged = Judged(
        "made",
        support=np.array([0.1, 0.9]),
        predicted=np.array([[0.5, 0.4], [0.0, 1.0]]),
        quality=np.array([[0.0, 1.0], [0.0, 1.0]]),
        means=np.array([0.5, 0.0]),
        groups=keys_of(2),
    )
    found = prompt_errors(judged)
    np.testing.assert_allclose(found["brier"], [(0.25 + 0.36) / 2, 0])
    np.testing.assert_allclose(found["brier_of_means"], [(0.25 + 1) / 2] * 2)
    np.testing.assert_allclose(found["regret"], [1, 0])
    np.testing.assert_allclose(found["regret_of_best_single"], [1, 1])


@pytest.mark.parametrize("rows", [5, 17, 203])
def test_bins_hold_about_equal_counts_in_order_of_support(request, rows):
    support = seeded(request.node.name).random(rows)
    number = bins_of(support)
    counts = np.bincount(number)
    assert len(counts) == 5
    assert counts.max() - counts.min() <= 1
    assert (np.diff(number[np.argsort(support)]) >= 0).all()


def test_equal_supports_share_a_bin():
    number = bins_of(np.array([0.0] * 50 + [0.5] * 10 + [0.9] * 3))
    assert len(set(number[:50])) == 1
    assert number.max() + 1 == len(np.unique(number))


def test_the_bins_add_up_to_the_whole(request):
    found = support_figures(make_judged(request.node.name), draws=10)
    prompts = [line["prompts"] for line in found["bins"]]
    assert sum(prompts) == found["overall"]["prompts"] == 203
    for name in FIGURES:
        assert np.average([line[name]["value"] for line in found["bins"]], weights=prompts) == pytest.approx(
            found["overall"][name]["value"]
        )


def test_errors_that_grow_with_distance_are_found_and_equal_ones_are_not(request):
    grows = support_figures(make_judged(request.node.name, error_by_distance=0.5))
    assert grows["low_minus_high"]["brier"]["low"] > 0
    level = support_figures(make_judged(request.node.name))
    assert level["low_minus_high"]["brier"]["value"] == pytest.approx(0)
    assert level["low_minus_high"]["brier"]["low"] <= 0 <= level["low_minus_high"]["brier"]["high"]


def test_copies_of_a_question_are_drawn_together(request):
    judged = make_judged(request.node.name, rows=150)
    thrice = np.repeat(np.arange(150), 3)
    copies = Judged(
        "copies", *(part[thrice] for part in (judged.support, judged.predicted, judged.quality)), judged.means,
        [judged.groups[i] for i in thrice],
    )  # fmt: skip
    one, three = (support_figures(part, draws=400)["overall"]["regret"] for part in (judged, copies))
    assert three["value"] == pytest.approx(one["value"])
    assert three["high"] - three["low"] == pytest.approx(one["high"] - one["low"], rel=0.2)


def test_one_support_everywhere_has_one_bin_and_no_halves(request):
    judged = make_judged(request.node.name)
    found = support_figures(replace(judged, support=np.zeros(203)), draws=5)
    assert len(found["bins"]) == 1
    assert found["low_minus_high"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"support": np.zeros(3)}, r"expected tables of \(rows, models\)"),
        ({"quality": np.full((203, 3), np.nan)}, "expected finite support"),
    ],
)
def test_what_is_no_complete_table_is_refused(request, change, message):
    judged = make_judged(request.node.name)
    with pytest.raises(InvalidInputError, match=message):
        prompt_errors(replace(judged, **change))


def test_report_and_plot_show_every_source(request, tmp_path):
    pytest.importorskip("sklearn", reason=skips.EVAL)
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine.evaluation import report
    from ipr_engine.evaluation.plots import draw_all
    from ipr_engine.evaluation.summary import summarise
    from ipr_engine.measures.resampling import grouped_folds
    from tests.support.evaluation_data import make_split

    train, test = make_split("support", rows=60), make_split("support", rows=60)
    summary = summarise(
        ("a", "b", "c", "d"),
        train,
        test,
        Baselines(grouped_folds(train.groups, 5, 0)),
        options=EvaluationOptions(draws=5),
    )
    assert "Error against support" not in report.render(summary.figures)
    one = make_judged(request.node.name)
    lone = Judged("elsewhere", np.zeros(1), one.predicted[:1], one.quality[:1], one.means, keys_of(1))
    summary.figures["support"] = [support_figures(judged, draws=5) for judged in (one, lone)]
    text = report.render(summary.figures)
    assert "| **made**, 3 candidates | " in text
    assert "| **elsewhere**, 3 candidates | 0.00 (0.00 to 0.00) | 1 | " in text
    paths = draw_all(summary, tmp_path, "generated")
    assert paths[-1].name == "support.png"
    assert paths[-1].read_bytes()[:4] == b"\x89PNG"
