"""How much of a prompt the candidates' caches hold, as a caller tells it: an array, or by name with how old each cache is.

engine.route(prompt, policy, cached_tokens={"gemini-1.5-pro": 90_000})              # nobody else's cache holds any of it
engine.route(prompt, policy, cached_tokens={"gemini-1.5-pro": (90_000, 240.0)})     # last used 240 s ago: held if cache_ttl_s says so
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt

from ipr_engine.arguments import per_model
from ipr_engine.bundle import PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.names import matched
from ipr_engine.ranges import nonnegative
from ipr_engine.text import shown

ByName: TypeAlias = Mapping[
    str, float | tuple[float, float]
]  # tokens, or tokens and the seconds since the cache was used last
CachedTokens: TypeAlias = npt.ArrayLike | ByName | Sequence[ByName | None]


def held_tokens(
    cached_tokens: CachedTokens, batch: int, names: Sequence[str], prices: PriceList
) -> npt.NDArray[np.float64]:
    """(batch, models) tokens that each candidate's cache holds, by its own count.

    Args:
        cached_tokens: what `per_model` takes, in the order of `names`; or name -> tokens, or (tokens, seconds since last used): for
            all rows, or a list of them, one a row. Who is not named has none. Names are found whatever their case.
        prices: their `cache_ttl_s`, once passed, leaves nothing of what was used so many seconds ago; one that is not known
            never passes.
    Raises:
        InvalidInputError: no such array or mapping, an unknown name, or a number that is not finite and >= 0.
    """
    if isinstance(cached_tokens, Mapping):
        return np.broadcast_to(_of_names("cached_tokens", cached_tokens, names, prices), (batch, len(names)))
    if _is_list(cached_tokens):
        if len(cached_tokens) != batch:
            raise InvalidInputError(
                f"cached_tokens: expected one mapping a prompt, {batch} in all, got {len(cached_tokens)}"
            )
        rows = [
            _of_names(f"cached_tokens[{row}]", {} if one is None else one, names, prices)
            for row, one in enumerate(cached_tokens)
        ]
        return np.stack(rows)
    held = per_model("cached_tokens", cached_tokens, batch, len(names))  # type: ignore[arg-type]  # no mapping is left
    wrong = held[~(np.isfinite(held) & (held >= 0))]
    if wrong.size:
        raise InvalidInputError(f"cached_tokens: expected finite numbers >= 0, got {wrong.flat[0]:g}")
    return np.broadcast_to(held, (batch, len(names))).astype(np.float64)


def one_a_row(cached_tokens: CachedTokens, held: npt.NDArray[np.float64]) -> Sequence[object]:
    """What each row of `held`, made of `cached_tokens`, was given alone: names stay names, which outlive a swap."""
    if isinstance(cached_tokens, Mapping):
        return [cached_tokens] * len(held)
    return cached_tokens if _is_list(cached_tokens) else list(held)


def _is_list(cached_tokens: CachedTokens) -> TypeGuard[Sequence[ByName | None]]:
    return isinstance(cached_tokens, (list, tuple)) and any(isinstance(row, Mapping) for row in cached_tokens)


def _of_names(where: str, given: object, names: Sequence[str], prices: PriceList) -> npt.NDArray[np.float64]:
    """(models,) of one mapping, rounded as an array would be."""
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise InvalidInputError(f"{where}: expected candidate -> tokens, got {shown(given)}")
    meant = matched(where, list(given), names)
    held = np.zeros(len(names), np.float32)
    for name, value in given.items():
        twice = [other for other in given if meant[other] == meant[name]]
        if len(twice) > 1:
            raise InvalidInputError(f"{where}: {' and '.join(map(repr, twice))} both mean {meant[name]}; give it once")
        here = f"{where}[{name!r}]"
        pair = value if isinstance(value, (tuple, list)) else (value, 0.0)
        if len(pair) != 2:
            raise InvalidInputError(
                f"{here}: expected tokens, or (tokens, seconds since last used), got {shown(value)}"
            )
        tokens, age_s = nonnegative(here, pair[0]), nonnegative(f"{here}, seconds", pair[1])
        ttl_s = prices.prices[meant[name]].cache_ttl_s
        if ttl_s is None or age_s < ttl_s:
            held[names.index(meant[name])] = tokens
    return held.astype(np.float64)
