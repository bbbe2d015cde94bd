"""A source of recorded answers with grades, and answers in memory: cheap candidates know little and say so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ipr_engine.data import Outcomes, question_key, write_outcomes
from studies.checked_answers import CheckedAnswers
from tests.support.outcome_data import WORDS
from tests.support.seeds import seeded

MODELS = ("gpt-4o-mini-2024-07-18", "claude-3-5-haiku-20241022", "gpt-4o-2024-11-20", "claude-3-5-sonnet-20241022")
KNOWS = (0.3, 0.5, 0.75, 0.8)
TOKENS = 40


def write_checked_source(folder: Path, rows: int) -> tuple[str, ...]:
    """Write prompts, outcomes and responses of a source; return its prompts. Who does not know says so in half of the cases."""
    from pyarrow import Table, parquet

    rng = seeded("checked source", str(rows))
    prompts = tuple(f"{' '.join(rng.choice(WORDS, 6))} {i}" for i in range(rows))
    knows = rng.random((rows, len(MODELS))) < KNOWS
    honest = ~knows & (rng.random(knows.shape) < 0.5)
    tokens = np.full(knows.shape, float(TOKENS))
    outcomes = Outcomes(
        source=folder.name,
        models=MODELS,
        prompt_ids=tuple(f"made:{i:05d}" for i in range(rows)),
        prompts=prompts,
        splits=("train",) * rows,
        datasets=("made",) * rows,
        question_keys=tuple(question_key(prompt) for prompt in prompts),
        quality=knows.astype(float),
        input_tokens=tokens,
        output_tokens=tokens,
        cost_usd=np.full(knows.shape, np.nan),
    )
    folder.mkdir(parents=True)
    write_outcomes(outcomes, folder)
    parquet.write_table(
        Table.from_pylist(
            [
                {
                    "prompt_id": outcomes.prompt_ids[i],
                    "model": name,
                    "response": "sorry I do not know"
                    if honest[i, m]
                    else f"it is {WORDS[(i + (0 if knows[i, m] else m + 1)) % 40]}",
                    "quality_raw": 0.5 if honest[i, m] else float(knows[i, m]),
                    "input_tokens": TOKENS,
                    "output_tokens": TOKENS,
                }
                for i in range(rows)
                for m, name in enumerate(MODELS)
            ]
        ),
        folder / "responses.parquet",
    )
    return prompts


def made_answers(rows: int) -> CheckedAnswers:
    """Make answers of two candidates at 1 and 10 USD per 1,000: the cheap one is right on half of them, and abstains where it is not.

    Nothing of a prompt says on which.
    """
    rng = seeded("made answers", str(rows))
    knows = np.stack([rng.random(rows) < 0.5, rng.random(rows) < 0.9], axis=1)
    x = rng.normal(size=(rows, 4))
    said = tuple(tuple("right" if knew else "no idea" for knew in column) for column in knows.T)
    return CheckedAnswers(
        models=("cheap", "dear"),
        prompts=tuple(f"question {i}" for i in range(rows)),
        keys=tuple(f"q{i}" for i in range(rows)),
        quality=knows.astype(float),
        abstained=np.stack([~knows[:, 0], np.zeros(rows, bool)], axis=1).astype(float),
        cost=np.tile([0.001, 0.01], (rows, 1)),
        x=x,
        seen=np.stack([np.concatenate([x, knows[:, [m]]], axis=1) for m in range(2)]),
        texts=said,
    )
