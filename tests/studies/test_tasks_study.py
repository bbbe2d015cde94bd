"""The study of tasks: its page on generated outcomes; a task that decides is told, and one that no fit has seen changes nothing."""

import json

import numpy as np
import pytest

from ipr_engine.cli import main
from ipr_engine.measures.resampling import resamples_of
from ipr_engine.measures.routing import WeightedOutcomes
from studies import tasks
from studies.forest import Source
from studies.study import Study
from tests.support import skips
from tests.support.places import ROOT
from tests.support.seeds import seeded
from tests.support.training_data import write_source


def _source(rows=300):
    """Return a source of three datasets, of which the embedding tells nothing and that alone decide who answers, and what is seen."""
    rng = seeded("study of tasks")
    names = np.array(["sums", "code", "mail"])[np.arange(rows) % 3]
    good = np.stack([names != "sums", names != "code", np.ones(rows, bool)], axis=1) & (rng.random((rows, 3)) < 0.9)
    cost = np.tile([0.001, 0.002, 0.02], (rows, 1)) * rng.uniform(0.9, 1.1, (rows, 3))
    keys = [f"question {row}" for row in range(rows)]
    outcomes = WeightedOutcomes.complete(good.astype(float), cost)
    source = Source("made", keys, keys, list(names), outcomes, resamples_of(keys, draws=20))
    return source, tasks.Seen(rng.standard_normal((rows, 7)), rng.random((rows, 2)), list(names))


def test_the_page_has_every_measure_and_the_dataset_held_out(tmp_path):
    for module in ("pyarrow", "sklearn", "matplotlib"):
        pytest.importorskip(module, reason=skips.EVAL)
    write_source(tmp_path / "cascade9", ["large", "middle", "small"], ["prove it", "what is it"], rows_per_split=130)
    out = tmp_path / "out"
    assert main(["study", "tasks", "--outcomes", str(tmp_path), "--out", str(out), "--draws", "20"]) == 0
    page = json.loads((out / "tasks.json").read_text())
    assert page["tasks"] == {"cascade9": {"task0": 130, "task1": 130}}
    for name in tasks.FITTED:
        of = page["figures"][name]["cascade9"]
        assert set(of) == set(tasks.MEASURES)
        assert set(of["brier"]) == {"without", "named", "difference", "p"}
        assert page["unseen"]["cascade9"][name]["otherwise"] == 0
    assert page["unseen"]["cascade9"]["prompts"] == page["unseen"]["cascade9"]["fitted"] == 130
    text = (out / "tasks.md").read_text()
    assert "pooled" in text
    assert tasks.SAME in text
    assert (out / "tasks.png").stat().st_size > 10_000


def test_the_test_that_the_page_names_is_there():
    named = (ROOT / "tests" / "training" / "test_train_tasks.py").read_text()
    assert f"\ndef {tasks.SAME}(" in named


def test_a_task_that_decides_is_told(monkeypatch, tmp_path):
    pytest.importorskip("threadpoolctl", reason=skips.TRAIN)
    monkeypatch.setattr(tasks, "FITTED", ("caps",))
    source, seen = _source()
    study = Study(tmp_path, tmp_path, (), None, None, 20, "", lambda message: None)
    told = tasks.told_of(study, source, seen)["caps"]
    error = [np.square(one.quality - source.outcomes.quality).mean() for one in (told.without, told.named)]
    assert error[1] < error[0] - 0.05
    named = dict(zip(source.datasets, told.named.quality, strict=True))
    assert named["sums"][0] < 0.3 < named["sums"][1]
    assert named["code"][1] < 0.3 < named["code"][0]


def test_a_dataset_held_out_is_decided_as_without_tasks_and_shares_no_question_with_the_fit(monkeypatch):
    pytest.importorskip("threadpoolctl", reason=skips.TRAIN)
    monkeypatch.setattr(tasks, "FITTED", ("caps",))
    source, seen = _source()
    source.keys[1] = source.keys[0]  # a question of two datasets
    source.datasets[3] = seen.tasks[3] = "code"  # fewer of "sums", more of "code"
    found = tasks.unseen_task(source, seen)
    assert (found["dataset"], found["prompts"], found["fitted"]) == ("code", 101, 198)
    assert found["caps"]["otherwise"] == 0
    assert found["caps"]["off"] < 1e-12
