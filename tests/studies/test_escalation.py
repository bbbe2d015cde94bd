"""The escalation study: its gaps are the engine's, its shares what they say, its page whole."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine import Engine
from ipr_engine.cli import main
from ipr_engine.measures.sweeps import WORTHS, worth_sweep
from studies import escalation
from tests.support import skips
from tests.support.seeds import seeded
from tests.support.training_data import write_source
from tests.support.transformer_folders import import_torch, make_sentence_transformer
from tests.support.two_tier_bundles import make_prompts, make_tiers


def test_gaps_of_the_study_are_those_of_the_engine(tmp_path):
    engine = Engine(make_tiers(tmp_path, models=5)[0])
    encoded = engine.encode(make_prompts(80))
    for worth in (0.0, *WORTHS[10:50:13].tolist()):
        decisions = engine.decide(encoded, tau=1.0, worth=worth)
        quality, cost = decisions.qualities.astype(np.float64), decisions.costs_usd.astype(np.float64)
        found = escalation.gaps(quality, cost, decisions.index.astype(np.int64), worth)
        np.testing.assert_allclose(found, decisions.gap, atol=1e-5 + 1e-6 / max(worth, 1e-3))


def test_a_threshold_leaves_its_share_of_the_rows_below_it():
    score = seeded("escalation").random((3, 400))
    first, second = np.zeros((3, 400), np.int64), np.ones((3, 400), np.int64)
    for share in escalation.SHARES:
        choices, found = escalation.escalate(first, second, score, escalation.thresholds(score, share))
        assert found == pytest.approx(share, abs=1 / 400)
        assert choices.mean() == pytest.approx(found)


def test_sweep_gaps_are_a_row_a_worth():
    rng = seeded("sweep gaps")
    quality, cost = rng.random((20, 3)), rng.random((20, 3)) * 1e-3
    choices = worth_sweep(quality, cost)
    found = escalation.sweep_gaps(quality, cost, choices)
    assert found.shape == (len(WORTHS), 20)
    assert (found >= 0).all()


def test_the_page_runs_from_the_static_tier_alone_to_the_second_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(escalation, "TIMED", 8)
    monkeypatch.setattr(escalation, "SHARES", (0.0, 0.3, 1.0))
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    import_torch()
    write_source(
        tmp_path / "cascade9", ["large", "middle", "small"], ["prove it", "what is the code"], rows_per_split=120
    )
    out, model = tmp_path / "out", make_sentence_transformer(tmp_path / "model", max_position_embeddings=300)
    arguments = ["study", "escalation", "--outcomes", str(tmp_path), "--transformer", str(model), "--out", str(out)]
    assert main([*arguments, "--draws", "20"]) == 0
    figures = json.loads((out / "escalation.json").read_text())["cascade9"]
    assert set(figures["ways"]) == {f"{view}, {way}" for view in escalation.SECONDS for way in escalation.WAYS}
    latency = figures["latency_ms"]
    assert 0 < latency["static_ms"] < latency["transformer_ms"]
    for points in figures["ways"].values():
        assert (points[0]["share"], points[-1]["share"]) == (0.0, 1.0)
        assert points[0]["minus_static"]["value"] == points[-1]["minus_all"]["value"] == 0
        assert points[-1]["latency_ms"] == pytest.approx(sum(latency.values()), rel=1e-4)
        assert sum(point["chosen_on_train"] for point in points) == 1
    for view in escalation.SECONDS:
        by_gap, at_random = (figures["ways"][f"{view}, {way}"] for way in escalation.WAYS)
        assert by_gap[-1]["area"] == at_random[-1]["area"]
    page = (out / "escalation.md").read_text()
    assert page.count("Target of at most 30%") == len(escalation.SECONDS)
    assert (out / "escalation.png").stat().st_size > 10_000
