from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.estimators.by_name import ESTIMATORS, fit_scores
from ipr_engine.training.estimators.scores import FoldedRows
from studies import estimators
from tests.support.skips import EVAL, TORCH
from tests.support.study_sources import make_study, write_study_source
from tests.support.training_data import make_world

for package, reason in (("pyarrow", EVAL), ("sklearn", EVAL), ("matplotlib", EVAL), ("torch", TORCH)):
    pytest.importorskip(package, reason=reason)


MODELS = ("gpt-4o-mini", "llama3.1-8b", "llama3.1-70b", "gpt-4o")
ROWS = {("train", "a"): 60, ("train", "b"): 60, ("test", "a"): 40, ("test", "b"): 40}


def test_every_variant_names_an_estimator_once() -> None:
    names = [variant.name for variant in estimators.VARIANTS]
    assert len(set(names)) == len(names) == 16
    assert {variant.estimator for variant in estimators.VARIANTS} <= set(ESTIMATORS)


def test_every_variant_of_a_network_is_a_config() -> None:
    from ipr_engine.training.estimators.network_config import NetworkConfig

    for variant in estimators.VARIANTS:
        if variant.estimator not in estimators.CLOSED:
            assert NetworkConfig.of(variant.estimator, variant.options).link in variant.name + ", sigmoid"


def test_page_holds_every_line_and_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = (*estimators.VARIANTS[:1], *estimators.VARIANTS[3:4])
    monkeypatch.setattr(estimators, "VARIANTS", few)
    monkeypatch.setattr(estimators, "BASELINES", {"ridge": None})
    monkeypatch.setattr(estimators, "SETTINGS", ({}, {"caps": 4}, {"forms": ("plain",)}))
    write_study_source(tmp_path / "in" / "cascade9", MODELS, ROWS)
    paths = estimators.run(make_study(tmp_path / "in", tmp_path / "out"))
    assert [path.name for path in paths] == ["estimators.md", "estimators.json", "estimators.png"]
    figures = json.loads(paths[1].read_text())["cascade9"]
    assert set(figures["lines"]) == {"plain", "caps", "ridge of `ipr eval`"}
    assert set(figures["settings_out_of_fold"]) == {"as shipped", "caps 4", "forms plain only"}
    assert all(0 < line["brier"] < 1 for line in figures["lines"].values())


def test_caps_take_their_settings_as_options() -> None:
    world = make_world("caps options", rows=120)
    folds = grouped_folds(world.keys, 3, 0)
    few = fit_scores("caps", FoldedRows(world.x, world.quality, folds), options={"caps": 3, "forms": ("plain",)})
    assert few.tensors["trunk"].shape == (3, world.x.shape[1])
    assert few.settings["forms"] == ["plain"]
    same = fit_scores("caps", FoldedRows(world.x, world.quality, folds), options={"inside": 0.25, "spread": 0.5})
    np.testing.assert_array_equal(
        same.out_of_fold, fit_scores("caps", FoldedRows(world.x, world.quality, folds)).out_of_fold
    )


@pytest.mark.parametrize(
    "options",
    [{"inside": 1.0}, {"caps": 0}, {"spread": 0.0}, {"forms": ()}, {"caps": "many"}, {"forms": "x"}, {"knots": 3}],
)
def test_caps_refuse_settings_that_mean_nothing(options: dict[str, object]) -> None:
    world = make_world("caps refused", rows=60)
    with pytest.raises(InvalidInputError, match="expected"):
        fit_scores("caps", FoldedRows(world.x, world.quality, grouped_folds(world.keys, 3, 0)), options=options)
