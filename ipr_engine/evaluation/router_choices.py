"""`choices_of` reads what a router returned, and refuses what is no choice of a candidate for every prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import shown, shown_each
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.contenders import Choices, Shares
from ipr_engine.evaluation.router_interface import FittingData

Array = npt.NDArray[np.float64]
Refuse = Callable[[str], InvalidInputError]  # what came -> the error

OFF_ONE = 1e-6  # how far from 1 shares may add up
BACKWARDS = 0.05  # of the range of the candidates' mean costs


def choices_of(name: str, returned: Any, prompts: Sequence[str], train: FittingData) -> Choices | Shares:
    """Return what a router returned as a sweep.

    Raises:
        InvalidInputError: it is none: says what came, and what to return.
    """
    rows, models = len(prompts), len(train.candidates)
    wanted = f"(settings, {rows}) names or positions, or (settings, {rows}, {models}) shares"

    def refuse(found: str) -> InvalidInputError:
        return InvalidInputError(f"--router {name}: expected route(prompts) to return {wanted}; got {found}")

    try:
        table = np.asarray(returned)
    except (TypeError, ValueError, RuntimeError):  # ragged, or a tensor that numpy cannot read
        table = np.asarray(None)
    if table.dtype == object and table.ndim and all(isinstance(cell, str) for cell in table.ravel()):
        table = table.astype(str)
    if not table.ndim or table.dtype.kind not in "Uiuf":
        raise refuse(f"{type(returned).__name__} of which numpy makes no table of numbers or names")
    if table.ndim == 1:
        table = table[None]  # one setting
    if table.ndim > 3 or not len(table) or table.shape[1] != rows or table.shape[2:] not in ((), (models,)):
        turned = " (settings come first)" if table.ndim == 2 and table.shape[0] == rows else ""
        raise refuse(f"an array of shape {table.shape}{turned}")
    if table.ndim == 3:
        return _in_order(name, Shares(_shares(refuse, table)), train)
    if table.dtype.kind == "U":
        table = _positions(refuse, table, prompts, train)
    elif table.dtype.kind == "f":
        odd = "NaN" if np.isnan(table).any() else f"{table.dtype} numbers"
        raise refuse(f"{odd}: positions are whole numbers, shares have a third axis, the candidates")
    elif table.min() < 0 or table.max() >= models:
        bad = table[(table < 0) | (table >= models)][0]
        raise refuse(f"position {bad}; the {models} candidates have 0 to {models - 1}")
    return _in_order(name, Choices(table.astype(np.int16)), train)


def _shares(refuse: Refuse, table: npt.NDArray[Any]) -> Array:
    if table.dtype.kind == "U":
        raise refuse("texts where shares are expected: numbers that add up to 1 over the candidates")
    shares = table.astype(np.float64)
    sums = shares.sum(axis=2)
    for bad, what in (
        (~np.isfinite(shares).all(axis=2), "NaN or infinite shares"),
        ((shares < 0).any(axis=2), "shares below 0"),
        (np.abs(sums - 1) > OFF_ONE, "shares that do not add up to 1"),
    ):
        if bad.any():
            setting, row = np.argwhere(bad)[0]
            total = f"; they add up to {sums[setting, row]:.6g}" if np.isfinite(sums[setting, row]) else ""
            raise refuse(f"{what} in {int(bad.sum())} of {bad.size} places, at setting {setting} first{total}")
    return np.asarray(shares / sums[:, :, None])


def _positions(
    refuse: Refuse, table: npt.NDArray[Any], prompts: Sequence[str], train: FittingData
) -> npt.NDArray[np.int64]:
    names, inverse = np.unique(table, return_inverse=True)
    known = {candidate: column for column, candidate in enumerate(train.candidates)}
    unknown = [str(found) for found in names if str(found) not in known]
    if unknown:
        # A router that returns prompts by mistake must not put one into an error.
        told = "a text of a prompt" if any(unknown[0] in prompt for prompt in prompts) else shown(unknown[0])
        raise refuse(f"{told}, which is no candidate; the candidates are {shown_each(train.candidates)}")
    return np.array([known[str(found)] for found in names])[inverse.reshape(table.shape)]


def _in_order(name: str, sweep: Choices | Shares, train: FittingData) -> Choices | Shares:
    """Refuse settings that go from dear to cheap, by mean training costs: the curve would run backwards."""
    cost = train.cost_usd.mean(axis=0)
    everyone = np.ones(sweep.rows, dtype=np.bool_)
    first, last = (sweep.shares_at(point, everyone, len(cost)).mean(axis=0) @ cost for point in (0, sweep.points - 1))
    if first - last > BACKWARDS * (cost.max() - cost.min()):
        raise InvalidInputError(
            f"--router {name}: expected the settings from cheap to dear, got {first:.3g} USD a prompt at the first and {last:.3g} at "
            "the last, by the candidates' mean training costs; return them the other way round"
        )
    return sweep
