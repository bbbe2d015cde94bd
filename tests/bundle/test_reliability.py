"""Reliability bins: exact intervals, the round trip, and damaged files."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ipr_engine.bundle import Bundle
from ipr_engine.bundle.reliability import (
    FEWEST_IN_A_BIN,
    RELIABILITY,
    ReliabilityBins,
    clopper_pearson,
    read_reliability,
    reliability_bins,
    reliability_bytes,
)
from ipr_engine.errors import BundleError
from tests.support.bundles import make_bundle
from tests.support.seeds import seeded


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (0, 20), (3, 20), (20, 20), (199, 227), (1, 5000)])
def test_the_interval_is_clopper_and_pearsons(successes, trials):
    stats = pytest.importorskip("scipy.stats", reason="needs extra [eval]: scipy to compare with")
    expected = stats.binomtest(successes, trials).proportion_ci(0.95, method="exact")
    np.testing.assert_allclose(clopper_pearson(successes, trials), expected, atol=1e-10)


def test_fractions_of_a_success_are_rounded_outwards():
    low, high = clopper_pearson(7.5, 20)
    assert (low, high) == (clopper_pearson(7, 20)[0], clopper_pearson(8, 20)[1])


def test_bins_hold_every_row_once_and_know_their_mean():
    rng = seeded("bins")
    predicted = rng.random(997)
    quality = (rng.random(997) < predicted).astype(float)
    bins = reliability_bins(predicted, quality)
    assert len(bins.counts) == 10
    assert sum(bins.counts) == 997
    assert sum(bins.successes) == quality.sum()
    found = bins.at(0.95)
    inside = predicted >= bins.edges[-1]
    assert found.prompts == inside.sum()
    assert found.mean == pytest.approx(quality[inside].mean())
    assert found.low < found.mean < found.high
    assert bins.at(-1.0).prompts == bins.counts[0]


@pytest.mark.parametrize("rows", [1, FEWEST_IN_A_BIN - 1, 3 * FEWEST_IN_A_BIN])
def test_few_rows_give_few_bins(rows):
    predicted = np.linspace(0.1, 0.9, rows)
    assert len(reliability_bins(predicted, np.ones(rows)).counts) == max(1, rows // FEWEST_IN_A_BIN)


def test_equal_predictions_share_a_bin():
    bins = reliability_bins(np.full(400, 0.5), np.ones(400))
    assert (bins.edges, bins.counts) == ((), (400,))


def test_what_is_written_is_read_and_strangers_are_left_out(tmp_path):
    bins = reliability_bins(np.linspace(0, 1, 100), np.linspace(0, 1, 100).round())
    data = reliability_bytes({"alpha/large": bins, "gone": bins})
    folder = make_bundle(tmp_path, models=2, overrides={"extra_files": {RELIABILITY: data}})
    assert read_reliability(Bundle.load(folder)) == {"alpha/large": bins}


def test_a_bundle_without_the_table_has_none(tmp_path):
    assert read_reliability(Bundle.load(make_bundle(tmp_path, models=2))) is None


@pytest.mark.parametrize(
    "bins",
    [
        ReliabilityBins((0.5,), (3,), (1,)),
        ReliabilityBins((0.5, 0.5), (3, 3, 3), (1, 1, 1)),
        ReliabilityBins((), (3,), (4,)),
        ReliabilityBins((), (0,), (0,)),
        ReliabilityBins((2.0,), (3, 3), (1, 1)),
        ReliabilityBins((), (), ()),
    ],
    ids=["too few", "not rising", "more than all", "empty", "edge over 1", "nothing"],
)
def test_a_damaged_table_is_refused(tmp_path, bins):
    data = json.dumps({"candidates": {"alpha/large": bins._asdict()}}).encode()
    folder = make_bundle(tmp_path, models=2, overrides={"extra_files": {RELIABILITY: data}})
    with pytest.raises(BundleError, match=RELIABILITY):
        read_reliability(Bundle.load(folder))
