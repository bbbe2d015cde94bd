"""How far a router is: figures by fits that have not seen the question, and the sentences made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.bundle import Bundle
from ipr_engine.cli import main
from ipr_engine.measures.resampling import Estimate, grouped_folds
from ipr_engine.measures.routing import WeightedOutcomes
from ipr_engine.training import standing
from ipr_engine.training.cross_fitted import heads_cross_fitted, kmeans_cross_fitted, means_cross_fitted
from ipr_engine.training.fitted_heads import HeadRows
from ipr_engine.training.selection import PromptCosts
from ipr_engine.training.standing import CLUSTERS, COIN, HULL, Line, stand
from tests.support.seeds import seeded
from tests.support.training_data import write_source

RATES = np.array([1e-5, 4e-6, 1e-6])
NAMES = ("dear", "middle", "cheap")


def made(*seed, rows=400, told=3.0):
    """Return rows of which the cheap candidate is as good as the dear one on one half, told by the embedding where `told` is not 0."""
    rng = seeded(*seed)
    x = rng.standard_normal((rows, 8))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    hard = 1 / (1 + np.exp(-6 * told * x[:, 0]))
    chance = np.stack([np.full(rows, 0.9), 0.9 - 0.4 * hard, 0.9 - 0.8 * hard], axis=1)
    quality = (rng.random(chance.shape) < chance).astype(float)
    tokens = np.full(chance.shape, 100.0)
    keys = [f"question {i}" for i in range(rows)]
    return HeadRows(x, quality, tokens, keys), PromptCosts(tokens * RATES, np.zeros_like(tokens), RATES)


def test_a_router_that_reads_the_prompt_is_told_apart_from_the_hull(request):
    where = stand(*made(request.node.name), NAMES, estimator="advantage_shared")
    router, *others = where.lines
    assert (router.name, where.best, where.prompts) == ("router (advantage_shared)", "dear", 400)
    assert [line.name for line in others] == ["k-means", HULL, COIN]
    hull, coin = others[1:]
    assert hull.area_behind.low > 0
    assert coin.area.value == pytest.approx(0.5)
    assert router.cost.value < hull.cost.value <= 1
    assert "told apart, routing by the prompt saves" in where.says[0]


def test_a_router_of_noise_is_not_told_apart(request):
    rows, costs = made(request.node.name, told=0.0)
    where = stand(rows, costs, NAMES, estimator="advantage_shared")
    assert "not told apart, neither in this cost nor in area" in where.says[0]
    assert where.says[1].endswith("cannot be told")


def test_more_prompts_are_counted_by_halves(request):
    where = stand(*made(request.node.name), NAMES, estimator="plain")
    assert list(where.learning) == [80, 160, 320]
    cost, area = where.doubling
    quarter, all_of_them = where.learning[80], where.learning[320]
    assert cost.value == pytest.approx((all_of_them[0].value - quarter[0].value) / 2)
    assert area.value == pytest.approx((all_of_them[1].value - quarter[1].value) / 2)
    few = stand(*made(request.node.name, rows=150), NAMES, estimator="plain")
    assert few.doubling == ()
    assert "cannot be told: a quarter of those that a fit sees are fewer than 40" in few.says[1]


def test_a_candidate_judged_on_few_questions_ends_no_run(request):
    rows, costs = made(request.node.name, told=1.0)
    rows.quality[90:, 1] = np.nan
    where = stand(rows, costs, NAMES, estimator="plain")
    assert len(where.lines) == 4
    assert where.doubling == ()
    assert "or fewer than 20 of some candidate" in where.says[1]
    keys = [f"question {i // 5}" if i < 90 else key for i, key in enumerate(rows.keys)]
    grouped = HeadRows(rows.x, rows.quality, rows.tokens, keys)
    assert stand(grouped, costs, NAMES, estimator="plain").says == (
        "how far the router is cannot be told: middle is judged on 18 questions, fewer than 20",
    )


@pytest.mark.parametrize(
    ("cost", "area", "said"),
    [
        (Estimate(-0.1, -0.2, -0.01), Estimate(0, -1, 1), "routing by the prompt saves"),
        (Estimate(0.1, 0.01, 0.2), Estimate(0, -1, 1), "costs more than a mix of single candidates does"),
        (Estimate(0, -1, 1), Estimate(0.1, 0.01, 0.2), "in area the router is ahead of the hull"),
        (Estimate(0, -1, 1), Estimate(-0.1, -0.2, -0.01), "in area the router is behind the hull"),
        (Estimate(0, -1, 1), Estimate(0, -1, 1), "may do as well"),
    ],
)
def test_a_sentence_says_what_the_intervals_tell(cost, area, said):
    one = Estimate(0.5, 0.4, 0.6)
    sentence = standing._beside_hull([Line("router", one, one), Line(HULL, one, one, cost, area)], "dear")  # noqa: SLF001
    assert sentence.endswith(said)
    assert "at 98% of dear's quality the router costs 50% [40%, 60%] of always asking dear" in sentence


@pytest.mark.parametrize(
    ("cost", "area", "said"),
    [
        (Estimate(-0.1, -0.2, 0.1), Estimate(0.1, -0.1, 0.2), ""),
        (Estimate(0.1, -0.2, 0.3), Estimate(0.1, -0.1, 0.2), "ahead of the router in cost: not told apart"),
        (
            Estimate(0.1, -0.2, 0.3),
            Estimate(-0.1, -0.2, 0.1),
            "ahead of the router in cost and in area: not told apart",
        ),
        (Estimate(0.1, 0.01, 0.3), Estimate(-0.1, -0.2, 0.1), "in cost and in area: told apart in cost alone"),
        (Estimate(-0.1, -0.2, 0.1), Estimate(-0.1, -0.2, -0.01), "ahead of the router in area: told apart"),
        (Estimate(np.nan, np.nan, np.nan), Estimate(0.1, -0.1, 0.2), ""),
    ],
)
def test_where_k_means_is_ahead_the_sentence_says_so(cost, area, said):
    one = Estimate(0.5, 0.4, 0.6)
    lines = [Line("router", one, one), Line(CLUSTERS, one, one, cost, area)]
    sentence = standing._beside_clusters(lines)  # noqa: SLF001
    assert sentence.endswith(said)
    assert (
        bool(sentence)
        == sentence.startswith("; k-means costs 50% [40%, 60%] there, and is ahead of the router in ")
        == bool(said)
    )


@pytest.mark.parametrize(
    ("cost", "area", "said"),
    [
        (Estimate(-0.1, -0.2, -0.01), Estimate(0, -1, 1), "more prompts help"),
        (Estimate(0, -1, 1), Estimate(0.1, 0.01, 0.2), "more prompts help"),
        (Estimate(0, -1, 1), Estimate(-0.1, -0.2, -0.01), "more prompts did not help"),
        (Estimate(0, -1, 1), Estimate(0, -1, 1), "whether more prompts would help cannot be told"),
    ],
)
def test_what_more_prompts_do_is_said_of_the_intervals(cost, area, said):
    assert standing._more_prompts((cost, area), [80, 160, 320]).endswith(f": {said}")  # noqa: SLF001


def test_nothing_is_said_where_nothing_can_be_traded(request):
    rows, costs = made(request.node.name)
    dear_first = PromptCosts(costs.realised[:, ::-1], costs.of_input, costs.output_rate[::-1])
    where = stand(rows, dear_first, NAMES, estimator="plain")
    assert where.lines == ()
    assert where.text() == [
        "how far the router is cannot be told: dear is the cheapest and the best single candidate: it answers everything, and "
        "there is nothing to trade"
    ]
    short = stand(rows.take(np.arange(400) < 40), costs.take(np.arange(400) < 40), NAMES, estimator="plain")
    assert "40 prompts have a quality and a cost of every candidate, fewer than 50" in short.text()[0]


def test_columns_stand_apart_where_intervals_are_wide():
    wide, usual = Estimate(-0.02, -15.93, 0.43), Estimate(0.5, 0.4, 0.6)
    lines = (
        Line(standing.ROUTER, usual, usual),
        Line(HULL, usual, wide, wide, wide),
        Line(COIN, usual, usual, usual, usual),
    )
    head, *rows = standing.Standing(100, "dear", (), lines).text()
    starts = [head.index("router minus it"), head.index("area"), head.rindex("router minus it")]
    assert all(row[at - 2 : at] == "  " for row in rows for at in starts if len(row) > at)
    assert [rows[1][at : at + 5] for at in starts] == ["-0.02", "-0.02", "-0.02"]


def test_many_prompts_are_judged_on_some_of_whole_questions(request, monkeypatch):
    monkeypatch.setattr(standing, "MOST_ROWS", 150)
    told: list[str] = []
    where = stand(*made(request.node.name), NAMES, estimator="plain", progress=told.append)
    assert where.prompts == 150
    assert told == ["judged on 150 of 400 prompts, whole questions drawn by chance"]


@pytest.mark.parametrize("way", ["heads", "k-means", "means"])
def test_no_question_has_a_part_in_its_own_prediction(request, way):
    rows, costs = made(request.node.name, rows=120)
    keys = [f"question {i // 2}" for i in range(120)]
    outer = grouped_folds(keys, 5, seed=0)
    changed = rows.quality.copy()
    changed[outer == 2] = 1 - changed[outer == 2]

    def predicted(quality):
        if way == "heads":
            given = HeadRows(rows.x, quality, rows.tokens, keys)
            return heads_cross_fitted(given, costs, outer, estimator="plain", parts=2, part=1)
        outcomes = WeightedOutcomes.complete(quality, costs.realised)
        return (
            means_cross_fitted(outcomes, outer)
            if way == "means"
            else kmeans_cross_fitted(rows.x, outcomes, keys, outer)
        )

    one, two = predicted(rows.quality), predicted(changed)
    np.testing.assert_array_equal(one.quality[outer == 2], two.quality[outer == 2])
    assert (one.quality[outer != 2] != two.quality[outer != 2]).any()


def test_copies_of_every_prompt_make_no_interval_narrower(request):
    rows, costs = made(request.node.name, rows=120)
    twice = np.concatenate([np.arange(120), np.arange(120)])
    keys = [rows.keys[i] for i in twice]
    doubled = HeadRows(rows.x[twice], rows.quality[twice], rows.tokens[twice], keys)
    costs_of_both = PromptCosts(costs.realised[twice], costs.of_input[twice], costs.output_rate)
    one, two = (
        next(line for line in stand(*given, NAMES, estimator="plain").lines if line.name == HULL).area
        for given in ((rows, costs), (doubled, costs_of_both))
    )
    assert two.high - two.low == pytest.approx(one.high - one.low, rel=0.05)


def test_train_tells_it_and_the_bundle_keeps_it(tmp_path, capsys):
    pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")
    pytest.importorskip("pyarrow", reason="needs extra [train]: a source in Parquet")
    source = write_source(tmp_path / "made", ["a", "b", "c"], ["why", "how does it go", "prove that x", "write code"])
    candidates = tmp_path / "candidates.json"
    price = {"family": "f", "provider": "p"}
    entries = [
        {"name": n, **price, "input_usd_per_1m": 3.0 / 2**m, "output_usd_per_1m": 9.0 / 2**m}
        for m, n in enumerate("abc")
    ]
    candidates.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    given = ["train", "--outcomes", str(source), "--candidates", str(candidates), "--estimator", "plain"]
    given += ["--allow-constant", "--json", "--out"]
    assert main([*given, str(tmp_path / "told")]) == 0
    out, err = capsys.readouterr()
    told = json.loads(out)["standing"]
    bundle = Bundle.load(tmp_path / "told")
    assert bundle.provenance["standing"] == told
    for sentence in told["says"]:
        assert sentence in err
    assert main([*given, str(tmp_path / "untold"), "--no-standing"]) == 0
    assert json.loads(capsys.readouterr().out)["standing"] is None
    assert "standing" not in Bundle.load(tmp_path / "untold").provenance
