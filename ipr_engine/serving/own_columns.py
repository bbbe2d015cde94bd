"""tokens_out, extra_usd and cached_tokens of one request: a value a candidate, which still means that candidate after a swap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.arguments import held_tokens, per_model
from ipr_engine.errors import InvalidInputError

Column = npt.NDArray[np.float32] | None


class OwnColumns(NamedTuple):
    """What one request brings of its own, in the order of `names`.

    tokens_out, extra_usd, cached_tokens: () for all, or (models,) or (1, models) float32; None where not given.
    """

    names: tuple[str, ...]
    tokens_out: Column
    extra_usd: Column
    cached_tokens: Column

    @classmethod
    def of(cls, names: tuple[str, ...], tokens_out: Any, extra_usd: Any, cached_tokens: Any) -> OwnColumns | None:
        """As a caller gave them for candidates in this order; None for none. The arrays are copies.

        Raises:
            InvalidInputError: one of them is no such array.
        """
        given = {"tokens_out": tokens_out, "extra_usd": extra_usd, "cached_tokens": cached_tokens}
        if all(values is None for values in given.values()):
            return None
        if cached_tokens is not None:
            held_tokens(cached_tokens, 1, len(names))
        return cls(names, **{name: _checked(name, values, len(names)) for name, values in given.items()})

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
