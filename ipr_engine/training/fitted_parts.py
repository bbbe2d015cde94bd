"""This file makes the parts of a bundle that a fit has beside the heads' tensors.

In the order of this file: prompt hashes, the bins of `reliability.json`, the rows of tau's path, the candidates' tokenizers as
recorded input tokens show them, and support, which says how near a prompt lies to those that the heads were fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import Candidate, FittedOn, HeadsSource, PathRows, RuleConstants
from ipr_engine.bundle.candidates_file import RatiosAsked
from ipr_engine.bundle.reliability import reliability_bins, reliability_bytes
from ipr_engine.bundle.spec import MOST_ROWS, MOST_TOKENS, NOT_JUDGED, OUTCOME_STEPS
from ipr_engine.data import prompt_hashes
from ipr_engine.tokens.fit_profile import fit_coefficients
from ipr_engine.tokens.profiles import shipped_profiles
from ipr_engine.tokens.token_profile import TokenProfile
from ipr_engine.training.estimators.caps import kmeans, squared_distances
from ipr_engine.training.fitted_heads import FittedHeads
from ipr_engine.training.training_inputs import TrainingRows

Array = npt.NDArray[np.float64]
FEWEST_COUNTED = 200  # prompts with recorded input tokens, at home
PROMPTS_PER_CENTROID = 32  # on average: of few prompts a centroid tells the words (docs/privacy.md)
SUPPORT_ROWS = 1 << 15  # 512 for each of 64 centroids
FEWEST_NEAR = 10  # different prompts that a centroid is the mean of


class OutOfFold(NamedTuple):
    """An `OutOfFold` holds quality and output tokens, (rows, models) each, by fits that have not seen the row."""

    quality: Array
    tokens: Array


def heads_source(heads: FittedHeads, encoder: str, names: list[str], rows: TrainingRows, key: OwnerKey) -> HeadsSource:
    """Return the heads as a bundle takes them, with hashes of their prompts under the owner's key."""
    return HeadsSource(
        id="trained",
        encoder=encoder,
        outputs=("quality", "tokens"),
        activation=heads.activation,
        candidates=names,
        rule_constants=RuleConstants(**heads.rule_constants),
        fitted_on=FittedOn(
            source=" + ".join(rows.names),
            prompts=len(rows),
            prompt_ids_sha256=sha256("\n".join(rows.prompt_ids).encode()).hexdigest(),
            hash_key=key.id,
        ),
        tensors=heads.tensors,
        prompt_hashes=prompt_hashes(rows.prompts, rows.keys, key),
    )


def reliability(heads: FittedHeads, names: list[str], rows: TrainingRows) -> bytes:
    """Return the bytes of reliability.json: realised against predicted quality out of fold, at home where a candidate is judged there."""
    tables = {}
    for m, name in enumerate(names):
        judged = ~np.isnan(rows.quality[:, m])
        home = judged & (rows.source == 0)
        at = home if home.any() else judged
        tables[name] = reliability_bins(heads.out_of_fold_quality[at, m], rows.quality[at, m])
    return reliability_bytes(tables)


def fitted_path_rows(
    heads: FittedHeads,
    names: list[str],
    rows: TrainingRows,
    at_home: npt.NDArray[np.bool_],
    billed_tokens: npt.NDArray[np.integer],
    own: npt.NDArray[np.float32] | None,
    seed: int,
) -> PathRows | None:
    """Draw path rows from the prompts that the heads speak of: those at home, or of every part of one traffic."""
    home = np.flatnonzero(at_home)
    whole = len(home) == len(rows)
    return draw_path_rows(
        rows.prompt_ids if whole else [rows.prompt_ids[row] for row in home],
        rows.prompts if whole else [rows.prompts[row] for row in home],
        names,
        predicted=OutOfFold(heads.out_of_fold_quality[home], heads.out_of_fold_tokens[home]),
        outcome=rows.quality[home],
        billed_tokens=billed_tokens[home],
        tokens_in=None if own is None else own[home],
        seed=seed,
    )


def draw_path_rows(
    prompt_ids: Sequence[str],
    prompts: Sequence[str],
    candidates: Sequence[str],
    *,
    predicted: OutOfFold,
    outcome: Array,
    billed_tokens: npt.NDArray[np.integer],
    tokens_in: npt.NDArray[np.float32] | None = None,
    seed: int,
) -> PathRows | None:
    """Draw at most 4,096 of the prompts on which a candidate is judged, in random order; None where there is none.

    Args:
        prompt_ids, prompts: one entry a row; only the order depends on them.
        candidates: the columns, in the bundle's order.
        predicted: tokens above 4,192,256 count as that many.
        outcome: (rows, models) in [0, 1], NaN where not judged.
        billed_tokens: (rows,) by the bundle's tokenizer. tokens_in: (rows, models) by each candidate's own; None where none is named.
    Returns:
        the rows without `heads`, which the caller fills in.
    Notes:
        The order is that of the seed and of the prompts, whatever order they come in. To who does not have every one of
        them a row's place tells nothing: no hash of a single prompt decides it. Two bundles fitted on the
        same prompts with one seed keep the same rows in the same order, so that `ipr escalate` can join them.
    """
    order = drawn_order(prompt_ids, prompts, outcome, seed)
    if not len(order):
        return None
    return PathRows(
        candidates=tuple(candidates),
        quality=predicted.quality[order].astype(np.float16),
        tokens_out=np.minimum(predicted.tokens[order], MOST_TOKENS).astype(np.float32),
        outcome=in_steps(outcome[order]),
        billed_tokens=np.asarray(billed_tokens)[order].astype(np.uint32),
        tokens_in=None if tokens_in is None else tokens_in[order],
        heads=(),
    )


def in_steps(outcome: Array) -> npt.NDArray[np.uint8]:
    """Return outcomes in [0, 1] as `PathRows.outcome` holds them; NaN where not judged."""
    steps = np.rint(np.where(np.isnan(outcome), 0.0, outcome) * OUTCOME_STEPS)
    return np.where(np.isnan(outcome), NOT_JUDGED, steps).astype(np.uint8)


def drawn_order(prompt_ids: Sequence[str], prompts: Sequence[str], outcome: Array, seed: int) -> npt.NDArray[np.int64]:
    """Return the rows to keep, in the order of `draw_path_rows`."""
    judged = np.flatnonzero(~np.isnan(outcome).all(axis=1)).tolist()
    # Sorted first, and seeded by a hash over all of them: neither the order of the rows nor a single prompt decides a place.
    if len(set(prompt_ids)) == len(prompt_ids):
        named = sorted(judged, key=prompt_ids.__getitem__)
    else:
        named = sorted(judged, key=lambda row: (prompt_ids[row], prompts[row], outcome[row].tobytes(), row))
    hashed = sha256(
        b"["
    )  # of the list of all pairs as JSON, a pair at a time: together they are as long as all prompts
    for place, row in enumerate(named):
        hashed.update((", " * (place > 0) + json.dumps([prompt_ids[row], prompts[row]])).encode())
    hashed.update(b"]")
    digest = np.frombuffer(hashed.digest(), dtype="<u4")
    # The whole digest is the seed: 32 bits of it could be searched.
    chosen = np.random.default_rng([seed, *digest.tolist()]).permutation(len(named))[:MOST_ROWS]
    return np.array([named[place] for place in chosen], dtype=np.int64)


def with_tokenizers(
    candidates: list[Candidate],
    ratios: RatiosAsked,
    terms: Array,
    billed: Array,
    input_tokens: Array,
    keys: Sequence[str],
    at_home: npt.NDArray[np.bool_],
    progress: Callable[[str], None],
) -> list[Candidate]:
    """Return the candidates with the tokenizers and ratios that the rows show.

    A profile is fitted where a candidate has input tokens on 200 rows and more, near the one it names, else near the shipped one
    that is closest. It is kept where it predicts the half of the questions that it did not see better than what it replaces: the
    profile that the file names, else the ratio.

    token_ratio stands in for a candidate's own count where texts are not known. So it is the mean of its tokenizer, where it has one, over
    the rows at home; else that of the recorded input tokens.

    Args:
        ratios: whose token_ratio is to be measured, and how; the others keep theirs, and what they name.
        terms: (rows, terms). billed: (rows,) by the encoder's tokenizer.
        input_tokens: (rows, candidates) recorded, NaN where not known or not at home. keys: (rows,) the question of each row.
        at_home: (rows,), the traffic that the heads speak of.
    """
    made = []
    for m, candidate in enumerate(candidates):
        own = input_tokens[:, m]
        counted = ~np.isnan(own)
        good = counted & (own > 0) & (billed > 0)  # relative errors need both above 0
        if candidate.name in ratios.of_records and good.sum() >= FEWEST_COUNTED:
            second = _every_second([keys[row] for row in np.flatnonzero(good).tolist()])
            candidate = _fitted(candidate, terms[good], billed[good], own[good], second, progress)
        # After the fit: the ratio stands for the tokenizer that was kept.
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
    """Set the ratio of these sums; leave it as it was where one of them is 0."""
    return replace(candidate, token_ratio=float(own / billed)) if own > 0 and billed > 0 else candidate


def _every_second(keys: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Mark the rows of every second question, in the order in which questions come first: (rows,)."""
    number: dict[str, int] = {}
    return np.array([number.setdefault(key, len(number)) % 2 == 1 for key in keys], np.bool_)


def _fitted(
    candidate: Candidate,
    terms: Array,
    billed: Array,
    own: Array,
    test: npt.NDArray[np.bool_],
    progress: Callable[[str], None],
) -> Candidate:
    """Fit a tokenizer profile on the rows not in `test` and keep it where it predicts those better than what it replaces."""
    if not test.any():
        progress(f"tokens of {candidate.name}: no profile is fitted, since all {len(own)} prompts are one question")
        return candidate
    train, named = ~test, candidate.tokenizer
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
    """Fit a profile near the one named, else near the shipped one whose ratios to the counts vary least."""
    near = named or min(shipped_profiles().values(), key=lambda profile: _spread(profile.estimate(terms), own))
    wide = np.column_stack([terms, np.ones(len(terms))])  # the last column: tokens per request
    found = fit_coefficients(wide, own, np.append(near.coefficients, near.per_request))
    return TokenProfile.rounded(
        name, f"recorded input tokens of {len(own)} prompts, near {near.name}", found[:-1], found[-1]
    )


def _error(estimate: Array, own: Array) -> float:
    """Return the median relative error."""
    return float(np.median(np.abs(estimate / own - 1)))


def _spread(estimate: Array, own: Array) -> float:
    """Return how far apart the ratios of estimate to count lie: a profile may be off as a whole."""
    ratios = np.log(np.maximum(estimate, 1) / own)
    return float(np.median(np.abs(ratios - np.median(ratios))))


def nearest_distance(x: Array, centroids: Array) -> Array:
    """Return the Euclidean distance of each row of (rows, dim) to the nearest of (k, dim): (rows,)."""
    return np.asarray(np.sqrt(squared_distances(x, centroids).min(axis=1)))


def without_few(x: Array, centroids: Array) -> Array:
    """Return the centroids (k, dim) nearest to at least `FEWEST_NEAR` different rows of x; the mean of x where there is none.

    A centroid of one prompt is that prompt's embedding, from which most of its words can be read (docs/privacy.md).
    """
    # Copies of one prompt are one row: ten copies hide nothing.
    owner = squared_distances(x, centroids).argmin(axis=1)  # (rows,)
    different = np.array([len(np.unique(x[owner == j], axis=0)) for j in range(len(centroids))])
    kept = different >= FEWEST_NEAR
    return centroids[kept] if kept.any() else x.mean(axis=0, keepdims=True)


def fit_support(
    x: npt.NDArray[np.floating], folds: npt.NDArray[np.int64], k: int, seed: int
) -> dict[str, npt.NDArray[np.float32]]:
    """Return the bundle's support tensors: `centroids` (at most k, dim) of all rows, `distances` (101,) of the held-out ones.

    Of more than `SUPPORT_ROWS` rows as many, drawn by chance, stand for all.
    """
    if len(x) > SUPPORT_ROWS:
        drawn = np.sort(np.random.default_rng(seed).permutation(len(x))[:SUPPORT_ROWS])
        x, folds = x[drawn], folds[drawn]
    exact = np.asarray(x, np.float64)
    # Distances are taken to centroids that have not seen the prompt: its own centroid would flatter it.
    held_out = np.empty(len(exact))
    for fold in np.unique(folds):
        rows = folds == fold
        held_out[rows] = nearest_distance(exact[rows], without_few(exact[~rows], kmeans(exact[~rows], k, seed)))
    return {
        "centroids": without_few(exact, kmeans(exact, k, seed)).astype(np.float32),
        "distances": np.percentile(held_out, np.arange(101)).astype(np.float32),
    }
