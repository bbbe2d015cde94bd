"""Which arguments of a caller moved the predicted costs of a row: no policy was tested with them (docs/calibration.md, section 4)."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Moved: TypeAlias = tuple[tuple[str, ...], ...]  # of each row, the arguments' names
_Float32s: TypeAlias = npt.NDArray[np.float32] | None


def moved_by(
    batch: int,
    terms: npt.NDArray[np.float64] | None,
    tokens_out: _Float32s,
    extra_usd: _Float32s,
    with_cached: _Float32s,
    given_tokens: _Float32s = None,
) -> Moved | None:
    """The arguments that moved each row's costs; None where none moved any.

    Args:
        terms: as of `Encoded`: NaN where the bill was given and not counted; None where not known.
        tokens_out, extra_usd: (models,) or (batch, models), as the caller gave them.
        with_cached: extra_usd with what cached tokens save. A row that nothing is added to, or saved on, is not moved.
        given_tokens: (batch, models) as of the function of that name. Where they are all of a row's, a given bill moves nothing.
    """
    before = np.float32(0) if extra_usd is None else extra_usd
    estimated = np.ones((1, 1), np.bool_) if given_tokens is None else np.isnan(given_tokens)
    rows = {
        "billed_tokens": False if terms is None else np.isnan(terms[:, 0]) & estimated.any(axis=-1),
        "tokens_out": tokens_out is not None,
        "extra_usd": False if extra_usd is None else (extra_usd != 0).any(axis=-1),
        "cached_tokens": False if with_cached is extra_usd else (with_cached != before).any(axis=-1),  # type: ignore[union-attr]
        "tokens_in": ~estimated.all(axis=-1),
    }
    known = {name: np.broadcast_to(moved, (batch,)) for name, moved in rows.items() if np.any(moved)}
    if not known:
        return None
    return tuple(tuple(name for name, moved in known.items() if moved[row]) for row in range(batch))
