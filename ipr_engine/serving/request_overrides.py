"""tokens_out, extra_usd, cached_tokens and tokens_in of one request: a value a candidate, which still means that candidate after a swap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.request.arguments import per_model
from ipr_engine.request.by_candidate import is_by_name
from ipr_engine.request.cached_tokens import held_tokens
from ipr_engine.request.tokens_in import told_tokens

Column = npt.NDArray[np.float32] | None
_ABSENT = {
    "cached_tokens": 0.0,
    "tokens_in": np.nan,
}  # of those that may be given by name: what one that is not named has
NOTHING: tuple[None, None, None, None] = (None, None, None, None)  # `on` of no columns


class RequestOverrides(NamedTuple):
    """What one request brings of its own, in the order of `names`.

    tokens_out, extra_usd, cached_tokens, tokens_in: () for all, or (models,) or (1, models) float32; None where not given.
    tokens_in: NaN where a candidate's estimate stands.
    by_name: those that were given by name: of a candidate that a swap brings nothing is told.
    """

    names: tuple[str, ...]
    tokens_out: Column
    extra_usd: Column
    cached_tokens: Column
    tokens_in: Column
    by_name: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        names: tuple[str, ...],
        prices: PriceList,
        tokens_out: Any,
        extra_usd: Any,
        cached_tokens: Any,
        tokens_in: Any,
    ) -> RequestOverrides | None:
        """As a caller gave them for candidates in this order; None for none. The arrays are copies.

        prices: the policy's, which say how long a cache holds.

        Raises:
            InvalidInputError: one of them is no such array.
        """
        given = {
            "tokens_out": tokens_out,
            "extra_usd": extra_usd,
            "cached_tokens": cached_tokens,
            "tokens_in": tokens_in,
        }
        if all(values is None for values in given.values()):
            return None
        by_name = frozenset(name for name in _ABSENT if is_by_name(given[name]))
        if cached_tokens is not None:
            held = held_tokens(cached_tokens, 1, names, prices)
            given["cached_tokens"] = held if "cached_tokens" in by_name else cached_tokens
        if tokens_in is not None:
            told = told_tokens(tokens_in, 1, names)
            given["tokens_in"] = told if "tokens_in" in by_name else tokens_in
        columns = {name: _checked(name, values, len(names)) for name, values in given.items()}
        return cls(names, **columns, by_name=by_name)

    def on(self, names: Sequence[str]) -> tuple[Column, Column, Column, Column]:
        """All four for another bundle's candidates, in the order of the fields; tokens_in are (1, models).

        Raises:
            InvalidInputError: it has a candidate for which nothing was given.
        """
        if tuple(names) == self.names:
            return self.tokens_out, self.extra_usd, self.cached_tokens, _one_row(self.tokens_in, names)
        tokens_out, extra_usd, cached_tokens, tokens_in = (
            self._moved(name, getattr(self, name), names)
            for name in ("tokens_out", "extra_usd", "cached_tokens", "tokens_in")
        )
        return tokens_out, extra_usd, cached_tokens, _one_row(tokens_in, names)

    def _moved(self, name: str, values: Column, names: Sequence[str]) -> Column:
        if values is None or values.ndim == 0:
            return values
        missing = [other for other in names if other not in self.names]
        if name in self.by_name:
            told = dict(zip(self.names, values[0].tolist(), strict=True))
            return np.array([[told.get(other, _ABSENT[name]) for other in names]], np.float32)
        if missing:
            raise InvalidInputError(
                f"{name}: given for {', '.join(self.names)}, and the bundle that decides has {', '.join(missing)} besides; "
                "ask again with values for its candidates"
            )
        return values[..., [self.names.index(other) for other in names]]


def _one_row(values: Column, names: Sequence[str]) -> Column:
    """(1, models) of what may be for all."""
    return None if values is None else np.ascontiguousarray(np.broadcast_to(values, (1, len(names))))


def _checked(name: str, values: Any, models: int) -> Column:
    if values is None:
        return None
    columns = per_model(name, values, 1, models)
    return np.array(values, np.float32) if np.ndim(values) == 0 else columns.copy()
