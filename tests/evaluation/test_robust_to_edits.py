"""The same prompts, written otherwise: figures are those of the engine's own decisions, verdicts of intervals; words are searched."""

from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.data import load_outcomes
from ipr_engine.data.prompt_edits import EDITS, MATHS
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.report import render, to_json
from ipr_engine.evaluation.robust_to_edits import A_SENTENCE, SEARCHED, SUPPORTED, failed, verdict_of
from ipr_engine.evaluation.robust_to_edits_text import FAILS, HOLDS, NOTHING, OPEN, render_edits
from ipr_engine.evaluation.searched_suffix import WORDS, searched_suffix, words_of
from tests.support import skips
from tests.support.bundles import NAMES, make_bundle
from tests.support.evaluation_data import evaluate_engine
from tests.support.training_data import train, write_source

for module in ("pyarrow", "sklearn", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.EVAL)

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("edits")


@pytest.fixture(scope="module")
def engine(work):
    return Engine.load(make_bundle(work / "bundle", models=3, dim=16))


@pytest.fixture(scope="module")
def outcomes(work):
    return load_outcomes(write_source(work / "home", NAMES[:3], PROMPTS))


@pytest.fixture(scope="module")
def figures(engine, outcomes):
    return evaluate_engine(engine, outcomes, draws=20, edits=True).figures


def line_of(figures, name):
    return next(line for line in figures["edits"]["lines"] if line["name"] == name)


def test_every_edit_and_both_suffixes_have_a_line(figures):
    names = [line["name"] for line in figures["edits"]["lines"]]
    assert names == [*EDITS, A_SENTENCE, SEARCHED]
    assert [line["kind"] for line in figures["edits"]["lines"]] == ["edit"] * 9 + ["suffix"] * 2
    assert len(figures["edits"]["settings"]) == 4


@pytest.mark.parametrize("edit", ["politeness", "full width", "paraphrased instructions"])
def test_figures_are_those_of_the_engines_own_decisions(engine, outcomes, figures, edit):
    test = outcomes.of_split("test")
    before, after = (
        engine.route_many(prompts, tau=0.3, rule="minmax").index
        for prompts in (list(test.prompts), [EDITS[edit](prompt) for prompt in test.prompts])
    )
    found = line_of(figures, edit)["settings"][figures["edits"]["settings"].index("tau 0.3")]
    every = np.arange(len(test))
    assert found["flipped"]["value"] == pytest.approx((before != after).mean())
    lost = test.quality[every, before] - test.quality[every, after]
    assert found["lost"]["value"] == pytest.approx(lost.mean())


def test_a_suffix_counts_as_decided_as_before_where_it_is_told_by_support(engine, outcomes, figures):
    prompts = list(outcomes.of_split("test").prompts)
    before, after = (
        engine.route_many(texts, tau=0.1, rule="minmax") for texts in (prompts, [prompt + MATHS for prompt in prompts])
    )
    told = np.asarray(after.support) < SUPPORTED
    line = line_of(figures, A_SENTENCE)
    assert line["unsupported"][1] == pytest.approx(told.mean())
    flipped = line["settings"][figures["edits"]["settings"].index("tau 0.1")]["flipped"]["value"]
    assert flipped == pytest.approx(((before.index != after.index) & ~told).mean())


def test_an_edit_that_the_tokenizer_does_not_see_flips_nothing(figures):
    line = line_of(figures, "blank lines")
    assert line["changed"] == 1
    assert all(found["flipped"]["value"] == 0 for found in line["settings"])
    assert line["verdict"] == HOLDS
    assert line["flipped_by_kmeans"] == 0


def test_an_edit_that_changes_no_prompt_is_not_withstood(figures):
    unchanged = [line["name"] for line in figures["edits"]["lines"] if line["verdict"] == NOTHING]
    assert {"lower case", "curly quotes", "numbering style"} <= set(unchanged)
    assert all(line_of(figures, name)["changed"] == 0 for name in unchanged)
    held = sum(line["verdict"] == HOLDS for line in figures["edits"]["lines"])
    (sentence,) = figures["edits"]["sentences"]
    assert f"the decisions withstand {held};" in sentence
    assert f"they change none of these prompts: {', '.join(unchanged)}." in sentence
    assert "| lower case | 0% |" in render_edits(figures["edits"])
    assert "| changes nothing |" in render_edits(figures["edits"])


def test_the_report_has_the_section_and_no_word_of_a_prompt(figures):
    text = render(figures)
    assert "## Robust to edits" in text
    assert "## Robust to edits" not in render({**figures, "edits": None})
    assert "story" not in to_json(figures["edits"]) + render_edits(figures["edits"])


def test_where_no_worth_keeps_the_share_the_report_says_what_runs_instead(engine, work):
    home = load_outcomes(write_source(work / "apart", NAMES[:3], PROMPTS))
    quality = np.zeros_like(home.quality)
    quality[:, 0] = np.arange(len(home)) % 2  # the best single candidate; whoever is asked beside it loses
    made = evaluate_engine(engine, replace(home, quality=quality), draws=5, edits=True).figures["edits"]
    text = render_edits(made)
    assert made["share_kept"] is False
    assert made["settings"][0] == "greatest worth"
    assert "since none keeps 98% of the best single's quality" in text
    assert "cheapest worth" not in text
    assert "cheapest worth that keeps 98%" in render_edits({**made, "share_kept": True})


def test_the_search_says_what_its_words_raise(engine, outcomes):
    told = []
    evaluate_engine(engine, outcomes, draws=5, edits=True, progress=told.append)
    assert any("training prompts is raised by" in line or "no word raises the mean cost of" in line for line in told)


def estimate(low, high):
    return {"value": (low + high) / 2, "low": low, "high": high, "defined": 1.0}


@pytest.mark.parametrize(
    ("lost", "raised", "verdict"),
    [
        ((-0.01, 0.01), (-0.5, 0.1), HOLDS),
        ((-0.01, 0.02), (0.0, 0.1), OPEN),
        ((0.0, 0.0), (0.05, 0.2), OPEN),
        ((0.011, 0.02), (0.0, 0.0), FAILS),
        ((0.0, 0.0), (0.11, 0.2), FAILS),
    ],
)
def test_a_verdict_is_of_intervals_and_of_the_worst_setting(lost, raised, verdict):
    good = {"lost": estimate(0.0, 0.0), "raised": estimate(0.0, 0.0)}
    found = verdict_of(["one", "two"], [good, {"lost": estimate(*lost), "raised": estimate(*raised)}])
    assert found["verdict"] == verdict
    assert bool(found["because"]) == (verdict == FAILS)
    assert all(text.startswith("at two") for text in found["because"])
    assert failed({"lines": [{"name": "it", **found}]}) == (["it"] if verdict == FAILS else [])


def test_a_figure_without_an_interval_leaves_the_verdict_open():
    nothing = {"value": None, "low": None, "high": None, "defined": 0.0}
    assert verdict_of(["one"], [{"lost": estimate(0.0, 0.0), "raised": nothing}])["verdict"] == OPEN


def test_a_recipe_judged_by_folds_is_asked_the_edits_too_and_no_searched_words(work, outcomes):
    bundle = train(
        outcomes=work / "home",
        candidates=candidates_file(work),
        out=work / "trained",
        name="made",
        created="2026-01-01",
        estimator="plain",
        allow_constant=True,
    ).folder
    told = []
    made = evaluate_engine(
        Engine.load(bundle.parent), outcomes, draws=5, edits=True, cross_fit=True, progress=told.append
    ).figures["edits"]
    assert [line["name"] for line in made["lines"]] == [*EDITS, A_SENTENCE]
    assert all(found["flipped"]["value"] == 0 for found in made["lines"][0]["settings"])
    assert any("no words are searched" in line for line in told)


def candidates_file(work):
    import json

    path = work / "candidates.json"
    one = {"family": "f", "provider": "p", "input_usd_per_1m": 1.0}
    rows = [{**one, "name": name, "output_usd_per_1m": 2.0 + at} for at, name in enumerate(NAMES[:3])]
    path.write_text(json.dumps({"date": "2026-01-01", "candidates": rows}))
    return path


def test_the_search_finds_the_word_that_costs_most_and_repeats_itself():
    asked = []

    def cost(texts):
        asked.append(len(texts))
        return np.array([text.count("dear") + 0.1 * text.count("middle") for text in texts], float)

    words = ["cheap", "middle", "dear", "other"]
    found = searched_suffix(words, [f"prompt {i}" for i in range(50)], cost)
    assert found.split() == ["dear"] * WORDS
    assert found.startswith(" ")
    assert found == searched_suffix(words, [f"prompt {i}" for i in range(50)], cost)
    assert max(asked) <= 4096


def test_the_search_mixes_words_where_that_raises_more():
    def cost(texts):
        return np.array([("a" in t.split()) + ("b" in t.split()) for t in texts], float)

    assert {"a", "b"} <= set(searched_suffix(["a", "b", "c"], ["one", "two"], cost).split())


def test_the_search_needs_words_and_prompts():
    with pytest.raises(InvalidInputError, match="words, prompts"):
        searched_suffix([], ["one"], lambda texts: np.zeros(len(texts)))


def test_words_come_by_how_many_prompts_hold_them():
    assert words_of(["b a", "a a c", "a b"]) == ["a", "b", "c"]
