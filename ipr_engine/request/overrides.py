"""`RequestOverrides` holds what a caller gives of its prompts' tokens and costs, as columns that keep their candidates across a swap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.request.arguments import given_tokens, held_tokens, is_by_name, per_model
from ipr_engine.request.row_inputs import of_rows

COLUMNS = ("tokens_out", "extra_usd", "cached_tokens", "tokens_in")
_NAMES = frozenset(COLUMNS)
_ABSENT = {
    "cached_tokens": 0.0,
    "tokens_in": np.nan,
}  # of those that may be given by name: what one that is not named has


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class RequestOverrides:
    """A `RequestOverrides` holds what one call gives in place of what would be predicted or counted; None where nothing is given.

    Attributes:
        names: the candidates, in the order of the columns.
        tokens_out, extra_usd: (models,) or (batch, models) float32.
        cached_tokens: (batch, models) float64, what each candidate's cache holds; 0 where `cache_ttl_s` has passed.
        tokens_in: (batch, models) float32, NaN where a candidate's estimate stands.
        for_all: those that were given as one number. by_name: those that were given by name: of a candidate that a swap brings
            nothing is known.
    """

    names: tuple[str, ...] = ()
    tokens_out: npt.NDArray[np.float32] | None = None
    extra_usd: npt.NDArray[np.float32] | None = None
    cached_tokens: npt.NDArray[np.float64] | None = None
    tokens_in: npt.NDArray[np.float32] | None = None
    for_all: frozenset[str] = frozenset()
    by_name: frozenset[str] = frozenset()

    @classmethod
    def of(cls, given: Mapping[str, Any], batch: int, names: Sequence[str], prices: PriceList) -> RequestOverrides:
        """Return what the caller's options say of these candidates, checked.

        Args:
            given: option -> value, those of `RequestOptions`; others are passed over.
            prices: the policy's, which say how long a cache holds.
        Raises:
            InvalidInputError: one of them is no such array or mapping.
        """
        if _NAMES.isdisjoint(given):
            return NO_OVERRIDES
        columns = {name: values for name in COLUMNS if (values := given.get(name)) is not None}
        if not columns:
            return NO_OVERRIDES
        made: dict[str, Any] = {}
        # checked in this order: where several are wrong, the error names the same one whatever the caller's order
        if "tokens_in" in columns:
            made["tokens_in"] = given_tokens(columns["tokens_in"], batch, names)
        for name in ("tokens_out", "extra_usd"):
            if name in columns:
                made[name] = per_model(name, columns[name], batch, len(names))
        if "cached_tokens" in columns:
            made["cached_tokens"] = held_tokens(columns["cached_tokens"], batch, names, prices)
        return cls(
            names=tuple(names),
            **made,
            for_all=frozenset([name for name, values in columns.items() if _is_one_number(values)]),
            by_name=frozenset([name for name in _ABSENT if name in columns and is_by_name(columns[name])]),
        )

    @property
    def tokens_in_given(self) -> npt.NDArray[np.bool_] | None:
        """Return (batch, models) bool, whose input tokens are given; None for nobody's."""
        return None if self.tokens_in is None else ~np.isnan(self.tokens_in)

    def at(self, rows: npt.NDArray[np.int64]) -> RequestOverrides:
        """Return the overrides of these rows."""
        return self._with({name: of_rows(getattr(self, name), rows) for name in COLUMNS})

    def copied(self) -> RequestOverrides:
        """Return the same in arrays of their own, for a request that waits."""
        columns = {name: getattr(self, name) for name in COLUMNS}
        return self._with({name: None if values is None else values.copy() for name, values in columns.items()})

    def on(self, names: Sequence[str]) -> RequestOverrides:
        """Return the overrides for another bundle's candidates.

        Raises:
            InvalidInputError: it has a candidate for which nothing was given.
        """
        if self is NO_OVERRIDES or tuple(names) == self.names:
            return self
        return replace(self._with({name: self._moved(name, names) for name in COLUMNS}), names=tuple(names))

    def _moved(self, name: str, names: Sequence[str]) -> npt.NDArray[Any] | None:
        values: npt.NDArray[Any] | None = getattr(self, name)
        if values is None:
            return None
        if name in self.for_all:  # one number means every candidate, also those that a swap brings
            return np.ascontiguousarray(np.broadcast_to(values[..., :1], (*values.shape[:-1], len(names))))
        if name in self.by_name:
            rows = [dict(zip(self.names, row, strict=True)) for row in values.tolist()]
            known = [[row.get(other, _ABSENT[name]) for other in names] for row in rows]
            return np.array(known, values.dtype)
        missing = [other for other in names if other not in self.names]
        if missing:
            raise InvalidInputError(
                f"{name}: given for {', '.join(self.names)}, and the bundle that decides has {', '.join(missing)} besides; "
                "ask again with values for its candidates"
            )
        return np.ascontiguousarray(values[..., [self.names.index(other) for other in names]])

    def _with(self, columns: Mapping[str, Any]) -> RequestOverrides:
        return self if self is NO_OVERRIDES else replace(self, **columns)


def _is_one_number(values: Any) -> bool:
    """Return whether an argument that was checked is one number for all candidates."""
    if type(values) in (float, int):  # most are: numpy would make an array of it to look
        return True
    return not isinstance(values, (list, tuple, Mapping)) and np.ndim(values) == 0


NO_OVERRIDES = RequestOverrides()
