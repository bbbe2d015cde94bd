"""Outcome data is generated: no real prompt, no real model."""

from __future__ import annotations

import numpy as np

from ipr_engine.data import Outcomes, question_key
from tests.support.seeds import seeded


def _words(count: int = 4000) -> list[str]:
    rng = seeded("words")
    return ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), rng.integers(3, 9))) for _ in range(count)]


WORDS = _words()


def make_prompt(rng: np.random.Generator, words: int = 30) -> str:
    return " ".join(rng.choice(WORDS, words)) + f" {rng.integers(1_000_000)}?"


def make_outcomes(*seed: object, rows: int = 40, models: int = 3, sparse: float = 0.0) -> Outcomes:
    """Draw random prompts; each outcome is missing with chance `sparse`."""
    rng = seeded("outcomes", rows, models, *seed)
    prompts = tuple(make_prompt(rng) for _ in range(rows))
    shape = (rows, models)
    gone = rng.random(shape) < sparse

    def measure(values: np.ndarray) -> np.ndarray:
        return np.where(gone, np.nan, values)

    return Outcomes(
        source="made",
        models=tuple(f"model {chr(97 + m)}" for m in range(models)),
        prompt_ids=tuple(f"made:{i:05d}" for i in range(rows)),
        prompts=prompts,
        splits=tuple("train" if i % 4 else "test" for i in range(rows)),
        datasets=tuple(f"task {i % 3}" for i in range(rows)),
        question_keys=tuple(question_key(prompt) for prompt in prompts),
        quality=measure(rng.random(shape)),
        input_tokens=measure(rng.integers(1, 500, shape).astype(float)),
        output_tokens=measure(rng.integers(1, 500, shape).astype(float)),
        cost_usd=measure(rng.random(shape) * 1e-3),
    )


def assert_same(a: Outcomes, b: Outcomes) -> None:
    for name in ("models", "prompt_ids", "prompts", "splits", "datasets", "question_keys"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("quality", "input_tokens", "output_tokens", "cost_usd"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
