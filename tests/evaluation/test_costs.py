"""Realised and predicted costs on one basis; candidates that cost nothing; costs in any unit; axes without length."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import Bundle, BundleParts, PriceList, with_prices, write_bundle
from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation import evaluate, report
from ipr_engine.evaluation.costs import CostBasis
from ipr_engine.evaluation.evaluation_inputs import Baselines, EvaluationOptions
from ipr_engine.evaluation.summary import summarise
from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.routing import Axis, degenerate_axis, single_curve
from ipr_engine.measures.sweeps import WORTHS, worth_grid, worth_sweep
from ipr_engine.tokens.profiles import shipped_profile
from tests.support import skips
from tests.support.bundles import bundle_parts, make_bundle
from tests.support.evaluation_data import evaluate_engine, make_split
from tests.support.training_data import write_source

for module in ("pyarrow", "sklearn", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.EVAL)

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]
NAMES = ("alpha/large", "beta/mid", "gamma/small")
DRAWS = 5


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("costs")


@pytest.fixture(scope="module")
def engine(work):
    return Engine.load(make_bundle(work / "bundle", models=3, dim=16))


@pytest.fixture(scope="module")
def outcomes(work):
    return load_outcomes(write_source(work / "made", list(NAMES), PROMPTS, rows_per_split=50))


def without(outcomes, measure, *columns):
    table = getattr(outcomes, measure).copy()
    table[:, [NAMES.index(name) for name in columns]] = np.nan
    return replace(outcomes, **{measure: table})


def priced(engine, root, **changes):
    """The engine on a bundle of other prices: name -> (input, output)."""
    old = engine.bundle.prices
    new = {
        name: replace(price, input_usd_per_1m=changes[name][0], output_usd_per_1m=changes[name][1], fixed_usd=0.0)
        if name in changes
        else price
        for name, price in old.prices.items()
    }
    return Engine.load(with_prices(engine.bundle, PriceList(date=old.date, prices=new), root=root))


def mean_cost(figures):
    return {line["name"]: line["cost_usd"]["value"] for line in figures["candidates"]}


def test_realised_cost_is_the_recorded_tokens_at_the_bundles_prices(engine, outcomes):
    figures = evaluate_engine(engine, outcomes, draws=DRAWS).figures
    rows = outcomes.of_split("test")
    for m, name in enumerate(NAMES):
        price = engine.bundle.prices.prices[name]
        paid = price.input_usd_per_1m * rows.input_tokens[:, m] + price.output_usd_per_1m * rows.output_tokens[:, m]
        assert mean_cost(figures)[name] == pytest.approx(price.fixed_usd + paid.mean() / 1e6, rel=1e-12)
    told = figures["about"]["realised cost"]
    assert (
        told
        == f"recorded output tokens at the bundle's prices of {engine.bundle.prices.date}; recorded input tokens likewise"
    )


def test_recorded_costs_play_no_part_where_tokens_are_known(engine, outcomes):
    as_paid = evaluate_engine(engine, outcomes, draws=DRAWS).figures
    wild = replace(outcomes, cost_usd=1e3 * outcomes.cost_usd[:, ::-1])
    none = without(outcomes, "cost_usd", *NAMES)
    assert evaluate_engine(engine, wild, draws=DRAWS).figures == as_paid
    assert evaluate_engine(engine, none, draws=DRAWS).figures == as_paid


def test_a_price_change_moves_realised_and_predicted_cost_alike(engine, outcomes, work):
    before = evaluate_engine(engine, outcomes, draws=DRAWS).figures
    old = engine.bundle.prices.prices["alpha/large"]
    tenfold = (10 * old.input_usd_per_1m, 10 * old.output_usd_per_1m)
    plain = priced(engine, work / "plain", **{"alpha/large": (old.input_usd_per_1m, old.output_usd_per_1m)})
    dear = priced(engine, work / "dear", **{"alpha/large": tenfold})
    lines = [evaluate_engine(e, outcomes, draws=DRAWS).figures["candidates"][0] for e in (plain, dear)]
    assert lines[1]["cost_usd"]["value"] == pytest.approx(10 * lines[0]["cost_usd"]["value"])
    assert lines[1]["predicted_cost_usd"] == pytest.approx(10 * lines[0]["predicted_cost_usd"], rel=1e-4)
    assert before["candidates"][0]["name"] == "alpha/large"


def test_missing_input_tokens_are_stood_in_for_and_counted(engine, outcomes):
    figures = evaluate_engine(engine, without(outcomes, "input_tokens", "beta/mid"), draws=DRAWS).figures
    told = figures["about"]["realised cost"]
    assert "input tokens are missing on 100 of 300 outcomes" in told
    rows = outcomes.of_split("test")
    price = engine.bundle.prices.prices["beta/mid"]
    ratio = engine.bundle.candidates[1].token_ratio
    billed = engine.encode(list(rows.prompts)).billed_tokens * ratio
    paid = price.input_usd_per_1m * billed + price.output_usd_per_1m * rows.output_tokens[:, 1]
    assert mean_cost(figures)["beta/mid"] == pytest.approx(price.fixed_usd + paid.mean() / 1e6)


def test_what_stands_in_for_input_tokens_is_the_candidates_own_count(outcomes, work):
    parts = bundle_parts(work / "own_sources", models=3, dim=16)
    parts["candidates"][1] = replace(parts["candidates"][1], tokenizer=shipped_profile("claude_2"))
    engine = Engine.load(write_bundle(work / "own", BundleParts(**parts)))
    figures = evaluate_engine(engine, without(outcomes, "input_tokens", "beta/mid"), draws=DRAWS).figures
    rows, price = outcomes.of_split("test"), engine.bundle.prices.prices["beta/mid"]
    billed = shipped_profile("claude_2").tokens(list(rows.prompts))
    paid = price.input_usd_per_1m * billed + price.output_usd_per_1m * rows.output_tokens[:, 1]
    assert mean_cost(figures)["beta/mid"] == pytest.approx(price.fixed_usd + paid.mean() / 1e6)
    assert "what the engine bills the candidate for the prompt stands in" in figures["about"]["realised cost"]


def test_a_candidate_without_output_tokens_keeps_its_recorded_cost_and_that_is_said(engine, outcomes):
    figures = evaluate_engine(engine, without(outcomes, "output_tokens", "beta/mid"), draws=DRAWS).figures
    assert mean_cost(figures)["beta/mid"] == pytest.approx(outcomes.of_split("test").cost_usd[:, 1].mean())
    assert (
        "of beta/mid the source has no output tokens: the recorded cost_usd stands" in figures["about"]["realised cost"]
    )
    lines = {line["name"]: line for line in figures["candidates"]}
    assert "tokens" not in lines["beta/mid"]
    assert "tokens" in lines["alpha/large"]
    report.render(figures)


def test_a_candidate_with_neither_is_refused_by_name(engine, outcomes):
    bare = without(without(outcomes, "output_tokens", "beta/mid"), "cost_usd", "beta/mid")
    with pytest.raises(InvalidInputError, match="'beta/mid' has neither output_tokens nor cost_usd"):
        evaluate_engine(engine, bare, draws=DRAWS)


def test_without_tokens_and_without_a_tokens_head_the_error_says_what_to_record(outcomes, work, monkeypatch):
    def embed_rows(*_, **__):
        pytest.fail("prompts are embedded before it is told")

    monkeypatch.setattr(evaluate, "embed_rows", embed_rows)
    bundle = make_bundle(work / "no tokens", models=3, dim=16, tokens=False)
    bare = without(outcomes, "output_tokens", *NAMES)
    with pytest.raises(InvalidInputError, match="no output_tokens in made and the bundle's heads predict none"):
        evaluate_engine(Engine.load(bundle), bare, draws=DRAWS)


def test_rows_without_a_count_are_left_out_and_counted(engine, outcomes):
    tokens = outcomes.output_tokens.copy()
    at = [i for i, split in enumerate(outcomes.splits) if split == "test"][:7]
    tokens[at, 0] = np.nan
    gaps = replace(outcomes, output_tokens=tokens)
    basis = CostBasis.of(engine.bundle, gaps, NAMES, NAMES)
    assert basis.complete(gaps.of_split("test")).dropped == 7
    tokens[[i for i, split in enumerate(outcomes.splits) if split == "test"], 0] = np.nan
    with pytest.raises(InvalidInputError, match="'alpha/large' has output_tokens on 0% of the prompts"):
        basis.complete(replace(outcomes, output_tokens=tokens).of_split("test"))


@pytest.mark.parametrize("free", [("gamma/small",), NAMES])
def test_candidates_that_cost_nothing_end_in_a_report(engine, outcomes, work, tmp_path, free):
    pytest.importorskip("matplotlib", reason=skips.EVAL)
    from ipr_engine.evaluation.plots import draw_all

    made = priced(engine, work / "-".join(free).replace("/", "_"), **dict.fromkeys(free, (0.0, 0.0)))
    summary = evaluate_engine(made, outcomes, draws=DRAWS)
    paths = report.write(summary.figures, draw_all(summary, tmp_path, "free"), tmp_path)
    text, figures = paths[0].read_text(), json.loads(paths[1].read_text())
    assert "nan" not in text.replace("finan", "")
    lines = {line["name"]: line for line in figures["candidates"]}
    assert all(lines[name]["arena_score"] is None and lines[name]["cost_usd"]["value"] == 0 for name in free)
    if free == NAMES:
        assert "**areas are undefined** (-)" in text
        assert figures["axis"]["degenerate"]


def summarised(split_train, split_test, worths=WORTHS, **more):
    baselines = Baselines(grouped_folds(split_train.groups, 5, 0), worths)
    options = EvaluationOptions(draws=DRAWS)
    return summarise(("a", "b", "c", "d"), split_train, split_test, baselines, options=options, **more)


def recosted(split, cost):
    return replace(split, outcomes=replace(split.outcomes, cost=cost), predicted_cost=cost)


def test_a_degenerate_axis_is_explained(request):
    train, test = make_split(request.node.name, rows=100), make_split(request.node.name, "test", rows=80)
    reversed_cost = [recosted(split, split.outcomes.cost[:, ::-1].copy()) for split in (train, test)]
    figures = summarised(*reversed_cost).figures
    assert figures["axis"]["degenerate"] == (
        "d is the cheapest and the best single candidate: it answers everything, and there is nothing to trade"
    )
    text = report.render(figures)
    assert "- **areas are undefined** (-): d is the cheapest" in text
    assert "nan" not in text
    assert summarised(train, test).figures["axis"]["degenerate"] is None


def test_each_way_to_have_no_axis_has_its_words(request):
    outcomes = make_split(request.node.name).outcomes
    singles = single_curve(outcomes, Resamples(outcomes.rows, draws=0))
    names = ("a", "b", "c", "d")
    assert "cheapest and the best" in degenerate_axis(Axis(1, 1), singles, names)
    assert "c costs no more than the cheapest, d" in degenerate_axis(Axis(3, 2), singles, names)
    worse = int(singles.quality[0].argmin())
    assert "nothing" in degenerate_axis(Axis(int(singles.quality[0].argmax()), worse), singles, names)


@pytest.mark.parametrize("unit", [1e-6, 1e5])
def test_the_worth_sweep_reaches_the_best_candidate_in_any_unit_of_cost(request, unit):
    train, test = (
        recosted(split, unit * split.outcomes.cost)
        for split in (make_split("unit", rows=100), make_split("unit", rows=80))
    )
    worths = worth_grid(train.outcomes.cost)
    choices = worth_sweep(test.predicted, test.predicted_cost, worths)
    np.testing.assert_array_equal(choices[0], test.predicted_cost.argmin(axis=1))
    best = np.take_along_axis(test.predicted, choices[-1][:, None], axis=1)[:, 0]
    assert (test.predicted.max(axis=1) - best).max() < 0.002
    figures = summarised(train, test, worths=worths).figures
    assert figures["worths"] == {"least": float(worths[1]), "most": float(worths[-1]), "settings": len(worths)}


def test_the_grid_of_usual_costs_is_the_usual_one_and_others_continue_it():
    cost = np.tile([[0.0001, 0.009]], (5, 1))
    np.testing.assert_array_equal(worth_grid(cost), WORTHS)
    dear = worth_grid(1000 * cost)
    np.testing.assert_array_equal(dear[: len(WORTHS)], WORTHS)
    assert dear[-1] >= 1000 * 9
    small = worth_grid(1e-6 * cost)
    assert small[1] <= 9e-9
    assert small[0] == 0
    np.testing.assert_allclose(np.diff(np.log(small[1:])), np.log(WORTHS[2] / WORTHS[1]))
    np.testing.assert_array_equal(worth_grid(np.zeros((4, 2))), WORTHS)


def test_heads_whose_predictions_do_not_move_are_named_and_their_ece_is_not_shown(request):
    train, test = make_split(request.node.name, rows=100), make_split(request.node.name, "test", rows=80)
    flat = [split.predicted.copy() for split in (train, test)]
    for table in flat:
        table[:, 2] = 0.5
    figures = summarised(*(replace(s, predicted=p) for s, p in zip((train, test), flat, strict=True))).figures
    lines = {line["name"]: line for line in figures["candidates"]}
    assert list(figures["constant"]) == ["c"]
    assert lines["c"]["ece"] is None
    assert lines["a"]["ece"] is not None
    text = report.render(figures)
    assert "- **constant head** of c: its predicted qualities have a standard deviation of 0.0000" in text
    assert next(line for line in text.splitlines() if line.startswith("| c | ")).count("- (constant)") == 1
    told = summarised(train, test, constant={"a": "said by the bundle"}).figures
    assert told["constant"] == {"a": "said by the bundle"}
    every = summarised(train, test, constant=dict.fromkeys("abcd", "told")).figures
    assert "- **no head** is shown to read the prompt: beyond prices" in report.render(every)


def test_the_bundles_own_marks_reach_the_report(outcomes, work):
    marked = make_bundle(
        work / "marked", models=3, dim=16, overrides={"provenance": {"constant": {"beta/mid": "told"}}}
    )
    figures = evaluate_engine(Engine.load(marked), outcomes, draws=DRAWS).figures
    assert figures["constant"]["beta/mid"] == "told"
    assert Bundle.load(marked).provenance["constant"] == {"beta/mid": "told"}
