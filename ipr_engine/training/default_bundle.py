"""Build the embedded default bundle:

    python -m ipr_engine.training.default_bundle --outcomes DIR --encoder-model FOLDER --out ROOT

Distil the token table (or take one with --table), embed the training split with the library's own encoder, choose the
form of the heads by cross-validation on it, fit, and write the bundle with its model card. The test split decides
nothing: it is read for the figures of the card. Same input, same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ipr_engine.bundle import (
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
from ipr_engine.data import MEASURES, Outcomes, load_outcomes
from ipr_engine.encoders.static import StaticEncoder
from ipr_engine.errors import InvalidInputError
from ipr_engine.training.default_candidates import DEFAULT_CANDIDATES, PRICES_DATE
from ipr_engine.training.distill import distill
from ipr_engine.training.evaluate import bootstrap_weights, curve_area, sweep_tau
from ipr_engine.training.extra import one_thread
from ipr_engine.training.figures import candidate_figures, routing_figures, token_figures
from ipr_engine.training.forms import compare_forms, winner
from ipr_engine.training.heads import LinearHeads, fit_heads, predict
from ipr_engine.training.model_card import render
from ipr_engine.training.ridge import FORMS
from ipr_engine.training.support import fit_support, nearest_distance

Array = npt.NDArray[np.float64]

CREATED = "2026-11-24"  # fixed, so that the same input gives the same hash; --created overrides
ENCODER_NAME = "sentence-transformers/all-MiniLM-L6-v2"
MAX_TOKENS = 512
CENTROIDS = 64
SEED = 0
COMMAND = "python -m ipr_engine.training.default_bundle --outcomes DIR --encoder-model FOLDER --out ROOT"


def build(
    outcomes_folder: Path, out: Path, *, encoder_model: str | None, table: Path | None, created: str, card: Path | None
) -> Path:
    """Build and activate the bundle under `out`; returns its folder. One of `encoder_model` and `table` is given."""
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as scratch, one_thread():
        if table is None:
            if encoder_model is None:
                raise InvalidInputError("encoder_model: expected a folder or a hub id when no table is given")
            console.print("distilling the token table ...")
            table = distill(encoder_model, Path(scratch) / "table", seed=SEED)
        return _build(outcomes_folder, out, table, created, card, console)


def _build(outcomes_folder: Path, out: Path, table: Path, created: str, card: Path | None, console: Console) -> Path:
    record = table / "distill.json"
    if not record.is_file():
        raise InvalidInputError(f"table: expected a folder that distill() wrote, {record.name} is missing")
    distilled = json.loads(record.read_text(encoding="utf-8"))
    sources = [candidate.source for candidate in DEFAULT_CANDIDATES]
    outcomes = load_outcomes(outcomes_folder, models=sources)
    sparse_train = outcomes.of_split("train")
    train = sparse_train.complete(measures=MEASURES)
    x, billed = embed(table, train.prompts)
    input_rate, output_rate = _rates()
    train_input_cost = billed[:, None] * input_rate

    console.print(f"choosing the form of the heads on {len(x)} prompts, by nested cross-validation ...")
    forms = compare_forms(
        x, train.quality, train.output_tokens, train.cost_usd, train_input_cost, output_rate, train.question_keys
    )
    heads = fit_heads(x, train.quality, train.output_tokens, train.question_keys, form=winner(forms), seed=SEED)
    console.print("fitting support ...")
    support = fit_support(x, heads.folds, CENTROIDS, SEED)

    console.print("evaluating on the test split ...")
    test = outcomes.of_split("test").complete(measures=MEASURES)
    figures = _figures(table, train, test, heads, support, train_input_cost, input_rate, output_rate, billed)
    figures["coverage"] = sparse_train.coverage(MEASURES)
    figures["forms"] = forms
    figures["forms_on_test"] = _forms_on_test(table, train, test, x, input_rate, output_rate)
    provenance = _provenance(outcomes_folder, train, test, heads, distilled)
    text = render(figures, provenance)
    if card is not None:
        card.write_text(text, encoding="utf-8")
    return write_bundle(
        out,
        name="default",
        created=created,
        candidates=[
            Candidate(
                name=c.name,
                family=c.family,
                provider=c.provider,
                context_window=c.context_window,
                token_ratio=1.0,
                features=c.features,
                latency_ms=None,
            )
            for c in DEFAULT_CANDIDATES
        ],
        encoders=[EncoderSource.in_folder(table, id="static", max_tokens=MAX_TOKENS)],
        heads=[
            HeadsSource(
                id="default",
                encoder="static",
                outputs=("quality", "tokens"),
                candidates=[c.name for c in DEFAULT_CANDIDATES],
                rule_constants=RuleConstants(**heads.rule_constants),
                fitted_on=FittedOn(
                    source=provenance["outcomes"]["source"],
                    prompts=len(train.prompts),
                    prompt_ids_sha256=train.prompt_ids_sha256,
                ),
                tensors=heads.tensors,
            )
        ],
        prices=_prices(),
        support=SupportSpec(encoder="static", **support),
        provenance=provenance,
        extra_files={"MODEL_CARD.md": text.encode()},
    )


def embed(table: Path, prompts: Sequence[str]) -> tuple[Array, Array]:
    """Embeddings (rows, dim) and billed WordPiece counts (rows,), by the encoder that will serve the bundle."""
    encoded = StaticEncoder.from_folder(table, max_tokens=MAX_TOKENS).encode(list(prompts))
    return np.asarray(encoded.x, dtype=np.float64), np.asarray(encoded.billed_tokens, dtype=np.float64)


def _prices() -> PriceList:
    return PriceList(
        date=PRICES_DATE,
        prices={
            c.name: Price(
                input_usd_per_1m=c.input_usd_per_1m, output_usd_per_1m=c.output_usd_per_1m, fixed_usd=0.0, basis=c.basis
            )
            for c in DEFAULT_CANDIDATES
        },
    )


def _rates() -> tuple[Array, Array]:
    """USD per input and per output token, (models,) each."""
    prices = [(c.input_usd_per_1m, c.output_usd_per_1m) for c in DEFAULT_CANDIDATES]
    rates = np.array(prices) / 1e6
    return rates[:, 0], rates[:, 1]


def _figures(
    table: Path,
    train: Outcomes,
    test: Outcomes,
    heads: LinearHeads,
    support: dict[str, npt.NDArray[np.float32]],
    train_input_cost: Array,
    input_rate: Array,
    output_rate: Array,
    train_billed: Array,
) -> dict[str, Any]:
    x, billed = embed(table, test.prompts)
    quality, tokens = predict(heads.tensors, x)
    cost = billed[:, None] * input_rate + tokens * output_rate
    train_cost = train_input_cost + heads.out_of_fold_tokens * output_rate
    train_of = {name: np.asarray(train.datasets) == name for name in sorted(set(train.datasets))}
    by_dataset = np.stack([train.quality[train_of[name]].mean(axis=0) for name in test.datasets])
    distance = nearest_distance(x, support["centroids"].astype(np.float64))
    centred = train.quality - train.quality.mean(axis=1, keepdims=True)
    return {
        "candidates": candidate_figures(quality, test.quality, bootstrap_weights(len(x), 1000, SEED)),
        "tokens": token_figures(tokens, test.output_tokens),
        "routing": routing_figures(
            quality,
            cost,
            test.quality,
            test.cost_usd,
            by_dataset,
            (heads.out_of_fold_quality, train_cost, train.quality, train.cost_usd),
            SEED,
        ),
        "mean_cost": test.cost_usd.mean(axis=0).tolist(),
        "predicted_cost": cost.mean(axis=0).tolist(),
        "support": float((distance[:, None] < support["distances"]).mean()),
        "advantage_share": float(np.square(centred).mean() / train.quality.var()),
        "estimated_per_billed": float(train.input_tokens[:, 0].sum() / train_billed.sum()),
        "datasets": {name: int((np.asarray(test.datasets) == name).sum()) for name in train_of},
        "train_rows": len(train.prompts),
        "train_dropped": train.dropped,
        "test_dropped": test.dropped,
    }


def _forms_on_test(
    table: Path, train: Outcomes, test: Outcomes, x: Array, input_rate: Array, output_rate: Array
) -> dict[str, float]:
    """Area of every form's `minmax` curve on the test split, for the record: the choice is made without it."""
    test_x, billed = embed(table, test.prompts)
    areas = {}
    for form in FORMS:
        heads = fit_heads(x, train.quality, train.output_tokens, train.question_keys, form=form, seed=SEED)
        quality, tokens = predict(heads.tensors, test_x)
        choices = sweep_tau(quality, billed[:, None] * input_rate + tokens * output_rate)
        areas[form] = curve_area(choices, test.quality, test.cost_usd)
    return areas


def _provenance(
    folder: Path, train: Outcomes, test: Outcomes, heads: LinearHeads, distilled: dict[str, Any]
) -> dict[str, Any]:
    """What a reader needs to repeat the fit. Names no path of the machine that ran it."""
    stats = json.loads((folder / "stats.json").read_text(encoding="utf-8")) if (folder / "stats.json").is_file() else {}
    return {
        "command": COMMAND,
        "outcomes": {
            "source": stats.get("repo", folder.name),
            "commit": stats.get("commit"),
            "licence": stats.get("licence"),
            "files_sha256": {
                name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
                for name in ("prompts.parquet", "outcomes.parquet")
            },
            "train_prompts": len(train.prompts),
            "test_prompts": len(test.prompts),
            "test_prompt_ids_sha256": test.prompt_ids_sha256,
        },
        "encoder": {**distilled, "source": ENCODER_NAME, "licence": "Apache-2.0"},
        "heads": heads.settings,
        "support": {"centroids": CENTROIDS, "seed": SEED},
        "versions": {"numpy": np.__version__},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outcomes", type=Path, required=True, help="folder of outcome data in Parquet")
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument("--encoder-model", help=f"folder or hub id of {ENCODER_NAME}")
    encoder.add_argument("--table", type=Path, help="a folder that distill() wrote")
    parser.add_argument("--out", type=Path, required=True, help="root that receives <hash>/ and CURRENT")
    parser.add_argument("--created", default=CREATED, help="date written into the bundle (default: %(default)s)")
    parser.add_argument("--card", type=Path, help="also write the model card here")
    given = parser.parse_args(arguments)
    folder = build(
        given.outcomes,
        given.out,
        encoder_model=given.encoder_model,
        table=given.table,
        created=given.created,
        card=given.card,
    )
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    print(f"{folder.name}  {size / 2**20:.2f} MiB")


if __name__ == "__main__":
    main()
