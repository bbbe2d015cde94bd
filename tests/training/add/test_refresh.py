"""A refreshed trunk: the new candidate gains, the consistency loss holds the old ones, forgetting is measured."""

from __future__ import annotations

import numpy as np
import pytest

from ipr_engine.errors import InvalidInputError
from ipr_engine.training.add.candidate_row import fit_row
from ipr_engine.training.add.refresh import QUALITY, refresh
from ipr_engine.training.fitted_heads import HeadRows, fit_heads, predict
from tests.support.training_data import make_world

pytest.importorskip("torch", reason="needs extra [train]: torch")


@pytest.fixture(scope="module")
def given():
    """Heads with a trunk fitted on four candidates, and the fifth's row."""
    world = make_world("refresh", rows=1500)
    heads = fit_heads(HeadRows(world.x, world.quality[:, :-1], world.tokens[:, :-1], world.keys), estimator="caps")
    row = fit_row(heads.tensors, "relu", world.x[:60], world.quality[:60, -1], None, world.keys[:60]).tensors
    tensors = {
        name: tensor if name == "trunk" else np.concatenate([tensor, row[name][None]])
        for name, tensor in heads.tensors.items()
        if name in QUALITY
    }
    return world, tensors


def run(given, consistency, **more):
    world, tensors = given
    arguments = {"old_quality": world.quality[:, :-1]} | more
    return refresh(
        tensors, "relu", world.x, world.quality[:, -1], keys=world.keys, consistency=consistency, **arguments
    )


def moved(given, tensors):
    world, before = given
    no_tokens = {"len_skip": np.zeros((5, 13), np.float32), "len_bias": np.zeros(5, np.float32)}
    old, new = (predict({**part, **no_tokens}, world.x)[0] for part in (before, tensors))
    return np.abs(new - old)[:, :-1].mean()


def test_the_new_candidate_gains_and_consistency_holds_the_old_ones(given):
    loose, held = run(given, 0.0), run(given, 100.0)
    assert loose.loss_after < loose.loss_before
    assert held.loss_after < held.loss_before
    assert moved(given, held.tensors) < moved(given, loose.tensors) / 2
    assert held.moved.mean() == pytest.approx(moved(given, held.tensors), rel=0.3)
    assert np.isfinite(held.forgotten).all()


def test_the_same_seed_gives_the_same_bytes(given):
    one, two = (run(given, 1.0).tensors for _ in "12")
    assert {n: t.tobytes() for n, t in one.items()} == {n: t.tobytes() for n, t in two.items()}


def test_unknown_old_outcomes_leave_forgetting_unknown(given):
    found = run(given, 10.0, old_quality=np.full((1500, 4), np.nan))
    assert np.isnan(found.forgotten).all()
    assert found.facts("abcd")["forgotten"] == {}


def test_linear_heads_and_a_negative_weight_are_refused(given):
    world, tensors = given
    linear = {name: tensors[name] for name in ("skip", "bias")}
    with pytest.raises(InvalidInputError, match="no shared trunk"):
        refresh(linear, "relu", world.x, world.quality[:, -1], world.quality[:, :-1], world.keys, consistency=1.0)
    with pytest.raises(InvalidInputError, match="consistency: expected a weight >= 0, got -1"):
        run(given, -1.0)
