"""Tau's path of a bundle's candidates, from the fitting prompts that it keeps (docs/tau.md)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ipr_engine.bundle import Bundle, PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.tau_path import TauPath


def why_no_path(bundle: Bundle, names: Sequence[str]) -> str | None:
    """Why these candidates have no path; None where they have one."""
    if bundle.path_rows is None:
        return "the bundle keeps no fitting prompts that a path could be computed from"
    lacking = bundle.path_rows.without_rows(names)
    return f"there are no outcomes on the path's prompts of {', '.join(lacking)}" if lacking else None


def running_worth(path: TauPath, tau: float) -> float:
    """The worth that runs for a tau in (0, 1): what keeps its promise, 0 where the best is not told apart from the cheapest."""
    gap = path.best_quality - path.cheapest_quality
    flat = path.best == path.cheapest or gap < path.standard_error
    return 0.0 if flat else path.worth_at(path.promise(tau))


def path_of(bundle: Bundle, names: Sequence[str], *, prices: PriceList | None = None) -> TauPath:
    """The path of these candidates, in this order, at these prices (the bundle's by default).

    Raises:
        InvalidInputError: they have none.
    """
    reason = why_no_path(bundle, names)
    if bundle.path_rows is None or reason is not None:
        raise InvalidInputError(f"tau: no path of {', '.join(names)}: {reason}")
    rows = bundle.path_rows.of(names)
    columns = [bundle.names.index(name) for name in names]
    listed = [(bundle.prices if prices is None else prices).prices[name] for name in names]
    read = np.array([bundle.candidates[m].token_ratio for m in columns]) * rows.billed_tokens[:, None]
    fixed, input_usd, output_usd = (
        np.array([getattr(price, part) for price in listed])
        for part in ("fixed_usd", "input_usd_per_1m", "output_usd_per_1m")
    )
    cost = fixed + (input_usd * read + output_usd * rows.tokens_out.astype(np.float64)) / 1e6
    return TauPath.fit(rows.quality.astype(np.float64), rows.realised(), cost, bundle.tie_rank[columns])
