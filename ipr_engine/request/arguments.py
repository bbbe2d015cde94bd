"""This file turns the arguments of one call into the arrays that the op takes, or raises an error that names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard, TypeVar

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import MOST_TOKENS, matched_once, nonnegative, shown, shown_safely
from ipr_engine.bundle import PriceList
from ipr_engine.encoders.base import Encoded
from ipr_engine.errors import InvalidInputError


def bare_embeddings(x: object, dim: int, billed_tokens: object) -> Encoded:
    """Return a bare (dim,) or (batch, dim) float32 array as Encoded; the caller puts in the bills, nothing else is known of its prompts."""
    if not isinstance(x, np.ndarray) or x.dtype != np.float32 or x.ndim not in (1, 2) or x.shape[-1] != dim:
        got = f"{x.dtype} {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise InvalidInputError(
            f"x: expected what encode(...) returns, or (batch, {dim}) float32, got {got}; route(...) takes text"
        )
    if billed_tokens is None:
        raise InvalidInputError(
            "billed_tokens: needed with a bare array, since the bill is counted in tokens; pass (batch,) counts"
        )
    rows = np.ascontiguousarray(np.atleast_2d(x))  # (batch, dim)
    return Encoded(rows, np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_))


def whole_counts(billed_tokens: object, batch: int) -> npt.NDArray[np.int64]:
    """Return (batch,) int64 of one count for all, or one a row; InvalidInputError for anything else."""
    given = _array("billed_tokens", billed_tokens)
    whole = given.dtype.kind in "iu" and given.shape in ((), (batch,)) and not _holds_bool(billed_tokens)
    if not whole or (given < 0).any() or (given > MOST_TOKENS).any():
        expected = "a whole number >= 0" if batch == 1 else f"({batch},) whole numbers >= 0, or one for all"
        raise InvalidInputError(f"billed_tokens: expected {expected}, got {_described(billed_tokens, given)}")
    return np.ascontiguousarray(np.broadcast_to(given, (batch,)), np.int64)


def per_model(name: str, values: npt.ArrayLike, batch: int, models: int, *, also: str = "") -> npt.NDArray[np.float32]:
    """Return (models,) or (batch, models) float32 of a scalar or such an array; InvalidInputError for anything else.

    also: what else the argument may be, for the error.
    """
    given = _array(name, values)
    known = given.dtype.kind in "iuf" and not _holds_bool(values)
    if not known or given.shape not in ((), (models,), (batch, models)):
        rows = "" if batch == 1 else f", or ({batch}, {models}), a row a prompt"
        expected = f"{also}a number, or {models} numbers, one a candidate{rows}"
        raise InvalidInputError(f"{name}: expected {expected}, got {_described(values, given)}")
    with np.errstate(over="ignore"):  # over float32 is infinite, which the row's status tells
        return np.ascontiguousarray(np.broadcast_to(given, (models,)) if given.ndim == 0 else given, np.float32)


def _array(name: str, values: Any) -> npt.NDArray[Any]:
    """Return the values as an array; InvalidInputError for rows of different lengths."""
    try:
        return np.asarray(values)
    except ValueError:
        pass
    raise InvalidInputError(f"{name}: expected a number, or rows of numbers of one length, got {type(values).__name__}")


def _holds_bool(values: Any) -> bool:
    """Return whether the values are, or lists of them hold, a bool: beside numbers numpy takes it for 0 or 1."""
    if isinstance(values, (list, tuple)):
        return any(map(_holds_bool, values))
    return isinstance(values, (bool, np.bool_))


def _described(values: object, array: npt.NDArray[Any]) -> str:
    if array.ndim == 1 and isinstance(values, (list, tuple)):
        known = array.dtype.kind in "iuf" and not _holds_bool(values)
        return f"a list of {len(array)}" if known else f"a list of {len(array)}, not all of them numbers"
    return shown_safely(values) if array.ndim == 0 else f"{array.dtype} {array.shape}"


Value = TypeVar("Value")
ByName: TypeAlias = Mapping[str, Value]
PerCandidate: TypeAlias = npt.ArrayLike | ByName[Value] | Sequence[ByName[Value] | None]
# by name: tokens, or tokens and the seconds since the cache was used last
CachedTokens: TypeAlias = PerCandidate[float | tuple[float, float]]
TokensIn: TypeAlias = PerCandidate[float]


def per_candidate(
    argument: str,
    stated: Any,
    batch: int,
    names: Sequence[str],
    *,
    absent: float,
    read: Callable[[str, object, str], float],
) -> npt.NDArray[np.float32]:
    """Return (batch, models) of what a caller states, each number rounded to float32 once, whatever the form.

    Args:
        argument: what errors call it.
        stated: what `per_model` takes, in the order of `names`; or name -> value, or a list of such mappings (None: an empty one), one a
            prompt. Names are found whatever their case.
        absent: of a candidate that a mapping does not name.
        read: the number that a mapping's value means, or an error: it gets where the value stands, the value, and the candidate.
    Raises:
        InvalidInputError: no such array or mapping, an unknown name, or a number that is not finite and >= 0.
    """
    if isinstance(stated, Mapping):
        row = _of_names(argument, stated, names, absent, read)
        return np.ascontiguousarray(np.broadcast_to(row, (batch, len(names))))
    if _is_list(stated):
        if len(stated) != batch:
            raise InvalidInputError(f"{argument}: expected one mapping a prompt, {batch} in all, got {len(stated)}")
        rows = [
            _of_names(f"{argument}[{row}]", {} if one is None else one, names, absent, read)
            for row, one in enumerate(stated)
        ]
        return np.array(rows, np.float32).reshape(batch, len(names))
    also = "candidate -> tokens (or a list of these, one a prompt), "
    values = per_model(argument, stated, batch, len(names), also=also)  # (models,) or (batch, models)
    wrong = values[~(np.isfinite(values) & (values >= 0))]
    if wrong.size:
        raise InvalidInputError(f"{argument}: expected finite numbers >= 0, got {wrong.flat[0]:g}")
    return np.ascontiguousarray(np.broadcast_to(values, (batch, len(names))))


def one_a_row(stated: Any, made: npt.NDArray[Any]) -> Sequence[Any]:
    """Return what was stated of each row of `made`, the array of `stated`: names stay names, which outlive a swap."""
    if isinstance(stated, Mapping):
        return [stated] * len(made)
    return stated if _is_list(stated) else list(made)


def is_by_name(stated: Any) -> bool:
    """Return whether values are stated by candidates' names, so that nothing is stated of one that is not named."""
    return isinstance(stated, Mapping) or _is_list(stated)


def _is_list(stated: Any) -> TypeGuard[Sequence[ByName[Any] | None]]:
    if not isinstance(stated, (list, tuple)):
        return False
    return not stated or any(row is None or isinstance(row, Mapping) for row in stated)


def _of_names(
    where: str, stated: object, names: Sequence[str], absent: float, read: Callable[[str, object, str], float]
) -> npt.NDArray[np.float32]:
    """Return (models,) float32 of one mapping, `absent` for who is not named."""
    if not isinstance(stated, Mapping) or not all(isinstance(name, str) for name in stated):
        raise InvalidInputError(f"{where}: expected candidate -> tokens, got {shown(stated)}")
    meant = matched_once(where, list(stated), names)
    values = np.full(len(names), absent, np.float32)  # (models,)
    for name, value in stated.items():
        values[names.index(meant[name])] = read(f"{where}[{name!r}]", value, meant[name])
    return values


def held_tokens(
    cached_tokens: CachedTokens, batch: int, names: Sequence[str], prices: PriceList
) -> npt.NDArray[np.float64]:
    """Return (batch, models) float64 tokens that each candidate's cache holds, by its own count.

    Args:
        cached_tokens: in a form that `per_candidate` takes; by name tokens, or (tokens, seconds since last used). Others have none.
        prices: their `cache_ttl_s`, once passed, leaves nothing of what was used so many seconds ago; one that is not known
            never passes.
    Raises:
        InvalidInputError: no such array or mapping, an unknown name, or a number that is not finite and >= 0.
    """

    def read(where: str, value: object, name: str) -> float:
        pair = value if isinstance(value, (tuple, list)) else (value, 0.0)
        if len(pair) != 2:
            raise InvalidInputError(
                f"{where}: expected tokens, or (tokens, seconds since last used), got {shown_safely(value)}"
            )
        tokens, age_s = nonnegative(where, pair[0]), nonnegative(f"{where}, seconds", pair[1])
        ttl_s = prices.prices[name].cache_ttl_s
        return tokens if ttl_s is None or age_s < ttl_s else 0.0

    return per_candidate("cached_tokens", cached_tokens, batch, names, absent=0.0, read=read).astype(np.float64)


def given_tokens(tokens_in: TokensIn, batch: int, names: Sequence[str]) -> npt.NDArray[np.float32]:
    """Return (batch, models) float32 input tokens by each candidate's own count; NaN where it is not named: its estimate stands.

    Args:
        tokens_in: in a form that `per_candidate` takes.
    Raises:
        InvalidInputError: no such array or mapping, an unknown name, or a number that is not finite and >= 0.
    """
    return per_candidate("tokens_in", tokens_in, batch, names, absent=np.nan, read=_tokens)


def _tokens(where: str, value: object, name: str) -> float:
    return nonnegative(where, value)
