"""Sources on disk, and a study that reads them, are generated: every candidate is good at the words of its own task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ipr_engine.data import Outcomes, question_key, write_outcomes
from studies.study import Study
from tests.support.outcome_data import WORDS
from tests.support.seeds import seeded


def write_study_source(
    out: Path,
    models: Sequence[str],
    rows: Mapping[tuple[str, str], int],
    *,
    priced: bool = True,
    repeated: int = 0,
) -> Outcomes:
    """Write a source folder.

    Args:
        models: the later the dearer and, on average, the better; each has a task at which it is good.
        rows: how many prompts of (split, dataset); a dataset's prompts are made of words of its own.
        priced: whether outcomes have a cost. repeated: how many prompts of the last part ask what the first part asks.
    """
    rng = seeded(out.name, *models, *rows.items())
    tasks = sorted({dataset for _, dataset in rows})
    splits, datasets, prompts = [], [], []
    for (split, dataset), count in rows.items():
        words = WORDS[40 * tasks.index(dataset) : 40 * tasks.index(dataset) + 40]
        for i in range(count):
            splits.append(split)
            datasets.append(dataset)
            prompts.append(f"{' '.join(rng.choice(words, 8))} {i} {split}")
    for i in range(repeated):
        prompts[-1 - i] = prompts[i]
    chance = np.array([[0.1 + 0.8 * m / len(models) for m in range(len(models))]] * len(prompts))
    for row, dataset in enumerate(datasets):
        chance[row, tasks.index(dataset) % len(models)] += 0.15
    shape = chance.shape
    tokens = rng.integers(20, 400, shape).astype(float)
    outcomes = Outcomes(
        source=out.name,
        models=tuple(models),
        prompt_ids=tuple(f"made:{i:05d}" for i in range(len(prompts))),
        prompts=tuple(prompts),
        splits=tuple(splits),
        datasets=tuple(datasets),
        question_keys=tuple(question_key(prompt) for prompt in prompts),
        quality=(rng.random(shape) < chance).astype(float),
        input_tokens=tokens,
        output_tokens=tokens,
        cost_usd=tokens * 1e-6 * np.geomspace(1, 20, len(models)) if priced else np.full(shape, np.nan),
    )
    out.mkdir(parents=True)
    write_outcomes(outcomes, out)
    return outcomes


def make_study(outcomes: Path, out: Path, *sources: str, draws: int = 20) -> Study:
    return Study(
        outcomes=outcomes,
        out=out,
        sources=sources,
        transformer=None,
        cache=None,
        draws=draws,
        command="ipr study made",
        progress=lambda message: None,
    )
