"""Heads with a forest behind a recorded encoder: what the CPU decides, and another forest takes its place by a copy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support import decide_implementations  # before anything that imports triton
from tests.support.gpu_engines import POLICIES, PROMPTS, cpu_engine, gpu_engine, make_bundle

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # of Triton's interpreter
QUALITY = 4e-3 if decide_implementations.ON_DEVICE else 2e-5  # as in test_router.py


def test_a_forest_is_decided_as_on_the_cpu_and_another_is_copied_over_it(root, export):
    folders = [make_bundle(root, export, name=f"forest {seed}", models=5, seed=seed, trees=6) for seed in (0, 1)]
    engine = gpu_engine(folders[0], batches=(1, 4))
    router, plan = engine.loaded.gpu.router, engine.loaded.gpu.heads.plan
    assert (plan.trees, plan.depth) == (6, 3)
    qualities = []
    for folder in folders:
        if folder is not folders[0]:
            engine.swap(folder)
        assert engine.loaded.gpu.router is router  # the same recordings
        for policy in POLICIES[:3]:
            got, want = (of.route_many(PROMPTS, **policy) for of in (engine, cpu_engine(folder)))
            # A tree may turn where x lies at a threshold, and x differs in its last bits: of a prompt in five, no more.
            near = np.isclose(got.qualities, want.qualities, atol=QUALITY).all(axis=1)
            assert near.sum() >= len(PROMPTS) - 1
            sure = near & (want.gap > 4 * QUALITY)
            np.testing.assert_array_equal(got.index[sure], want.index[sure])
        qualities.append(got.qualities)
    assert np.abs(qualities[0] - qualities[1]).max() > 0.01
