"""`make_source` makes a large source of a small one: its prompts drawn with replacement and edited, outcomes drawn around the real ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as arrow
from pyarrow import parquet

from ipr_engine.data.outcome_files import free_for_outcomes, load_outcomes
from ipr_engine.data.outcomes import Outcomes

CANDIDATES = "candidates.json"
CHUNK = 20_000  # rows drawn and written at once
MOST_EDITED = 0.6  # share of a prompt's words that other words replace, at most
FLIPPED = 0.1  # chance that an outcome is not the real one but its opposite
SPREAD = 0.3  # standard deviation of the logarithm of tokens and cost around the real ones
CHARACTERS_PER_TOKEN = 4
WORD = re.compile(r"\S+")


def make_source(real: Path, rows: int, out: Path, *, seed: int = 0) -> Path:
    """Write a source of `rows` prompts, and `candidates.json` beside it; the same arguments, the same bytes.

    A prompt is the last block of a real one (few-shot examples before it are left out). A share of its words, drawn between 0 and
    `MOST_EDITED`, is replaced by words of other prompts of its dataset. A quality is the real one or, with chance `FLIPPED`, its
    opposite. Memory does not grow with `rows`.

    Args:
        real: folder of outcome data; its complete rows are drawn from.
        out: folder to write, without outcome data.
    """
    base = load_outcomes(real).complete(measures=("quality", "output_tokens", "cost_usd"))
    target = free_for_outcomes(out)
    target.mkdir(parents=True, exist_ok=True)
    texts = [prompt.rsplit("\n\n", 1)[-1] for prompt in base.prompts]
    words = {
        name: [word for text, of in zip(texts, base.datasets, strict=True) if of == name for word in text.split()]
        for name in sorted(set(base.datasets))
    }
    draw = np.random.default_rng(seed)
    prompts, outcomes = _schemas()
    with (
        parquet.ParquetWriter(target / "prompts.parquet", prompts) as prompt_file,
        parquet.ParquetWriter(target / "outcomes.parquet", outcomes) as outcome_file,
    ):
        for begin in range(0, rows, CHUNK):
            drawn = draw.integers(len(base), size=min(CHUNK, rows - begin))
            ids = [f"edited:{begin + i:09d}" for i in range(len(drawn))]
            edited = [_edited(texts[row], words[base.datasets[row]], draw) for row in drawn]
            columns: dict[str, Any] = {
                "prompt_id": ids,
                "prompt": edited,
                "dataset": [base.datasets[row] for row in drawn],
            }
            prompt_file.write_table(arrow.table(columns, schema=prompts))
            outcome_file.write_table(arrow.table(_outcomes(base, drawn, ids, draw), schema=outcomes))
    (target / CANDIDATES).write_text(json.dumps(_candidates(base, texts), indent=1) + "\n", encoding="utf-8")
    return target


def _schemas() -> tuple[arrow.Schema, arrow.Schema]:
    text, number = arrow.string(), arrow.float64()
    return (
        arrow.schema([("prompt_id", text), ("prompt", text), ("dataset", text)]),
        arrow.schema(
            [("prompt_id", text), ("model", text), ("quality", number), ("output_tokens", number), ("cost_usd", number)]
        ),
    )


def _edited(text: str, words: list[str], draw: np.random.Generator) -> str:
    """Return the text with a share of its words replaced; the space between them stays."""
    spans = [match.span() for match in WORD.finditer(text)]
    changed = draw.random(len(spans)) < draw.random() * MOST_EDITED
    taken = draw.integers(len(words), size=len(spans)).tolist()
    parts, end = [], 0
    for (begin, stop), swap, word in zip(spans, changed.tolist(), taken, strict=True):
        parts += [text[end:begin], words[word] if swap else text[begin:stop]]
        end = stop
    return "".join([*parts, text[end:]])


def _outcomes(
    base: Outcomes, drawn: npt.NDArray[np.int64], ids: list[str], draw: np.random.Generator
) -> dict[str, Any]:
    """Return the outcomes' columns of these rows, a row a prompt and model."""
    shape = (len(drawn), len(base.models))
    flipped = draw.random(shape) < FLIPPED
    length = np.exp(SPREAD * draw.standard_normal(shape))
    real = base.quality[drawn]
    quality = np.where(flipped, 1 - real, real)
    return {
        "prompt_id": np.repeat(np.array(ids, dtype=object), shape[1]),
        "model": np.tile(np.array(base.models, dtype=object), shape[0]),
        "quality": quality.ravel(),
        "output_tokens": np.maximum(np.rint(base.output_tokens[drawn] * length), 1.0).ravel(),
        "cost_usd": (base.cost_usd[drawn] * length).ravel(),
    }


def _candidates(base: Outcomes, texts: list[str]) -> dict[str, Any]:
    """Return a candidates' file: of each candidate one price a token, by which the real answers cost what they did."""
    read = sum(len(text) for text in texts) / CHARACTERS_PER_TOKEN
    listed = []
    for column, name in enumerate(base.models):
        price = 1e6 * base.cost_usd[:, column].sum() / (read + base.output_tokens[:, column].sum())
        rounded = round(float(price), 4)
        listed.append(
            {
                "name": name,
                "family": name.split("/")[0].split("-")[0],
                "provider": "recorded",
                "input_usd_per_1m": rounded,
                "output_usd_per_1m": rounded,
            }
        )
    return {"date": "2024-03-18", "candidates": listed}
