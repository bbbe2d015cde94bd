"""`Outcomes` hold what every candidate really scored, wrote and cost on every prompt. The schema is docs/outcome-data.md.

A question key names what a prompt asks: its first 120 letters and digits. Hundreds of different questions would have one key where
prompts open with a template or a system preamble. So an opening that many different prompts of a source share is boilerplate, and
`question_keys` begins after it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ipr_engine.bundle.task_names import task_problem
from ipr_engine.errors import InvalidInputError

Array = npt.NDArray[np.float64]

MEASURES = ("quality", "input_tokens", "output_tokens", "cost_usd")
TASK_COLUMNS = ("task", "dataset")  # of the prompts' table, that may say what a prompt is for
KEY_CHARACTERS = 120
_LOWER = bytes(range(256)).lower()
_NO_ALNUM = bytes(code for code in range(128) if not chr(code).isalnum())
MIN_KEY = 30  # a shorter key names too little of a question to say that two are the same
# Different prompts that make what they share boilerplate: a twentieth of the source, but at least so many and at most so many.
# Fewer may be one document under several instructions, or one question reworded: those belong together.
FEWEST_SHARING, MOST_SHARING, SHARE_SHARING = 20, 40, 0.05


def normalised(prompt: str) -> str:
    """Return letters and digits, case folded; a letter and its accent are one character, however they are written."""
    # NFC before case folding: a letter and a combining accent become the one letter.
    if prompt.isascii():
        return _ascii_letters(prompt)
    text = unicodedata.normalize("NFC", prompt)
    return "".join(filter(str.isalnum, text.casefold()))


def _ascii_letters(text: str) -> str:
    """Return the letters and digits of an ASCII text, lower-cased, by one table."""
    return text.encode().translate(_LOWER, _NO_ALNUM).decode()


def question_key(question: str) -> str:
    """Return the first 120 letters and digits, lower-cased: they find one question in two sources.

    Example:
        >>> question_key("What is 2 + 2, Anna?")
        'whatis22anna'
    """
    # The keys of most prompts end within so many characters; a prompt may have a million.
    opening = question[: 2 * KEY_CHARACTERS]
    if opening.isascii():
        key = _letters(opening)[:KEY_CHARACTERS]
        if len(key) == KEY_CHARACTERS or len(opening) == len(question):
            return key
    kept: list[str] = []
    for character in question:
        if character.isalnum():
            kept.append(character.lower())
            if len(kept) == KEY_CHARACTERS:
                break
    return "".join(kept)


def boilerplate_prompts(prompts: int) -> float:
    """Return how many different prompts of a source of `prompts` must share a stretch of text for it to be boilerplate."""
    return max(FEWEST_SHARING, min(SHARE_SHARING * prompts, MOST_SHARING))


def question_keys(prompts: Sequence[str]) -> tuple[str, ...]:
    """Return the key of every prompt of one source: `question_key` of what follows its boilerplate opening.

    Notes:
        A prompt whose opening is not shared has the key that `question_key` gives it, whatever the source. One that is
        nothing but boilerplate keeps its opening as key.

    Example:
        >>> opening = "Answer with one letter and nothing else. " * 4
        >>> question_keys([f"{opening} What is {n} + {n}?" for n in range(30)])[7]
        '77'
    """
    keys = [question_key(prompt) for prompt in prompts]
    enough = boilerplate_prompts(len(prompts))
    # Rows of one key whose openings may be boilerplate; each round skips what all of them share, and parts them anew.
    waiting = [rows for rows in _by_key(keys, range(len(keys))) if len(rows) >= enough]
    skipped = dict.fromkeys((row for rows in waiting for row in rows), 0)
    while waiting:
        rows = waiting.pop()
        shared = _shared_opening(prompts, rows, skipped, enough)
        # Few different texts under one key: one question reworded, not a template.
        if shared is None:
            continue
        going = []
        for row in rows:
            letters = _letters(prompts[row])
            if len(letters) > skipped[row] + shared:
                going.append(row)
                skipped[row] += shared
                keys[row] = letters[skipped[row] : skipped[row] + KEY_CHARACTERS]
        waiting += [part for part in _by_key(keys, going) if enough <= len(part) and shared > 0]
    return tuple(keys)


def _shared_opening(
    prompts: Sequence[str], rows: Sequence[int], skipped: Mapping[int, int], enough: float
) -> int | None:
    """Return how many letters and digits all of these rows begin with, after what is skipped; None of fewer than `enough` texts."""
    # One text at a time: the letters of a whole source would take as much memory as its prompts.
    few: set[str] = set()
    least = greatest = _letters(prompts[rows[0]])[skipped[rows[0]] :]
    for row in rows:
        rest = _letters(prompts[row])[skipped[row] :]
        if len(few) < enough:
            few.add(rest)
        least, greatest = min(least, rest), max(greatest, rest)
    if len(few) < enough:
        return None
    # What the least and the greatest begin with, all do.
    ends = (i for i, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b)
    return next(ends, len(least))


def _by_key(keys: Sequence[str], rows: Sequence[int]) -> list[list[int]]:
    """Return the rows of each key together; keys of fewer than KEY_CHARACTERS are whole prompts, and stay out."""
    found: dict[str, list[int]] = {}
    for row in rows:
        if len(keys[row]) == KEY_CHARACTERS:
            found.setdefault(keys[row], []).append(row)
    return list(found.values())


def _letters(prompt: str) -> str:
    """Return the letters and digits of a prompt, lower-cased."""
    if prompt.isascii():
        return _ascii_letters(prompt)
    return "".join(character.lower() for character in prompt if character.isalnum())


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Outcomes hold prompts by candidates. Missing ones are NaN: sparse tables are normal, `complete` keeps the full rows.

    Attributes:
        source: name of the folder or file it came from.
        models: the candidates' names, the column order of every (rows, models) array.
        prompt_ids, prompts, splits, datasets, question_keys: one entry per row; rows are sorted by prompt_id;
            splits and datasets are "" where the source names none.
        quality: (rows, models) float64 in [0, 1]; NaN where the candidate has no outcome.
        input_tokens, output_tokens, cost_usd: (rows, models) float64 >= 0, USD; NaN where unknown.
        dropped: prompts that `complete` left out.
        tasks: what callers say each prompt is for, "" where nothing is said; empty where the source says it of none.
        no_tasks: what is wrong with a column `task` that holds no tasks: it is left alone until somebody asks for them.
    """

    source: str
    models: tuple[str, ...]
    prompt_ids: tuple[str, ...]
    prompts: tuple[str, ...]
    splits: tuple[str, ...]
    datasets: tuple[str, ...]
    question_keys: tuple[str, ...]
    quality: Array
    input_tokens: Array
    output_tokens: Array
    cost_usd: Array
    dropped: int = 0
    tasks: tuple[str, ...] = ()
    no_tasks: str = ""

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def covered(self) -> npt.NDArray[np.bool_]:
        """Return (rows, models) booleans: whether the candidate has a quality there."""
        return ~np.isnan(self.quality)

    def tells_tasks(self, column: str) -> bool:
        """Whether any row says something in this column of `TASK_COLUMNS`, be it a task or not."""
        return any(self._tasks_of(column)) or (column == "task" and bool(self.no_tasks))

    def _tasks_of(self, column: str) -> tuple[str, ...]:
        return self.tasks if column == "task" else self.datasets

    def tasks_by(self, column: str) -> tuple[str | None, ...]:
        """Return the task of each row by a column of the prompts' table, one of `TASK_COLUMNS`; None where the cell is missing.

        Raises:
            InvalidInputError: another column, or one that the source does not have, or that holds what no task may be called.
        """
        if column not in TASK_COLUMNS:
            raise InvalidInputError(f"task_column: expected one of {', '.join(TASK_COLUMNS)}, got {column!r}")
        if column == "task" and self.no_tasks:
            raise InvalidInputError(f"task_column: {self.no_tasks}")
        cells = self._tasks_of(column)
        if len(self) and not any(cells):
            raise InvalidInputError(
                f"task_column: expected {column!r} in the prompts of {self.source}, no row has one; add the column, or leave this out"
            )
        for cell in dict.fromkeys(cells):
            if cell and (problem := task_problem(cell)) is not None:
                raise InvalidInputError(
                    f"task_column: expected each {column!r} in the prompts of {self.source} to be {problem}, got {len(cell)} characters"
                )
        return tuple(cell or None for cell in cells)

    @property
    def prompt_ids_sha256(self) -> str:
        """The sha256 of the prompt ids, one a line."""
        return hashlib.sha256("\n".join(self.prompt_ids).encode()).hexdigest()

    def coverage(self, measures: Sequence[str] = ("quality",)) -> dict[str, float]:
        """Return the share of the prompts on which each candidate has all of `measures`; 0 without prompts."""
        shares = _known(self, measures).mean(axis=0) if len(self) else np.zeros(len(self.models))
        return {model: float(share) for model, share in zip(self.models, shares, strict=True)}

    def take(self, rows: npt.ArrayLike) -> Outcomes:
        """Return the rows named by a mask or by rising indices."""
        # One form for both: a mask becomes rising indices.
        index = np.arange(len(self), dtype=np.int64)[np.asarray(rows)]
        if (np.diff(index) <= 0).any():
            raise InvalidInputError("rows: expected a mask or rising indices, so that rows stay sorted by prompt_id")
        tasks = _at(self.tasks, index) if self.tasks else ()
        return replace(
            self,
            prompt_ids=_at(self.prompt_ids, index),
            prompts=_at(self.prompts, index),
            splits=_at(self.splits, index),
            datasets=_at(self.datasets, index),
            tasks=tasks if any(tasks) else (),
            question_keys=_at(self.question_keys, index),
            quality=self.quality[index],
            input_tokens=self.input_tokens[index],
            output_tokens=self.output_tokens[index],
            cost_usd=self.cost_usd[index],
        )

    def select(self, models: Sequence[str]) -> Outcomes:
        """Return the columns of these candidates, in this order."""
        absent = sorted(set(models) - set(self.models))
        if absent or len(set(models)) < len(models) or not models:
            raise InvalidInputError(
                f"models: expected distinct candidates of {self.source} ({_some(self.models)}), got {_some(models)}"
                + (f"; absent: {_some(absent)}" if absent else "")
            )
        columns = [self.models.index(model) for model in models]
        return replace(
            self,
            models=tuple(models),
            quality=self.quality[:, columns],
            input_tokens=self.input_tokens[:, columns],
            output_tokens=self.output_tokens[:, columns],
            cost_usd=self.cost_usd[:, columns],
        )

    def of_split(self, split: str) -> Outcomes:
        """Return the rows of one split."""
        if split not in self.splits:
            known = ", ".join(repr(name) for name in sorted(set(self.splits)))
            if not any(self.splits):
                raise InvalidInputError(
                    f"split: {self.source} states no splits, got {split!r}; make some with `ipr data split`, or take all of its "
                    "prompts (`ipr train --split all`)"
                )
            raise InvalidInputError(f"split: expected one of {self.source}'s ({known}), got {split!r}")
        return self.take(np.array([name == split for name in self.splits]))

    def complete(self, models: Sequence[str] | None = None, *, measures: Sequence[str] = ("quality",)) -> Outcomes:
        """Return the rows on which every candidate has all of `measures`; `dropped` counts the others.

        Raises:
            InvalidInputError: a measure or a candidate is unknown, or no row is complete.
        """
        chosen = self if models is None else self.select(models)
        keep = _known(chosen, measures).all(axis=1)  # (rows,)
        if not keep.any():
            least = min(chosen.coverage(measures).items(), key=lambda item: item[1])
            raise InvalidInputError(
                f"models: expected some prompt of {self.source} on which all {len(chosen.models)} have "
                f"{', '.join(measures)}, found none; least covered: {least[0]!r} ({least[1]:.0%}); name fewer models"
            )
        return replace(chosen.take(keep), dropped=int((~keep).sum()))

    def without_questions_of(self, other: Outcomes) -> Outcomes:
        """Return the rows without the prompts whose question (its key, of 30 characters or more) `other` asks too.

        Training on what another source tests on would flatter the result: call it with that source's test split.
        """
        asked = {key for key in other.question_keys if len(key) >= MIN_KEY}
        return self.take(np.array([key not in asked for key in self.question_keys], dtype=np.bool_))

    @property
    def notices(self) -> tuple[str, ...]:
        """Return sentences about what is legal but makes learning or evaluating hard: a lone candidate, constant columns, gaps."""
        found = []
        if len(self.models) == 1:
            found.append(f"one candidate only ({self.models[0]!r}): there is nothing to choose between")
        for column, model in enumerate(self.models):
            values = self.quality[self.covered[:, column], column]
            if not len(values):
                found.append(f"{model!r} has no quality here")
            elif len(values) > 1 and (values == values[0]).all():
                found.append(f"quality of {model!r} is constant: {values[0]:g} on all its {len(values)} prompts")
        for name in MEASURES[1:]:
            values = getattr(self, name)
            values = values[~np.isnan(values)]
            if not len(values):
                found.append(f"{name} is missing everywhere")
            elif len(values) > 1 and (values == values[0]).all():
                found.append(f"{name} is constant: {values[0]:g} everywhere")
        bare = int((~self.covered.any(axis=1)).sum())
        if bare:
            found.append(f"{bare} of {len(self)} prompts have no quality of any candidate")
        return tuple(found)


def _known(outcomes: Outcomes, measures: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Return (rows, models) booleans: whether all of these measures are there."""
    unknown = [name for name in measures if name not in MEASURES]
    if unknown:
        raise InvalidInputError(f"measures: expected some of {', '.join(MEASURES)}, got {unknown[0]!r}")
    known = np.ones(outcomes.quality.shape, dtype=np.bool_)
    for name in measures:
        known &= ~np.isnan(getattr(outcomes, name))
    return known


def _at(cells: tuple[str, ...], index: npt.NDArray[np.int64]) -> tuple[str, ...]:
    return tuple(cells[i] for i in index)


def source_name(path: Path) -> str:
    """Return the name of a source: that of its folder or file."""
    return path.resolve().name


def _some(names: Sequence[str]) -> str:
    """Return the first eight names for an error, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:8])
    return f"{shown} and {len(names) - 8} more" if len(names) > 8 else shown or "none"


def name_in_source(named: Mapping[str, Mapping[str, str] | str], candidate: str, source: str) -> str:
    """Return the candidate's name in a source.

    Args:
        named: candidate -> its name, one for all sources or {source: name}; where it says nothing the name is the same.
    """
    name = named.get(candidate, candidate)
    return name if isinstance(name, str) else name.get(source, candidate)
