"""How much of a prompt the candidates' caches hold, as a caller tells it: an array, or by name with how old each cache is.

engine.route(prompt, policy, cached_tokens={"gemini-1.5-pro": 90_000})              # nobody else's cache holds any of it
engine.route(prompt, policy, cached_tokens={"gemini-1.5-pro": (90_000, 240.0)})     # last used 240 s ago: held if cache_ttl_s says so
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from ipr_engine._validate import nonnegative, told
from ipr_engine.bundle import PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.request.by_candidate import PerCandidate, per_candidate

# by name: tokens, or tokens and the seconds since the cache was used last
CachedTokens: TypeAlias = PerCandidate[float | tuple[float, float]]


def held_tokens(
    cached_tokens: CachedTokens, batch: int, names: Sequence[str], prices: PriceList
) -> npt.NDArray[np.float64]:
    """(batch, models) tokens that each candidate's cache holds, by its own count.

    Args:
        cached_tokens: as of `per_candidate`; by name tokens, or (tokens, seconds since last used). Who is not named has none.
        prices: their `cache_ttl_s`, once passed, leaves nothing of what was used so many seconds ago; one that is not known
            never passes.
    Raises:
        InvalidInputError: no such array or mapping, an unknown name, or a number that is not finite and >= 0.
    """

    def read(where: str, value: object, name: str) -> float:
        pair = value if isinstance(value, (tuple, list)) else (value, 0.0)
        if len(pair) != 2:
            raise InvalidInputError(
                f"{where}: expected tokens, or (tokens, seconds since last used), got {told(value)}"
            )
        tokens, age_s = nonnegative(where, pair[0]), nonnegative(f"{where}, seconds", pair[1])
        ttl_s = prices.prices[name].cache_ttl_s
        return tokens if ttl_s is None or age_s < ttl_s else 0.0

    return per_candidate("cached_tokens", cached_tokens, batch, names, absent=0.0, read=read).astype(np.float64)
