"""`refresh` trains every quality weight for a new candidate; a consistency loss holds the old candidates.

    loss = cross-entropy of the new candidate's quality  +  consistency * mean over old candidates of (quality - before)^2

(IPR, arXiv 2509.06274.) Old qualities do change: what they lose is measured on prompts held out of the fit. Where nothing
is gained on them, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._extras import need
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.add.frozen_logits import added_by_trees, linear_columns

Array = npt.NDArray[np.float64]
Tensors = dict[str, npt.NDArray[Any]]

QUALITY = ("skip", "bias", "trunk", "identity", "up", "down", "out")
HELD_OUT = 5  # one question in so many
EPOCHS, PATIENCE, BATCH = 60, 8, 128
RATE = 3e-4


@dataclass(frozen=True)
class Refreshed:
    """A `Refreshed` holds heads after a refresh; figures are of the prompts held out.

    Attributes:
        tensors: of the quality heads, the new candidate's row last, float32.
        epochs: after which the new candidate's loss was least; 0 where it never fell, and nothing changed.
        loss_before, loss_after: cross-entropy of the new candidate.
        moved: (old models,) mean absolute change of quality, most: the greatest.
        forgotten: (old models,) rise of the Brier score where old outcomes are known there, else NaN.
    """

    tensors: Tensors
    epochs: int
    loss_before: float
    loss_after: float
    moved: Array
    most: float
    forgotten: Array

    def facts(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the figures in plain JSON types."""
        known = ~np.isnan(self.forgotten)
        return {
            "epochs": self.epochs,
            "loss_before": self.loss_before,
            "loss_after": self.loss_after,
            "moved": dict(zip(names, self.moved.round(9).tolist(), strict=True)),
            "most": self.most,
            "forgotten": {name: float(f) for name, f, k in zip(names, self.forgotten, known, strict=True) if k},
        }


def held_out(keys: Sequence[str], seed: int = 0) -> npt.NDArray[np.bool_]:
    """Mark the prompts (rows,) that a refresh does not fit and is judged on; the row it starts from must not have seen them either."""
    return np.asarray(grouped_folds(keys, HELD_OUT, seed) == 0)


def refresh(
    tensors: Mapping[str, npt.NDArray[Any]],
    activation: str,
    x: Array,
    quality: Array,
    old_quality: Array,
    keys: Sequence[str],
    *,
    consistency: float,
    seed: int = 0,
) -> Refreshed:
    """Train every quality tensor of heads with a hidden layer, from where they are.

    Args:
        tensors: of the heads, the new candidate's row last, fitted (`candidate_row.fit_row`) on the rows that are not `held_out`.
        x: (rows, dim). quality: (rows,) of the new candidate in [0, 1]. old_quality: (rows, models - 1), NaN where unknown: never
            fitted, only to measure what was forgotten.
        consistency: weight of the consistency loss, >= 0; 0 lets the old candidates drift.
    Raises:
        InvalidInputError: linear heads have no trunk to refresh; consistency is negative.
        BackendUnavailableError: torch is missing.
    """
    if "trunk" not in tensors:
        raise InvalidInputError("refresh: these heads have no shared trunk, rows are all there is to fit; leave it out")
    if not (np.isfinite(consistency) and consistency >= 0):
        raise InvalidInputError(f"consistency: expected a weight >= 0, got {consistency}")
    torch = need("torch", "refreshing a trunk")
    functional = torch.nn.functional
    held = held_out(keys, seed)
    # The trees stay as they are: what they add is a part of every logit.
    given = (linear_columns(tensors, x), quality, added_by_trees(tensors, x, range(len(tensors["bias"]))))
    inputs, target, added = (torch.from_numpy(np.asarray(part, np.float32)) for part in given)
    parts = {name: torch.tensor(tensors[name]) for name in QUALITY if name in tensors}
    with torch.no_grad():
        before = _logits(torch, parts, activation, inputs) + added
    anchor = torch.sigmoid(before[:, :-1])  # (rows, old models): the qualities to stay near
    for part in parts.values():
        part.requires_grad_(True)
    # No decay: the tensors start at a fit, not at 0.
    optimizer = torch.optim.AdamW(list(parts.values()), lr=RATE, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    fit_rows, out_rows = (torch.from_numpy(np.flatnonzero(mask)) for mask in (~held, held))

    def watched() -> float:
        with torch.no_grad():
            line = (_logits(torch, parts, activation, inputs[out_rows]) + added[out_rows])[:, -1]
            return float(functional.binary_cross_entropy_with_logits(line, target[out_rows]))

    def kept() -> dict[str, Any]:
        return {name: part.detach().clone() for name, part in parts.items()}

    first = least = watched()
    best, best_epoch = kept(), 0
    for epoch in range(1, EPOCHS + 1):
        for rows in torch.split(fit_rows[torch.randperm(len(fit_rows), generator=generator)], BATCH):
            line = _logits(torch, parts, activation, inputs[rows]) + added[rows]
            loss = functional.binary_cross_entropy_with_logits(line[:, -1], target[rows])
            # The old candidates are held to what they predicted before, on the new candidate's prompts: no old outcome is needed.
            loss = loss + consistency * (torch.sigmoid(line[:, :-1]) - anchor[rows]).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        now = watched()
        if now < least:
            least, best, best_epoch = now, kept(), epoch
        elif epoch - best_epoch >= PATIENCE:
            break
    with torch.no_grad():
        line = _logits(torch, best, activation, inputs[out_rows]) + added[out_rows]
        after = torch.sigmoid(line[:, :-1]).numpy().astype(np.float64)
    # What the old candidates lose is read where their outcomes are known, on prompts held out.
    old, truth = anchor[out_rows].numpy().astype(np.float64), old_quality[held]
    change = np.abs(after - old)
    rise = np.square(after - truth) - np.square(old - truth)
    known = ~np.isnan(truth)
    forgotten = np.array([rise[known[:, m], m].mean() if known[:, m].any() else np.nan for m in range(old.shape[1])])
    done = {name: np.array(part.numpy(), np.float32) for name, part in best.items()}
    return Refreshed(done, best_epoch, first, least, change.mean(axis=0), float(change.max(initial=0.0)), forgotten)


def _logits(torch: Any, parts: Mapping[str, Any], activation: str, x: Any) -> Any:
    """Compute the logits (rows, models) as docs/decide.md defines them, without what trees add."""
    functional = torch.nn.functional
    h = (x @ parts["trunk"].T)[:, None, :]  # (rows, 1, hidden)
    if "identity" in parts:
        h = h + parts["identity"]
    if "up" in parts:
        h = h + torch.einsum("mhr,bmr->bmh", parts["up"], torch.einsum("mrd,bd->bmr", parts["down"], x))
    acts = {"relu": functional.relu, "silu": functional.silu, "gelu": lambda a: functional.gelu(a, approximate="tanh")}
    total = (acts[activation](h) * parts["out"]).sum(dim=2) + parts["bias"]
    return total + x @ parts["skip"].T if "skip" in parts else total
