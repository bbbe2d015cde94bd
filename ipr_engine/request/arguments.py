"""Arguments of one call as the arrays the op takes, or an error that names them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import MOST_TOKENS, told
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError
from ipr_engine.prompts.parsed import bill_floor


def bill_floors(texts: Sequence[str], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(texts,) what each text alone is billed, of the tokens counted in it: `bill_floor`."""
    return np.array([bill_floor(text, n) for text, n in zip(texts, counts.tolist(), strict=True)], np.int64)


def bare_embeddings(x: object, dim: int, billed_tokens: object) -> Encoded:
    """A bare (dim,) or (batch, dim) float32 array as Encoded, nothing known of its prompts but their bill to come."""
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim not in (1, 2) or x.shape[-1] != dim:
        got = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InvalidInputError(
            f"x: expected what encode(...) returns, or (batch, {dim}) float32, got {got}; route(...) takes text"
        )
    if billed_tokens is None:
        raise InvalidInputError(
            "billed_tokens: needed with a bare array, since the bill is counted in tokens; pass (batch,) counts"
        )
    rows = np.ascontiguousarray(np.atleast_2d(x))
    return Encoded(rows, np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_))


def whole_counts(billed_tokens: object, batch: int) -> npt.NDArray[np.int64]:
    """(batch,) int64 of one count for all, or one a row; InvalidInputError for anything else."""
    given = _array("billed_tokens", billed_tokens)
    whole = given.dtype.kind in "iu" and given.shape in ((), (batch,)) and not _holds_bool(billed_tokens)
    if not whole or (given < 0).any() or (given > MOST_TOKENS).any():
        raise InvalidInputError(
            f"billed_tokens: expected ({batch},) whole numbers >= 0, or one for all, got {_described(billed_tokens, given)}"
        )
    return np.ascontiguousarray(np.broadcast_to(given, (batch,)), np.int64)


def per_model(name: str, values: npt.ArrayLike, batch: int, models: int, *, also: str = "") -> npt.NDArray[np.float32]:
    """(models,) or (batch, models) float32 of a scalar or such an array; InvalidInputError for anything else.

    also: what else the argument may be, for the error.
    """
    given = _array(name, values)
    known = given.dtype.kind in "iuf" and not _holds_bool(values)
    if not known or given.shape not in ((), (models,), (batch, models)):
        raise InvalidInputError(
            f"{name}: expected {also}a number, ({models},) or ({batch}, {models}) numbers, got {_described(values, given)}"
        )
    with np.errstate(over="ignore"):  # over float32 is infinite, which the row's status tells
        return np.ascontiguousarray(np.broadcast_to(given, (models,)) if given.ndim == 0 else given, np.float32)


def _array(name: str, values: Any) -> npt.NDArray[Any]:
    """The values as an array; InvalidInputError for rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        pass
    raise InvalidInputError(f"{name}: expected a number, or rows of numbers of one length, got {type(values).__name__}")


def _holds_bool(values: Any) -> bool:
    """Whether lists hold a bool: beside numbers numpy takes it for 0 or 1."""
    if isinstance(values, (list, tuple)):
        return any(map(_holds_bool, values))
    return isinstance(values, (bool, np.bool_))


def _described(values: object, array: npt.NDArray[Any]) -> str:
    return told(values) if array.ndim == 0 else f"{array.dtype} {array.shape}"
