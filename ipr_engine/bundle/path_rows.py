"""Path rows: fitting prompts as arrays, of which tau's path is computed (docs/formats.md)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
OUTCOME_STEPS, NOT_JUDGED = 254, 255  # of `PathRows.outcome`
MOST_ROWS = 4096
# The file counts output tokens in 64s: float16 ends at 65,504, and answers may be longer than that. A power of two costs no digit.
TOKENS_UNIT = np.float32(64)
MOST_TOKENS = 65504 * 64


@dataclass(frozen=True, kw_only=True, eq=False)
class PathRows:
    """Fitting prompts in random order, what tau's path of any candidate set is computed from (ipr_engine/policy/tau_path.py).

    They hold no prompt, no id and no hash. All arrays have a column per candidate of `candidates`.

    Attributes:
        candidates: those that have a column, in the bundle's order; one added without outcomes on these prompts has none.
        quality: (rows, models) float16 in [0, 1], predicted out of fold.
        tokens_out: (rows, models) float32 >= 0, predicted output tokens.
        outcome: (rows, models) uint8, realised quality in `OUTCOME_STEPS`ths; `NOT_JUDGED` where not judged.
        billed_tokens: (rows,) uint32, by the bundle's tokenizer.
        tokens_in: (rows, models) float32, input tokens by each candidate's own count, as `Decision.tokens_in`; None where no candidate
            named its tokenizer when they were drawn: then own tokens are billed_tokens times token_ratio.
        again_quality, again_tokens_out: the second heads' predictions on the same rows; None in a bundle of one tier, and in
            one of two tiers whose bundles were not fitted on the same prompts: then the rows speak of the first heads alone.
        heads: sha256 of the weights that predict, of both tiers where `again_quality` is there.
    """

    candidates: tuple[str, ...]
    quality: NDArray[np.float16] = field(repr=False)
    tokens_out: Float32 = field(repr=False)
    outcome: NDArray[np.uint8] = field(repr=False)
    billed_tokens: NDArray[np.uint32] = field(repr=False)
    tokens_in: Float32 | None = field(default=None, repr=False)
    again_quality: NDArray[np.float16] | None = field(default=None, repr=False)
    again_tokens_out: Float32 | None = field(default=None, repr=False)
    heads: tuple[str, ...]

    def without_rows(self, names: Iterable[str]) -> tuple[str, ...]:
        """Those of these names that have no column: a path of a set with one of them is stale."""
        return tuple(name for name in names if name not in self.candidates)

    def realised(self) -> NDArray[np.float64]:
        """(rows, models) outcomes in [0, 1], NaN where not judged."""
        return np.where(self.outcome == NOT_JUDGED, np.nan, self.outcome / OUTCOME_STEPS)

    def of(self, names: Sequence[str]) -> PathRows:
        """The same rows with the columns of these candidates, in this order. KeyError for one without a column."""
        position = {name: column for column, name in enumerate(self.candidates)}
        columns = [position[name] for name in names]

        def taken(values: NDArray[Any]) -> NDArray[Any]:
            return np.ascontiguousarray(values[:, columns])

        return replace(
            self,
            candidates=tuple(names),
            quality=taken(self.quality),
            tokens_out=taken(self.tokens_out),
            outcome=taken(self.outcome),
            tokens_in=None if self.tokens_in is None else taken(self.tokens_in),
            again_quality=None if self.again_quality is None else taken(self.again_quality),
            again_tokens_out=None if self.again_tokens_out is None else taken(self.again_tokens_out),
        )
