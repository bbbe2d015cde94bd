"""What `add_model` made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ipr_engine.training.add.refresh import Refreshed


@dataclass(frozen=True)
class Added:
    """What `add_model` made.

    Attributes:
        folder: the new bundle's. candidate: its name. prompts: that it was fitted on, 0 for a prior.
        prior_from: the candidates whose rows stand in for its quality; empty where it has outcomes.
        lowered_to: mean quality that a prior was lowered to by its price (candidate_prior.py), None where it is not above that.
        tokens_from: the same for its output tokens.
        quality, predicted, brier: mean outcome, mean prediction out of fold (of the row beside frozen heads) and its Brier score;
            None for a prior.
        refreshed: what a refreshed trunk gained and forgot; None where everything stayed frozen.
        path: what became of the bundle's path rows, in words; None where it has none.
        constant: why its head counts as constant (training/selection.py), None where it does not; of a prior that its members'
            heads all do. Unlike `train` it is delivered, since few prompts rarely tell the head apart; the bundle marks it.
    """

    folder: Path
    candidate: str
    prompts: int
    prior_from: tuple[str, ...]
    tokens_from: tuple[str, ...]
    quality: float | None
    predicted: float | None
    brier: float | None
    refreshed: Refreshed | None = None
    constant: str | None = None
    lowered_to: float | None = None
    path: str | None = None
