"""Collects prompts and outcomes one by one, with where each came from, and hands them to the common checks."""

from __future__ import annotations

from typing import Any

from ipr_engine.data.load import assemble
from ipr_engine.data.outcomes import MEASURES, Outcomes
from ipr_engine.data.tables import Table
from ipr_engine.errors import InvalidInputError

_TRUTH = {"true": 1.0, "false": 0.0}


class SourceBuilder:
    """`add_prompt` and `add_outcome`, then `build`."""

    def __init__(self, name: str) -> None:
        self.name = name
        columns = ("prompt_id", "prompt", "split", "dataset", "question_key")
        self._prompts: dict[str, list[Any]] = {column: [] for column in columns}
        self._outcomes: dict[str, list[Any]] = {column: [] for column in ("prompt_id", "model", *MEASURES)}
        self._prompts_from: list[str] = []
        self._outcomes_from: list[str] = []

    def add_prompt(
        self, prompt_id: str, prompt: str | None, *, where: str, split: Any = None, dataset: Any = None, key: Any = None
    ) -> None:
        """`key` is the question key; None has it made from the prompt."""
        for column, cell in zip(self._prompts, (prompt_id, prompt, split, dataset, key), strict=True):
            self._prompts[column].append(cell)
        self._prompts_from.append(where)

    def add_outcome(self, prompt_id: str, model: str, quality: Any, *, where: str, **measures: Any) -> None:
        """A bool or "True" counts as 1, "False" as 0. Nothing is added where every measure is missing."""
        cells = {"quality": _truth(quality), **{name: measures.get(name) for name in MEASURES[1:]}}
        if all(cell is None for cell in cells.values()):
            return
        self._outcomes["prompt_id"].append(prompt_id)
        self._outcomes["model"].append(model)
        for name, cell in cells.items():
            self._outcomes[name].append(cell)
        self._outcomes_from.append(f"{where}, model {model!r}")

    def build(self) -> Outcomes:
        if not self._outcomes_from:
            raise InvalidInputError(f"{self.name}: expected outcomes, found none")
        return assemble(
            self.name,
            Table(self.name, self._prompts, labels=self._prompts_from),
            Table(self.name, self._outcomes, labels=self._outcomes_from),
        )


def _truth(cell: Any) -> Any:
    if isinstance(cell, bool):
        return float(cell)
    return _TRUTH.get(cell.strip().lower(), cell) if isinstance(cell, str) else cell
