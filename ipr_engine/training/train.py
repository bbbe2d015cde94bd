"""`train` makes a bundle of outcomes: heads on a frozen encoder, or on several side by side. `ipr train` is its command."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipr_engine._C import count_texts
from ipr_engine._files import writable_folder
from ipr_engine._version import __version__
from ipr_engine.audit.owner_key import key_of_root, keys_beside
from ipr_engine.bundle import BundleParts, Candidate, SupportSpec, heads_sha256, write_bundle
from ipr_engine.bundle.candidates_file import CandidatesFile, read_candidates
from ipr_engine.bundle.context_windows import own_tokens
from ipr_engine.bundle.origin import CONSTANT, TASK_COLUMN
from ipr_engine.bundle.reliability import RELIABILITY
from ipr_engine.data import embed_prompts
from ipr_engine.encoders.base import Encoder
from ipr_engine.encoders.task_columns import columns_of, mark_tasks
from ipr_engine.measures.prediction import brier, constant_heads, expected_calibration_error
from ipr_engine.measures.resampling import one_thread
from ipr_engine.prompts.parsed import bill_floors
from ipr_engine.training.estimators.by_name import CLOSED_FORM, READS_SURFACE, comparable, need_packages
from ipr_engine.training.estimators.forest import trees_missing
from ipr_engine.training.fitted_heads import FittedHeads, HeadRows, column_kinds, fit_heads
from ipr_engine.training.fitted_parts import (
    PROMPTS_PER_CENTROID,
    fit_support,
    fitted_path_rows,
    heads_source,
    reliability,
    with_tokenizers,
)
from ipr_engine.training.platt import calibration_rows
from ipr_engine.training.selection import (
    PromptCosts,
    as_json,
    compare_estimators,
    prompt_costs,
    refuse_constant,
    winner,
)
from ipr_engine.training.train_options import BundleTarget, FitOptions, Folder, TrainingData
from ipr_engine.training.training_inputs import TrainingRows, read_training_rows
from ipr_engine.training.training_tasks import learnt_tasks

if TYPE_CHECKING:
    from ipr_engine.training.estimators.checkpoint import RunState
    from ipr_engine.training.standing import Standing

Array = npt.NDArray[np.float64]

DEFAULTS = FitOptions()
CENTROIDS = 64  # fewer where there are not PROMPTS_PER_CENTROID of each


def train(
    data: TrainingData,
    target: BundleTarget,
    *,
    fit: FitOptions = DEFAULTS,
    progress: Callable[[str], None] = lambda message: None,
) -> Trained:
    """Fit a quality head and a tokens head per candidate, and write a bundle with the rows of tau's path.

    Raises:
        InvalidInputError: the candidates' file or the outcomes are not as `TrainingData` says, or a head is constant.
        BackendUnavailableError: the extra [train] is missing.
    Notes:
        A prompt counts for the candidates judged on it, so sparse outcomes are used whole. Same input and key, same bytes on one machine.
    """
    for argument, folder in (("cache", data.cache), ("run", fit.run)):
        if folder is not None:
            writable_folder(folder, argument)
    if fit.estimator != "auto":
        need_packages(fit.estimator)
    root, seed = Path(target.root), fit.seed
    given = keys_beside(
        root, target.key
    )  # read before the work; where there is none it is made after it, by key_of_root
    asked = read_candidates(Path(data.candidates))
    names = [candidate.name for candidate in asked.candidates]
    may_read = fit.estimator == READS_SURFACE or (
        fit.estimator == "auto" and len(names) > 1 and trees_missing() is None
    )
    frozen = (data.encoder.with_surface() if may_read else data.encoder).open()
    with one_thread():
        rows = read_training_rows(
            data.folders, asked, split=data.split, task_column=data.task_column, progress=progress
        )
        tasks = {} if data.task_column is None else learnt_tasks(rows.tasks, progress)
        if tasks:
            frozen = frozen.with_tasks(list(tasks))
        source = rows.source if data.intercepts and len(rows.names) > 1 else None
        if frozen.encoder.native is None:
            progress(f"embedding {len(rows)} prompts ({frozen.encoder.summary}) ...")
        encoded = embed_prompts(frozen.encoder, rows.prompts, cache=data.cache, progress=progress)
        bills = bill_floors(rows.prompts, encoded.billed_tokens)
        x = encoded.x  # (rows, dim) float32
        if tasks:
            x = mark_tasks(columns_of(frozen.encoder), x, rows.tasks)
        billed = bills.astype(np.float64)  # (rows,)
        at_home = np.ones(len(x), np.bool_) if source is None else source == 0
        listed, own = _by_own_tokenizers(asked, rows, billed, at_home, progress)
        judged = HeadRows(
            x,
            rows.quality,
            rows.output_tokens,
            rows.keys,
            source,
            otherwise=_otherwise(frozen.encoder, rows, fit, data.cache, progress),
            **column_kinds(frozen.encoder),
        )
        estimator = fit.estimator
        compared: list[dict[str, object]] = []
        # Estimators are compared by how they route, and one candidate leaves nothing to route.
        if estimator == "auto" and len(names) == 1:
            progress("one candidate only: nothing to choose between, so nothing to compare estimators by")
            estimator = "plain"
        if estimator == "auto":
            candidates = comparable(progress)
            progress(f"comparing {len(candidates)} estimators by nested cross-validation ...")
            costs = prompt_costs(listed, asked.prices, billed, own, rows.output_tokens)
            scores = compare_estimators(judged, costs, estimators=candidates, names=names, progress=progress)
            compared, estimator = as_json(scores), winner(scores)
        if frozen.surface_dim and estimator != READS_SURFACE:
            progress(
                f"surface features are left out of the bundle: {estimator} does not read them, {READS_SURFACE} does"
            )
            frozen, judged = frozen.without_surface(), judged.without_surface()
        progress(f"fitting heads, estimator {estimator} ...")
        state = (
            None if fit.run is None else _run_state(fit.run, rows, judged.unrolled().x, estimator, fit.options, seed)
        )
        heads = fit_heads(judged, estimator=estimator, options=fit.options, seed=seed, run=state, progress=progress)
        constant = constant_heads(
            names, heads.out_of_fold_quality, rows.quality, rows.keys, calibration_rows(rows.quality, at_home), source
        )
        if not fit.allow_constant:
            refuse_constant(constant, len(names), tasks=bool(tasks))
        for candidate, reason in constant.items():
            progress(f"constant head of {candidate}: {reason}")
        where = None
        if fit.standing:
            costs = prompt_costs(listed, asked.prices, billed, own, rows.output_tokens)
            where = _standing(judged, costs, names, estimator, fit.options, progress)
        progress("fitting support ...")
        # Few prompts a centroid would let it be read back as a prompt (docs/privacy.md).
        centroids = max(1, min(CENTROIDS, len(x) // PROMPTS_PER_CENTROID))
        # Of whole prompts alone: what a text looks like, is for, or how it begins, says little of what it is near to.
        width = judged.embedding.shape[1] - judged.head_dim
        support = fit_support(encoded.x[:, :width], heads.folds, centroids, seed)
    made = heads_source(heads, frozen.id, names, rows, given[0] if given else key_of_root(root))
    made = replace(made, conversation=frozen.conversation)
    path = fitted_path_rows(heads, names, rows, at_home, bills, own, seed)
    progress(f"{0 if path is None else len(path.quality)} prompts stay as path rows, without their text ...")
    folder = write_bundle(
        root,
        BundleParts(
            name=target.name,
            created=target.created,
            candidates=listed,
            encoders=frozen.sources,
            heads=[made],
            prices=asked.prices,
            support=SupportSpec(encoder=frozen.id, **support),
            # The rows are bound to the very heads that predicted them.
            path_rows=None if path is None else replace(path, heads=(heads_sha256(made),)),
            extra_files={RELIABILITY: reliability(heads, names, rows)},
            provenance={
                "recipe": "ipr train",
                "version": __version__,
                "outcomes": list(rows.names),
                "split": data.split,
                "intercepts": source is not None,
                "dropped": rows.dropped,
                "leaked": rows.leaked,
                "judged": (~np.isnan(rows.quality)).sum(axis=0).tolist(),
                "sources": {candidate: asked.named[candidate] for candidate in names},
                "settings": heads.settings,
                **({"augment": fit.augment} if fit.augment else {}),
                "compared": compared,
                **({TASK_COLUMN: data.task_column, "tasks": dict(tasks)} if tasks else {}),
                **({CONSTANT: constant} if constant else {}),
                **({"standing": where.to_json()} if where is not None else {}),
            },
        ),
        activate=target.activate,
    )
    return trained_figures(folder, rows, estimator, names, heads, constant, where, tasks)


def _standing(
    rows: HeadRows,
    costs: PromptCosts,
    names: list[str],
    estimator: str,
    options: Mapping[str, Any],
    progress: Callable[[str], None],
) -> Standing | None:
    """Say how far the router is; None, with the reason told, where that has nothing to compare or would take too long."""
    from ipr_engine.training.standing import stand

    if len(names) == 1:
        progress("one candidate only: there is no router whose standing could be told")
        return None
    if estimator not in CLOSED_FORM:
        progress(
            f"how far the router is, is not told: {estimator} is a network, and twelve more fits take hours; ask `ipr eval`"
        )
        return None
    progress("how far the router is: every prompt predicted by a fit that has not seen its question ...")
    where = stand(rows, costs, names, estimator=estimator, options=options, progress=progress)
    for line in where.text():
        progress(line)
    return where


def _otherwise(
    encoder: Encoder, rows: TrainingRows, fit: FitOptions, cache: Folder | None, progress: Callable[[str], None]
) -> tuple[npt.NDArray[np.floating], ...]:
    """Return x of the copies of the prompts that are fitted on too; none where none are asked for."""
    if not fit.augment:
        return ()
    from ipr_engine.training.seen_otherwise import seen_otherwise

    return seen_otherwise(
        encoder, rows.prompts, fit.augment, tasks=rows.tasks, seed=fit.seed, cache=cache, progress=progress
    )


def _by_own_tokenizers(
    asked: CandidatesFile,
    rows: TrainingRows,
    billed: Array,
    at_home: npt.NDArray[np.bool_],
    progress: Callable[[str], None],
) -> tuple[list[Candidate], npt.NDArray[np.float32] | None]:
    """Return the candidates with tokenizers, and (rows, models) tokens by each one's own; None where none is named.

    Args:
        billed: (rows,) by the encoder's tokenizer. at_home: (rows,), the traffic that the heads speak of.
    """
    # Input tokens of home alone: ratios and tokenizers are of the traffic that the heads speak of.
    recorded = np.where((rows.source == 0)[:, None], rows.input_tokens, np.nan)
    texts = count_texts(list(rows.prompts))  # as large as half of the embeddings: nothing after this needs it
    listed = with_tokenizers(asked.candidates, asked.ratios, texts, billed, recorded, rows.keys, at_home, progress)
    return listed, own_tokens(listed, texts, billed)


def _run_state(
    folder: Path | str,
    rows: TrainingRows,
    x: npt.NDArray[np.float32],
    estimator: str,
    options: Mapping[str, Any],
    seed: int,
) -> RunState:
    """Open the run folder under a key over all that decides the fit."""
    from ipr_engine.training.estimators.checkpoint import RunState

    # Everything that changes a fit changes the key, so that no run goes on with parts of another.
    digest = sha256(json.dumps([__version__, estimator, dict(options), seed, rows.keys], sort_keys=True).encode())
    for array in (x, rows.quality, rows.source):
        digest.update(np.ascontiguousarray(array).tobytes())
    return RunState(folder, digest.hexdigest())


@dataclass(frozen=True)
class Trained:
    """A `Trained` holds the bundle that `train` wrote, and per candidate figures on judged rows that its fits had not seen.

    Attributes:
        calibration_error: (models,), NaN of a constant head: a constant at the mean is calibrated whatever it is worth.
        constant: candidate -> why its head counts as constant (measures/prediction.py), for those that do.
        standing: how far the router is, None where that was not asked for or cannot be taken.
        tasks: the tasks that are told apart -> prompts of each.
    """

    folder: Path
    prompts: int
    dropped: int
    estimator: str
    names: tuple[str, ...]
    judged: npt.NDArray[np.int64]
    quality: Array
    predicted: Array
    brier: Array
    calibration_error: Array
    constant: Mapping[str, str]
    standing: Standing | None = None
    tasks: Mapping[str, int] = field(default_factory=dict)


def trained_figures(
    folder: Path,
    rows: TrainingRows,
    estimator: str,
    names: list[str],
    heads: FittedHeads,
    constant: Mapping[str, str],
    standing: Standing | None,
    tasks: Mapping[str, int],
) -> Trained:
    """Take the figures of `Trained` from the heads' predictions out of fold."""
    predicted = heads.out_of_fold_quality
    columns = range(len(names))
    return Trained(
        folder=folder,
        prompts=len(rows),
        dropped=rows.dropped,
        estimator=estimator,
        names=tuple(names),
        judged=(~np.isnan(rows.quality)).sum(axis=0),
        quality=np.nanmean(rows.quality, axis=0),
        predicted=np.nanmean(np.where(np.isnan(rows.quality), np.nan, predicted), axis=0),
        brier=np.array([brier(predicted[:, [m]], rows.quality[:, [m]]) for m in columns]),
        calibration_error=np.array(
            [
                np.nan if names[m] in constant else expected_calibration_error(predicted[:, [m]], rows.quality[:, [m]])
                for m in columns
            ]
        ),
        constant=constant,
        standing=standing,
        tasks=tasks,
    )
