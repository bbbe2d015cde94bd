"""What is wrong with the estimator that is asked for is told before anything is read."""

from __future__ import annotations

import sys

import pytest

from ipr_engine.errors import BackendUnavailableError, InvalidInputError
from ipr_engine.training.train_options import FitOptions
from tests.support.training_data import train

pytest.importorskip("threadpoolctl", reason="needs extra [train]: a repeatable fit")


@pytest.mark.parametrize("estimator", ["auto", "caps", "forest"])
def test_a_run_folder_is_refused_where_no_network_is_fitted(tmp_path, estimator):
    with pytest.raises(InvalidInputError, match=r"run: keeps the parts of a network's fit.*name a network \(.*paper"):
        FitOptions(estimator=estimator, run=tmp_path / "run")


@pytest.mark.parametrize(("estimator", "module"), [("forest", "sklearn.ensemble"), ("paper", "torch")])
def test_a_package_that_is_missing_is_told(tmp_path, monkeypatch, estimator, module):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    nowhere = tmp_path / "nowhere"
    with pytest.raises(BackendUnavailableError, match=module):
        train(nowhere, nowhere, tmp_path / "root", name="t", created="2026-11-24", estimator=estimator)
