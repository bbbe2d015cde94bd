from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ipr_engine.evaluation.promised import EVERY_TAU, Kept
from ipr_engine.measures.resampling import Resamples
from ipr_engine.policy.tau_path import TauPath
from studies import tau as study_of_tau
from studies.tau_walk import candidate_sets
from tests.support.seeds import seeded
from tests.support.skips import EVAL, TORCH

for package, reason in (("pyarrow", EVAL), ("sklearn", EVAL), ("torch", TORCH)):
    pytest.importorskip(package, reason=reason)

from ipr_engine.bundle import RuleConstants  # noqa: E402
from studies.tau_walk import Walk  # noqa: E402
from tests.support.study_sources import make_study, write_study_source  # noqa: E402

ROWS = {("train", "a"): 150, ("train", "b"): 150, ("test", "a"): 80, ("test", "b"): 80}


def walked(*, models: int = 2, rows: int = 1500, right: bool = True) -> Walk:
    """Predictions that are right, or drawn without a look at the outcomes."""
    rng = seeded("walk", models, rows)
    level = np.linspace(0.4, 0.8, models)

    def draw() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        chance = np.clip(level + 0.2 * rng.standard_normal((rows, models)), 0.01, 0.99)
        outcome = (rng.random(chance.shape) < chance).astype(float)
        believed = chance if right else rng.permutation(chance)
        return believed, outcome, np.tile(1e-4 * np.geomspace(1, 10, models), (rows, 1))

    quality, outcome, cost = draw()
    path = TauPath.fit(quality, outcome, cost, np.arange(models))
    quality, outcome, cost = draw()
    return Walk(tuple(range(models)), path, quality, cost, outcome, cost, 10.0, RuleConstants(hi=0.8, lo=0.4))


def measured(walk: Walk, draws: int = 200) -> Kept:
    return walk.measure(Resamples(len(walk.quality), draws=draws))


def test_sets_are_all_pairs_some_triples_and_the_full_set() -> None:
    sets = candidate_sets(5, triples=4)
    assert {kind: len(found) for kind, found in sets.items()} == {"pairs": 10, "triples": 4, "full set": 1}
    assert len(set(sets["triples"])) == 4
    assert sets == candidate_sets(5, triples=4)


def test_ends_are_the_highest_predicted_quality_and_the_cheapest() -> None:
    walk = walked(models=3)
    first, last = walk.every_choice[0], walk.every_choice[-1]
    np.testing.assert_array_equal(first, walk.predicted.argmax(axis=1))
    assert (last == 0).all()
    assert measured(walk).lost[0, -1] == pytest.approx(1.0)


def test_promise_is_kept_where_predictions_are_right_and_the_line_is_beaten() -> None:
    figures = measured(walked())
    inner = slice(1, -1)
    assert (np.abs(figures.excess[0, inner]) < 0.05).all()
    assert (figures.over_line[0, 2:6] > 0).all()
    assert (np.diff(figures.of_best_cost[0, 1:]) <= 1e-12).all()


def test_blind_predictions_keep_the_promise_on_the_line_itself() -> None:
    """Random order is a random mix: as good as promised, at the cost of the line, and no better."""
    figures = measured(walked(right=False))
    assert (np.abs(figures.excess[0, 1:-1]) < 0.05).all()
    assert (np.abs(figures.over_line[0, 1:-1]) < 0.05).all()


def test_minmax_on_a_pair_knows_two_settings_and_path_many() -> None:
    figures = study_of_tau.set_figures([walked()], [measured(walked())])
    assert figures["rules"]["minmax"]["distinct"] == 2
    assert figures["rules"]["path"]["distinct"] >= 6


def test_page_is_written_with_every_kind_of_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_of_tau, "SHIPPED", "plain")
    monkeypatch.setattr(study_of_tau, "STORED", (200,))
    monkeypatch.setattr(study_of_tau, "HALVES", 1)
    write_study_source(tmp_path / "in" / "cascade9", ("one", "two", "three", "four"), ROWS)
    paths = study_of_tau.run(make_study(tmp_path / "in", tmp_path / "out"))
    assert [path.name for path in paths] == ["tau.md", "tau.json"]
    found = json.loads(paths[1].read_text())["cascade9"]
    assert found["sets"]["pairs"]["of"] == 6
    assert found["sets"]["triples"]["of"] == 4
    assert found["sets"]["full set"]["sets"] == 1
    assert len(found["sets"]["pairs"]["cost"]) == len(EVERY_TAU)
    assert set(found["again"]) == {"300 rows", "200 rows", "halves"}
