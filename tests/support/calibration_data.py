"""The tests of calibration live in generated worlds: a small bundle whose heads know something, and outcomes drawn from them."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from ipr_engine import Engine
from ipr_engine.audit.owner_key import OwnerKey
from ipr_engine.bundle import BundleParts, CalibrationMap, write_bundle
from ipr_engine.calibration.calibrate import CandidateSet, CertifyOptions, Disjointness
from ipr_engine.calibration.calibrate import calibrate as certify
from ipr_engine.data import Outcomes, prompt_hashes, question_key, write_outcomes
from tests.support.bundles import bundle_parts
from tests.support.seeds import seeded

WORDS = (
    "prove",
    "write",
    "explain",
    "code",
    "python",
    "story",
    "why",
    "how",
    "sum",
    "river",
    "loop",
    "poem",
    "ten",
    "cube",
)


def make_prompts(split: str, rows: int) -> tuple[str, ...]:
    rng = seeded("prompts", split)
    return tuple(f"{' '.join(rng.choice(WORDS, 9))} {rng.integers(10**9)}" for _ in range(rows))


def make_engine(
    folder: Path, *, models: int = 4, fitted: Outcomes | None = None, key: OwnerKey | None = None, **changes: Any
) -> Engine:
    """Load heads by price: the dearest candidate is right more often, each on prompts of its own. key: of prompt hashes, None: plain."""
    parts = bundle_parts(folder / "sources", models=models) | changes
    head = parts["heads"][0]
    tensors = dict(head.tensors)
    tensors["skip"] = 3 * tensors["skip"]
    tensors["bias"] = np.linspace(1.5, -0.5, models).astype(np.float32)
    hashes = prompt_hashes(fitted.prompts, fitted.question_keys, key) if fitted is not None else None
    fitted_on = head.fitted_on if key is None else replace(head.fitted_on, hash_key=key.id)
    parts["heads"] = [replace(head, tensors=tensors, prompt_hashes=hashes, fitted_on=fitted_on)]
    return Engine.load(write_bundle(folder / "bundles", BundleParts(**parts)))


def make_outcomes(engine: Engine, split: str, rows: int, *, shift: float = 0.0) -> Outcomes:
    """Draw quality: 1 with the chance the heads predict, plus `shift` for the first candidate."""
    prompts = make_prompts(split, rows)
    chance = np.asarray(engine.decide(engine.encode(list(prompts)), tau=0.0).qualities, np.float64)
    chance[:, 0] = np.clip(chance[:, 0] + shift, 0, 1)
    rng = seeded("outcomes", split, rows)
    shape = chance.shape
    return Outcomes(
        source="made",
        models=engine.bundle.names,
        prompt_ids=tuple(f"{split}:{i:05d}" for i in range(rows)),
        prompts=prompts,
        splits=(split,) * rows,
        datasets=("",) * rows,
        question_keys=tuple(question_key(prompt) for prompt in prompts),
        quality=(rng.random(shape) < chance).astype(np.float64),
        input_tokens=np.full(shape, 20.0),
        output_tokens=np.full(shape, 150.0),
        cost_usd=np.tile(0.001 / 2.0 ** np.arange(shape[1]), (rows, 1)),
    )


def make_source(folder: Path, *parts: Outcomes) -> Path:
    """Write several splits as one folder of CSV tables."""
    first = parts[0]
    tuples = ("prompt_ids", "prompts", "splits", "datasets", "question_keys")
    joined: dict[str, Any] = {name: sum((getattr(part, name) for part in parts), ()) for name in tuples}
    for name in ("quality", "input_tokens", "output_tokens", "cost_usd"):
        joined[name] = np.concatenate([getattr(part, name) for part in parts])
    return write_outcomes(replace(first, **joined), folder, format="csv")


def calibrate(engine: Engine, sample: Outcomes, path_data: Outcomes, **options: Any) -> CalibrationMap:
    """Call `calibrate` with the fields of its three objects of options by name."""
    made = []
    for kind in (CandidateSet, CertifyOptions, Disjointness):
        mine = {field.name for field in fields(kind)} & set(options)
        made.append(kind(**{name: options.pop(name) for name in mine}))
    of, how, disjoint = made
    return certify(engine, sample, path_data, of=of, options=how, disjoint=disjoint, **options)
