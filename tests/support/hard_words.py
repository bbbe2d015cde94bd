"""Candidates of these outcome tables fail on hard words, some prompts unjudged: path rows are made from them."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.seeds import seeded

NAMES = ("house/big", "house/small", "other/mid", "house/new")
WORDS = ("prove", "sum", "story", "python", "river", "integral", "poem", "loop", "triangle", "banana")
CREATED = "2026-11-24"


def write_outcomes(folder: Path, *, first: int = 0, rows: int = 200, models: int = 4, gaps: bool = True) -> Path:
    """Write outcomes of candidates that fail on hard words; gaps leave the third unjudged every seventh prompt, all on the last."""
    rng = seeded("path rows", first)
    folder.mkdir(parents=True)
    prompts: list[tuple[Any, ...]] = [("prompt_id", "prompt", "split")]
    outcomes: list[tuple[Any, ...]] = [("prompt_id", "model", "quality", "output_tokens")]
    for n in range(first, first + rows):
        words = rng.choice(WORDS, 6)
        hard = np.isin(words, ("prove", "integral", "triangle")).mean()
        blob = f" {n:0400x}" if n % 9 == 0 else ""  # a word that the bundle's tokenizer does not know
        prompts.append((f"secret{n:05d}", f"{' '.join(words)} number {n}{blob}", "train"))
        for m in range(models):
            chance = (0.95 - hard / 2, 0.9 - hard, 0.8, 0.95 - hard)[m]
            row = (f"secret{n:05d}", f"m{m}", float(rng.random() < chance), int(50 + 100 * hard + 10 * m))
            if not (gaps and (n == first + rows - 1 or (m == 2 and n % 7 == 0))):
                outcomes.append(row)
    for name, table in (("prompts", prompts), ("outcomes", outcomes)):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(table)
    return folder
