"""A candidate's own tokenizer, as recorded input tokens show it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Candidate
from ipr_engine.tokens import TokenProfile, shipped_profiles
from ipr_engine.tokens.fit import fit_coefficients

Array = npt.NDArray[np.float64]

FEWEST = 200  # prompts with recorded input tokens, at home


def with_tokenizers(
    candidates: list[Candidate],
    measured: frozenset[str],
    terms: Array,
    billed: Array,
    input_tokens: Array,
    progress: Callable[[str], None],
) -> list[Candidate]:
    """Return the candidates with the tokenizers and ratios that the rows show.

    A profile is fitted where a candidate has input tokens on 200 rows and more, near the one it names, else near the shipped one
    that is closest. It is kept where it predicts the half of the rows that it did not see better than what it replaces: the
    profile that the file names, else the ratio.

    Args:
        measured: names of those whose token_ratio is to be measured; the others keep theirs, and what they name.
        terms: (rows, terms). billed: (rows,) by the encoder's tokenizer.
        input_tokens: (rows, candidates) recorded, NaN where not known or not at home.
    """
    made = []
    for m, candidate in enumerate(candidates):
        own = input_tokens[:, m]
        counted = ~np.isnan(own)
        if candidate.name in measured:
            good = counted & (own > 0) & (billed > 0)
            if good.sum() >= FEWEST:
                candidate = _fitted(candidate, terms[good], billed[good], own[good], progress)
            candidate = _with_ratio(candidate, terms, billed, own, counted)
        made.append(candidate)
    return made


def _with_ratio(
    candidate: Candidate, terms: Array, billed: Array, own: Array, counted: npt.NDArray[np.bool_]
) -> Candidate:
    """The ratio of recorded tokens to the encoder's; without any, that of the tokenizer named."""
    total = billed[counted].sum()
    ratio = float(own[counted].sum() / total) if total > 0 else 0.0
    if ratio == 0 and candidate.tokenizer is not None and billed.sum() > 0:
        ratio = float(candidate.tokenizer.estimate(terms).sum() / billed.sum())
    return replace(candidate, token_ratio=ratio) if ratio > 0 else candidate


def _fitted(
    candidate: Candidate, terms: Array, billed: Array, own: Array, progress: Callable[[str], None]
) -> Candidate:
    train = np.arange(len(own)) % 2 == 0
    test = ~train
    named = candidate.tokenizer
    profile = _fit(candidate.name, terms[train], own[train], named)
    if named is None:
        before = billed[test] * (own[train].sum() / billed[train].sum())
    else:
        before = named.estimate(terms[test])
    error, old = _error(profile.estimate(terms[test]), own[test]), _error(before, own[test])
    if error >= old:
        progress(f"tokens of {candidate.name}: a fitted profile is {error:.1%} off, {old:.1%} without; left out")
        return candidate
    progress(f"tokens of {candidate.name}: a fitted profile is {error:.1%} off in the median, {old:.1%} without")
    return replace(candidate, tokenizer=_fit(candidate.name, terms, own, named))


def _fit(name: str, terms: Array, own: Array, named: TokenProfile | None) -> TokenProfile:
    near = named or min(shipped_profiles().values(), key=lambda profile: _spread(profile.estimate(terms), own))
    wide = np.column_stack([terms, np.ones(len(terms))])
    found = fit_coefficients(wide, own, np.append(near.coefficients, near.per_request))
    return TokenProfile.rounded(
        name, f"recorded input tokens of {len(own)} prompts, near {near.name}", found[:-1], found[-1]
    )


def _error(estimate: Array, own: Array) -> float:
    return float(np.median(np.abs(estimate / own - 1)))


def _spread(estimate: Array, own: Array) -> float:
    """How far apart the ratios of estimate to count lie: a profile may be off as a whole."""
    ratios = np.log(np.maximum(estimate, 1) / own)
    return float(np.median(np.abs(ratios - np.median(ratios))))
