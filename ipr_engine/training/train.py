"""Outcomes of one's own to a bundle: closed-form heads on a frozen static encoder. `ipr train` is this module's face."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine import __version__
from ipr_engine.bundle import (
    Bundle,
    Candidate,
    EncoderSource,
    FittedOn,
    HeadsSource,
    Price,
    PriceList,
    RuleConstants,
    SupportSpec,
    write_bundle,
)
from ipr_engine.data import Outcomes, load_outcomes, prompt_hashes
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.engine import DEFAULT_BUNDLE
from ipr_engine.errors import InvalidInputError
from ipr_engine.evaluation.prediction import brier, expected_calibration_error
from ipr_engine.training.extra import one_thread
from ipr_engine.training.forms import compare_forms, winner
from ipr_engine.training.heads import LinearHeads, fit_heads
from ipr_engine.training.ridge import FORMS
from ipr_engine.training.support import fit_support

Array = npt.NDArray[np.float64]

MAX_TOKENS = 512
CENTROIDS = 64
PROMPTS_PER_CENTROID = 8  # fewer prompts than this times CENTROIDS get fewer centroids
TRAINED_ON = ("quality", "output_tokens")
REQUIRED = ("name", "family", "provider", "input_usd_per_1m", "output_usd_per_1m")
OPTIONAL = ("source", "context_window", "features", "token_ratio", "latency_ms", "fixed_usd", "basis")


@dataclass(frozen=True)
class Trained:
    """What `train` made: the bundle's folder, and per candidate figures on rows that its ridge weights had not seen."""

    folder: Path
    prompts: int
    dropped: int
    form: str
    names: tuple[str, ...]
    quality: Array
    predicted: Array
    brier: Array
    calibration_error: Array


def train(
    outcomes: Path | str,
    candidates: Path | str,
    out: Path | str,
    *,
    name: str,
    created: str,
    encoder: Path | str | None = None,
    split: str | None = "train",
    form: str = "auto",
    seed: int = 0,
    progress: Callable[[str], None] = lambda message: None,
) -> Trained:
    """Fit one linear quality head and one tokens head per candidate, and write a bundle.

    Args:
        outcomes: folder of outcome data (docs/outcome-data.md) with output tokens.
        candidates: JSON: {"date", "candidates": [{name, family, provider, input_usd_per_1m, output_usd_per_1m, and
            optionally source (the name in the outcomes), context_window, features, token_ratio, latency_ms, ...}]}.
        out: bundle root; the new bundle becomes its CURRENT.
        encoder: a model2vec folder; None takes the embedded default bundle's encoder.
        split: the split to fit on; None takes every prompt.
        form: one of ridge.FORMS, or "auto": the best by nested cross-validation on these prompts.
    Raises:
        InvalidInputError: an argument, the candidates' file or the outcomes are not as above.
        BackendUnavailableError: the extra [train] is missing.
    Notes:
        Only prompts on which every candidate has an outcome are used. Same input, same bytes on one machine.
    """
    if form != "auto" and form not in FORMS:
        raise InvalidInputError(f"form: expected 'auto' or one of {', '.join(FORMS)}, got {form!r}")
    listed, prices, sources = read_candidates(Path(candidates))
    files = encoder_files(encoder)
    with one_thread():
        rows = load_outcomes(outcomes, models=[sources[c.name] for c in listed], split=split).complete(
            measures=TRAINED_ON
        )
        progress(f"{len(rows)} prompts on which all {len(listed)} candidates have an outcome, {rows.dropped} left out")
        encoded = StaticEncoder.load(files.table, files.tokenizer, files.config, max_tokens=MAX_TOKENS).encode(
            list(rows.prompts)
        )
        x = np.asarray(encoded.x, np.float64)
        if form == "auto":
            progress(f"comparing {len(FORMS)} forms by nested cross-validation ...")
            form = _best_form(rows, x, encoded.billed_tokens, listed, prices)
        progress(f"fitting heads, form {form} ...")
        heads = fit_heads(x, rows.quality, rows.output_tokens, rows.question_keys, form=form, seed=seed)
        progress("fitting support ...")
        centroids = max(1, min(CENTROIDS, len(x) // PROMPTS_PER_CENTROID))
        support = fit_support(x, heads.folds, centroids, seed)
    folder = write_bundle(
        out,
        name=name,
        created=created,
        candidates=listed,
        encoders=[files],
        heads=[_heads_source(heads, listed, rows)],
        prices=prices,
        support=SupportSpec(encoder=files.id, **support),
        provenance={
            "recipe": "ipr train",
            "version": __version__,
            "split": split,
            "dropped": rows.dropped,
            "sources": sources,
            "settings": heads.settings,
        },
    )
    columns = range(len(listed))
    out_of_fold = heads.out_of_fold_quality
    return Trained(
        folder=folder,
        prompts=len(rows),
        dropped=rows.dropped,
        form=form,
        names=tuple(candidate.name for candidate in listed),
        quality=rows.quality.mean(axis=0),
        predicted=out_of_fold.mean(axis=0),
        brier=np.array([brier(out_of_fold[:, [m]], rows.quality[:, [m]]) for m in columns]),
        calibration_error=np.array(
            [expected_calibration_error(out_of_fold[:, [m]], rows.quality[:, [m]]) for m in columns]
        ),
    )


def encoder_files(encoder: Path | str | None) -> EncoderSource:
    """The static encoder of a model2vec folder, or of the embedded default bundle."""
    if encoder is not None:
        return EncoderSource.in_folder(encoder, id="static", max_tokens=MAX_TOKENS)
    spec = Bundle.load(DEFAULT_BUNDLE).encoders[0]
    return EncoderSource(
        id="static", table=spec.table, tokenizer=spec.tokenizer, config=spec.config, max_tokens=spec.max_tokens
    )


def read_candidates(path: Path) -> tuple[list[Candidate], PriceList, dict[str, str]]:
    """Candidates, their prices, and each one's name in the outcomes; write_bundle judges the values."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidInputError(f"candidates: expected a JSON file, {path}: {error}") from None
    if not isinstance(document, dict) or set(document) != {"date", "candidates"}:
        raise InvalidInputError(f'candidates: expected {{"date": ..., "candidates": [...]}} in {path}')
    entries = document["candidates"]
    if not isinstance(entries, list) or not entries:
        raise InvalidInputError(f"candidates: expected a list of at least one candidate in {path}")
    for number, entry in enumerate(entries):
        missing = [key for key in REQUIRED if not isinstance(entry, dict) or key not in entry]
        unknown = sorted(set(entry) - set(REQUIRED) - set(OPTIONAL)) if not missing else []
        if missing or unknown:
            trouble = f"lacks {', '.join(missing)}" if missing else f"has unknown {', '.join(unknown)}"
            raise InvalidInputError(f"candidates[{number}]: {trouble}; known: {', '.join((*REQUIRED, *OPTIONAL))}")
    listed = [
        Candidate(
            name=entry["name"],
            family=entry["family"],
            provider=entry["provider"],
            context_window=entry.get("context_window"),
            token_ratio=entry.get("token_ratio", 1.0),
            features=tuple(entry.get("features", ())),
            latency_ms=entry.get("latency_ms"),
        )
        for entry in entries
    ]
    prices = {
        entry["name"]: Price(
            input_usd_per_1m=entry["input_usd_per_1m"],
            output_usd_per_1m=entry["output_usd_per_1m"],
            fixed_usd=entry.get("fixed_usd", 0.0),
            basis=entry.get("basis", f"given in {path.name}"),
        )
        for entry in entries
    }
    sources: Mapping[str, str] = {entry["name"]: entry.get("source", entry["name"]) for entry in entries}
    return listed, PriceList(date=document["date"], prices=prices), dict(sources)


def _best_form(
    rows: Outcomes, x: Array, billed_tokens: npt.NDArray[Any], listed: list[Candidate], prices: PriceList
) -> str:
    """By nested cross-validation, costs from the price list."""
    price_rows = [prices.prices[candidate.name] for candidate in listed]
    ratio = np.array([candidate.token_ratio for candidate in listed])
    input_rate = np.array([price.input_usd_per_1m for price in price_rows]) * ratio / 1e6
    output_rate = np.array([price.output_usd_per_1m for price in price_rows]) / 1e6
    fixed = np.array([price.fixed_usd for price in price_rows])
    input_cost = fixed + billed_tokens[:, None] * input_rate
    cost = input_cost + rows.output_tokens * output_rate
    scores = compare_forms(x, rows.quality, rows.output_tokens, cost, input_cost, output_rate, rows.question_keys)
    return winner(scores)


def _heads_source(heads: LinearHeads, listed: list[Candidate], rows: Outcomes) -> HeadsSource:
    return HeadsSource(
        id="trained",
        encoder="static",
        outputs=("quality", "tokens"),
        candidates=[candidate.name for candidate in listed],
        rule_constants=RuleConstants(**heads.rule_constants),
        fitted_on=FittedOn(source=rows.source, prompts=len(rows), prompt_ids_sha256=rows.prompt_ids_sha256),
        tensors=heads.tensors,
        prompt_hashes=prompt_hashes(rows),
    )
