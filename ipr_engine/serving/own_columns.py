"""tokens_out and extra_usd of one request: a value a candidate, which still means that candidate after a swap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.arguments import per_model
from ipr_engine.errors import InvalidInputError

Column = npt.NDArray[np.float32] | None


class OwnColumns(NamedTuple):
    """tokens_out, extra_usd: () for all, or (models,) or (1, models) in the order of `names`, float32; None where not given."""

    names: tuple[str, ...]
    tokens_out: Column
    extra_usd: Column

    @classmethod
    def of(cls, names: tuple[str, ...], tokens_out: Any, extra_usd: Any) -> OwnColumns | None:
        """As a caller gave them for candidates in this order; None for neither. The arrays are copies.

        Raises:
            InvalidInputError: one of them is no such array.
        """
        if tokens_out is None and extra_usd is None:
            return None
        return cls(names, _checked("tokens_out", tokens_out, len(names)), _checked("extra_usd", extra_usd, len(names)))

    def on(self, names: Sequence[str]) -> tuple[Column, Column]:
        """Both for another bundle's candidates.

        Raises:
            InvalidInputError: it has a candidate for which nothing was given.
        """
        if tuple(names) == self.names:
            return self.tokens_out, self.extra_usd
        return self._moved("tokens_out", self.tokens_out, names), self._moved("extra_usd", self.extra_usd, names)

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
