"""Outcomes with a known truth are generated for the tests of training: no real prompt, no real model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine.training.add.add_model import add_model as add_candidate
from ipr_engine.training.add.interface import Added, AddTarget, Evidence, PriorFrom
from ipr_engine.training.train import Trained
from ipr_engine.training.train import train as fit_bundle
from ipr_engine.training.train_options import BundleTarget, EncoderChoice, FitOptions, TrainingData
from tests.support.seeds import seeded

HOUSE = tuple(f"house/{m}" for m in range(4))
PROMPTS = (
    "prove the sum of it",
    "write a story of code",
    "explain python code",
    "how many is the river?",
    "what is it",
)


@dataclass(frozen=True)
class World:
    """A `World` holds unit embeddings x (rows, dim), the true chance of success, sampled quality 0/1 and tokens (rows, models)."""

    x: np.ndarray
    chance: np.ndarray
    quality: np.ndarray
    tokens: np.ndarray
    keys: list[str]


def make_world(*seed: object, rows: int = 600, dim: int = 13, models: int = 5, twins: int = 0) -> World:
    """Draw strong difficulty common to all models, weak differences between them; the last `twins` rows repeat the first."""
    rng = seeded("world", rows, dim, models, *seed)
    x = rng.standard_normal((rows, dim))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    keys = [f"question {i}" for i in range(rows)]
    if twins:
        x[-twins:] = x[:twins]
        keys[-twins:] = keys[:twins]
    difficulty = x @ rng.standard_normal(dim) * 3
    logit = difficulty[:, None] + x @ rng.standard_normal((dim, models)) + np.linspace(0.8, -0.8, models)
    chance = 1 / (1 + np.exp(-logit))
    tokens = np.round(np.exp(5 + x @ rng.standard_normal((dim, models)) + 0.5 * rng.standard_normal((rows, models))))
    return World(x, chance, (rng.random(chance.shape) < chance).astype(float), tokens, keys)


@dataclass(frozen=True)
class Bent:
    """A `Bent` holds x (rows, dim), quality (rows, models) that no linear score can follow, folds (rows,)."""

    x: np.ndarray
    quality: np.ndarray
    folds: np.ndarray


def make_bent(*seed: object, rows: int = 1200, dim: int = 8, models: int = 4, missing: float = 0.0) -> Bent:
    """Draw quality 0/1 by which side of |x[0]| a candidate is good on: linear in |x[0]|, unrelated to x[0] itself."""
    rng = seeded("bent", rows, dim, models, missing, *seed)
    x = rng.standard_normal((rows, dim))
    side = np.where(np.arange(models) % 2, -1.0, 1.0)
    chance = 1 / (1 + np.exp(-4 * side * (np.abs(x[:, :1]) - 0.7)))
    quality = (rng.random(chance.shape) < chance).astype(float)
    quality[rng.random(quality.shape) < missing] = np.nan
    return Bent(x, quality, np.arange(rows) % 4)


def write_source(folder: Path, models: Sequence[str], prompts: Sequence[str], *, rows_per_split: int = 80) -> Path:
    """Write a two-table source folder with the models named, both splits, and outcomes that depend on the prompt's length."""
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True, exist_ok=True)
    rng = seeded("source", *models)
    table: dict[str, list] = {name: [] for name in ("prompt_id", "prompt", "split", "question_key", "dataset")}
    outcomes: dict[str, list] = {
        name: [] for name in ("prompt_id", "model", "quality", "input_tokens", "output_tokens", "cost_usd")
    }
    for i in range(2 * rows_per_split):
        prompt = f"{prompts[i % len(prompts)]} {i}"
        split = "train" if i < rows_per_split else "test"
        row = (f"made:{i:05d}", prompt, split, f"key{i}", f"task{i % 2}")
        for name, value in zip(table, row, strict=True):
            table[name].append(value)
        for m, model in enumerate(models):
            good = float(rng.random() < 0.9 - 0.05 * m - 0.2 * (i % 2))
            length = int(rng.integers(20, 400))
            outcome = (row[0], model, good, len(prompt) // 4, length, 1e-6 * length * (len(models) - m))
            for name, value in zip(outcomes, outcome, strict=True):
                outcomes[name].append(value)
    parquet.write_table(pyarrow.table(table), folder / "prompts.parquet")
    parquet.write_table(pyarrow.table(outcomes), folder / "outcomes.parquet")
    return folder


def write_candidates(path: Path, names: Sequence[str]) -> Path:
    """Write a candidates' file: the outcomes' models m0, m1, ... under these names, each at half the price of the one before."""
    entries = [
        {"name": name, "source": f"m{m}", "family": "house", "provider": "test", "context_window": 4096}
        | {"input_usd_per_1m": 4.0 / 2**m, "output_usd_per_1m": 8.0 / 2**m, "features": []}
        for m, name in enumerate(names)
    ]
    path.write_text(json.dumps({"date": "2026-11-24", "candidates": entries}))
    return path


def _split(options: dict[str, Any], kind: type) -> dict[str, Any]:
    """Take the options that are fields of `kind` out of `options`, and return them."""
    return {field.name: options.pop(field.name) for field in fields(kind) if field.name in options}


def train(outcomes: Any, candidates: Path, out: Path, **options: Any) -> Trained:
    """Call `train` with the fields of its objects of options by name; encoder and encoder_options are those of `EncoderChoice`."""
    target = BundleTarget(root=out, **_split(options, BundleTarget))
    chosen = {"folders": options.pop("encoder", None)}
    if "encoder_options" in options:
        chosen["options"] = options.pop("encoder_options")
    fit = FitOptions(**_split(options, FitOptions))
    encoder = EncoderChoice(**chosen, **_split(options, EncoderChoice))
    data = TrainingData(outcomes=outcomes, candidates=candidates, encoder=encoder, **_split(options, TrainingData))
    return fit_bundle(data, target, fit=fit, **options)


def add_model(bundle: Path, candidates: Path, **options: Any) -> Added:
    """Call `add_model` with the fields of its objects of options by name."""
    evidence, prior = Evidence(**_split(options, Evidence)), PriorFrom(**_split(options, PriorFrom))
    target = AddTarget(root=options.pop("out", None), **_split(options, AddTarget))
    return add_candidate(bundle, candidates, target, evidence=evidence, prior=prior, **options)
