"""Why this candidate: gaps, the range of tau, realised quality, JSON and the picture."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.bundle.reliability import RELIABILITY, reliability_bins, reliability_bytes
from ipr_engine.cli import main
from tests.support.bundles import make_bundle

PROMPTS = ["what is the story", "Write Python code, and prove it.", "why to explain", "q9 code"]
ROWS = np.linspace(0, 1, 300)
TABLES = {"alpha/large": reliability_bins(ROWS, ROWS.round()), "beta/mid": reliability_bins(ROWS, 1 - ROWS)}


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    extra = {RELIABILITY: reliability_bytes(TABLES)}
    provenance = {"added": {"beta/mid": {"prior_from": ["alpha/large"]}}}
    overrides = {"extra_files": extra, "provenance": provenance}
    return Engine.load(make_bundle(tmp_path_factory.mktemp("x"), models=5, overrides=overrides))


@pytest.mark.parametrize(
    "terms", [{"tau": 0.0}, {"tau": 0.3}, {"tau": 1.0}, {"tau": 0.3, "worth": 1e-4}, {"tau": 0.2, "rule": "max"}]
)
@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_least_of_the_candidates_gaps_is_the_decisions(engine, prompt, terms):
    explanation = engine.explain(prompt, **terms)
    assert min(explanation.gaps.values()) == pytest.approx(explanation.decision.gap, abs=1e-5)


def test_an_only_candidate_cannot_be_moved_from_its_place(engine):
    explanation = engine.explain(PROMPTS[0], tau=0.2, allowed=["beta/mid"])
    assert explanation.gaps == {"beta/mid": np.inf}
    assert json.dumps(explanation.to_dict(), allow_nan=False)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_choice_stays_within_its_range_of_tau_and_changes_at_its_ends(engine, prompt):
    for tau in (0.0, 0.35, 0.9):
        decision = engine.route(prompt, tau=tau)
        holds = engine.explain(decision).holds_for
        assert holds.since <= tau
        assert engine.route(prompt, tau=holds.since).model == decision.model
        if holds.until is not None:
            assert tau < holds.until
            assert engine.route(prompt, tau=min(holds.until + 1e-6, 1.0)).model != decision.model


def test_realised_quality_is_that_of_the_predictions_bin(engine):
    explanation = engine.explain(PROMPTS[0], tau=0.2)
    assert set(explanation.realised) == {"alpha/large", "beta/mid"}
    quality = {view.name: view.quality for view in explanation.candidates}
    assert explanation.realised["alpha/large"] == TABLES["alpha/large"].at(quality["alpha/large"])
    assert explanation.realised["beta/mid"] == TABLES["beta/mid"].at(quality["beta/mid"])


def test_table_and_json_say_the_same(engine):
    explanation = engine.explain(PROMPTS[1], tau=0.2)
    document = json.loads(json.dumps(explanation.to_dict(), allow_nan=False))
    by_name = {item["name"]: item for item in document["candidates"]}
    assert by_name["beta/mid"]["prior"] == "prior from alpha/large"
    assert by_name["gamma/small"]["realised"] is None
    assert set(by_name["alpha/large"]["realised"]) == {"mean", "low", "high", "prompts"}
    assert document["holds_for_tau"]["since"] <= 0.2
    table = str(explanation)
    assert "realised [95 %], n" in table
    assert "prior from alpha/large, no outcomes of its own" in table
    assert f"the choice stays for tau from {document['holds_for_tau']['since']:.3f}" in table


def test_a_border_between_0_and_1_reads_as_neither(default_engine):
    names, seen = ["gpt-4o-2024-08-06", "claude-3-5-sonnet-20241022"], set()
    for number in range(20):
        explanation = default_engine.explain(f"What is {number} + {number * number}?", tau=0.2, allowed=names)
        lines = str(explanation).splitlines()
        at = lines[1].index("from tau")
        for name, border in explanation.flips_at.items():
            told = next(line for line in lines[2:] if line.startswith(name))[at:].split("  ")
            text = next(part for part in told if part).strip()
            assert text == {True: "0.000", False: "> 0" if border < 1e-6 else f"{border:.3f}"}[border == 0]
            seen.add(text)
    assert {"0.000", "> 0"} <= seen


def test_without_a_table_nothing_is_said_of_realised_quality(tmp_path):
    explanation = Engine.load(make_bundle(tmp_path, models=3)).explain(PROMPTS[0], tau=0.2)
    assert explanation.realised == {}
    assert "realised" not in str(explanation)


def test_a_row_that_cannot_be_decided_is_explained_too(tmp_path):
    engine = Engine.load(make_bundle(tmp_path, models=2, context_windows=[2, 2]))
    explanation = engine.explain("a b c d e f", tau=0.2)
    assert (explanation.gaps, explanation.holds_for) == ({}, None)
    assert "no decision" in str(explanation)
    assert json.dumps(explanation.to_dict(), allow_nan=False)


def test_the_picture_is_a_png(engine, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="needs extra [eval]: plots")
    arguments = ["explain", PROMPTS[0], "--tau", "0.2", "--exclude", "alpha/large", "--bundle", str(engine.bundle.path)]
    assert main([*arguments, "--plot", str(tmp_path / "why.png")]) == 0
    assert (tmp_path / "why.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--plot", str(tmp_path / "why.pdf")]) == 1
    assert "--plot: expected a file to write that ends in .png" in capsys.readouterr().err
    assert main([*arguments, "--plot", str(tmp_path / "none" / "why.png")]) == 1
    assert "--plot: expected a file to write" in capsys.readouterr().err
