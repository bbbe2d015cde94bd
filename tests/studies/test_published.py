from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from studies import published, routellm, routerdc
from tests.support.skips import EVAL, TORCH
from tests.support.study_sources import make_study, write_study_source

for package, reason in (("pyarrow", EVAL), ("sklearn", EVAL), ("matplotlib", EVAL), ("torch", TORCH)):
    pytest.importorskip(package, reason=reason)


SEVEN = tuple(f"vendor/model-{i}" for i in range(7))
PAIR = (routellm.WEAK, routellm.STRONG)
LEAKS = 3


def write_routerdc(folder: Path) -> None:
    rows = {("train", task): 30 for task in routerdc.INSIDE}
    rows |= {("train", "arc_easy"): 30}
    rows |= {("test", task): 15 for task in (*routerdc.OUTSIDE, "javascript", *routerdc.INSIDE)}
    write_study_source(folder / "routerdc7", SEVEN, rows, priced=False, repeated=LEAKS)


def write_routellm(folder: Path) -> None:
    write_study_source(folder / "routellm", PAIR, {("test", task): 30 for task in routellm.DATASETS}, priced=False)
    names = (routellm.ROUTERBENCH.weak, routellm.ROUTERBENCH.strong)
    write_study_source(folder / "routerbench_sub", names, {("train", "arc"): 60, ("test", "arc"): 30})


def test_routerdc_is_trained_on_its_five_tasks_less_what_the_test_asks(tmp_path: Path) -> None:
    write_routerdc(tmp_path)
    case = routerdc.load(make_study(tmp_path, tmp_path))
    assert set(case.train.data.datasets) == set(routerdc.INSIDE)
    assert set(case.test.data.datasets) == {*routerdc.INSIDE, *routerdc.OUTSIDE}
    assert len(case.train.quality) == 30 * len(routerdc.INSIDE) - LEAKS
    assert not set(case.train.data.question_keys) & set(case.test.data.question_keys)


def test_group_means_are_plain_means_over_tasks(rng: np.random.Generator) -> None:
    datasets = [task for i, task in enumerate((*routerdc.INSIDE, *routerdc.OUTSIDE)) for _ in range(2 + i)]
    realised = rng.random(len(datasets))
    means = routerdc.Tasks.of(datasets, 10).means(realised)
    by_hand = [realised[np.array(datasets) == task].mean() for task in routerdc.OUTSIDE]
    assert means["outside"][0] == pytest.approx(np.mean(by_hand))
    assert means["mmlu"].shape == (11,)


def test_the_last_question_of_a_few_shot_prompt() -> None:
    assert routellm.last_question("a?\nAnswer: b\n\nc?\nAnswer:\n") == "c?\nAnswer:"
    assert routellm.last_question("one block only") == "one block only"


def test_a_pair_leaves_out_what_the_test_asks_and_a_missing_column_open(tmp_path: Path) -> None:
    write_routellm(tmp_path)
    made = write_study_source(tmp_path / "mmlu_pro", (routellm.MIXTRAL,), {("train", "q"): 20})
    parts = (routellm.ROUTERBENCH, routellm.Training("mmlu_pro", routellm.MIXTRAL, None))
    pair = routellm.load_pair(make_study(tmp_path, tmp_path), parts, made.take(np.arange(5)))
    assert np.bincount(pair.source).tolist() == [90, 15]
    assert np.isnan(pair.quality[90:, 1]).all()
    assert not np.isnan(pair.quality[:, 0]).any()


def test_page_stands_beside_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routerdc, "ESTIMATORS", ("plain",))
    monkeypatch.setattr(routerdc, "BASELINES", ("k-means",))
    monkeypatch.setattr(routellm, "ESTIMATORS", ("plain",))
    write_routerdc(tmp_path / "in")
    write_routellm(tmp_path / "in")
    paths = published.run(make_study(tmp_path / "in", tmp_path / "out"))
    assert all(path.stat().st_size for path in paths)
    assert len(paths) == 4
    figures = json.loads(paths[1].read_text())
    oracle = figures["routerdc7"]["mean_quality"]["oracle"]["inside"]["value"]
    routed = figures["routerdc7"]["mean_quality"]["plain, static"]["inside"]["value"]
    assert 0 < routed <= oracle
    assert set(figures["routellm"]["apgr"]) == set(routellm.DATASETS)
