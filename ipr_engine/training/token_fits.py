"""Tokens as outcomes record them: how many a candidate writes (the tokens head), and how its own tokenizer counts a prompt.

Output tokens: ridge on their logarithm, brought back to a mean by Duan's smearing factor. exp of a fitted log is a median-like value
and too low as a mean; Duan (1983): multiply by the mean of exp(residual).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle import Candidate
from ipr_engine.errors import InvalidInputError
from ipr_engine.tokens.fit_profile import fit_coefficients
from ipr_engine.tokens.profiles import shipped_profiles
from ipr_engine.tokens.token_profile import TokenProfile
from ipr_engine.training.estimators.ridge import fit_ridge
from ipr_engine.training.training_inputs import RatiosAsked

Array = npt.NDArray[np.float64]

# No prediction above what the candidate wrote on all but one in two hundred fitting prompts.
CAP_PERCENTILE = 99.5


@dataclass(frozen=True)
class TokensFit:
    """tokens = min(exp(x @ skip.T + bias), cap), the form of docs/decide.md.

    Attributes:
        skip: (models, dim). bias: (models,), the log of `smearing` included. cap, smearing: (models,).
        out_of_fold: (rows, models) predicted tokens, each row by a fit that has not seen its fold.
    """

    skip: Array
    bias: Array
    cap: Array
    smearing: Array
    out_of_fold: Array


def smearing_factor(residual: Array) -> Array:
    """Mean of exp(residual) over rows, NaN left out: (rows, models) -> (models,)."""
    return np.asarray(np.nanmean(np.exp(residual), axis=0))


def fit_tokens(
    x: Array, tokens: Array, folds: npt.NDArray[np.int64], at_home: npt.NDArray[np.bool_] | None = None
) -> TokensFit:
    """Fit (rows, models) token counts >= 0, NaN where unknown; an empty answer counts as one token.

    Residuals are those out of fold. Smearing factor and cap come from the rows `at_home` (rows,) where a candidate has
    some there, else from all its rows.
    """
    if np.isinf(tokens).any() or (tokens < 0).any():
        raise InvalidInputError("tokens: expected counts >= 0, or NaN where unknown")
    if at_home is not None:
        home = tokens[at_home]
        elsewhere = np.isnan(home).all(axis=0)  # candidates without a count at home
        level = np.where(at_home[:, None] | elsewhere, tokens, np.nan)
    else:
        level = tokens
    log_tokens = np.log(np.maximum(tokens, 1.0))
    fit = fit_ridge(x, log_tokens, folds)
    smearing = smearing_factor(np.where(np.isnan(level), np.nan, log_tokens - fit.out_of_fold))
    bias = fit.bias + np.log(smearing)
    cap = np.nanpercentile(np.maximum(level, 1.0), CAP_PERCENTILE, axis=0)
    out_of_fold = np.minimum(np.exp(fit.out_of_fold) * smearing, cap)
    return TokensFit(fit.weights, bias, cap, smearing, out_of_fold)


FEWEST = 200  # prompts with recorded input tokens, at home


def with_tokenizers(
    candidates: list[Candidate],
    ratios: RatiosAsked,
    terms: Array,
    billed: Array,
    input_tokens: Array,
    at_home: npt.NDArray[np.bool_],
    progress: Callable[[str], None],
) -> list[Candidate]:
    """Return the candidates with the tokenizers and ratios that the rows show.

    A profile is fitted where a candidate has input tokens on 200 rows and more, near the one it names, else near the shipped one
    that is closest. It is kept where it predicts the half of the rows that it did not see better than what it replaces: the
    profile that the file names, else the ratio.

    token_ratio stands in for a candidate's own count where texts are not known. So it is the mean of its tokenizer, where it has one, over
    the rows at home; else that of the recorded input tokens.

    Args:
        ratios: whose token_ratio is to be measured, and how; the others keep theirs, and what they name.
        terms: (rows, terms). billed: (rows,) by the encoder's tokenizer.
        input_tokens: (rows, candidates) recorded, NaN where not known or not at home.
        at_home: (rows,), the traffic that the heads speak of.
    """
    made = []
    for m, candidate in enumerate(candidates):
        own = input_tokens[:, m]
        counted = ~np.isnan(own)
        good = counted & (own > 0) & (billed > 0)
        if candidate.name in ratios.of_records and good.sum() >= FEWEST:
            candidate = _fitted(candidate, terms[good], billed[good], own[good], progress)
        if candidate.name in ratios.of_records | ratios.of_tokenizer:
            if candidate.tokenizer is None:
                candidate = _with_ratio(candidate, own[counted].sum(), billed[counted].sum())
            else:
                candidate = _with_ratio(
                    candidate, candidate.tokenizer.estimate(terms[at_home]).sum(), billed[at_home].sum()
                )
        made.append(candidate)
    return made


def _with_ratio(candidate: Candidate, own: float, billed: float) -> Candidate:
    """The ratio of these sums; as it was where one of them is 0."""
    return replace(candidate, token_ratio=float(own / billed)) if own > 0 and billed > 0 else candidate


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
    replaced = "the encoder's count times its mean ratio" if named is None else named.name
    judged = f"on the half that it had not seen {error:.1%} off in the median, {replaced} {old:.1%}"
    if error >= old:
        progress(
            f"tokens of {candidate.name}: a profile fitted to {len(own)} prompts is left out for {replaced}: {judged}"
        )
        return candidate
    progress(
        f"tokens of {candidate.name}: a profile fitted to {len(own)} prompts is kept in place of {replaced}: {judged}"
    )
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
