"""Abilities of generated outcomes: what is put in comes out, sources are linked, and the study and the table are made of them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.cli.main import main
from ipr_engine.data import load_outcomes
from ipr_engine.onboarding.public_models import models_of
from studies.public_abilities import SOURCES, public_names
from studies.public_abilities import main as make_table
from studies.rasch import expected_quality, fit_source, link, sigmoid
from tests.support.seeds import seeded
from tests.support.skips import EVAL, TORCH
from tests.support.study_sources import write_study_source


def answers(rng, ability, prompts, spread):
    difficulty = spread * rng.standard_normal(prompts)
    return (rng.random((prompts, len(ability))) < sigmoid(ability - difficulty[:, None])).astype(float)


def test_abilities_and_the_spread_of_difficulties_come_out_whoever_was_asked_what():
    rng = seeded("rasch")
    ability = np.array([-1.5, -0.5, 0.0, 1.0, 2.5])
    quality = answers(rng, ability, 6000, 1.8)
    quality[:3000, 0] = np.nan  # one was asked half of them
    fit = fit_source(quality)
    assert np.abs(fit.ability - ability).max() < 0.15
    assert (np.abs(fit.ability - ability) < 4 * fit.error + 0.1).all()
    assert fit.spread == pytest.approx(1.8, abs=0.15)


def test_harder_prompts_have_the_greater_difficulty():
    rng = seeded("difficulty")
    difficulty = np.repeat([-1.5, 1.5], 300)
    quality = (rng.random((600, 12)) < sigmoid(-difficulty[:, None])).astype(float)
    fit = fit_source(quality)
    assert fit.difficulty[:300].mean() < fit.difficulty[300:].mean() - 1


def test_sources_are_linked_by_the_models_that_they_share():
    first = {"a": (0.0, 0.05), "b": (1.0, 0.05), "c": (2.0, 0.05)}
    second = {"b": (-2.0, 0.05), "c": (-1.0, 0.05), "d": (0.0, 0.05)}
    linked = link({"one": first, "two": second})
    assert dict(zip(linked.names, linked.ability.round(6).tolist(), strict=True)) == {"a": 0, "b": 1, "c": 2, "d": 3}
    assert linked.shift == pytest.approx([0, -3])
    assert linked.spread < 1e-3
    # who was in one source alone shares its shift's error
    cov = np.diag(linked.own_variance) + linked.share @ linked.links @ linked.share.T
    at = {name: row for row, name in enumerate(linked.names)}
    assert cov[at["d"], at["d"]] > cov[at["a"], at["a"]]


def test_sources_that_disagree_widen_every_error():
    first = {name: (value, 0.05) for name, value in zip("abcd", (0.0, 1.0, 2.0, 3.0), strict=True)}
    second = {name: (value, 0.05) for name, value in zip("abcd", (1.0, 0.0, 3.0, 2.0), strict=True)}
    linked = link({"one": first, "two": second})
    assert linked.spread > 0.5
    assert (np.sqrt(linked.own_variance) > 0.3).all()


def test_an_expected_quality_rises_with_ability_and_counts_sources_alike():
    found = expected_quality(np.array([-1.0, 0.0, 1.0]), [0.0, 0.0], [2.0, 1.0])
    assert (np.diff(found) > 0).all()
    assert found[1] == pytest.approx(0.5)


def write_sources(folder):
    for source, models in (
        ("zeroeval", ("gpt-4o-2024-08-06", "gpt-4o-mini-2024-07-18", "Mistral-Large-2", "gemini-1.5-pro")),
        ("mmlu_pro", ("gemini-1.5-pro-002", "Llama-2-7b-hf", "gemini-1.5-flash-002")),
        ("scale_sql", ("gpt-4o", "gpt-5-mini", "gpt-5.5")),
        ("shaberi_ja", ("gpt-5-mini-2025-08-07", "gpt-4o-2024-11-20")),
        ("czech_simpleqa", ("gpt-4o-mini-2024-07-18", "gpt-4o-2024-11-20")),
    ):
        write_study_source(folder / source, models, {("train", "t"): 60, ("test", "t"): 40})
        stated = {"repo": f"somebody/{source}", "commit": "0" * 40, "licence": "MIT (of the code)"}
        (folder / source / "stats.json").write_text(json.dumps(stated))
    return folder


def test_the_table_is_made_of_sources_names_and_a_price_file(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow", reason=EVAL)
    outcomes = write_sources(tmp_path / "sources")
    listed = {"input_cost_per_token": 2e-6, "output_cost_per_token": 8e-6}
    known = {source: load_outcomes(outcomes / source).models for source in SOURCES}
    kept = [one for one in public_names() if one.scores and all(name in known[s] for s, name in one.scores.items())]
    monkeypatch.setattr("studies.public_abilities.public_names", lambda: kept)
    (tmp_path / "prices.json").write_text(json.dumps({one.price: listed for one in kept if one.price}))
    out = tmp_path / "table.json"
    asked = [
        "--outcomes",
        str(outcomes),
        "--prices",
        str(tmp_path / "prices.json"),
        "--taken",
        "2026-11-29",
        "--out",
        str(out),
    ]
    assert make_table(asked) == 0
    table = json.loads(out.read_text())
    models = models_of(table)
    assert [source["licence"] for source in table["sources"]] == ["MIT"] * len(SOURCES)
    assert models.find("gpt-4o-mini").price.input_usd_per_1m == 2.0
    assert set(models.find("gpt-4o-mini").scores) == {"zeroeval", "czech_simpleqa"}
    assert models.find("gemini-1.5-pro").price is None


def test_the_study_writes_what_a_prior_is_worth_on_a_source_that_it_has_not_seen(tmp_path, capsys):
    for package, reason in (("pyarrow", EVAL), ("sklearn", EVAL), ("matplotlib", EVAL), ("torch", TORCH)):
        pytest.importorskip(package, reason=reason)
    outcomes = write_sources(tmp_path / "sources")
    write_study_source(
        outcomes / "cascade9", ("gpt-4o", "gpt-4o-mini", "unheard-of"), {("train", "t"): 60, ("test", "t"): 60}
    )
    asked = ["--outcomes", str(outcomes), "--out", str(tmp_path / "out"), "--source", "cascade9", "--draws", "20"]
    assert main(["study", "prior", *asked]) == 0
    figures = json.loads((tmp_path / "out" / "prior.json").read_text())["cascade9"]
    assert set(figures["candidates"]) == {"gpt-4o", "gpt-4o-mini"}
    assert figures["pairs"] == 1
    assert figures["areas"]["hull of singles"]["value"] is not None
    page = (tmp_path / "out" / "prior.md").read_text()
    assert "| cascade9 | 2 |" in page
