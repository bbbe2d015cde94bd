"""This module fits small networks of every form. It needs torch."""

from __future__ import annotations

from typing import Any

from ipr_engine.training.estimators.network import NetworkConfig, fit_network
from ipr_engine.training.estimators.scores import FoldedRows

SMALL: dict[str, Any] = {"hidden": 12, "epochs": 8, "batch": 64, "lr": 0.01, "weight_decay": 0.1}
FORMS = {
    "paper": NetworkConfig(form="paper", identity_dim=5, **SMALL),
    "adapters": NetworkConfig(rank=2, skip=True, **SMALL),
    "adapters, no skip": NetworkConfig(rank=3, skip=False, activation="silu", **SMALL),
    "no adapters": NetworkConfig(rank=0, activation="gelu", link="identity", loss="squared", dropout=0.2, **SMALL),
    "mixed loss": NetworkConfig(rank=1, skip=True, loss={"cross_entropy": 1.0, "pairwise": 0.5}, **SMALL),
}


def fit_small(data: Any, config: NetworkConfig, **changes: Any) -> Any:
    """Fit a small network. data: with x, quality and folds."""
    rows = FoldedRows(data.x, data.quality, data.folds, changes.pop("linear_only", 0))
    return fit_network(rows, config, **{"seed": 3} | changes)
