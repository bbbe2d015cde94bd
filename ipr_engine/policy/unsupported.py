"""`resolve_unsupported` settles who answers prompts that are unlike the fitting data: one candidate, or the cheapest on each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ipr_engine._validate import matched, shown, unit_interval
from ipr_engine.bundle import BundleSpec, PathRows, PriceList
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.cost_weights import row_costs
from ipr_engine.policy.rules import BEST, CHEAPEST, EVERY_ROW_PLAIN, Unsupported


def resolve_unsupported(
    bundle: BundleSpec, min_support: object, unsupported: object, exclusions: Mapping[str, str], prices: PriceList
) -> Unsupported:
    """Check `min_support` and `unsupported`, and find the candidate that is meant; where neither is given, the bundle's own hold.

    Args:
        min_support, unsupported: options of `Engine.policy`. exclusions: whom its conditions keep out, and why.
    Raises:
        InvalidInputError: one without the other, a bundle that measures no support or knows no best candidate, or a name that
            is unknown or may not be chosen.
    """
    said, nothing_asked = bundle.unsupported, min_support is None and unsupported is None
    if min_support is None and said is not None:
        min_support = said.min_support
    if min_support is None:
        if unsupported is not None:
            raise InvalidInputError(
                f"unsupported: says who answers prompts of little support, and needs min_support=... in [0, 1] beside it, "
                f"got {shown(unsupported)} alone"
            )
        return EVERY_ROW_PLAIN
    least = unit_interval("min_support", min_support)
    if least and bundle.support is None:
        raise InvalidInputError(
            f"min_support: the bundle has no centroids to measure support by, got {least:g}; leave it out, or train a bundle "
            "with them (`ipr train` writes them)"
        )
    if not least and unsupported is None:  # min_support=0 alone asks for what is done anyway
        return EVERY_ROW_PLAIN
    # The bundle's model answers where the policy's conditions allow it; else the best of those that they leave, where one is known.
    default = BEST if said is None or said.model in exclusions else said.model
    asked = default if unsupported is None else unsupported
    if not isinstance(asked, str):
        raise InvalidInputError(
            f"unsupported: expected {BEST!r}, {CHEAPEST!r} or a candidate's name, got {type(asked).__name__}"
        )
    if asked.casefold() == CHEAPEST:
        return Unsupported(least, CHEAPEST)
    kept = [name for name in bundle.names if name not in exclusions]
    if asked.casefold() == BEST:
        try:
            return Unsupported(least, BEST, best_single(bundle, kept, prices))
        except InvalidInputError:
            if nothing_asked:  # no caller is refused for what the bundle alone says
                return EVERY_ROW_PLAIN
            raise
    name = matched("unsupported", [asked], {*bundle.names})[asked]
    if name in exclusions:
        raise InvalidInputError(
            f"unsupported: {name} may not be chosen under this policy ({exclusions[name]}); allow it, or name one of "
            f"{', '.join(kept)}"
        )
    return Unsupported(least, name, name)


def best_single(bundle: BundleSpec, names: Sequence[str], prices: PriceList) -> str:
    """Return the one of these candidates with the greatest mean realised quality on the bundle's fitting prompts.

    A bundle of `path_rows` tells it as tau's path does, the prediction standing for an outcome that is not judged, equal means
    to the cheaper. Candidates without path rows do not count. Where nobody has any the reliability table tells: candidates without
    outcomes of their own are not in it.

    Raises:
        InvalidInputError: the bundle holds neither, or nobody of them is in it.
    """
    rows, rank = bundle.path_rows, bundle.tie_rank
    covered = [] if rows is None else [name for name in names if name not in rows.without_rows(names)]
    if rows is not None and covered:
        own = rows.of(covered)
        means, costs = mean_qualities(own), _mean_costs(bundle, own, prices)
        # best mean first; equal means to the cheaper, equal costs by the bundle's rank, as tau's path has it
        order = [(-means[m], costs[m], rank[bundle.names.index(name)], name) for m, name in enumerate(covered)]
        return min(order)[-1]
    from ipr_engine.bundle.reliability import read_reliability  # few bundles lack path rows

    tables = read_reliability(bundle) or {}
    known = {name: sum(tables[name].successes) / sum(tables[name].counts) for name in names if name in tables}
    if not known:
        raise InvalidInputError(
            f"unsupported: the bundle holds no outcomes of its fitting prompts, so nobody of {', '.join(names)} is known to be "
            f"{BEST!r}; give a candidate's name, or {CHEAPEST!r}"
        )
    return min(known, key=lambda name: (-known[name], rank[bundle.names.index(name)]))


def mean_qualities(rows: PathRows) -> list[float]:
    """Return (models,) the mean quality of each candidate alone; a prediction stands for an outcome that is not judged."""
    outcome = rows.realised()
    means: list[float] = np.where(np.isnan(outcome), rows.quality, outcome).mean(axis=0).tolist()
    return means


def _mean_costs(bundle: BundleSpec, rows: PathRows, prices: PriceList) -> list[float]:
    candidates = [bundle.candidates[bundle.names.index(name)] for name in rows.candidates]
    costs = row_costs(rows.tokens_out, rows.billed_tokens, candidates, prices, tokens_in=rows.tokens_in)
    means: list[float] = costs.mean(axis=0).tolist()
    return means
