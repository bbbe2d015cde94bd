"""Outcomes of one's own to a bundle: heads on a frozen encoder, or on several side by side. `ipr train` is this module's face."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ipr_engine._files import writable_folder
from ipr_engine._validate import random_seed
from ipr_engine._version import __version__
from ipr_engine.audit.owner_key import Key, key_of_root, keys_beside
from ipr_engine.bundle import (
    BundleParts,
    Candidate,
    PathRows,
    PriceList,
    SupportSpec,
    heads_sha256,
    write_bundle,
)
from ipr_engine.bundle.context_windows import own_tokens
from ipr_engine.bundle.origin import CONSTANT
from ipr_engine.bundle.reliability import RELIABILITY
from ipr_engine.bundle.values import require_day, require_root, require_text
from ipr_engine.data import embed_prompts
from ipr_engine.encoders.load_options import LoadOptions
from ipr_engine.errors import InvalidInputError
from ipr_engine.policy.price_table import PriceTable
from ipr_engine.request.arguments import bill_floors
from ipr_engine.tokens import count_texts
from ipr_engine.training.candidates import read_candidates
from ipr_engine.training.constant import constant_heads, refuse_constant
from ipr_engine.training.encoders import Folder, training_encoder
from ipr_engine.training.estimators import CLOSED_FORM, ESTIMATORS
from ipr_engine.training.extra import one_thread
from ipr_engine.training.fitted_parts import heads_source, reliability
from ipr_engine.training.heads import FittedHeads, calibration_rows, fit_heads
from ipr_engine.training.own_tokens import with_tokenizers
from ipr_engine.training.path_rows import draw_path_rows
from ipr_engine.training.selection import EstimatorScore, as_json, compare_estimators, winner
from ipr_engine.training.sources import TrainingRows, read_training_rows
from ipr_engine.training.support import PROMPTS_PER_CENTROID, fit_support
from ipr_engine.training.trained import Trained, trained_figures

if TYPE_CHECKING:
    from ipr_engine.training.checkpoint import RunState

Array = npt.NDArray[np.float64]

CENTROIDS = 64  # fewer where there are not PROMPTS_PER_CENTROID of each


def train(
    outcomes: Path | str | Sequence[Path | str],
    candidates: Path | str,
    out: Path | str,
    *,
    name: str,
    created: str,
    encoder: Folder | Sequence[Folder] | None = None,
    encoder_options: LoadOptions | None = None,
    max_tokens: int | None = None,
    pooling: str | None = None,
    dtype: str | None = None,
    contained: bool = True,
    key: Key | None = None,
    cache: Folder | None = None,
    split: str | None = "train",
    intercepts: bool = True,
    estimator: str = "auto",
    options: Mapping[str, Any] = MappingProxyType({}),
    seed: int = 0,
    run: Path | str | None = None,
    allow_constant: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> Trained:
    """Fit a quality head and a tokens head per candidate, and write a bundle with the rows of tau's path.

    Args:
        outcomes: folder of outcome data (docs/outcome-data.md) with output tokens; or several: then the heads speak of the
            first, and every other source's level is taken out by an intercept.
        candidates: JSON: {"date", "candidates": [{name, family, provider, input_usd_per_1m, output_usd_per_1m, and
            optionally source (the name in the outcomes, or {source: name}), context_window, features, token_ratio (else
            measured, see own_tokens.with_tokenizers), tokenizer, latency_ms, ...}]}.
        out: bundle root; the new bundle becomes its CURRENT.
        encoder: a model2vec folder, an export or a transformers folder, or several side by side; None takes the embedded
            default bundle's table. max_tokens, pooling, dtype, contained and encoder_options are as for `encoders.training_encoder`.
        key: the owner's, under which the bundle keeps hashes of its prompts; None takes ROOT/owner.key, and makes it where it is not
            there. It belongs to no bundle: keep it out of what you hand on.
        cache: folder that keeps a transformer's embeddings, so that the next fit on these prompts does not embed them again.
        split: the split to fit on; None takes every prompt.
        intercepts: with several sources, whether each but the first gets an intercept that the heads leave out: yes where the
            same prompts would score differently there (another checker, another sampling); no where the sources are parts
            of one traffic.
        estimator: one of estimators.ESTIMATORS, or "auto": the best closed form by nested cross-validation on these prompts.
        options: of the estimator (the fields of network_config.NetworkConfig).
        run: folder that keeps the finished parts of a network's fit; the same call goes on from there after an interruption.
        allow_constant: deliver heads that tell prompts apart no better than a constant does (training/constant.py), marked as
            such in the bundle, instead of refusing.
    Raises:
        InvalidInputError: an argument, the candidates' file or the outcomes are not as above, or a head is constant.
        BackendUnavailableError: the extra [train] is missing.
    Notes:
        A prompt counts for the candidates judged on it, so sparse outcomes are used whole. Same input and key, same bytes on one machine.
    """
    if estimator != "auto" and estimator not in ESTIMATORS:
        raise InvalidInputError(f"estimator: expected 'auto' or one of {', '.join(ESTIMATORS)}, got {estimator!r}")
    if options and estimator == "auto":
        raise InvalidInputError(f"options: 'auto' has none, got {', '.join(options)}; name the estimator")
    require_text("name", name)
    require_day("created", created)
    require_root("out", out)
    random_seed("seed", seed)
    for argument, folder in (("cache", cache), ("run", run)):
        if folder is not None:
            writable_folder(folder, argument)
    given = keys_beside(Path(out), key)  # read before the work; made after it
    asked = read_candidates(Path(candidates))
    names = [candidate.name for candidate in asked.candidates]
    frozen = training_encoder(
        encoder, options=encoder_options, max_tokens=max_tokens, pooling=pooling, dtype=dtype, contained=contained
    )
    folders = [outcomes] if isinstance(outcomes, (str, Path)) else list(outcomes)
    with one_thread():
        rows = read_training_rows(folders, asked, split=split, progress=progress)
        source = rows.source if intercepts and len(rows.names) > 1 else None
        if frozen.encoder.native is None:
            progress(f"embedding {len(rows)} prompts ({frozen.encoder.summary}) ...")
        encoded = embed_prompts(frozen.encoder, rows.prompts, cache=cache, progress=progress)
        bills = bill_floors(rows.prompts, encoded.billed_tokens)
        x, billed = np.asarray(encoded.x, np.float64), bills.astype(np.float64)
        at_home = np.ones(len(x), np.bool_) if source is None else source == 0
        recorded = np.where((rows.source == 0)[:, None], rows.input_tokens, np.nan)
        texts = count_texts(list(rows.prompts))
        listed = with_tokenizers(asked.candidates, asked.ratios, texts, billed, recorded, at_home, progress)
        own = own_tokens(listed, texts, billed)
        compared: list[EstimatorScore] = []
        if estimator == "auto" and len(names) == 1:
            progress("one candidate only: nothing to choose between, so nothing to compare estimators by")
            estimator = "plain"
        if estimator == "auto":
            progress(f"comparing {len(CLOSED_FORM)} estimators by nested cross-validation ...")
            compared = _compare(rows, x, billed, own, listed, asked.prices, source, progress)
            estimator = winner(compared)
        progress(f"fitting heads, estimator {estimator} ...")
        state = None if run is None else _run_state(run, rows, x, estimator, options, seed)
        heads = fit_heads(
            x,
            rows.quality,
            rows.output_tokens,
            rows.keys,
            estimator=estimator,
            options=options,
            source=source,
            seed=seed,
            run=state,
            progress=progress,
        )
        constant = constant_heads(
            names, heads.out_of_fold_quality, rows.quality, rows.keys, calibration_rows(rows.quality, at_home), source
        )
        if not allow_constant:
            refuse_constant(constant, len(names))
        for candidate, reason in constant.items():
            progress(f"constant head of {candidate}: {reason}")
        progress("fitting support ...")
        centroids = max(1, min(CENTROIDS, len(x) // PROMPTS_PER_CENTROID))
        support = fit_support(x, heads.folds, centroids, seed)
    made = heads_source(heads, frozen.id, names, rows, given[0] if given else key_of_root(Path(out)))
    path = _path_rows(heads, names, rows, at_home, bills, own, seed)
    progress(f"{0 if path is None else len(path.quality)} prompts stay as path rows, without their text ...")
    folder = write_bundle(
        out,
        BundleParts(
            name=name,
            created=created,
            candidates=listed,
            encoders=frozen.sources,
            heads=[made],
            prices=asked.prices,
            support=SupportSpec(encoder=frozen.id, **support),
            path_rows=None if path is None else replace(path, heads=(heads_sha256(made),)),
            extra_files={RELIABILITY: reliability(heads, names, rows)},
            provenance={
                "recipe": "ipr train",
                "version": __version__,
                "outcomes": list(rows.names),
                "split": split,
                "intercepts": source is not None,
                "dropped": rows.dropped,
                "leaked": rows.leaked,
                "judged": (~np.isnan(rows.quality)).sum(axis=0).tolist(),
                "sources": {candidate: asked.named[candidate] for candidate in names},
                "settings": heads.settings,
                "compared": as_json(compared),
                **({CONSTANT: constant} if constant else {}),
            },
        ),
    )
    return trained_figures(folder, rows, estimator, names, heads, constant)


def _path_rows(
    heads: FittedHeads,
    names: list[str],
    rows: TrainingRows,
    at_home: npt.NDArray[np.bool_],
    billed_tokens: npt.NDArray[np.integer],
    own: npt.NDArray[np.float32] | None,
    seed: int,
) -> PathRows | None:
    """Of the prompts that the heads speak of: those at home, or of every part of one traffic."""
    home = np.flatnonzero(at_home)
    return draw_path_rows(
        [rows.prompt_ids[row] for row in home],
        [rows.prompts[row] for row in home],
        names,
        predicted=heads.out_of_fold_quality[home],
        tokens_out=heads.out_of_fold_tokens[home],
        outcome=rows.quality[home],
        billed_tokens=billed_tokens[home],
        tokens_in=None if own is None else own[home],
        seed=seed,
    )


def _compare(
    rows: TrainingRows,
    x: Array,
    billed: Array,
    own: npt.NDArray[np.float32] | None,
    listed: list[Candidate],
    prices: PriceList,
    source: npt.NDArray[np.int64] | None,
    progress: Callable[[str], None],
) -> list[EstimatorScore]:
    """By nested cross-validation, costs from the price list."""
    price_rows = [prices.prices[candidate.name] for candidate in listed]
    rates = PriceTable(price_rows, [candidate.token_ratio for candidate in listed])
    bills = rates.counted(billed.astype(np.int64), own)
    input_cost, output_rate = rates.cost(bills, np.zeros((1, len(listed)))), rates.out_rates(bills)
    cost = rates.cost(bills, rows.output_tokens)
    return compare_estimators(
        x,
        rows.quality,
        rows.output_tokens,
        cost,
        input_cost,
        output_rate,
        rows.keys,
        source=source,
        estimators=CLOSED_FORM,
        progress=progress,
    )


def _run_state(
    folder: Path | str, rows: TrainingRows, x: Array, estimator: str, options: Mapping[str, Any], seed: int
) -> RunState:
    """The run folder, keyed by all that decides the fit."""
    from ipr_engine.training.checkpoint import RunState

    digest = sha256(json.dumps([__version__, estimator, dict(options), seed, rows.keys], sort_keys=True).encode())
    for array in (x, rows.quality, rows.source):
        digest.update(np.ascontiguousarray(array).tobytes())
    return RunState(folder, digest.hexdigest())
