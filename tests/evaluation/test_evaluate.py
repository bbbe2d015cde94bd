"""An engine on outcomes: names of candidates found in every source, other sources beside, nothing of the machine told."""

import json
from dataclasses import replace

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import PathRows
from ipr_engine.data import load_outcomes
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.evaluate import source_names
from ipr_engine.evaluation.promised import verdict
from ipr_engine.evaluation.report import render, to_json
from tests.support import skips
from tests.support.bundles import NAMES, make_bundle, make_prices
from tests.support.evaluation_data import evaluate_engine
from tests.support.seeds import seeded
from tests.support.training_data import train, write_source

for module in ("pyarrow", "sklearn", "threadpoolctl"):
    pytest.importorskip(module, reason=skips.EVAL)

PROMPTS = ["write a story about python", "what is the code", "prove it", "explain how to write and why"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("evaluate")


@pytest.fixture(scope="module")
def engine(work):
    sources = {"alpha/large": {"home": "a1", "away": "a2"}, "beta/mid": "b"}
    return Engine.load(make_bundle(work / "bundle", models=3, dim=16, overrides={"provenance": {"sources": sources}}))


@pytest.fixture(scope="module")
def home(work):
    return load_outcomes(write_source(work / "home", ["a1", "b", "gamma/small"], PROMPTS))


@pytest.fixture(scope="module")
def away(work):
    return load_outcomes(write_source(work / "away", ["a2", "c"], PROMPTS, rows_per_split=50))


def test_provenance_names_each_candidate_in_each_source_and_the_caller_has_the_last_word(engine, home, away):
    assert list(source_names(engine, home, {}).values()) == ["a1", "b", "gamma/small"]
    assert list(source_names(engine, away, {}).values()) == ["a2", "b", "gamma/small"]
    assert source_names(engine, away, {"gamma/small": ["nobody", "c"]})["gamma/small"] == "c"
    assert source_names(engine, home, {"gamma/small": ["c"]})["gamma/small"] == "gamma/small"


def test_another_source_is_held_against_support_on_the_candidates_it_shares(engine, home, away):
    figures = evaluate_engine(engine, home, names={"gamma/small": ["c"]}, also=[away], draws=5).figures
    here, there = figures["support"]
    assert (here["name"], here["models"], here["overall"]["prompts"]) == ("home", 3, 80)
    assert (there["name"], there["models"], there["overall"]["prompts"]) == ("away", 2, 50)
    rows = away.of_split("test").select(["a2", "c"])
    decisions = engine.route_many(list(rows.prompts), tau=0.0)
    error = np.square(decisions.qualities[:, [0, 2]] - rows.quality)
    assert there["overall"]["brier"]["value"] == pytest.approx(error.mean(), abs=1e-6)
    assert there["overall"]["support"][1] == pytest.approx(float(decisions.support.mean()), abs=1e-6)


def test_questions_of_the_train_split_are_left_out_of_another_source(engine, home, work):
    folder = write_source(work / "twin", ["a1"], PROMPTS, rows_per_split=20)
    twin = load_outcomes(folder)
    long_keys = [f"{'the same long question, asked twice, ' * 2}{i % 20}" for i in range(40)]
    seen = replace(
        home, question_keys=tuple(long_keys[i % 40] if i < 20 else key for i, key in enumerate(home.question_keys))
    )
    asked = replace(
        twin,
        question_keys=tuple(
            long_keys[:10] + [f"k{i}" for i in range(10)] + long_keys[10:20] + [f"m{i}" for i in range(10)]
        ),
    )
    found = evaluate_engine(engine, seen, names={"alpha/large": ["a1"]}, also=[asked], draws=5).figures["support"][1]
    assert found["overall"]["prompts"] == 10


def test_figures_are_plain_and_name_no_folder(engine, home, work):
    text = to_json(evaluate_engine(engine, home, draws=5, command="ipr eval").figures)
    assert json.loads(text)["about"]["title"] == "test bundle, 3 candidates, on home, 80 test prompts"
    assert str(work) not in text


def test_without_support_the_section_is_empty_and_other_sources_are_refused(home, away, work):
    bare = Engine.load(make_bundle(work / "bare", models=3, dim=16, support=False))
    names = {"alpha/large": ["a1"], "beta/mid": ["b"]}
    assert evaluate_engine(bare, home, names=names, draws=5).figures["support"] == []
    with pytest.raises(InvalidInputError, match="the bundle measures no support"):
        evaluate_engine(bare, home, names=names, also=[away], draws=5)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"nobody": ["b"]}, "names: unknown 'nobody'"),
        ({NAMES[2]: ["zeta"]}, "names: 'zeta' is in no source"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused(engine, home, names, message):
    with pytest.raises(InvalidInputError, match=message):
        evaluate_engine(engine, home, names=names, draws=5)


def test_a_source_that_shares_no_candidate_is_refused(engine, home, work):
    stranger = load_outcomes(write_source(work / "stranger", ["x", "y"], PROMPTS, rows_per_split=20))
    with pytest.raises(InvalidInputError, match="outcomes: no candidate is in the source stranger; it has x, y"):
        evaluate_engine(engine, stranger, draws=5)
    with pytest.raises(InvalidInputError, match="also: no evaluated candidate is in stranger"):
        evaluate_engine(engine, home, also=[stranger], draws=5)


@pytest.fixture(scope="module")
def walked(engine):
    """The engine with path rows whose predictions are its own and whose outcomes are drawn from them."""
    rng = seeded("walked")
    prompts = [f"{' '.join(rng.choice(PROMPTS).split())} {i}" for i in range(300)]
    decisions = engine.route_many(prompts, tau=0.0)
    quality = decisions.qualities
    rows = PathRows(
        candidates=engine.bundle.names,
        quality=quality.astype(np.float16),
        tokens_out=decisions.tokens_out.astype(np.float32),
        outcome=(254 * (rng.random(quality.shape) < quality)).astype(np.uint8),
        billed_tokens=np.full(len(prompts), 9, np.uint32),
        heads=(engine.bundle.quality_heads.sha256,),
    )
    return Engine(replace(engine.bundle, path_rows=rows))


def test_promised_against_kept_is_decided_by_the_engine(walked, home):
    summary = evaluate_engine(walked, home, draws=20)
    section = summary.figures["path"]
    assert section["reason"] is None
    assert section["rows"] == 300
    assert [line["tau"] for line in section["taus"]] == [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.0]
    assert [line["promise"] for line in section["taus"]] == [False, *[True] * 6, False]
    path = walked.policy(tau=0.5).path
    rows = home.of_split("test").complete(["a1", "b", "gamma/small"])
    for line in section["taus"][1:-1]:
        assert line["worth"] == walked.policy(tau=line["tau"]).worth
        decisions = walked.route_many(list(rows.prompts), tau=1.0, rule="minmax", worth=line["worth"])
        kept = rows.quality[np.arange(len(rows)), decisions.index].mean()
        assert line["kept"]["value"] == pytest.approx(kept)
        best, cheapest = rows.quality[:, path.best].mean(), rows.quality[:, path.cheapest].mean()
        assert line["promised"]["value"] == pytest.approx((1 - line["tau"]) * best + line["tau"] * cheapest)
    text = render(summary.figures)
    titles = ("Cost at equal quality", "Quality over cost", "tau: promised against kept")
    assert sorted(titles, key=lambda title: text.index(f"## {title}")) == list(titles)
    assert "| 0.3 |" in text


def test_a_bundle_without_a_path_says_so_in_the_report(engine, home):
    summary = evaluate_engine(engine, home, draws=5)
    assert summary.figures["path"]["taus"] == []
    assert "bundle has no path" in render(summary.figures)


def test_promised_against_kept_is_drawn_with_the_interval_of_the_difference(walked, home, tmp_path):
    pytest.importorskip("matplotlib", reason=skips.EVAL).use("Agg")
    from matplotlib import pyplot

    from ipr_engine.evaluation.plots import promised

    summary = evaluate_engine(walked, home, draws=20)
    figure = promised(pyplot, summary, "made")
    shown = figure.axes[0].containers[0]  # the inner taus
    lines = [line for line in summary.figures["path"]["taus"] if line["promise"]]
    np.testing.assert_allclose(np.asarray(shown[0].get_ydata(), float), [100 * line["kept"]["value"] for line in lines])
    for segment, line in zip(shown[2][0].get_segments(), lines, strict=True):
        crosses = segment[0, 1] <= 100 * line["promised"]["value"] <= segment[1, 1]
        assert crosses == (line["kept_minus_promised"]["low"] <= 0 <= line["kept_minus_promised"]["high"])
    pyplot.close(figure)


def test_what_tau_costs_is_drawn_as_undefined_where_every_price_is_0(walked, home):
    pytest.importorskip("matplotlib", reason=skips.EVAL).use("Agg")
    from matplotlib import pyplot

    from ipr_engine.evaluation.plots import promised

    prices = make_prices(walked.bundle.candidates, scale=0.0)
    free = Engine(replace(walked.bundle, prices=prices))
    summary = evaluate_engine(free, home, draws=5)
    figure = promised(pyplot, summary, "made")
    assert [text.get_text() for text in figure.axes[1].texts] == [
        f"undefined: {summary.figures['path']['best']} costs nothing"
    ]
    pyplot.close(figure)


def test_verdict_names_the_taus_that_are_told_apart():
    def line(tau, low, high):
        return {"tau": tau, "promise": True, "kept_minus_promised": {"low": low, "high": high}}

    lines = [line(0.1, -0.02, -0.01), line(0.2, -0.01, 0.01), line(0.3, 0.01, 0.02), line(0.5, None, None)]
    assert verdict({"taus": lines}) == "Told apart: below the promise at tau 0.1; above the promise at tau 0.3."
    assert verdict({"taus": lines[1:2]}) == "At no tau is what was kept told apart from the promise."


def test_the_report_begins_with_what_can_be_quoted_and_with_cost_at_equal_quality(work):
    many = load_outcomes(write_source(work / "many", ["a1", "b", "gamma/small"], PROMPTS, rows_per_split=120))
    bundle = make_bundle(work / "plain", models=3, dim=16)
    names = {"alpha/large": ["a1"], "beta/mid": ["b"]}
    figures = evaluate_engine(Engine.load(bundle), many, names=names, draws=20).figures
    assert figures["seen"] == {"prompts": None, "reason": "the bundle keeps no hashes of its fitting prompts"}
    assert json.loads(to_json(figures))["equal_quality"]["router"] == "router, worth"
    lines = render(figures).splitlines()
    assert lines[2] == " ".join(figures["quotable"])
    assert (
        "- test prompts that the router was fitted on: not known, the bundle keeps no hashes of its fitting prompts"
        in lines
    )


def test_rule_path_is_asked_for_the_tau_of_each_share(walked, home):
    section = evaluate_engine(walked, home, draws=20).figures["equal_quality"]
    shares = next(c for c in section["contenders"] if c["name"] == "router, path")["shares"]
    path = walked.policy(tau=0.5).path
    rows = home.of_split("test").complete(["a1", "b", "gamma/small"])
    best = rows.quality[:, list(walked.bundle.names).index(section["best"])].mean()
    for line in shares:
        tau = (1 - line["share"]) * path.best_quality / (path.best_quality - path.cheapest_quality)
        decisions = walked.route_many(list(rows.prompts), tau=min(1.0, tau), rule="path")
        kept = rows.quality[np.arange(len(rows)), decisions.index].mean()
        assert line["kept"]["value"] == pytest.approx(kept / best)


def test_test_prompts_that_the_bundle_was_fitted_on_are_told_and_left_out(work):
    pytest.importorskip("threadpoolctl", reason=skips.TRAIN)
    source = write_source(work / "fitted", ["a", "b"], PROMPTS, rows_per_split=150)
    data = load_outcomes(source)
    entries = [
        {"name": name, "family": "F", "provider": "P", "input_usd_per_1m": 1.0, "output_usd_per_1m": 3.0 - i}
        for i, name in enumerate(["a", "b"])
    ]
    candidates = work / "candidates.json"
    candidates.write_text(json.dumps({"date": "2026-01-01", "candidates": entries}))
    options = {"name": "in", "created": "2026-01-01", "estimator": "plain", "allow_constant": True}
    trained = train(source, candidates, work / "in", split="test", **options)
    engine, told = Engine.load(trained.folder), []
    figures = evaluate_engine(engine, data, draws=5, progress=told.append).figures
    assert "in-sample: the bundle was fitted on 150 of the 150 test prompts; --cross-fit judges its recipe" in told
    assert "150 test prompts are among those that the router was fitted on; 0 different" in figures["quotable"][0]
    assert "- **in-sample**: the router was fitted on 150 of the 150 test prompts" in render(figures)
    honest = train(source, candidates, work / "out", split="train", **options)
    unseen = evaluate_engine(Engine.load(honest.folder), data, draws=5).figures
    assert unseen["seen"] == {"prompts": 0, "reason": None}
    away = evaluate_engine(Engine.load(honest.folder), data, draws=5, key=OwnerKey(bytes(32))).figures
    assert away["seen"]["prompts"] is None
    assert "the hashes of the bundle's fitting prompts need the key of id" in away["seen"]["reason"]
