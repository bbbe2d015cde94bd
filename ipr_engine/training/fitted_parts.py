"""What a fit puts into its bundle: the heads with hashes of their prompts, the bins of `reliability.json`, the rows of tau's path."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import FittedOn, HeadsSource, PathRows, RuleConstants
from ipr_engine.bundle.path_rows import MOST_ROWS, MOST_TOKENS, NOT_JUDGED, OUTCOME_STEPS
from ipr_engine.bundle.reliability import reliability_bins, reliability_bytes
from ipr_engine.data import prompt_hashes
from ipr_engine.training.fitted_heads import FittedHeads
from ipr_engine.training.training_inputs import TrainingRows

Array = npt.NDArray[np.float64]


class OutOfFold(NamedTuple):
    """Quality and output tokens, (rows, models) each, by fits that have not seen the row."""

    quality: Array
    tokens: Array


def heads_source(heads: FittedHeads, encoder: str, names: list[str], rows: TrainingRows, key: OwnerKey) -> HeadsSource:
    """The heads with hashes of their prompts under the owner's key."""
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
    """Realised against predicted quality out of fold, at home where a candidate is judged there: what the heads speak of."""
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
    """Path rows of the prompts that the heads speak of: those at home, or of every part of one traffic."""
    home = np.flatnonzero(at_home)
    return draw_path_rows(
        [rows.prompt_ids[row] for row in home],
        [rows.prompts[row] for row in home],
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
    """At most 4,096 of the prompts on which a candidate is judged, in random order; None where there is none.

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
    """Outcomes in [0, 1] as `PathRows.outcome` holds them; NaN where not judged."""
    steps = np.rint(np.where(np.isnan(outcome), 0.0, outcome) * OUTCOME_STEPS)
    return np.where(np.isnan(outcome), NOT_JUDGED, steps).astype(np.uint8)


def drawn_order(prompt_ids: Sequence[str], prompts: Sequence[str], outcome: Array, seed: int) -> npt.NDArray[np.int64]:
    """The rows to keep, in the order to keep them in; see `draw_path_rows`."""
    judged = np.flatnonzero(~np.isnan(outcome).all(axis=1))
    named = sorted((prompt_ids[row], prompts[row], outcome[row].tobytes(), row) for row in judged.tolist())
    text = json.dumps([[id, prompt] for id, prompt, _, _ in named])
    digest = np.frombuffer(sha256(text.encode()).digest(), dtype="<u4")
    chosen = np.random.default_rng([seed, *digest.tolist()]).permutation(len(named))[:MOST_ROWS]
    return np.array([named[place][3] for place in chosen], dtype=np.int64)
