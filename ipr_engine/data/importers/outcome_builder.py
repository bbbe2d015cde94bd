"""`SourceBuilder` collects prompts and outcomes one by one, with where each came from, and hands them to the common checks.

Bad rows are found all at once. They are refused together, or left out and counted where the caller's `BadRows` says so.
"""

from __future__ import annotations

from itertools import compress
from typing import Any

from ipr_engine.data.outcome_files import assemble
from ipr_engine.data.outcomes import MEASURES, Outcomes
from ipr_engine.data.tables import BadRows, Table
from ipr_engine.errors import InvalidInputError

HINT = "; mend them, or leave them out and have them counted with --skip-bad-rows (bad=BadRows(skip=True))"
_TRUTH = {"true": 1.0, "false": 0.0}


class SourceBuilder:
    """A `SourceBuilder` takes `add_prompt` and `add_outcome` for each, then `build`.

    Args:
        bad: what collects bad rows; None refuses them.
        whole_rows: a file's row holds a prompt and all its outcomes, and goes as a whole.
    """

    def __init__(self, name: str, bad: BadRows | None = None, *, whole_rows: bool = False) -> None:
        self.name = name
        self.bad = BadRows() if bad is None else bad
        self._whole_rows = whole_rows
        columns = ("prompt_id", "prompt", "split", "dataset", "question_key", "task")
        self._prompts: dict[str, list[Any]] = {column: [] for column in columns}
        self._outcomes: dict[str, list[Any]] = {column: [] for column in ("prompt_id", "model", *MEASURES)}
        self._prompts_from: list[str] = []
        self._outcomes_from: list[str] = []
        self._outcomes_row: list[str] = []

    def add_prompt(
        self,
        prompt_id: str,
        prompt: str | None,
        *,
        where: str,
        split: Any = None,
        dataset: Any = None,
        key: Any = None,
        task: Any = None,
    ) -> None:
        """Add a prompt; `key` is its question key, None has it made from the prompt."""
        for column, cell in zip(self._prompts, (prompt_id, prompt, split, dataset, key, task), strict=True):
            self._prompts[column].append(cell)
        self._prompts_from.append(where)

    def add_outcome(self, prompt_id: str, model: str, quality: Any, *, where: str, **measures: Any) -> None:
        """Add an outcome, unless every measure is missing; True or "True" counts as 1, False or "False" as 0."""
        cells = {"quality": _truth(quality), **{name: measures.get(name) for name in MEASURES[1:]}}
        if all(cell is None for cell in cells.values()):
            return
        self._outcomes["prompt_id"].append(prompt_id)
        self._outcomes["model"].append(model)
        for name, cell in cells.items():
            self._outcomes[name].append(cell)
        self._outcomes_from.append(f"{where}, model {model!r}")
        self._outcomes_row.append(where)

    def build(self) -> Outcomes:
        """Return the rows as `Outcomes`, without the bad ones where they may be skipped.

        Raises:
            InvalidInputError: rows are bad and not to be skipped, or nothing is left.
        """
        if not self._outcomes_from and not len(self.bad):
            raise InvalidInputError(f"{self.name}: expected outcomes, found none")
        try:
            return self._assemble(self.bad, HINT)
        except InvalidInputError:
            if not (self.bad.skip and len(self.bad)):
                raise
        # All bad rows are known now: what is left is checked again, and is good.
        self._drop_bad()
        if not self._outcomes_from:
            raise InvalidInputError(f"{self.name}: expected outcomes, every row is bad: {self.bad.summary}")
        return self._assemble(BadRows())

    def _assemble(self, bad: BadRows, hint: str = "") -> Outcomes:
        """Check and join what was added."""
        prompts = Table(self.name, self._prompts, labels=self._prompts_from)
        origins = self._outcomes_row if self._whole_rows else None
        return assemble(
            self.name,
            prompts,
            Table(self.name, self._outcomes, labels=self._outcomes_from, origins=origins),
            bad,
            hint,
        )

    def _drop_bad(self) -> None:
        """Leave out bad prompts with all their outcomes, and bad outcomes; of whole rows everything in them."""
        good = [where not in self.bad for where in self._prompts_from]
        self._prompts = {name: _kept(cells, good) for name, cells in self._prompts.items()}
        self._prompts_from = _kept(self._prompts_from, good)
        # Outcomes of a prompt that is gone go with it.
        left = set(self._prompts["prompt_id"])
        labelled = zip(self._outcomes_from, self._outcomes_row, self._outcomes["prompt_id"], strict=True)
        good = [label not in self.bad and row not in self.bad and id in left for label, row, id in labelled]
        self._outcomes = {name: _kept(cells, good) for name, cells in self._outcomes.items()}
        self._outcomes_from, self._outcomes_row = _kept(self._outcomes_from, good), _kept(self._outcomes_row, good)


def _kept(cells: list[Any], good: list[bool]) -> list[Any]:
    """Return the cells that are good."""
    return list(compress(cells, good))


def _truth(cell: Any) -> Any:
    """Return True and False, also as text, as 1 and 0; any other cell as it is."""
    if isinstance(cell, bool):
        return float(cell)
    return _TRUTH.get(cell.strip().lower(), cell) if isinstance(cell, str) else cell
