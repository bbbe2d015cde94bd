"""Outcomes: what every candidate really scored, wrote and cost on every prompt.

A source is a folder with two tables:
    prompts.parquet    prompt_id, prompt, split, question_key, dataset
    outcomes.parquet   prompt_id, model, quality in [0, 1], input_tokens, output_tokens, cost_usd
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.errors import BackendUnavailableError, InvalidInputError

Array = npt.NDArray[np.float64]

PROMPT_COLUMNS = ("prompt_id", "prompt", "split", "question_key", "dataset")
OUTCOME_COLUMNS = ("prompt_id", "model", "quality", "input_tokens", "output_tokens", "cost_usd")


@dataclass(frozen=True)
class Outcomes:
    """The complete rows of one split: every candidate has a quality, tokens and a cost on every prompt kept.

    Attributes:
        models: source names, in the order asked for; the column order of every (rows, models) array.
        prompt_ids, prompts, question_keys, datasets: one entry per row; rows are sorted by prompt_id.
        quality, input_tokens, output_tokens, cost_usd: (rows, models).
        coverage: share of the split's prompts on which each model has all four, before rows were dropped.
        dropped: prompts of the split left out because a candidate lacks an outcome on them.
    """

    models: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    question_keys: tuple[str, ...]
    datasets: tuple[str, ...]
    quality: Array
    input_tokens: Array
    output_tokens: Array
    cost_usd: Array
    coverage: dict[str, float]
    dropped: int

    @property
    def prompt_ids_sha256(self) -> str:
        return hashlib.sha256("\n".join(self.prompt_ids).encode()).hexdigest()


def read_outcomes(folder: Path | str, models: Sequence[str], *, split: str) -> Outcomes:
    """Read one split of a source for `models` and keep the prompts on which all of them have an outcome.

    Raises:
        InvalidInputError: a file, column or model is missing, a pair occurs twice, or a value is out of range.
        BackendUnavailableError: pyarrow is not installed (extra `[train]`).
    """
    prompts = _read_table(Path(folder) / "prompts.parquet", PROMPT_COLUMNS)
    outcomes = _read_table(Path(folder) / "outcomes.parquet", OUTCOME_COLUMNS)
    rows = sorted(
        (pid, prompt, key, dataset)
        for pid, prompt, of, key, dataset in zip(*(prompts[c] for c in PROMPT_COLUMNS), strict=True)
        if of == split
    )
    if not rows:
        raise InvalidInputError(f"split: expected one of {sorted(set(prompts['split']))}, got {split!r}")
    row_of = {row[0]: i for i, row in enumerate(rows)}
    if len(row_of) < len(rows):
        raise InvalidInputError("prompts.parquet: expected unique prompt_id, some occur twice")
    column_of = {model: j for j, model in enumerate(models)}
    missing = sorted(set(models) - set(outcomes["model"]))
    if missing or len(column_of) < len(models):
        raise InvalidInputError(f"models: expected distinct models of the source; absent: {missing}")

    values = np.full((4, len(rows), len(models)), np.nan)
    for pid, model, *record in zip(*(outcomes[c] for c in OUTCOME_COLUMNS), strict=True):
        i, j = row_of.get(pid), column_of.get(model)
        if i is None or j is None:
            continue
        if not np.isnan(values[:, i, j]).all():
            raise InvalidInputError(f"outcomes.parquet: expected one row per prompt and model, {pid}, {model} has two")
        values[:, i, j] = [np.nan if value is None else value for value in record]

    present = ~np.isnan(values).any(axis=0)  # (rows, models)
    keep = present.all(axis=1)
    quality, input_tokens, output_tokens, cost_usd = values[:, keep]
    if not keep.any():
        raise InvalidInputError("models: expected some prompt with an outcome of every model, found none")
    if not ((quality >= 0) & (quality <= 1)).all():
        raise InvalidInputError("quality: expected values in [0, 1]")
    if min(input_tokens.min(), output_tokens.min(), cost_usd.min()) < 0 or not np.isfinite(values[:, keep]).all():
        raise InvalidInputError("input_tokens, output_tokens, cost_usd: expected finite values >= 0")
    kept = [row for row, whole in zip(rows, keep, strict=True) if whole]
    ids, texts, keys, datasets = (tuple(column) for column in zip(*kept, strict=True))
    coverage = {model: float(share) for model, share in zip(models, present.mean(axis=0), strict=True)}
    return Outcomes(
        tuple(models),
        ids,
        texts,
        keys,
        datasets,
        quality,
        input_tokens,
        output_tokens,
        cost_usd,
        coverage,
        int((~keep).sum()),
    )


def _read_table(path: Path, columns: Sequence[str]) -> dict[str, list[Any]]:
    try:
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise BackendUnavailableError("reading parquet needs pyarrow: pip install 'ipr_engine[train]'") from error
    if not path.is_file():
        raise InvalidInputError(f"folder: expected {path.name} in {path.parent}, found none")
    table = parquet.read_table(path)
    absent = sorted(set(columns) - set(table.column_names))
    if absent:
        raise InvalidInputError(f"{path.name}: expected columns {list(columns)}, absent: {absent}")
    result: dict[str, list[Any]] = {column: table[column].to_pylist() for column in columns}
    return result
