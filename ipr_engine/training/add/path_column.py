"""A bundle that gains a candidate gets path rows with a column for it, where its outcomes allow one (docs/own-bundle.md).

A column must hold what the candidate's row would predict of prompts that no head has seen. The row leans on the other
candidates' predictions, so these must be out of fold too: on the bundle's own fitting prompts they are its path rows, on
prompts that its heads have not seen they are what the heads say.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ipr_engine._C import count_texts
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import Bundle, Candidate, PathRows
from ipr_engine.bundle.context_windows import own_tokens
from ipr_engine.bundle.spec import MOST_TOKENS
from ipr_engine.data import Outcomes
from ipr_engine.measures.resampling import grouped_folds
from ipr_engine.training.add.candidate_row import best_host, combine, features_of, sharing
from ipr_engine.training.add.frozen_logits import Tensors, added_by_trees, linear_columns
from ipr_engine.training.add.interface import old_quality, unseen
from ipr_engine.training.fitted_heads import CAP_PERCENTILE, predict
from ipr_engine.training.fitted_parts import OutOfFold, draw_path_rows, drawn_order, in_steps
from ipr_engine.training.platt import sigmoid
from ipr_engine.training.training_inputs import FEWEST_JUDGED

Array = npt.NDArray[np.float64]
Embed = Callable[[Outcomes], tuple[Array, Array]]  # rows -> x (rows, dim), billed tokens (rows,)

FEWEST_UNSEEN = 500  # rows that replace a path: a share of quality is then known to some 0.02
NEAR_CERTAIN = 1e-4  # a logit needs a quality that is not 0 or 1


@dataclass(frozen=True)
class Newcomer:
    """A `Newcomer` holds the new candidate and the prompts on which it is judged.

    Attributes:
        part: every prompt of the split; called: its name there. rows: those on which it is judged, with x (rows, dim),
        billed (rows,) and tokens (rows,), NaN where unknown; None where they are too few to fit.
        like: column of the bundle whose output tokens are taken then.
        keys: at hand, among them that of the bundle's prompt hashes.
    """

    candidate: Candidate
    part: Outcomes
    called: str
    rows: Outcomes
    x: Array
    billed: Array
    tokens: Array | None
    like: int
    keys: Sequence[OwnerKey] = ()

    @property
    def name(self) -> str:
        return self.candidate.name


@dataclass(frozen=True, eq=False)
class FreshRows:
    """`FreshRows` are prompts with what the bundle's candidates are predicted on them by fits that have not seen them.

    Attributes:
        rows: their outcomes. x, billed: as in a `Newcomer`. others: (rows, models of the bundle), NaN columns where unknown.
        place: of `own_rows`, where each of the bundle's path rows stands among these.
    """

    rows: Outcomes
    x: Array
    billed: Array
    others: OutOfFold
    place: npt.NDArray[np.int64] | None = None

    def take(self, rows: npt.NDArray[np.int64]) -> FreshRows:
        """Return some of the rows."""
        others = OutOfFold(*(table[rows] for table in self.others))
        return FreshRows(self.rows.take(rows), self.x[rows], self.billed[rows], others)


def grown_path_rows(
    base: Bundle, new: Newcomer, own: FreshRows | None, seed: int
) -> tuple[PathRows | None, str | None]:
    """Return path rows with a column for the candidate, None where its outcomes do not allow one; and what became of them, in words.

    The bundle's own rows gain one where they are among the outcomes. Else rows are made of the prompts that its heads have not seen
    and on which every candidate is judged, if these are at least `FEWEST_UNSEEN`.

    own: of `own_rows`.
    """
    if base.path_rows is None:
        return None, None
    for made in (_with_column(base, base.path_rows, new, own, seed), _of_unseen(base, new, seed)):
        if made is not None:
            return made
    why = f"fewer than {FEWEST_UNSEEN} prompts that no head has seen have outcomes of every candidate, and the fitting prompts are others"
    return None, f"stale: {new.name} has no path rows ({why}); fit anew with `ipr train`"


def own_rows(base: Bundle, new: Newcomer, embed: Embed, seed: int) -> FreshRows | None:
    """Find the bundle's own path rows among the outcomes: its draw is repeated, and every outcome and every bill must agree."""
    kept = base.path_rows
    if kept is None:
        return None
    settings = base.provenance.get("settings")
    # The draw is a function of prompts, outcomes and seed: repeated, it tells whether these are the prompts of the fit.
    fitted = settings.get("seed", seed) if isinstance(settings, dict) else seed
    columns = [base.names.index(name) for name in kept.candidates]
    outcome = old_quality(new.part, base)[:, columns]
    order = drawn_order(new.part.prompt_ids, new.part.prompts, outcome, fitted)
    if not np.array_equal(in_steps(outcome[order]), kept.outcome):
        return None
    x, billed = _embedded(new, order, embed)
    if not np.array_equal(billed.astype(np.uint32), kept.billed_tokens):
        return None
    others = np.full((2, len(order), len(base.names)), np.nan)  # quality and tokens, by the bundle's columns
    others[0][:, columns], others[1][:, columns] = kept.quality, kept.tokens_out
    rising = np.argsort(order)
    others = others[:, rising]
    return FreshRows(new.part.take(order[rising]), x[rising], billed[rising], OutOfFold(*others), np.argsort(rising))


def unseen_rows(base: Bundle, new: Newcomer) -> FreshRows | None:
    """Take the prompts on which the new candidate is judged and that no head has seen; None where there is none, or no tokens head."""
    kept = np.flatnonzero(unseen(base, new.rows, new.keys))
    heads = base.quality_heads
    if not len(kept) or "tokens" not in heads.outputs:
        return None
    # On prompts that no head has seen, what the heads say is out of fold.
    quality, tokens = predict(heads.tensors, new.x[kept], heads.activation)
    return FreshRows(new.rows.take(kept), new.x[kept], new.billed[kept], OutOfFold(quality, tokens))


def _with_column(
    base: Bundle, kept: PathRows, new: Newcomer, own: FreshRows | None, seed: int
) -> tuple[PathRows, str] | None:
    """Add a column to the bundle's own rows, where the outcomes hold the very prompts they were drawn from."""
    if own is None or own.place is None:
        return None
    listed = [base.candidates[base.names.index(name)] for name in kept.candidates]
    realised = own.rows.quality[:, own.rows.models.index(new.called)]
    written = None if new.tokens is None else own.rows.output_tokens[:, own.rows.models.index(new.called)]
    column = fresh_column(base, own, realised, written, like=new.like, seed=seed)
    if column is None:
        return None
    place = own.place
    quality, length = column[0][place].astype(np.float16), np.minimum(column[1][place], MOST_TOKENS).astype(np.float32)
    tokens_in = own_tokens([*listed, new.candidate], count_texts(list(own.rows.prompts)), own.billed)
    rows = replace(
        kept,
        candidates=(*kept.candidates, new.name),
        quality=np.column_stack([kept.quality, quality]),
        tokens_out=np.column_stack([kept.tokens_out, length]),
        outcome=np.column_stack([kept.outcome, in_steps(realised[place])]),
        tokens_in=None if tokens_in is None else tokens_in[place],
    )
    return rows, f"the bundle's {len(own.rows)} path rows gained a column for {new.name}"


def _embedded(new: Newcomer, order: npt.NDArray[np.int64], embed: Embed) -> tuple[Array, Array]:
    """Return x and billed tokens of these rows of `new.part`; those judged are embedded already."""
    at = {prompt_id: row for row, prompt_id in enumerate(new.rows.prompt_ids)}
    found = np.array([at.get(new.part.prompt_ids[row], -1) for row in order])
    x, billed = new.x[found], new.billed[found]
    missing = np.flatnonzero(found < 0)
    if len(missing):
        wanted = np.unique(order[missing])  # rising, as `take` wants it
        more, bills = embed(new.part.take(wanted))
        place = np.searchsorted(wanted, order[missing])
        x[missing], billed[missing] = more[place], bills[place]
    return x, billed


def _of_unseen(base: Bundle, new: Newcomer, seed: int) -> tuple[PathRows, str] | None:
    """Draw path rows from the prompts that no head has seen and on which every candidate is judged."""
    found = unseen_rows(base, new)
    if found is None:
        return None
    outcome = np.column_stack(
        [old_quality(found.rows, base), found.rows.quality[:, found.rows.models.index(new.called)]]
    )
    whole = np.flatnonzero(~np.isnan(outcome).any(axis=1))
    if len(whole) < FEWEST_UNSEEN:
        return None
    fresh, outcome = found.take(whole), outcome[whole]
    written = None if new.tokens is None else fresh.rows.output_tokens[:, fresh.rows.models.index(new.called)]
    column = fresh_column(base, fresh, outcome[:, -1], written, like=new.like, seed=seed)
    if column is None:
        return None
    rows = draw_path_rows(
        list(fresh.rows.prompt_ids),
        list(fresh.rows.prompts),
        (*base.names, new.name),
        predicted=OutOfFold(*(np.column_stack(both) for both in zip(fresh.others, column, strict=True))),
        outcome=outcome,
        billed_tokens=fresh.billed.astype(np.uint32),
        tokens_in=own_tokens([*base.candidates, new.candidate], count_texts(list(fresh.rows.prompts)), fresh.billed),
        seed=seed,
    )
    assert rows is not None  # every prompt is judged
    return (
        rows,
        f"{len(rows.quality)} new path rows of {new.rows.source}, prompts that no head has seen, in place of the old ones",
    )


def fresh_column(
    base: Bundle,
    fresh: FreshRows,
    quality: Array,
    tokens: Array | None,
    *,
    like: int,
    seed: int,
) -> tuple[Array, Array] | None:
    """Predict quality and output tokens (rows,) as the new candidate's row would, had no head seen these prompts.

    Args:
        quality: (rows,) of the new candidate, NaN where not judged. tokens: (rows,) likewise; None takes those of `like`.
    Returns:
        None where the candidates that the row leans on have no such predictions, or too few of these rows are judged.
    """
    heads, x, others = base.quality_heads, fresh.x, fresh.others
    tensors: Tensors = heads.tensors
    folds = grouped_folds(fresh.rows.question_keys, 5, seed)
    judged = ~np.isnan(quality)
    counts = [judged.sum(), *([] if tokens is None else [(~np.isnan(tokens)).sum()])]
    if min(counts) < FEWEST_JUDGED:
        return None
    host = None if "out" not in tensors else best_host(tensors, heads.activation, x[judged], quality[judged])
    # The row leans on candidates that share the host's layer and whose predictions here are out of fold.
    known = [m for m in range(len(base.names)) if not np.isnan(others.quality[:, m]).any()]
    group = [m for m in (known if host is None else sharing(tensors, host)) if m in known]
    if not group or (tokens is None and like not in known):
        return None
    features = features_of(tensors, heads.activation, x, host)
    weights = np.concatenate([tensors[name][group] for name in ("skip", "out") if name in tensors], axis=1)
    seen = features @ weights.T.astype(np.float64) + tensors["bias"][group].astype(np.float64)
    seen += added_by_trees(tensors, x, group)
    # `seen` are the logits that the fit reads, `unseen` those that its predictions are made from.
    likely = np.clip(others.quality[:, group], NEAR_CERTAIN, 1 - NEAR_CERTAIN)
    predicted = sigmoid(_fresh(features, seen, np.log(likely / (1 - likely)), quality, folds, logistic=True))
    if tokens is None:
        return predicted, others.tokens[:, like]
    counted, x = np.log(np.maximum(tokens, 1.0)), linear_columns(tensors, x)
    seen = x @ tensors["len_skip"][known].T.astype(np.float64) + tensors["len_bias"][known].astype(np.float64)
    length = _fresh(x, seen, np.log(np.maximum(others.tokens[:, known], 1.0)), counted, folds, logistic=False)
    smearing = float(np.nanmean(np.exp(counted - length)))
    cap = float(np.nanpercentile(np.maximum(tokens, 1.0), CAP_PERCENTILE))
    return predicted, np.minimum(np.exp(length) * smearing, cap)


def _fresh(
    features: Array, seen: Array, unseen: Array, y: Array, folds: npt.NDArray[np.int64], *, logistic: bool
) -> Array:
    """Predict (rows,) from the others' predictions `unseen`: out of fold where y is known, by the whole fit elsewhere."""
    known = ~np.isnan(y)
    fit = combine(features[known], seen[known], y[known], folds[known], logistic=logistic, unseen=unseen[known])
    line: Array = features @ fit.own + unseen @ fit.shares + fit.bias
    line[known] = fit.out_of_fold
    return line
