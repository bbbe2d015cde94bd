"""Without a test split the recipe is judged: every prompt by heads, baselines and a hull that have not seen its question."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle import UnsupportedDefault, with_unsupported
from ipr_engine.cli import main
from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.baselines import Predictions, crossed
from ipr_engine.evaluation.contenders import MIX_POINTS, FoldedMix, Mix, curve_of_shares
from ipr_engine.evaluation.cross_fit import FOLDS, Recipe, because_of, cross_fitted, judges_recipe, question_folds
from ipr_engine.evaluation.embedded import embed_for
from ipr_engine.evaluation.evaluation_inputs import Baselines, EvaluationOptions
from ipr_engine.evaluation.report import render, to_json
from ipr_engine.evaluation.summary import summarise
from ipr_engine.measures.resampling import Resamples, grouped_folds
from ipr_engine.measures.routing import single_curve
from ipr_engine.measures.sweeps import TAUS, hull_mix, rule_constants, rule_sweep
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from ipr_engine.training.selection import compare_estimators
from tests.support import skips
from tests.support.bundles import make_bundle
from tests.support.evaluation_data import evaluate_engine, make_outcomes, make_split
from tests.support.routers import by_length
from tests.support.training_data import train, write_source

for module in ("pyarrow", "sklearn", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.EVAL)

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]
MODELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A source without a test split, and the bundle that was fitted on all of it."""
    work = tmp_path_factory.mktemp("cross_fit")
    source = load_outcomes(write_source(work / "one", MODELS, PROMPTS, rows_per_split=80))
    entries = [
        {"name": name, "family": "F", "provider": "P", "input_usd_per_1m": 1.0, "output_usd_per_1m": 9.0 - 4 * i}
        for i, name in enumerate(MODELS)
    ]
    candidates = work / "candidates.json"
    candidates.write_text(json.dumps({"date": "2026-01-01", "candidates": entries}))
    options = {"name": "one", "created": "2026-01-01", "estimator": "plain", "allow_constant": True, "split": None}
    trained = train(work / "one", candidates, work / "bundles", **options)
    return Engine.load(trained.folder), replace(source, splits=("train",) * len(source)), work


def test_other_routers_are_judged_by_the_same_folds(made):
    engine, source, _ = made
    fitted = []

    def fit(train):
        fitted.append(train.prompts)
        return by_length(train)

    figures = evaluate_engine(engine, source, routers={"length": fit}, draws=5).figures
    (found,) = (line for line in figures["contenders"] if line["kind"] == "other router")
    assert (found["settings"], found["setting"]) == (10, "fitted on the other folds")
    assert len(fitted) == FOLDS
    left_out = [set(source.prompts) - set(prompts) for prompts in fitted]
    assert sorted(prompt for part in left_out for prompt in part) == sorted(source.prompts)


def test_a_source_without_a_test_split_judges_the_recipe_and_says_so(made):
    engine, source, _ = made
    told = []
    figures = evaluate_engine(engine, source, draws=20, progress=told.append).figures
    assert figures["cross_fit"] == {"folds": FOLDS, "estimator": "plain"}
    assert figures["rows"] == {"train": 160, "test": 160}
    assert "the bundle's recipe is judged, not the bundle: heads are fitted anew in 5 folds of questions" in told
    text = render(figures)
    assert text.startswith("# Evaluation: the recipe of the one bundle, 3 candidates, cross-fitted on one, 160 prompts")
    assert "- judged: the recipe of this bundle (estimator: plain; seed 0), not the very bundle" in text
    assert "operating points chosen on: other half of the prompts" in text
    assert "router fitted on" not in text
    assert json.loads(to_json(figures))["path"]["reason"] == "each fold's heads have a path of their own"
    names = [c["name"] for c in figures["equal_quality"]["contenders"]]
    assert names == ["router, worth", "kNN, worth", "k-means, worth", "ridge, worth", "hull of singles", "random mix"]


def test_each_prompt_is_decided_by_heads_that_were_fitted_without_its_question(made):
    engine, source, _ = made
    judged = cross_fitted(engine, source, MODELS, source, cache=None, seed=3, progress=lambda message: None)
    first = embed_for(engine, source.prompts).first
    decisions = judged.decide(first, tau=0.0)
    np.testing.assert_array_equal(judged.folds, grouped_folds(source.question_keys, FOLDS, 3))
    for fold in range(FOLDS):
        out = judged.folds == fold
        keys = [key for key, held in zip(source.question_keys, out, strict=True) if not held]
        rows = HeadRows(np.asarray(first.x)[~out], source.quality[~out], source.output_tokens[~out], keys)
        heads = fit_heads(rows, estimator="plain", seed=0)
        expected, _ = predict(heads.tensors, np.asarray(first.x, np.float64)[out])
        np.testing.assert_allclose(decisions.qualities[out], expected, atol=1e-5)
    assert decisions.index.tolist() == decisions.qualities.argmax(axis=1).tolist()


def test_the_cross_fit_is_asked_for_beside_a_test_split_too(made, capsys):
    _, _, work = made
    command = ["eval", "--bundle", str(work / "bundles"), "--outcomes", str(work / "one"), "--draws", "5"]
    assert main([*command, "--cross-fit"]) == 0
    captured = capsys.readouterr()
    assert "cross-fitted on one, 160 prompts" in captured.out
    assert "--cross-fit" in captured.out.splitlines()[4]
    assert main([*command, "--cross-fit", "--validation", "train"]) == 1
    assert "validate_on_train (--validation train): needs a test split" in capsys.readouterr().err
    assert main([*command, "--cross-fit", "--also", str(work / "one")]) == 1
    assert "also (--also): needs a test split" in capsys.readouterr().err


def test_a_bundle_that_says_who_answers_unsupported_prompts_has_a_recipe_too(made):
    engine, source, work = made
    said = UnsupportedDefault(min_support=0.5, model="b")
    named = Engine.load(with_unsupported(engine.bundle, said, root=work / "named", activate=False))
    figures = [evaluate_engine(one, source, draws=3).figures["prediction"] for one in (engine, named)]
    assert figures[0] == figures[1]


def test_splits_of_other_names_are_no_reason_to_cross_fit(made):
    engine, source, _ = made
    odd = replace(source, splits=("train", "held") * 80)
    with pytest.raises(
        InvalidInputError, match=r"^outcomes: .* one states 'held', 'train' and lacks 'test'; .*--cross-fit"
    ):
        evaluate_engine(engine, odd, draws=5)


@pytest.mark.parametrize(
    ("provenance", "why"),
    [
        ({"recipe": "by hand"}, "its provenance does not say how `ipr train` fitted it"),
        ({"settings": {}}, "its provenance does not say how `ipr train` fitted it"),
        ({"outcomes": ["one", "two"]}, "it was fitted on several sources"),
        ({"added": {"a": {}}}, "candidates were added or removed after the fit"),
        ({"removed": ["d"]}, "candidates were added or removed after the fit"),
        ({"settings": {"estimator": "paper", "seed": 0}}, "its estimator 'paper' is fitted by steps"),
        ({"compared": [{"estimator": "plain"}, {"estimator": "oak"}]}, "names other estimators that were compared"),
        (
            {"settings": {"estimator": "caps", "seed": 0, "caps": 4}},
            "its provenance does not say with which caps, inside, spread",
        ),
    ],
)
def test_what_cannot_be_fitted_anew_is_refused_with_what_to_do(made, provenance, why):
    bundle = made[0].bundle
    changed = replace(bundle, provenance={**bundle.provenance, **provenance})
    with pytest.raises(InvalidInputError) as caught:
        Recipe.of(changed, "why it is asked for")
    assert str(caught.value).startswith("why it is asked for: the bundle's heads cannot be fitted anew, ")
    assert why in str(caught.value)
    assert str(caught.value).endswith("hold prompts out (`ipr data split`), train on the others, and evaluate on those")


def test_a_comparison_of_estimators_is_a_part_of_the_recipe(made):
    bundle = made[0].bundle
    assert Recipe.of(bundle, "") == Recipe("plain", 0)
    lines = [{"estimator": "plain"}, {"estimator": "advantage_rank1"}]
    compared = replace(bundle, provenance={**bundle.provenance, "compared": lines})
    assert Recipe.of(compared, "") == Recipe("auto", 0, compared=("plain", "advantage_rank1"))


def test_the_estimators_of_the_fit_are_compared_and_no_others(made, monkeypatch):
    engine, source, _ = made
    asked = []

    def compare(part, costs, *, estimators):
        asked.append(estimators)
        return compare_estimators(part, costs, estimators=estimators, repeats=1)

    monkeypatch.setattr("ipr_engine.evaluation.cross_fit.compare_estimators", compare)
    lines = [{"estimator": "plain"}, {"estimator": "advantage_rank1"}]
    bundle = replace(engine.bundle, provenance={**engine.bundle.provenance, "compared": lines})
    cross_fitted(Engine(bundle), source, MODELS, source, cache=None, seed=3, progress=lambda message: None)
    assert asked == [("plain", "advantage_rank1")] * FOLDS


def test_a_bundle_made_by_hand_and_a_missing_candidate_are_refused(made, tmp_path):
    engine, source, _ = made
    by_hand = Engine.load(make_bundle(tmp_path, models=3, dim=16))
    names = {name: [model] for name, model in zip(by_hand.bundle.names, MODELS, strict=True)}
    with pytest.raises(
        InvalidInputError, match="the bundle's heads cannot be fitted anew, its provenance does not say"
    ):
        evaluate_engine(by_hand, source, names=names, draws=5)
    with pytest.raises(InvalidInputError, match="one has no outcomes of 'c'; name it with --map"):
        evaluate_engine(engine, source.select(["a", "b"]), draws=5)


def test_a_candidate_that_is_hardly_judged_outside_a_fold_is_refused(made):
    engine, source, _ = made
    quality = source.quality.copy()
    quality[22:, 1] = np.nan
    with pytest.raises(
        InvalidInputError,
        match=r"outcomes: one states no test split, .*: .b. has quality on 1\d prompts of one outside a fold",
    ):
        evaluate_engine(engine, replace(source, quality=quality), draws=5)


def test_options_of_the_estimator_are_a_part_of_the_recipe(made):
    _, source, work = made
    options = {"name": "two", "created": "2026-01-01", "allow_constant": True, "split": None}
    asked = {"caps": 4, "inside": 0.5, "spread": 1, "forms": ["plain"]}
    trained = train(work / "one", work / "candidates.json", work / "caps", estimator="caps", options=asked, **options)
    engine = Engine.load(trained.folder)
    judged = cross_fitted(engine, source, MODELS, source, cache=None, seed=3, progress=lambda message: None)
    assert judged.recipe == Recipe("caps", 0, asked)
    first = embed_for(engine, source.prompts).first
    decisions = judged.decide(first, tau=0.0)
    out = judged.folds == 0
    keys = [key for key, held in zip(source.question_keys, out, strict=True) if not held]
    rows = HeadRows(np.asarray(first.x)[~out], source.quality[~out], source.output_tokens[~out], keys)
    expected, _ = predict(
        fit_heads(rows, estimator="caps", options=asked, seed=0).tensors, np.asarray(first.x, np.float64)[out]
    )
    np.testing.assert_allclose(decisions.qualities[out], expected, atol=1e-5)
    figures = evaluate_engine(engine, source, draws=5).figures
    assert "(estimator: caps; seed 0, caps 4, inside 0.5, spread 1, forms plain)" in figures["about"]["judged"]


def test_the_report_counts_what_is_left_out_and_what_stands_in_once(made):
    engine, source, _ = made
    quality, tokens = source.quality.copy(), source.input_tokens.copy()
    quality[:7, 0] = np.nan
    tokens[:] = 100.0
    tokens[100:130] = np.nan
    figures = evaluate_engine(engine, replace(source, quality=quality, input_tokens=tokens), draws=5).figures
    text = render(figures)
    assert "- incomplete rows left out: 7\n" in text
    assert "input tokens are missing on 90 of 459 outcomes" in text
    assert "on train" not in text


def test_a_fold_without_a_complete_prompt_is_refused(made):
    engine, source, _ = made
    quality = source.quality.copy()
    quality[60:, 0] = np.nan
    keys = tuple(f"a question by the number of {i // 15 if i < 60 else i}" for i in range(len(source)))
    few = replace(source, quality=quality, question_keys=keys)
    with pytest.raises(
        InvalidInputError,
        match=r"in each of 5 folds .*, found some in \d: 4 different questions of one have all outcomes",
    ):
        evaluate_engine(engine, few, draws=5)


def test_the_flag_is_named_where_it_was_given_and_not_where_a_source_has_no_test_split(made):
    engine, source, work = made
    by_hand = replace(engine.bundle, provenance={})
    with pytest.raises(
        InvalidInputError, match=r"^outcomes: one states no test split, so the bundle's recipe is judged"
    ):
        Recipe.of(by_hand, because_of(source))
    with pytest.raises(
        InvalidInputError, match=r"^cross_fit \(--cross-fit\): the bundle's heads cannot be fitted anew"
    ):
        Recipe.of(by_hand, because_of(load_outcomes(work / "one")))


def test_training_means_and_the_papers_rules_are_those_of_the_other_folds(request):
    split = make_split(request.node.name)
    folds = np.arange(len(split.groups)) // 2 % 4
    summary = summarise(
        ["a", "b", "c", "d"], split, split, Baselines(folds, crossed=True), options=EvaluationOptions(draws=5)
    )
    quality, cost = split.outcomes.quality, split.outcomes.cost
    others = [(folds == fold, folds != fold) for fold in range(4)]
    error = sum(np.square(quality[own] - quality[other].mean(axis=0)).sum() for own, other in others) / quality.size
    lines = {line["name"]: line for line in summary.figures["prediction"]}
    assert lines["training means"]["brier"] == pytest.approx(error)
    expected = np.empty((len(TAUS), len(folds)), int)
    for own, other in others:
        constants = rule_constants(split.predicted[other])
        expected[:, own] = rule_sweep(split.predicted[own], cost[other].mean(axis=0), "fixed", constants=constants)
    at = np.arange(len(folds))
    realised = summary.curves["paper's fixed, mean cost"].quality[0]
    np.testing.assert_allclose(realised, [quality[at, chosen].mean() for chosen in expected])
    assert "train_quality" not in summary.figures["candidates"][0]


def test_hulls_of_folds_are_told_apart_by_the_folds_that_there_are(request):
    outcomes, _ = make_outcomes(request.node.name)
    fold = np.array([0, 2, 3])[np.arange(outcomes.rows) % 3]
    vertices, cost = hull_mix(outcomes), single_curve(outcomes, Resamples(outcomes.rows, draws=0)).cost[0]
    found = FoldedMix.of_hulls([vertices[:1], vertices, vertices[-1:]], [cost] * 3, fold)
    everywhere = np.ones(outcomes.rows, bool)
    np.testing.assert_array_equal(
        found.shares_at(0, everywhere, 4)[fold == 3], np.tile(vertices[-1], ((fold == 3).sum(), 1))
    )
    once = Resamples(outcomes.rows, draws=0)
    read = curve_of_shares(found.shares_at(100, everywhere, 4), outcomes, once)
    np.testing.assert_allclose(found.curve(outcomes, once).quality[:, [100]], read.quality)


def test_a_baseline_sees_no_row_of_the_fold_that_it_predicts(request):
    outcomes, x = make_outcomes(request.node.name)
    folds = np.arange(outcomes.rows) % 4
    marked = np.column_stack([folds, x])

    def fit(seen, of, inner, at):
        assert set(seen[:, 0]) == set(inner) == set(range(4)) - set(at[:, 0])
        level = np.full((len(at), of.models), of.quality.mean())
        return Predictions(level, level, level, level, f"without {at[0, 0]:.0f}")

    found = crossed(fit, marked, outcomes, folds)
    assert found.setting == "without 0; without 1; without 2; without 3"
    np.testing.assert_allclose(found.quality[folds == 2], outcomes.quality[folds != 2].mean())


def test_hulls_of_folds_are_walked_by_cost_and_measured_on_their_own_rows(request):
    outcomes, _ = make_outcomes(request.node.name)
    fold = np.arange(outcomes.rows) % 3
    vertices, once = hull_mix(outcomes), Resamples(outcomes.rows, draws=3)
    cost = single_curve(outcomes, once).cost[0]
    same = FoldedMix.of_hulls([vertices] * 3, [cost] * 3, fold)
    curve = same.curve(outcomes, once)
    np.testing.assert_allclose(np.diff(curve.cost[0]), (curve.cost[0, -1] - curve.cost[0, 0]) / (MIX_POINTS - 1))
    by_shares = Mix(same.shares[0]).curve(outcomes, once)
    np.testing.assert_allclose(curve.quality, by_shares.quality)
    differ = FoldedMix.of_hulls([vertices, vertices[:1], vertices[-1:]], [cost] * 3, fold)
    everywhere = np.ones(outcomes.rows, bool)
    for point in (0, 37, MIX_POINTS - 1):
        read = curve_of_shares(differ.shares_at(point, everywhere, 4), outcomes, once)
        np.testing.assert_allclose(differ.curve(outcomes, once).quality[:, [point]], read.quality)
    some = fold != 1
    assert differ.subset(some).shares_at(5, np.ones(int(some.sum()), bool), 4).shape == (int(some.sum()), 4)


def test_a_source_without_both_splits_says_how_it_can_be_judged(tmp_path):
    source = load_outcomes(write_source(tmp_path / "made", ["a"], PROMPTS))
    without = replace(source, splits=tuple("validation" if split == "test" else split for split in source.splits))
    with pytest.raises(InvalidInputError, match=r"lacks 'test'; .*`ipr data split`.*--cross-fit"):
        judges_recipe(without, (), EvaluationOptions())
    assert judges_recipe(without, (), EvaluationOptions(cross_fit=True))
    assert not judges_recipe(source, (), EvaluationOptions())


def test_fewer_questions_than_folds_are_refused_with_how_many_are_needed(tmp_path):
    source = load_outcomes(write_source(tmp_path / "made", ["a"], PROMPTS))
    some = replace(source, question_keys=tuple(f"k{i % 3}" for i in range(len(source))))
    with pytest.raises(InvalidInputError, match=r"at least 5 different training questions are needed.* made has 3"):
        question_folds(some, 0)
