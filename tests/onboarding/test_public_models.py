"""The table of public scores and list prices: what is in it, how a name is looked up, and when two models are told apart."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from ipr_engine.onboarding.public_models import TABLE, public_models, spelling

SHIPPED_LICENCES = {"Apache-2.0", "MIT"}


@pytest.fixture(scope="module")
def known():
    return public_models()


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("openai/GPT-4o", "gpt-4o-2024-08-06"),
        ("gpt_4o", "gpt-4o-2024-08-06"),
        ("claude-3.5-sonnet", "claude-3-5-sonnet-20241022"),
        ("meta-llama/Meta-Llama-3_1-8B-Instruct", "Llama-3.1-8B-Instruct"),
        ("gpt-5", "gpt-5-2025-08-07"),
    ],
)
def test_a_name_is_found_however_it_is_spelt(known, written, name):
    assert known.find(written).name == name


def test_an_unknown_name_has_near_ones_and_a_strange_one_none(known):
    assert known.find("claude-haiku-5") is None
    assert known.near("gpt-4o-minii")[0] == "gpt-4o-mini-2024-07-18"
    assert known.near("zzzz") == []


def test_no_spelling_means_two_models():
    entries = json.loads(TABLE.read_text(encoding="utf-8"))["models"]
    spelt = [spelling(name) for entry in entries for name in {entry["name"], *entry["aliases"]}]
    assert len(set(spelt)) == len(spelt)


def test_the_table_names_sources_whose_licences_let_it_ship():
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    assert {source["licence"] for source in table["sources"]} <= SHIPPED_LICENCES
    assert all(source["repository"].startswith("https://github.com/") for source in table["sources"])


def test_every_scored_model_has_what_a_bundle_takes(known):
    scored = known.scored()
    assert len(scored) > 100
    for one in scored:
        quality, low, high = one.quality
        assert 0 < low < quality < high < 1
        assert one.output_tokens > 0
        assert set(one.scores) <= set(known.sources)
        assert sum(score.share for score in one.scores.values()) == pytest.approx(1, abs=2e-3)


def test_errors_of_a_difference_are_those_of_all_abilities_together(known):
    one, other = known.find("gpt-4o"), known.find("Llama-3.1-8B-Instruct")
    shares = [
        np.array([model.scores[name].share if name in model.scores else 0 for name in known.sources])
        for model in (one, other)
    ]
    covariance = np.array([[a @ known.links @ b for b in shares] for a in shares])
    whole = covariance + np.diag([one.own_variance, other.own_variance])
    assert known.error_between(one, other) == pytest.approx(math.sqrt(np.array([1, -1]) @ whole @ np.array([1, -1])))
    assert known.told_apart(one, other)
    assert not known.told_apart(one, one)
    assert not known.told_apart(known.find("gpt-5"), known.find("gpt-5-mini"))
