"""`RatedAnswers` holds recorded answers with their time, cost and ratings, as the study of performance sees them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ipr_engine.data.table_files import read_table, write_table
from ipr_engine.errors import InvalidInputError
from ipr_engine.performance import TimingFit

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SOURCE = "bullshit55"
FAMILIES = {"claude": "Claude", "gemini": "Gemini"}
PRICE_ERROR = 0.01  # of the recorded USD, that the prices found in it may miss it by


@dataclass(frozen=True, eq=False)
class RatedAnswers:
    """`RatedAnswers` holds prompts by models: arrays are (prompts, models), NaN where a model did not answer.

    Attributes:
        quality: mean of the raters', in [0, 1]. seconds: of the whole answer. usd: recorded.
        raters_agree: correlation of the two judges that rated every answer.
    """

    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    models: tuple[str, ...]
    quality: Array
    input_tokens: Array
    output_tokens: Array
    seconds: Array
    usd: Array
    raters_agree: float

    @cached_property
    def complete(self) -> Rows:
        """Return the prompts that every model answered."""
        return np.flatnonzero(~np.isnan(self.seconds).any(axis=1))

    @cached_property
    def prices(self) -> list[tuple[float, float]]:
        """Return USD per 1 M input and output tokens of each model, which the recorded USD are made of."""
        found = []
        for m, name in enumerate(self.models):
            rows = ~np.isnan(self.usd[:, m])
            tokens = np.stack([self.input_tokens[rows, m], self.output_tokens[rows, m]], axis=1)
            price = np.linalg.lstsq(tokens, self.usd[rows, m], rcond=None)[0]
            if (np.abs(tokens @ price - self.usd[rows, m]) > PRICE_ERROR * self.usd[rows, m]).any():
                raise InvalidInputError(f"outcomes: the recorded cost of {name} is not a price times its tokens")
            found.append((round(float(price[0]) * 1e6, 4), round(float(price[1]) * 1e6, 4)))
        return found

    def write(self, folder: Path, trained_on: Rows) -> None:
        """Write prompts.csv and outcomes.csv, these rows as split train and the others as test."""
        folder.mkdir()
        count = len(self.prompts)
        split = np.full(count, "test", dtype=object)
        split[trained_on] = "train"
        columns: dict[str, Sequence[Any]] = {
            "prompt_id": self.prompt_ids,
            "prompt": self.prompts,
            "question_key": self.prompt_ids,
            "split": split.tolist(),
            "source": [SOURCE] * count,
            "dataset": [SOURCE] * count,
        }
        write_table(folder / "prompts.csv", columns)
        rows, models = np.nonzero(~np.isnan(self.quality))
        parts = {
            "quality": self.quality, "input_tokens": self.input_tokens, "output_tokens": self.output_tokens,
            "cost_usd": self.usd,
        }  # fmt: skip
        write_table(
            folder / "outcomes.csv",
            {
                "prompt_id": [self.prompt_ids[row] for row in rows],
                "model": [self.models[m] for m in models],
                **{name: part[rows, models].tolist() for name, part in parts.items()},
            },
        )

    def candidates(self, path: Path, timing: Sequence[TimingFit]) -> Path:
        """Return the candidates' file of `ipr train`, with these figures."""
        listed: list[dict[str, Any]] = [
            {
                "name": name,
                "family": FAMILIES.get(name.split("-")[0], name.split("-")[0]),
                "provider": "OpenRouter",
                "input_usd_per_1m": price[0],
                "output_usd_per_1m": price[1],
                "performance": {"ttft_s": fit.ttft_s.value, "tpot_s": fit.tpot_s.value, "basis": "fitted to the fold"},
            }
            for name, price, fit in zip(self.models, self.prices, timing, strict=True)
        ]
        path.write_text(json.dumps({"date": "2026-11-28", "candidates": listed}), encoding="utf-8")
        return path


def read_rated_answers(folder: Path) -> RatedAnswers:
    """Read prompts, responses and ratings (.parquet) of a source of recorded answers.

    Raises:
        InvalidInputError: a file or column is missing, or an answer has no rating.
    """
    prompts, responses, ratings = (
        read_table(folder / f"{name}.parquet") for name in ("prompts", "responses", "ratings")
    )
    ids = [str(value) for value in prompts.text("prompt_id")]
    row_of = {value: row for row, value in enumerate(ids)}
    models = sorted({str(value) for value in responses.text("model")})
    column_of = {name: column for column, name in enumerate(models)}
    shape = (len(ids), len(models))

    def place(table: Any, values: Array) -> Array:
        made = np.full(shape, np.nan)
        for prompt, model, value in zip(table.text("prompt_id"), table.text("model"), values, strict=True):
            made[row_of[prompt], column_of[model]] = value
        return made

    columns = {name: place(responses, responses.numbers(name)[0])
               for name in ("input_tokens", "output_tokens", "latency_ms", "cost_usd")}  # fmt: skip
    total, count = np.zeros(shape), np.zeros(shape)
    by_rater: dict[str, Array] = {}
    for prompt, model, rater, value in zip(
        *(ratings.text(name) for name in ("prompt_id", "model", "rater")), ratings.numbers("rating")[0], strict=True
    ):
        at = row_of[str(prompt)], column_of[str(model)]
        total[at] += value
        count[at] += 1
        by_rater.setdefault(str(rater), np.full(shape, np.nan))[at] = value
    answered = ~np.isnan(columns["latency_ms"])
    if (answered & (count == 0)).any():
        raise InvalidInputError(f"outcomes: an answer of {folder.name} has no rating")
    judges = [rated[answered] for rated in by_rater.values() if not np.isnan(rated[answered]).any()]
    agree = float(np.corrcoef(judges[0], judges[1])[0, 1]) if len(judges) == 2 else float("nan")
    return RatedAnswers(
        prompt_ids=tuple(ids),
        prompts=tuple(str(value) for value in prompts.text("prompt")),
        models=tuple(models),
        quality=np.where(answered, total / np.maximum(count, 1), np.nan),
        input_tokens=columns["input_tokens"],
        output_tokens=columns["output_tokens"],
        seconds=columns["latency_ms"] / 1000,
        usd=columns["cost_usd"],
        raters_agree=agree,
    )
