"""tokens_out, extra_usd and cached_tokens of one request: a value a candidate, which still means that candidate after a swap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.arguments import per_model
from ipr_engine.bundle import PriceList
from ipr_engine.cached_tokens import held_tokens
from ipr_engine.errors import InvalidInputError

Column = npt.NDArray[np.float32] | None


class OwnColumns(NamedTuple):
    """What one request brings of its own, in the order of `names`.

    tokens_out, extra_usd, cached_tokens: () for all, or (models,) or (1, models) float32; None where not given.
    by_name: cached_tokens were given by name: a candidate that a swap brings has none.
    """

    names: tuple[str, ...]
    tokens_out: Column
    extra_usd: Column
    cached_tokens: Column
    by_name: bool = False

    @classmethod
    def of(
        cls, names: tuple[str, ...], prices: PriceList, tokens_out: Any, extra_usd: Any, cached_tokens: Any
    ) -> OwnColumns | None:
        """As a caller gave them for candidates in this order; None for none. The arrays are copies.

        prices: the policy's, which say how long a cache holds.

        Raises:
            InvalidInputError: one of them is no such array.
        """
        by_name = False
        if cached_tokens is not None:
            held = held_tokens(cached_tokens, 1, names, prices)
            by_name = isinstance(cached_tokens, Mapping)
            cached_tokens = held if by_name else cached_tokens
        given = {"tokens_out": tokens_out, "extra_usd": extra_usd, "cached_tokens": cached_tokens}
        if all(values is None for values in given.values()):
            return None
        columns = {name: _checked(name, values, len(names)) for name, values in given.items()}
        return cls(names, **columns, by_name=by_name)

    def on(self, names: Sequence[str]) -> tuple[Column, Column, Column]:
        """All three for another bundle's candidates.

        Raises:
            InvalidInputError: it has a candidate for which nothing was given.
        """
        if tuple(names) == self.names:
            return self.tokens_out, self.extra_usd, self.cached_tokens
        tokens_out, extra_usd, cached_tokens = (
            self._moved(name, getattr(self, name), names) for name in ("tokens_out", "extra_usd", "cached_tokens")
        )
        return tokens_out, extra_usd, cached_tokens

    def _moved(self, name: str, values: Column, names: Sequence[str]) -> Column:
        if values is None or values.ndim == 0:
            return values
        missing = [other for other in names if other not in self.names]
        if name == "cached_tokens" and self.by_name:
            held = dict(zip(self.names, values[0].tolist(), strict=True))
            return np.array([[held.get(other, 0.0) for other in names]], np.float32)
        if missing:
            raise InvalidInputError(
                f"{name}: given for {', '.join(self.names)}, and the bundle that decides has {', '.join(missing)} besides; "
                "ask again with values for its candidates"
            )
        return values[..., [self.names.index(other) for other in names]]


def _checked(name: str, values: Any, models: int) -> Column:
    if values is None:
        return None
    columns = per_model(name, values, 1, models)
    return np.array(values, np.float32) if np.ndim(values) == 0 else columns.copy()
