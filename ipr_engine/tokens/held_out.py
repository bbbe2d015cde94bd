"""This file measures how far off profiles are on texts of a kind that they were not fitted on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import TEXT_TERMS
from ipr_engine.tokens.fit_profile import fit_coefficients, fit_some, letter_pairs, pair_counts
from ipr_engine.tokens.samples import Sample

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LETTER_PAIRS, LONG_LETTER_PAIRS = TEXT_TERMS.index("letter_pairs"), TEXT_TERMS.index("long_letter_pairs")


def held_out_errors(
    samples: Sequence[Sample],
    terms: Array,
    counted: Mapping[str, Array],
    progress: Callable[[str], None] = lambda message: None,
) -> dict[str, Array]:
    """Return tokenizer -> (samples,) relative error of its estimate, each kind left out of the fit in turn.

    The table of letter pairs is fitted anew without the kind too. A group that only one kind has is left out by halves:
    nothing else would tell its script.
    """
    pairs = pair_counts([sample.text for sample in samples])
    errors = {name: np.full(len(samples), np.nan) for name in counted}
    for what, test in _folds(samples):
        progress(f"without {what} ...")
        train = ~test
        table = letter_pairs(pairs[train], terms[train], {name: tokens[train] for name, tokens in counted.items()})
        own = terms.copy()  # (samples, terms), the pairs counted by this fold's own table
        own[:, LETTER_PAIRS] = pairs @ table.ravel() / 255
        own[:, LONG_LETTER_PAIRS] = 0  # of the compiled table
        for name, tokens in counted.items():
            coefficients = fit_coefficients(own[train], tokens[train])
            errors[name][test] = own[test] @ coefficients / tokens[test] - 1
    return errors


def held_out_errors_of_some(
    samples: Sequence[Sample],
    terms: Array,
    counted: Mapping[str, Array],
    kept: Mapping[str, Array],
    fitted: Mask,
) -> dict[str, Array]:
    """Return the errors as `held_out_errors` does, where `fit_some` replaces coefficients of `kept` (tokenizer -> (terms,))."""
    errors = {name: np.full(len(samples), np.nan) for name in counted}
    for _, test in _folds(samples):
        for name, tokens in counted.items():
            coefficients = fit_some(terms[~test], tokens[~test], kept[name], fitted)
            errors[name][test] = terms[test] @ coefficients / tokens[test] - 1
    return errors


def summary(samples: Sequence[Sample], errors: Array) -> dict[str, Any]:
    """Return the median and 90th percentile of the absolute error, and the median of every group and kind, the worst first."""
    away = np.abs(errors)
    rows: dict[str, list[float]] = {}
    for sample, error in zip(samples, away.tolist(), strict=True):
        rows.setdefault(f"{sample.group}/{sample.kind}", []).append(error)
    groups = {name: round(float(np.median(found)), 4) for name, found in rows.items()}
    return {
        "texts": len(samples),
        "median": round(float(np.median(away)), 4),
        "p90": round(float(np.quantile(away, 0.9)), 4),
        "groups": dict(sorted(groups.items(), key=lambda item: (-item[1], item[0]))),
    }


def _folds(samples: Sequence[Sample]) -> Iterator[tuple[str, Mask]]:
    kinds = np.array([sample.kind for sample in samples])
    groups = np.array([sample.group for sample in samples])
    # seeded: the same halves at every run
    half = np.random.default_rng(0).integers(0, 2, len(samples)).astype(np.bool_)
    for kind in sorted(set(kinds.tolist())):
        of_kind = kinds == kind
        elsewhere = np.isin(groups, groups[~of_kind])
        alone = of_kind & ~elsewhere
        first = of_kind & (elsewhere | half)
        if first.any():
            yield f"kind {kind}" + (" and half of its own groups" if alone.any() else ""), first
        if (alone & ~half).any():
            yield f"the other half of the groups of {kind} alone", alone & ~half
